"""A linear layer in four bits and its adapter as one step of the graph.

    y = x W^T + b + s (d(x) A^T) B^T      W [outputs, inputs] in NF4, A [rank, inputs] and B [outputs, rank] in float32, d dropout

As PEFT computes it, the layer copies its output, casts its input to A's float32 and back, and keeps an intermediate of every step for
the backward pass. Here products are in the type of x, sums of the adapter go into the same output, and what is kept is x and x A^T; W
is dequantised again for the backward pass, as bitsandbytes does it. Gradients of A and B are float32.

An update of a large model is some ten thousand launches, and the processor that launches them is what a fast GPU waits for. So A and B
are cast once a forward pass, all of them together, and nothing is launched that another launch can do as well.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import bitsandbytes.functional
import torch
import torch.nn.functional as F
from peft.tuners.lora.bnb import Linear4bit
from torch import Tensor


def fuse(model: Any) -> int:
    """Each adapted layer of four bits from now on computes in one step; returns how many. Adapters that are switched off, merged or
    of another kind are computed by PEFT as ever."""
    found = [module for module in model.modules() if is_fusible(module)]
    for module in found:
        module.fused = Fused(module)
        module.forward = types.MethodType(_forward, module)
    parts = [module.fused for module in found]
    # Every pass begins with it, whichever of the wrappings is called, and by whichever method.
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: cast(parts))
    return len(found)


def is_fusible(module: Any) -> bool:
    """Whether it is a layer in four bits with one plain adapter."""
    return isinstance(module, Linear4bit) and len(module.lora_A) == 1 and not module.lora_variant


class Fused:
    """What a fused layer computes with."""

    def __init__(self, module: Any) -> None:
        (self.name,) = module.lora_A
        self.scale = float(module.scaling[self.name])
        self.a, self.b = module.lora_A[self.name].weight, module.lora_B[self.name].weight
        dropout = module.lora_dropout[self.name]
        self.dropout: Callable[[Tensor], Tensor] | None = None if isinstance(dropout, torch.nn.Identity) else dropout
        base = module.base_layer
        self.weight, self.bias, self.dtype = base.weight, base.bias, base.compute_dtype
        self.low: tuple[Tensor, ...] = ()
        """A and B as they are computed with, where that is not their own type."""
        self.is_kept = False
        """Whether checkpointing keeps x W^T + b in place of computing it again; then `kept` holds it between the two passes."""
        self.kept: Tensor | None = None

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.low and self.low[0].dtype == dtype:
            return self.low[0], self.low[1]
        return self.a.detach().to(dtype), self.b.detach().to(dtype)

    def product(self, rows: Tensor) -> Tensor:
        """x W^T + b by bitsandbytes' own operation, which decides by the shape how."""
        state = self.weight.quant_state
        nested: dict[str, Tensor] = {}
        absmax = state.absmax
        if state.nested:
            nested = {"absmax_8bit": state.absmax, "absmax_code": state.state2.code, "absmax_offset": state.offset}
            absmax = state.state2.absmax
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        made: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
            rows, self.weight.view(-1, 1), state.shape, absmax, state.blocksize, state.quant_type, bias=bias, **nested
        )
        return made

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs]"""
        made: Tensor = bitsandbytes.functional.dequantize_4bit(self.weight, self.weight.quant_state)
        return made.to(dtype)


@torch.no_grad()
def cast(parts: Sequence[Fused]) -> None:
    """A and B of all layers in the type that layers compute in, where it is another one than theirs."""
    differing = [part for part in parts if part.dtype not in (None, part.a.dtype)]
    if not differing:
        return
    for part in differing:
        part.low = part.low or tuple(torch.empty_like(value, dtype=part.dtype) for value in (part.a, part.b))
    own = [value for part in differing for value in (part.a, part.b)]
    torch._foreach_copy_([value for part in differing for value in part.low], own)


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    fused: Fused = self.fused
    if self.disable_adapters or self.merged or self.active_adapters != [fused.name] or args or kwargs:
        plain: Tensor = Linear4bit.forward(self, x, *args, **kwargs)
        return plain
    states = x.to(fused.dtype or x.dtype)
    dropped = None if fused.dropout is None else fused.dropout(states)
    if torch.is_grad_enabled():
        apply: Callable[..., Tensor] = LoraLinear.apply
        made = apply(states, dropped, fused.a, fused.b, fused)
    else:
        made = _once(states, dropped, fused, self.training)
    return made.to(x.dtype)


def _once(x: Tensor, dropped: Tensor | None, fused: Fused, is_training: bool) -> Tensor:
    """Without a graph: an evaluation, or the pass of a checkpointed block that another one follows."""
    rows = x.reshape(-1, x.shape[-1])
    product = fused.product(rows)
    if fused.is_kept and is_training:
        fused.kept = product
    made, _ = _with_adapter(product, rows if dropped is None else dropped.reshape(rows.shape), fused)
    return made.view(*x.shape[:-1], made.shape[-1])


def _with_adapter(product: Tensor, seen: Tensor, fused: Fused) -> tuple[Tensor, Tensor]:
    """The layer's output, and d(x) A^T."""
    a, b = fused.factors(seen.dtype)
    low = F.linear(seen, a)
    # cuBLAS adds to what is there: a sum that goes elsewhere copies it first.
    add = product.addmm if fused.kept is product else product.addmm_
    return add(low, b.t(), alpha=fused.scale), low


class LoraLinear(torch.autograd.Function):
    """Of x (..., inputs) and, where it is dropped out, d(x); returns (..., outputs)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor | None, a: Tensor, b: Tensor, fused: Fused) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        seen = rows if dropped is None else dropped.reshape(rows.shape)
        kept, fused.kept = fused.kept, None
        made, low = _with_adapter(fused.product(rows) if kept is None else kept, seen, fused)
        ctx.save_for_backward(seen, low)
        ctx.fused, ctx.is_dropped = fused, dropped is not None
        return made.view(*x.shape[:-1], made.shape[-1])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        seen, low = ctx.saved_tensors
        fused: Fused = ctx.fused
        dtype, shape = seen.dtype, outer[0].shape[:-1]
        a, b = fused.factors(dtype)
        grad = outer[0].reshape(-1, outer[0].shape[-1]).to(dtype)
        grad_low = (grad @ b).mul_(fused.scale)
        grad_a = (grad_low.t() @ seen).to(fused.a.dtype)
        grad_b = (grad.t() @ low).to(fused.b.dtype).mul_(fused.scale)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ fused.dequantised(dtype)
            if not ctx.is_dropped:
                grad_x = grad_x.addmm_(grad_low, a)
            grad_x = grad_x.view(*shape, -1)
        if ctx.is_dropped:
            grad_dropped = (grad_low @ a).view(*shape, -1)
        return grad_x, grad_dropped, grad_a, grad_b, None
