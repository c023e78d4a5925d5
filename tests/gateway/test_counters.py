"""Shared counters."""

from __future__ import annotations

import os
import tempfile

import pytest

from gateway import counters
from gateway.counters import Counters


def test_rows_sum_over_columns_and_columns_clear() -> None:
    fd, reader = Counters.create(3, 2)
    workers = [Counters.attach(fd, 3, 2, column) for column in (0, 1)]
    workers[0].add(2, 1, 100)
    workers[1].add(2, 2, 50)
    workers[1].add(0, 1, 5)
    assert [reader.running(slot) for slot in range(3)] == [1, 0, 3]
    assert [reader.outstanding_tokens(slot) for slot in range(3)] == [5, 0, 150]
    reader.clear_column(1)
    assert [reader.running(slot) for slot in range(3)] == [0, 0, 1]
    assert reader.outstanding_tokens(2) == 100
    with pytest.raises(AssertionError, match="still counts"):
        workers[0].check_integrity()
    workers[1].check_integrity()
    workers[0].add(2, -1, -100)
    workers[0].check_integrity()
    workers[0].add(2, -1, 0)
    with pytest.raises(AssertionError, match="below zero"):
        reader.check_integrity()
    for view in (*workers, reader):
        view.close()
    os.close(fd)


def test_readers_may_not_write() -> None:
    fd, reader = Counters.create(1, 1)
    with pytest.raises(AssertionError):
        reader.add(0, 1, 1)
    with pytest.raises(ValueError, match="column 1 of 1"):
        Counters.attach(fd, 1, 1, 1)
    reader.close()
    os.close(fd)


def test_works_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    fd, view = counters.Counters.create(2, 2)
    assert view.running(1) == 0
    assert not os.path.exists(f"{tempfile.gettempdir()}/forgegate-counters")
    view.close()
    os.close(fd)
