"""What a model is started for: to generate text, or for embeddings. Told by its head and the option `pooling`.

Standard library only: the gateway asks, too, to plan what the engine will take.
"""

from __future__ import annotations

import dataclasses

from backends.errors import ModelUnusable
from backends.llamacpp.header import Header
from backends.llamacpp.options import MAX_SEQUENCE_IDS, PLAIN_BATCH, PLAIN_CELLS, Options

POOLED = ("mean", "cls", "last")
"""Ways to make one vector of a text's hidden states: their mean, the first one, the last one."""
_POOLING_TYPES = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
ENCODERS = frozenset(
    {
        "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
        "gemma-embedding", "t5encoder",
    }
)  # fmt: skip
"""Architectures of llama.cpp that have no next token."""
MAX_ROWS_BYTES = 512 * 1024 * 1024
"""llama.cpp makes a row of logits for each token of a batch, although nobody reads them."""
MAX_TEXTS = MAX_SEQUENCE_IDS // 2
"""Of one batch."""


def pooling_of(header: Header, options: Options) -> str:
    """`mean`, `cls` or `last` where the model is started for embeddings, else `none`. Raises ModelUnusable."""
    own = _POOLING_TYPES.get(header.number("pooling_type") or 0, "none")
    is_encoder = header.architecture in ENCODERS
    if options.pooling in POOLED:
        return options.pooling
    if options.pooling == "none" and is_encoder:
        raise ModelUnusable(
            f"{header.path}: {header.architecture} models generate no text: leave out pooling: none, they are for embeddings"
        )
    if options.pooling == "none" or (own == "none" and not is_encoder):
        return "none"
    if own == "rank":
        other = "pooling: mean, cls or last serves embeddings" + (
            "" if is_encoder else ", pooling: none lets it generate"
        )
        raise ModelUnusable(
            f"{header.path}: a reranker, which scores pairs of texts; that is not served ({other} all the same)"
        )
    if own == "none":
        raise ModelUnusable(
            f"{header.path}: {header.architecture} models are for embeddings, and its head does not say how they are pooled: "
            "set pooling to mean, cls or last, as the model's card has it"
        )
    return own


def for_purpose(header: Header, options: Options) -> Options:
    """`pooling` decided; where it is embeddings, every open size filled in too. Raises ModelUnusable."""
    pooling = pooling_of(header, options)
    if pooling == "none":
        return dataclasses.replace(options, pooling="none")
    for name in ("chat_template", "prefix_cache_cells", "prefix_cache"):
        if getattr(options, name) != getattr(Options(), name):
            raise ModelUnusable(f"{header.path}: {name}: of no use for embeddings (pooling: {pooling}), leave it out")
    return _sized(header, dataclasses.replace(options, pooling=pooling))


def can_be_split(header: Header, pooling: str) -> bool:
    """Whether a text may be computed in pieces: the last token has seen all others, by way of the KV cache."""
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal", True) is True
    return pooling == "last" and is_causal and header.architecture not in ENCODERS


def _sized(header: Header, options: Options) -> Options:
    longest = options.n_ctx_seq or header.context_length or PLAIN_BATCH
    in_pieces = can_be_split(header, options.pooling)
    # A batch of the usual size, or one that holds the longest text where that must be computed at once.
    wish = PLAIN_BATCH if in_pieces else max(PLAIN_BATCH, min(longest, _affordable_rows(header)))
    n_batch = options.n_batch or max(options.n_ubatch, options.n_seq_max, min(wish, options.n_ctx or wish))
    n_ctx = options.n_ctx or max(256, n_batch, min(longest, PLAIN_CELLS) if in_pieces else 0)
    return dataclasses.replace(
        options,
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_ubatch=options.n_ubatch or n_batch,
        n_seq_max=options.n_seq_max or min(MAX_TEXTS, n_batch),
    )


def _affordable_rows(header: Header) -> int:
    table = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), (1, 1))
    return MAX_ROWS_BYTES // (4 * max(1, sum(table)))
