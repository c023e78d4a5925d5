"""Which texts go into which batch. Pure: no clock, no llama.cpp.

    add -> waiting -> running --schedule--> pieces of one batch -> computed -> done when all of a request's texts are

A batch takes texts of all running requests by turns, so that one with a thousand texts does not hold up one with a single text. The
request that goes first changes from batch to batch; the first text of the first request always fits, so every request gets on. Batches
are filled to a size at which attention among strangers (masked, but computed) still costs little; a longer text is alone in its batch.

Where pooling allows it (`num_cells` > 0) a text longer than a batch is computed in pieces: it keeps sequence id 0 and its KV cells from
batch to batch, and takes the room that others leave; one such text is under way at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
LONG_ID = 0
"""Sequence id of the text that is computed in pieces; those of the others begin after it."""


@dataclass(slots=True, eq=False)
class EmbeddingJob:
    """A request: its texts' tokens, and a vector for each in the end."""

    texts: list[Tokens]
    sink: Any
    arrived_s: float
    vectors: list[NDArray[np.float32] | None] = field(default_factory=list)
    error: str = ""
    next_text: int = 0
    """The first that is in no batch yet, or not wholly."""
    num_computed: int = 0
    """Tokens of it that are."""
    num_done: int = 0

    def __post_init__(self) -> None:
        self.vectors = [None] * len(self.texts)

    @property
    def num_tokens(self) -> int:
        return sum(len(text) for text in self.texts)

    @property
    def num_pending(self) -> int:
        """Tokens of the next text that are not computed."""
        return len(self.texts[self.next_text]) - self.num_computed

    @property
    def has_pending(self) -> bool:
        return self.next_text < len(self.texts)


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` tokens of a text, from `start`; `ends` when these are its last."""

    job: EmbeddingJob
    text: int
    sequence_id: int
    start: int
    length: int
    ends: bool


@dataclass(frozen=True, slots=True)
class EmbeddingStep:
    """One batch. `continues`: its long text has KV cells of earlier batches, which must stay."""

    pieces: tuple[Piece, ...]
    continues: bool

    @property
    def num_tokens(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def arrays(self) -> tuple[Tokens, Tokens, Tokens]:
        """Tokens, positions and sequence ids, each of shape [num_tokens]."""
        pieces = self.pieces
        lengths = [piece.length for piece in pieces]
        tokens = np.concatenate([p.job.texts[p.text][p.start : p.start + p.length] for p in pieces])
        positions = np.concatenate([np.arange(p.start, p.start + p.length, dtype=np.int32) for p in pieces])
        return tokens, positions, np.repeat(np.array([p.sequence_id for p in pieces], dtype=np.int32), lengths)


class EmbeddingScheduler:
    """All requests of one engine. `max_tokens` and `max_texts` bound a batch, which is filled up to `fill_tokens` by several texts.

    `num_cells` 0: no text is longer than `max_tokens`.
    """

    def __init__(self, *, max_tokens: int, fill_tokens: int, max_texts: int, num_cells: int, max_running: int) -> None:
        self.max_tokens = max_tokens
        self.fill_tokens = min(fill_tokens, max_tokens)
        self.max_texts = max_texts
        self.num_cells = num_cells
        self.running: deque[EmbeddingJob] = deque()
        self._max_running = max_running
        self._waiting: deque[EmbeddingJob] = deque()
        self._long: EmbeddingJob | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self.running and not self._waiting

    @property
    def everyone(self) -> list[EmbeddingJob]:
        return [*self.running, *self._waiting]

    @property
    def num_cells_held(self) -> int:
        """By the text that is computed in pieces."""
        return self._long.num_computed if self._long else 0

    def add(self, job: EmbeddingJob) -> None:
        self._waiting.append(job)

    def remove(self, job: EmbeddingJob) -> bool:
        """Forget a request. False: it has ended already."""
        if self._long is job:
            self._long = None
        for line in (self.running, self._waiting):
            if job in line:
                line.remove(job)
                return True
        return False

    def schedule(self) -> EmbeddingStep | None:
        """The next batch; None when there is nothing to do."""
        while self._waiting and len(self.running) < self._max_running:
            self.running.append(self._waiting.popleft())
        continues = self._long is not None
        pieces = tuple(self._pieces())
        self.running.rotate(-1)
        return EmbeddingStep(pieces, continues) if pieces else None

    def computed(self, step: EmbeddingStep) -> list[EmbeddingJob]:
        """Book a batch that was computed. The requests that are done with it."""
        done = []
        for piece in step.pieces:
            piece.job.num_done += piece.ends
            if piece.ends and piece.job.num_done == len(piece.job.texts) and self.remove(piece.job):
                done.append(piece.job)
        return done

    def _pieces(self) -> Iterator[Piece]:
        room = _Room(self.fill_tokens, self.num_cells or self.max_tokens)
        if self._long is not None:
            room.reserve_long(len(self._long.texts[self._long.next_text]))
        line = deque(job for job in self.running if job.has_pending)
        num_texts = 0
        while line and room.tokens and num_texts < self.max_texts:
            job = line.popleft()
            length = self._length(job, room)
            if not length:
                continue
            num_texts += 1
            piece = self._take(job, length, num_texts, room)
            yield piece
            if piece.ends and job.has_pending:
                line.append(job)

    def _length(self, job: EmbeddingJob, room: _Room) -> int:
        """Tokens of the request's next text that this batch takes; 0: none."""
        num_pending = job.num_pending
        if job is self._long:
            return min(room.tokens, num_pending)
        if num_pending <= self.max_tokens:
            fits = num_pending <= room.tokens or not room.is_touched
            return num_pending if fits and num_pending <= room.cells else 0
        return room.tokens if num_pending <= room.cells and not room.has_long else 0

    def _take(self, job: EmbeddingJob, length: int, sequence_id: int, room: _Room) -> Piece:
        if job is not self._long and length < job.num_pending:
            self._long = job
            room.reserve_long(job.num_pending)
        elif job is not self._long:
            room.cells -= length
        room.tokens = max(0, room.tokens - length)
        room.is_touched = True
        ends = length == job.num_pending
        piece = Piece(job, job.next_text, LONG_ID if job is self._long else sequence_id, job.num_computed, length, ends)
        job.num_computed += length
        if ends:
            job.next_text, job.num_computed = job.next_text + 1, 0
            self._long = None if job is self._long else self._long
        return piece


@dataclass(slots=True)
class _Room:
    """What a batch that is being filled can still take."""

    tokens: int
    cells: int
    has_long: bool = False
    is_touched: bool = False

    def reserve_long(self, num_tokens: int) -> None:
        """Cells for all of a text of which this batch has a piece."""
        self.has_long = True
        self.cells -= num_tokens
