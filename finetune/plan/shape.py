"""The sizes of a model by its config.json: linear layers, embeddings, and what is left of parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import RecipeUnusable
from finetune.plan.layouts import (
    HEAD_NORM,
    HIDDEN,
    KEY,
    LAYOUTS,
    LLAMA,
    MLP,
    QKV,
    QUERY,
    SIDES,
    TWO_MLP,
    WHOLE_NORM,
    Layout,
)

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer that each block has."""

    name: str
    num_out: int
    num_in: int
    count: int
    """Blocks."""

    @property
    def num_weights(self) -> int:
        """In all blocks."""
        return self.num_out * self.num_in * self.count


@dataclass(frozen=True, slots=True)
class ModelShape:
    model_type: str
    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab: int
    is_tied: bool
    """Whether the output head is the embedding."""
    is_gated: bool
    linears: tuple[Linear, ...]
    num_vector_weights: int
    """Norms and biases."""
    max_positions: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """Of a model's folder. Raises RecipeUnusable."""
        path = folder / "config.json"
        try:
            config = json.loads(path.read_bytes())
        except OSError as exc:
            raise RecipeUnusable(f"{path}: {exc.strerror or exc}: a plan needs the model's config.json") from exc
        except (ValueError, RecursionError) as exc:
            raise RecipeUnusable(f"{path}: not JSON: {exc}") from exc
        if not isinstance(config, dict):
            raise RecipeUnusable(f"{path}: not a JSON object")
        return cls.of(config, str(path))

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
        """Of config.json's content. Raises RecipeUnusable."""
        text, notes = _text_part(config)
        _refuse(text, where)
        model_type = str(text.get("model_type", "?"))
        layout = LAYOUTS.get(model_type)
        if layout is None:
            layout = LLAMA
            notes += (f"layers of {model_type!r} models are not known: counted as Llama's",)
        return _shape(text, model_type, layout, notes)

    @property
    def query(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all heads of keys, or of values."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_block_weights(self) -> int:
        """Of the linear layers, which is what 4-bit loading quantises."""
        return sum(linear.num_weights for linear in self.linears)

    @property
    def num_embedding_weights(self) -> int:
        """Embedding and output head, counted once where they are one."""
        return self.vocab * self.hidden * (1 if self.is_tied else 2)

    @property
    def num_parameters(self) -> int:
        return self.num_block_weights + self.num_embedding_weights + self.num_vector_weights

    @property
    def largest_linear(self) -> int:
        """Weights of the largest one of a block."""
        return max(linear.num_out * linear.num_in for linear in self.linears)


def _text_part(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    text = config.get("text_config")
    if not isinstance(text, dict):
        return config, ()
    merged = {key: config[key] for key in ("tie_word_embeddings",) if key in config} | text
    return merged, ("counted is the language model only, without the encoder of images or sounds",)


def _refuse(config: Mapping[str, Any], where: str) -> None:
    experts = next((key for key in _EXPERTS if isinstance(config.get(key), int) and config[key] > 1), "")
    if experts:
        raise RecipeUnusable(
            f"{where}: a mixture of experts ({experts}: {config[experts]}): its experts are neither quantised to 4 bits nor adapted; "
            "take a dense model"
        )
    missing = [key for key in _NEEDED if not isinstance(config.get(key), int) or config[key] < 1]
    if missing:
        raise RecipeUnusable(f"{where}: says nothing of {', '.join(missing)}: a plan cannot be made of it")


def _shape(config: Mapping[str, Any], model_type: str, layout: Layout, notes: tuple[str, ...]) -> ModelShape:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or layout.head_dim or hidden // heads
    layers, mlp = config["num_hidden_layers"], config["intermediate_size"]
    query, key = heads * head_dim, kv_heads * head_dim
    widths = {HIDDEN: hidden, QUERY: query, KEY: key, QKV: query + 2 * key, MLP: mlp, TWO_MLP: 2 * mlp}
    linears = tuple(
        Linear(name, widths[out], widths[within], layers)
        for name in (*layout.attention, *layout.mlp)
        for out, within in [SIDES[name]]
    )
    norms = {HEAD_NORM: 2 * head_dim, WHOLE_NORM: query + key}.get(layout.query_norm, 0)
    vectors = layers * (layout.block_vectors * hidden + norms + sum(_biases(config, layout, linears)))
    vectors += layout.final_vectors * hidden + layout.head_bias * config["vocab_size"]
    return ModelShape(
        model_type, hidden, mlp, layers, heads, kv_heads, head_dim, config["vocab_size"],
        bool(config.get("tie_word_embeddings", layout.is_tied)), layout.is_gated, linears, vectors,
        config.get("max_position_embeddings"), notes,
    )  # fmt: skip


def _biases(config: Mapping[str, Any], layout: Layout, linears: tuple[Linear, ...]) -> Iterator[int]:
    widths = {linear.name: linear.num_out for linear in linears}
    for key, names in layout.biased.items():
        if not key or config.get(key, layout.biased_by_default):
            yield sum(widths[name] for name in names)
