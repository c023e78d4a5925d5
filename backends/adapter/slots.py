"""Ranks that engines make room for. Standard library only: recipes are held against them where nothing else is installed."""

from __future__ import annotations

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What its `max_lora_rank` may be (vllm/config/lora.py); an adapter of a lower rank is padded to it."""
