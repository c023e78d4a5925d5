"""Cross entropy, summed over tokens: of all logits at once, or of a few hundred tokens' at a time."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutput

from finetune.training.batches import IGNORED

CHUNK_TOKENS = 512
"""Whose logits are in memory together: at a vocabulary of 128,256 a quarter of a GiB in float32."""


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (sequences, tokens, vocabulary) and labels (sequences, tokens), of which each token's is the next one's; float32."""
    wanted = labels[:, 1:].reshape(-1)
    return F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]).float(), wanted, ignore_index=IGNORED, reduction="sum"
    )


def chunked_loss(hidden: Tensor, labels: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """`summed_loss` of `logits_of(hidden)`, hidden states (sequences, tokens, width). Only trained tokens get logits at all.

    The gradient is that of the hidden states alone: `logits_of` has no weights that are trained.
    """
    is_wanted = labels[:, 1:] != IGNORED
    apply: Callable[..., Tensor] = _Chunked.apply
    return apply(hidden[:, :-1][is_wanted], labels[:, 1:][is_wanted], logits_of)


class _Chunked(torch.autograd.Function):
    """The gradient is made with the loss, chunk by chunk, so that no logits are kept and none are computed twice
    (Hsu et al. 2024, Liger Kernel, section 3.2)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, wanted: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradients = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_(gradients is not None)
                loss = F.cross_entropy(logits_of(states).float(), wanted[part], reduction="sum")
            if gradients is not None:
                (gradients[part],) = torch.autograd.grad(loss, states)
            total += loss.detach()
        ctx.save_for_backward(*([] if gradients is None else [gradients]))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * outer[0]).to(gradients.dtype), None, None


def add_chunked_head(model: Any) -> None:
    """`model(..., labels=labels, is_chunked=True)` returns the summed loss in place of logits. To be called on the causal language model
    itself: what wraps it (PEFT, DistributedDataParallel) goes on calling its `forward`."""
    plain = model.forward

    def forward(self: Any, *args: Any, is_chunked: bool = False, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not is_chunked or labels is None:
            return plain(*args, labels=labels, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        return CausalLMOutput(loss=chunked_loss(hidden, labels, head_of(self)))

    model.forward = types.MethodType(forward, model)


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """Hidden states to logits, as models' own forward passes do it: some scale them, some bound them."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = _scale(config)
    bound = getattr(config, "final_logit_softcapping", None)

    def logits_of(hidden: Tensor) -> Tensor:
        logits: Tensor = head(hidden)
        logits = logits if scale == 1.0 else logits * scale
        return logits if bound is None else torch.tanh(logits / bound) * bound

    return logits_of


def _scale(config: Any) -> float:
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if config.model_type == "hyperclovax" else 1 / float(divisor)
