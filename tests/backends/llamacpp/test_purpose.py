"""What a model is started for, by its head and the option `pooling`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from backends.errors import ModelUnusable
from backends.llamacpp.header import Header, TensorInfo
from backends.llamacpp.options import Options, OptionsError
from backends.llamacpp.purpose import can_be_split, for_purpose, pooling_of

MEAN, CLS, LAST, RANK = 1, 2, 3, 4


def header(
    architecture: str = "llama", pooling: int | None = None, length: int = 2048, vocab: int = 30_000, **more: Any
) -> Header:
    metadata = {"general.architecture": architecture, f"{architecture}.context_length": length}
    if pooling is not None:
        metadata[f"{architecture}.pooling_type"] = pooling
    metadata |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in more.items()}
    table = TensorInfo("token_embd.weight", (768, vocab), 1, 0)
    return Header(Path("m.gguf"), 3, metadata, (table,), 0, 0)


@pytest.mark.parametrize(
    ("head", "asked", "pooling"),
    [
        (header(), "auto", "none"),
        (header(), "mean", "mean"),
        (header(), "last", "last"),
        (header(pooling=0), "auto", "none"),
        (header("qwen3", LAST), "auto", "last"),
        (header("qwen3", LAST), "none", "none"),
        (header("qwen3", LAST), "mean", "mean"),
        (header("qwen3", RANK), "none", "none"),
        (header("bert", MEAN), "auto", "mean"),
        (header("bert", CLS), "auto", "cls"),
        (header("bert"), "cls", "cls"),
        (header("bert", RANK), "cls", "cls"),
    ],
)
def test_a_head_that_names_its_pooling_is_for_embeddings_unless_told_otherwise(
    head: Header, asked: str, pooling: str
) -> None:
    assert pooling_of(head, Options(pooling=asked)) == pooling


@pytest.mark.parametrize(
    ("head", "options", "reason"),
    [
        (header("bert"), Options(), "set pooling to mean, cls or last"),
        (header("nomic-bert", MEAN), Options(pooling="none"), "generate no text"),
        (header("bert", RANK), Options(), "a reranker"),
        (header("qwen3", RANK), Options(), "pooling: none lets it generate"),
        (header("bert", MEAN), Options(prefix_cache_cells=10, n_ctx=512), "prefix_cache_cells: of no use"),
    ],
)
def test_what_makes_no_sense_is_refused(head: Header, options: Options, reason: str) -> None:
    with pytest.raises(ModelUnusable, match=reason):
        for_purpose(head, options)


def test_rank_is_no_pooling_for_embeddings() -> None:
    with pytest.raises(OptionsError, match="rank scores pairs of texts, which is not served"):
        Options(pooling="rank")


def test_a_generating_model_keeps_its_open_sizes() -> None:
    assert for_purpose(header(), Options()) == Options(pooling="none")


@pytest.mark.parametrize(
    ("head", "asked", "n_ctx", "n_batch"),
    [
        (header("bert", MEAN, length=512), {}, 512, 512),
        (header("bert", MEAN, length=64), {}, 512, 512),
        # The longest text goes through at once.
        (header("nomic-bert", MEAN, length=2048), {}, 2048, 2048),
        (header("nomic-bert", MEAN, length=2048), {"n_ctx_seq": 1024}, 1024, 1024),
        # Rows of 250,000 logits for 8,192 tokens would be 8 GB.
        (header("bert", CLS, length=8192, vocab=250_002), {}, 535, 535),
        # In pieces: the batch is of the usual size, the KV cache holds the whole text.
        (header("qwen3", LAST, length=32768), {}, 8192, 512),
        (header("qwen3", LAST, length=32768), {"n_ctx": 16384}, 16384, 512),
        (header("qwen3", LAST, length=1024), {"pooling": "mean"}, 1024, 1024),
        (header("bert", MEAN, length=512), {"n_batch": 128, "n_seq_max": 16}, 256, 128),
    ],
)
def test_sizes_let_the_longest_text_through(head: Header, asked: dict[str, Any], n_ctx: int, n_batch: int) -> None:
    settled = for_purpose(head, Options(**asked))
    assert (settled.n_ctx, settled.n_batch, settled.n_ubatch) == (n_ctx, n_batch, n_batch)
    assert settled.n_seq_max == asked.get("n_seq_max", 128)
    assert for_purpose(head, settled) == settled


def test_only_the_last_token_of_a_causal_model_has_seen_earlier_batches() -> None:
    assert can_be_split(header("qwen3"), "last")
    assert not can_be_split(header("qwen3"), "mean")
    assert not can_be_split(header("qwen3"), "cls")
    assert not can_be_split(header("bert"), "last")
    assert not can_be_split(header("qwen2", attention__causal=False), "last")


@pytest.mark.parametrize("shape", [(0, 0), ()])
def test_a_token_table_without_rows(shape: tuple[int, ...]) -> None:
    head = dataclasses.replace(header("bert", MEAN), tensors=(TensorInfo("token_embd.weight", shape, 1, 0),))
    assert for_purpose(head, Options()).n_batch == 2048
