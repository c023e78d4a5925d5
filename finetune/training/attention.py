"""Which attention an attempt uses."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from finetune.errors import LacksPackage, RecipeUnusable
from finetune.recipe.recipe import Memory
from finetune.training.fast import varlen

SHORT = "sdpa"
"""What every device has."""
FLAT = ("flash_attention_2", varlen.NAME)
"""What goes by the lengths of rows, which lie end to end without padding."""
KNOWN = (SHORT, "eager", *FLAT)
HALVES = (torch.bfloat16, torch.float16)
"""What FlashAttention's kernels compute in."""
MAX_HEAD = 256
"""Numbers of a head in them."""


def choose_attention(memory: Memory, device: torch.device, dtype: torch.dtype, config: Any) -> str:
    """`config` is the model's. Raises RecipeUnusable, LacksPackage."""
    name = memory.attention
    if not name:
        return SHORT if varlen.obstacle(device) or varlen.unlike(config) or _unfit(dtype, config) else varlen.NAME
    if name not in KNOWN:
        raise RecipeUnusable(f"attn_implementation: {name!r}: known are {', '.join(KNOWN)}")
    if name == "flash_attention_2" and device.type != "cuda":
        raise RecipeUnusable(f"attn_implementation: {name} needs a GPU: leave it out, and {SHORT} is used")
    if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise LacksPackage(
            "attn_implementation: flash_attention_2: the package flash-attn is not installed: use varlen or sdpa"
        )
    if name == varlen.NAME and (reason := varlen.obstacle(device)):
        raise RecipeUnusable(f"attn_implementation: {name}: {reason}: leave it out, and {SHORT} is used")
    if name == varlen.NAME and (reason := varlen.unlike(config)):
        raise RecipeUnusable(
            f"attn_implementation: {name} has no {reason}, which this model has: leave it out, and {SHORT} is used"
        )
    if name in FLAT and (reason := _unfit(dtype, config)):
        raise RecipeUnusable(f"attn_implementation: {name} {reason}: leave it out, and {SHORT} is used")
    return name


def _unfit(dtype: torch.dtype, config: Any) -> str:
    """Why FlashAttention's kernels cannot compute it; empty: they can."""
    if dtype not in HALVES:
        return f"computes in bfloat16 and float16, the recipe in {str(dtype).removeprefix('torch.')}"
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return f"has heads of at most {MAX_HEAD}, this model's have {width}" if width > MAX_HEAD else ""
