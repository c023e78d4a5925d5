"""What is asked of a model before it is trained: that packed rows do not see one another, that its logits are what we take them for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetune.errors import RecipeUnusable
from finetune.training.losses import head_of

_NUM_TOKENS = 12
_TOLERANCE = 1e-4
"""Of the largest logit. Rows that are hidden weigh exactly nothing; rows that are seen change logits by a tenth and more."""
_ROUNDING = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@torch.no_grad()
def require_isolation(model: Any, is_flat: bool, device: torch.device) -> None:
    """Raises RecipeUnusable where what a row computes in a pack depends on the row before it.

    Two packs that differ in their first row alone are put through the model: the second row's logits must not differ.
    """
    first = _ids(model, 2 * _NUM_TOKENS, device)
    second = first.clone()
    second[:_NUM_TOKENS] = (first[:_NUM_TOKENS] + 5) % model.config.get_text_config().vocab_size
    with _evaluating(model):
        one, other = (_second_row(model, ids, is_flat) for ids in (first, second))
    if not torch.allclose(one, other, rtol=0, atol=_TOLERANCE * float(one.abs().max())):
        raise RecipeUnusable(
            f"sample_packing: true: with {model.config._attn_implementation} attention this model ({model.config.model_type}) lets "
            "packed rows see one another: use sample_packing: false"
        )


@torch.no_grad()
def is_chunked_exact(model: Any, device: torch.device) -> bool:
    """Whether hidden states through `losses.head_of` are the logits of the model's own forward pass."""
    ids = _ids(model, _NUM_TOKENS, device)[None]
    with _evaluating(model):
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        logits = causal(input_ids=ids, use_cache=False).logits.float()
        ours = head_of(causal)(causal.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    return torch.allclose(ours, logits, rtol=0, atol=_ROUNDING[causal.dtype] * float(logits.abs().max()))


def _ids(model: Any, count: int, device: torch.device) -> torch.Tensor:
    return (7 * torch.arange(count, device=device) + 11) % int(model.config.get_text_config().vocab_size)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _second_row(model: Any, ids: torch.Tensor, is_flat: bool) -> torch.Tensor:
    positions = torch.arange(_NUM_TOKENS, device=ids.device).repeat(2)[None]
    lengths: dict[str, Any] = {}
    if is_flat:
        bounds = torch.tensor([0, _NUM_TOKENS, 2 * _NUM_TOKENS], dtype=torch.int32, device=ids.device)
        lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        lengths |= {"max_length_q": _NUM_TOKENS, "max_length_k": _NUM_TOKENS}
    logits: torch.Tensor = model(input_ids=ids[None], position_ids=positions, use_cache=False, **lengths).logits
    return logits[0, _NUM_TOKENS:].float()
