"""One llama_decode call: which tokens, at which positions, and whose rows of logits come back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens [start, start + count) of a sequence in this step."""

    sequence: Sequence
    start: int
    count: int
    draws: bool
    """Whether the answer's next token is drawn from its last position."""
    first_row: int
    """Its first row among the step's logits; -1 when it has none."""
    num_rows: int


@dataclass(frozen=True, slots=True)
class Filler:
    """A token that nobody reads, computed behind what a sequence id holds and removed after the step."""

    sequence_id: int
    position: int


@dataclass(frozen=True, slots=True)
class Step:
    """One llama_decode call: arrays of shape [n]; decoding sequences come first, one token and one row of logits each."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequence_ids: NDArray[np.int32]
    wants_logits: NDArray[np.int8]
    decoding: tuple[Sequence, ...]
    rows: tuple[int, ...]
    """The row of logits of each of `decoding`."""
    chunks: tuple[Chunk, ...]
    num_rows: int
    fillers: tuple[Filler, ...] = ()

    @property
    def sequences(self) -> list[Sequence]:
        return [*self.decoding, *(chunk.sequence for chunk in self.chunks)]

    @property
    def drawing(self) -> list[tuple[Sequence, int]]:
        """Sequences that get a token from this step, each with its row of logits."""
        rows = list(zip(self.decoding, self.rows, strict=True))
        return rows + [(c.sequence, c.first_row + c.num_rows - 1) for c in self.chunks if c.draws]


def assemble(decoding: list[Sequence], chunks: list[Chunk], num_rows: int) -> Step:
    """The arrays of one llama_decode call."""
    n = len(decoding)
    total = n + sum(chunk.count for chunk in chunks)
    tokens = np.empty(total, dtype=np.int32)
    positions = np.empty(total, dtype=np.int32)
    ids = np.empty(total, dtype=np.int32)
    wants = np.zeros(total, dtype=np.int8)
    tokens[:n] = [sequence.tokens[sequence.num_tokens - 1] for sequence in decoding]
    positions[:n] = [sequence.num_computed for sequence in decoding]
    ids[:n] = [sequence.sequence_id for sequence in decoding]
    wants[:n] = 1
    at = n
    for chunk in chunks:
        end = at + chunk.count
        tokens[at:end] = chunk.sequence.tokens[chunk.start : chunk.start + chunk.count]
        positions[at:end] = np.arange(chunk.start, chunk.start + chunk.count, dtype=np.int32)
        ids[at:end] = chunk.sequence.sequence_id
        wants[end - chunk.num_rows : end] = 1
        at = end
    return Step(tokens, positions, ids, wants, tuple(decoding), tuple(range(n)), tuple(chunks), num_rows)


def assemble_by_id(
    decoding: list[Sequence], chunks: list[Chunk], num_rows: int, fillers: list[Filler], *, least_rows: int = 0
) -> Step:
    """The same in the order of sequence ids, with tokens that nobody reads; no id comes twice.

    `least_rows`: a step with rows of logits has that many at least, though nobody reads the others.
    """
    plain = assemble(decoding, chunks, num_rows)
    ids, positions = plain.sequence_ids, plain.positions
    tokens, wants = plain.tokens, plain.wants_logits
    if fillers:
        ids = np.concatenate((ids, np.array([filler.sequence_id for filler in fillers], dtype=np.int32)))
        positions = np.concatenate((positions, np.array([filler.position for filler in fillers], dtype=np.int32)))
        tokens = np.concatenate((tokens, np.zeros(len(fillers), dtype=np.int32)))
        wants = np.concatenate((wants, np.zeros(len(fillers), dtype=np.int8)))
    if 0 < num_rows < least_rows:
        wants[np.flatnonzero(wants == 0)[num_rows - least_rows :]] = 1
    order = np.argsort(ids, kind="stable")
    wanted = wants[order]
    row_of = np.empty(len(ids), dtype=np.int64)
    row_of[order] = np.cumsum(wanted) - 1
    ends = len(decoding) + np.cumsum([chunk.count for chunk in chunks], dtype=np.int64)
    placed = tuple(
        replace(chunk, first_row=int(row_of[end - chunk.num_rows])) if chunk.num_rows else chunk
        for chunk, end in zip(chunks, ends, strict=True)
    )
    rows = tuple(row_of[: len(decoding)].tolist())
    total = int(wanted.sum())
    return Step(
        tokens[order], positions[order], ids[order], wanted, tuple(decoding), rows, placed, total, tuple(fillers)
    )
