"""What all workers must know of each other, shared through one mapping: int64 cells, a row for each number, a column for each worker.

    row slot                  running requests of the engine in `slot`      | worker 0 | worker 1 | ... |
    row num_slots + slot      outstanding tokens of that engine             | worker 0 | worker 1 | ... |
    row 2 * num_slots         client connections                            | worker 0 | worker 1 | ... |
    row 2 * num_slots + 1     1 for a worker that takes connections         | worker 0 | worker 1 | ... |
    row 2 * num_slots + 2 + slot  requests ever sent to that engine         | worker 0 | worker 1 | ... |

Each worker adds only to its own column, so that no lock is needed; readers sum a row. A row's sum may be torn by a
concurrent write, which is one request old and harmless for balancing. Control clears a dead worker's column.
"""

from __future__ import annotations

import mmap
import os
import tempfile

_CELL_BYTES = 8
_NUM_ENGINE_ROWS = 2
"""That are zero while nothing runs."""
_NUM_WORKER_ROWS = 2
_NUM_SENT_ROWS = 1


def _num_cells(num_slots: int, num_workers: int) -> int:
    return ((_NUM_ENGINE_ROWS + _NUM_SENT_ROWS) * num_slots + _NUM_WORKER_ROWS) * num_workers


class Counters:
    """A view of the shared cells. `column` is the one that `add` writes; readers may be constructed without."""

    def __init__(self, fd: int, num_slots: int, num_workers: int, column: int | None = None) -> None:
        if column is not None and not 0 <= column < num_workers:
            raise ValueError(f"column {column} of {num_workers} workers")
        self._num_slots = num_slots
        self._num_workers = num_workers
        self._column = column or 0
        self._is_writer = column is not None
        self._map = mmap.mmap(fd, _num_cells(num_slots, num_workers) * _CELL_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self._tokens_offset = num_slots * num_workers
        self._connections_offset = _NUM_ENGINE_ROWS * self._tokens_offset
        self._accepting_offset = self._connections_offset + num_workers
        self._sent_offset = self._accepting_offset + num_workers

    @classmethod
    def create(cls, num_slots: int, num_workers: int) -> tuple[int, Counters]:
        """Make zeroed cells. Returns the file descriptor to hand to the workers, and a reading view."""
        fd = _anonymous_file()
        os.ftruncate(fd, _num_cells(num_slots, num_workers) * _CELL_BYTES)
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
        if num_running > 0:
            cells[index + self._sent_offset] += num_running

    def add_connections(self, num: int) -> None:
        """Add to this worker's client connections; a negative number takes away."""
        assert self._is_writer
        self._cells[self._connections_offset + self._column] += num

    def set_accepting(self, is_accepting: bool) -> None:
        """Say whether this worker takes connections."""
        assert self._is_writer
        self._cells[self._accepting_offset + self._column] = is_accepting

    def is_ahead(self, num_opening: int) -> bool:
        """Return whether another worker that takes connections has fewer than this one, which has `num_opening` uncounted ones."""
        own = self._cells[self._connections_offset + self._column] + num_opening
        return any(num < own and column != self._column for column, num in self.connections().items())

    def connections(self) -> dict[int, int]:
        """Return how many client connections the workers have that take connections, by column."""
        cells, num = self._cells, self._num_workers
        accepting = cells[self._accepting_offset : self._accepting_offset + num]
        return {n: cells[self._connections_offset + n] for n in range(num) if accepting[n]}

    def running(self, slot: int) -> int:
        """Return how many requests run on the engine of `slot`, over all workers."""
        return self._row(slot * self._num_workers)

    def outstanding_tokens(self, slot: int) -> int:
        """Return the estimated tokens that the engine of `slot` still has to compute, over all workers."""
        return self._row(self._tokens_offset + slot * self._num_workers)

    def sent(self, slot: int) -> int:
        """Return how many requests were ever sent to the engine of `slot`; only a change means something, since a dead worker's go."""
        return self._row(self._sent_offset + slot * self._num_workers)

    def clear_column(self, column: int) -> None:
        """Zero what a dead worker left behind. Only control calls this, and only after the worker is gone."""
        for index in range(column, len(self._cells), self._num_workers):
            self._cells[index] = 0

    def check_integrity(self) -> None:
        """Assert that no cell is below zero, and for a writer that it has nothing left on any engine."""
        assert min(self._cells, default=0) >= 0, "a counter fell below zero"
        if self._is_writer:
            column = self._cells.tolist()[self._column : self._connections_offset : self._num_workers]
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
