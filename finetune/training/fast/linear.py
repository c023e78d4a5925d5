"""A linear layer in four bits and its adapter as one step of the graph.

    y = x W^T + b + s (d(x) A^T) B^T      W [outputs, inputs] in NF4, A [rank, inputs] and B [outputs, rank] in float32, d dropout

As PEFT computes it, the layer copies its output, casts its input to A's float32 and back, and keeps an intermediate of every step for
the backward pass. Here products are in the type of x, sums of the adapter go into the same output, and what is kept is x and x A^T; W
is dequantised again for the backward pass, as bitsandbytes does it. Gradients of A and B are float32.
"""

from __future__ import annotations

import types
from collections.abc import Callable
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
        module.forward = types.MethodType(_forward, module)
    return len(found)


def is_fusible(module: Any) -> bool:
    """Whether it is a layer in four bits with one plain adapter."""
    return isinstance(module, Linear4bit) and len(module.lora_A) == 1 and not module.lora_variant


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    (name,) = self.lora_A
    if self.disable_adapters or self.merged or self.active_adapters != [name] or args or kwargs:
        plain: Tensor = Linear4bit.forward(self, x, *args, **kwargs)
        return plain
    base = self.base_layer
    dtype = base.compute_dtype or x.dtype
    states = x.to(dtype)
    dropped = self.lora_dropout[name](states)
    apply: Callable[..., Tensor] = LoraLinear.apply
    made = apply(
        states,
        None if dropped is states else dropped,
        self.lora_A[name].weight,
        self.lora_B[name].weight,
        base.weight,
        None if base.bias is None else base.bias.to(dtype),
        self.scaling[name],
    )
    return made.to(x.dtype)


class LoraLinear(torch.autograd.Function):
    """Of x (..., inputs) and, where it is dropped out, d(x); returns (..., outputs)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        a: Tensor,
        b: Tensor,
        weight: Any,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        state = weight.quant_state
        rows = x.reshape(-1, x.shape[-1])
        seen = rows if dropped is None else dropped.reshape(rows.shape)
        low = F.linear(seen, a.to(x.dtype))
        made = _product(rows, weight, state, bias).addmm(low, (b * scale).to(x.dtype).t())
        ctx.save_for_backward(seen, low, a, b)
        ctx.weight, ctx.scale, ctx.is_dropped = weight, scale, dropped is not None
        return made.view(*x.shape[:-1], made.shape[-1])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        seen, low, a, b = ctx.saved_tensors
        dtype, shape = seen.dtype, outer[0].shape[:-1]
        grad = outer[0].reshape(-1, outer[0].shape[-1]).to(dtype)
        grad_low = grad @ (b * ctx.scale).to(dtype)
        grad_a = (grad_low.t() @ seen).to(a.dtype)
        grad_b = (grad.t() @ low).to(b.dtype) * ctx.scale
        grad_x = grad_dropped = None
        own = a.to(dtype)
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _dequantised(ctx.weight, dtype)
            if not ctx.is_dropped:
                grad_x = grad_x.addmm_(grad_low, own)
            grad_x = grad_x.view(*shape, -1)
        if ctx.is_dropped:
            grad_dropped = (grad_low @ own).view(*shape, -1)
        return grad_x, grad_dropped, grad_a, grad_b, None, None, None


def _product(rows: Tensor, weight: Any, state: Any, bias: Tensor | None) -> Tensor:
    """x W^T + b by bitsandbytes' own operation, which decides by the shape how."""
    nested: dict[str, Tensor] = {}
    absmax = state.absmax
    if state.nested:
        nested = {"absmax_8bit": state.absmax, "absmax_code": state.state2.code, "absmax_offset": state.offset}
        absmax = state.state2.absmax
    made: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
        rows, weight.view(-1, 1), state.shape, absmax, state.blocksize, state.quant_type, bias=bias, **nested
    )
    return made


def _dequantised(weight: Any, dtype: torch.dtype) -> Tensor:
    """[outputs, inputs]"""
    made: Tensor = bitsandbytes.functional.dequantize_4bit(weight, weight.quant_state)
    return made.to(dtype)
