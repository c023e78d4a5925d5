"""Load of every engine, shared by all workers through one mapping: int64 cells [metric][engine slot][column].

    metric 0: running requests       slot 0 | worker 0 | worker 1 | ... |
    metric 1: outstanding tokens     slot 1 | worker 0 | worker 1 | ... |
                                     ...

Each worker adds only to its own column, so that no lock is needed; readers sum a row. A row's sum may be torn by a
concurrent write, which is one request old and harmless for balancing. Control clears a dead worker's column.
"""

from __future__ import annotations

import mmap
import os
import tempfile

_CELL_BYTES = 8
_NUM_METRICS = 2


class Counters:
    """A view of the shared cells. `column` is the one that `add` writes; readers may be constructed without."""

    def __init__(self, fd: int, num_slots: int, num_workers: int, column: int | None = None) -> None:
        if column is not None and not 0 <= column < num_workers:
            raise ValueError(f"column {column} of {num_workers} workers")
        self._num_slots = num_slots
        self._num_workers = num_workers
        self._column = column or 0
        self._is_writer = column is not None
        self._map = mmap.mmap(fd, _NUM_METRICS * num_slots * num_workers * _CELL_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self._tokens_offset = num_slots * num_workers

    @classmethod
    def create(cls, num_slots: int, num_workers: int) -> tuple[int, Counters]:
        """Make zeroed cells. Returns the file descriptor to hand to the workers, and a reading view."""
        fd = _anonymous_file()
        os.ftruncate(fd, _NUM_METRICS * num_slots * num_workers * _CELL_BYTES)
        return fd, cls(fd, num_slots, num_workers)

    @classmethod
    def attach(cls, fd: int, num_slots: int, num_workers: int, column: int | None = None) -> Counters:
        """Map cells that `create` made, in another process."""
        return cls(fd, num_slots, num_workers, column)

    def add(self, slot: int, num_running: int, num_tokens: int) -> None:
        """Add to this worker's two cells of `slot`; negative numbers take away."""
        assert self._is_writer, "a reader of the counters has no column of its own"
        index = slot * self._num_workers + self._column
        cells = self._cells
        cells[index] += num_running
        cells[index + self._tokens_offset] += num_tokens

    def running(self, slot: int) -> int:
        """Return how many requests run on the engine of `slot`, over all workers."""
        return self._row(slot * self._num_workers)

    def outstanding_tokens(self, slot: int) -> int:
        """Return the estimated tokens that the engine of `slot` still has to compute, over all workers."""
        return self._row(self._tokens_offset + slot * self._num_workers)

    def clear_column(self, column: int) -> None:
        """Zero what a dead worker left behind. Only control calls this, and only after the worker is gone."""
        for index in range(column, _NUM_METRICS * self._tokens_offset, self._num_workers):
            self._cells[index] = 0

    def check_integrity(self) -> None:
        """Assert that no cell is below zero, and for a writer that its idle column is all zero."""
        assert min(self._cells, default=0) >= 0, "a counter fell below zero"
        if self._is_writer:
            column = self._cells.tolist()[self._column :: self._num_workers]
            assert not any(column), f"idle worker still counts {column}"

    def close(self) -> None:
        """Unmap; the view is unusable afterwards."""
        self._cells.release()
        self._map.close()

    def _row(self, start: int) -> int:
        if self._num_workers == 1:
            return self._cells[start]
        return sum(self._cells[start : start + self._num_workers])


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("forgegate-counters")
    with tempfile.TemporaryFile() as file:  # macOS: an unlinked file does the same
        return os.dup(file.fileno())
