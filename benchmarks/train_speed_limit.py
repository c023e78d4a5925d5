"""What a card could reach at most: products per token by the model's shape, against its measured rate of bf16 products.

A token goes through each linear layer forward, and backward to the layer's input; with recomputation forward once more. Frozen weights get
no gradients of their own. A product of a token with a weight is two operations, a multiplication and an addition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BACKWARD_OF_ATTENTION = 2.5
"""Over its forward: five products in place of two (Dao 2023, FlashAttention-2, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model whose blocks are Llama's; widths in features."""

    hidden: int
    inner: int
    queries: int
    keys: int
    num_layers: int
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """Of the folder's config.json. Raises ValueError."""
        try:
            return cls.of(json.loads((folder / "config.json").read_text("utf-8")))
        except KeyError as exc:
            raise ValueError(f"{folder / 'config.json'} has no {exc.args[0]}") from exc

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises KeyError."""
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        keys = config.get("num_key_value_heads") or heads
        return cls(
            config["hidden_size"], config["intermediate_size"], heads * width, keys * width,
            config["num_hidden_layers"], config["vocab_size"],
        )  # fmt: skip

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of a block's linear layers."""
        hidden, inner = self.hidden, self.inner
        return {
            "q_proj": (self.queries, hidden), "k_proj": (self.keys, hidden), "v_proj": (self.keys, hidden),
            "o_proj": (hidden, self.queries), "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
        }  # fmt: skip

    @property
    def num_linear(self) -> int:
        """Weights of the blocks' linear layers."""
        return self.num_layers * sum(outputs * inputs for outputs, inputs in self.layers.values())

    @property
    def num_head(self) -> int:
        return self.hidden * self.vocabulary

    def num_adapter(self, rank: int) -> int:
        return self.num_layers * sum(rank * (outputs + inputs) for outputs, inputs in self.layers.values())


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of one trained token."""

    linear: float
    head: float
    attention: float
    adapter: float

    @property
    def total(self) -> float:
        return self.linear + self.head + self.attention + self.adapter


def work(shape: Shape, rank: int, context: float, *, is_recomputed: bool) -> Work:
    """`context`: tokens that one sees on average, itself among them. The head is outside of what is recomputed."""
    passes = 3 if is_recomputed else 2
    seen = 2 * 2 * shape.num_layers * shape.queries * context
    return Work(
        linear=2 * passes * shape.num_linear,
        head=2 * 2 * shape.num_head,
        attention=seen * (passes - 1 + BACKWARD_OF_ATTENTION),
        adapter=2 * (passes + 1) * shape.num_adapter(rank),
    )


def limits(shape: Shape, rank: int, context: float, flops_per_s: float) -> dict[str, Any]:
    """Tokens per second that the rate allows, where nothing but these products took time."""
    made = {name: work(shape, rank, context, is_recomputed=flag) for name, flag in _MANNERS.items()}
    return {
        "linear_parameters": shape.num_linear,
        "head_parameters": shape.num_head,
        "adapter_parameters": shape.num_adapter(rank),
        "context_tokens": round(context, 1),
        **{
            name: {"gflop_per_token": round(of.total / 1e9, 3), "tok_s": round(flops_per_s / of.total, 1),
                   "parts_gflop": {part: round(getattr(of, part) / 1e9, 3) for part in Work.__dataclass_fields__}}
            for name, of in made.items()
        },
    }  # fmt: skip


_MANNERS = {"recomputed": True, "kept": False}
