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


def assemble_decoding(decoding: list[Sequence], fillers: list[Filler]) -> Step:
    """A decoding step for neighbouring ids, in their order; all have a row of logits."""
    entries: list[tuple[int, int, int]] = [
        (sequence.sequence_id, sequence.num_computed, int(sequence.tokens[sequence.num_tokens - 1]))
        for sequence in decoding
    ]
    entries += [(filler.sequence_id, filler.position, 0) for filler in fillers]
    ids, positions, tokens = np.array(sorted(entries), dtype=np.int32).T
    rows = np.searchsorted(ids, [sequence.sequence_id for sequence in decoding])
    wants = np.ones(len(ids), dtype=np.int8)
    return Step(tokens, positions, ids, wants, tuple(decoding), tuple(rows.tolist()), (), len(ids), tuple(fillers))


def assemble_chunk(chunk: Chunk, fillers: list[Filler]) -> Step:
    """A step of one chunk; neither its tokens nor its rows of logits are ever a single one."""
    sequence_id, tokens = chunk.sequence.sequence_id, chunk.sequence.tokens
    entries = [(sequence_id, chunk.start + at, int(tokens[chunk.start + at])) for at in range(chunk.count)]
    entries = sorted(entries + [(filler.sequence_id, filler.position, 0) for filler in fillers])
    ids, positions, values = np.array(entries, dtype=np.int32).T
    num_rows = max(chunk.num_rows, 2) if chunk.num_rows else 0
    wants = np.zeros(len(ids), dtype=np.int8)
    wants[len(ids) - num_rows :] = 1
    if num_rows:
        # The chunk's own rows: behind a filler that comes first, or the last ones.
        is_before = bool(fillers) and fillers[0].sequence_id > sequence_id
        chunk = replace(chunk, first_row=0 if is_before else num_rows - chunk.num_rows)
    return Step(values, positions, ids, wants, (), (), (chunk,), num_rows, tuple(fillers))
