"""Attention by the lengths of rows that lie end to end: torch's own FlashAttention kernels, forward and backward, as an attention
function of transformers.

https://docs.pytorch.org/docs/2.12/nn.attention.varlen.html
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "varlen"
MIN_TORCH = (2, 11)
"""Its window, which makes it causal, is younger than the rest of it."""
MIN_CAPABILITY = (8, 0)
"""Of FlashAttention's kernels."""


def obstacle(device: torch.device) -> str:
    """Why it cannot be used here, in words; empty: it can."""
    if device.type != "cuda":
        return "it needs a GPU"
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than its kernels (compute capability 8.0)"
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if version < MIN_TORCH or importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has it not, 2.11 has"
    return ""


def unlike(config: Any) -> str:
    """What a model's attention has that this one has not, by its configuration's key; empty: nothing."""
    text = config.get_text_config()
    for name in ("attn_logit_softcapping", "attention_dropout"):
        if value := getattr(text, name, None):
            return f"{name} {value}"
    return "attention sinks" if text.model_type == "gpt_oss" else ""


def register() -> None:
    """Under `NAME`, for models loaded from now on."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)


def no_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> None:
    """Rows are told apart by their lengths. Raises ValueError for padding, which has none."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError("varlen attention takes rows end to end, without padding")


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal, of query, key and value (sequences, heads, tokens, width), the latter two with as many heads or fewer; returns (sequences,
    tokens, heads, width).

    `cu_seq_lens_q`: where the rows of the one sequence begin, and its end, int32 of (rows + 1); None: each sequence is one row.
    Raises ValueError for what the kernels have not.
    """
    if dropout or kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        raise ValueError("varlen attention has no dropout, no softcap and no sinks: use sdpa or eager")
    num_sequences, _, num_tokens, _ = query.shape
    if cu_seq_lens_q is None or max_length_q is None:
        cu_seq_lens_q = torch.arange(num_sequences + 1, dtype=torch.int32, device=query.device) * num_tokens
        max_length_q = num_tokens
    window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    query, key, value = map(_end_to_end, (query, key, value))
    made = _kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, window)
    return made.view(num_sequences, num_tokens, *made.shape[1:]), None


def _end_to_end(states: Tensor) -> Tensor:
    """(sequences, heads, tokens, width) to (sequences * tokens, heads, width)."""
    return states.transpose(1, 2).flatten(0, 1)


def _kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scale: float | None,
    window: tuple[int, int],
) -> Tensor:
    from torch.nn.attention import varlen

    more: dict[str, Any] = {"enable_gqa": True}
    if not _shares_keys():
        more, times = {}, query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    made: Any = varlen.varlen_attn(
        query, key, value, bounds, bounds, longest, longest, scale=scale, window_size=window, **more
    )
    return made  # type: ignore[no-any-return]


@functools.cache
def _shares_keys() -> bool:
    """Whether it takes fewer heads of keys than of queries, as torch 2.12 and later do."""
    from torch.nn.attention import varlen

    return "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters
