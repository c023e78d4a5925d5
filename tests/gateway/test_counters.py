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
    assert [reader.sent(slot) for slot in range(3)] == [1, 0, 3]
    reader.clear_column(1)
    assert [reader.sent(slot) for slot in range(3)] == [0, 0, 1]
    assert [reader.running(slot) for slot in range(3)] == [0, 0, 1]
    assert reader.outstanding_tokens(2) == 100
    with pytest.raises(AssertionError, match="still counts"):
        workers[0].check_integrity()
    workers[1].check_integrity()
    workers[0].add(2, -1, -100)
    assert reader.sent(2) == 1  # what has ended was sent nevertheless
    workers[0].check_integrity()
    workers[0].add(2, -1, 0)
    with pytest.raises(AssertionError, match="below zero"):
        reader.check_integrity()
    for view in (*workers, reader):
        view.close()
    os.close(fd)


def test_who_has_more_connections_than_another_that_takes_any() -> None:
    fd, reader = Counters.create(1, 3)
    workers = [Counters.attach(fd, 1, 3, column) for column in range(3)]
    for worker in workers[:2]:
        worker.set_accepting(True)
    workers[0].add_connections(2)
    workers[1].add_connections(1)
    assert reader.connections() == {0: 2, 1: 1}  # the third has none because it takes none
    assert [worker.is_ahead(0) for worker in workers[:2]] == [True, False]
    assert not workers[1].is_ahead(1)
    assert workers[1].is_ahead(2)
    workers[1].check_integrity()  # an idle connection is no debt
    reader.clear_column(1)
    assert reader.connections() == {0: 2}
    assert not workers[0].is_ahead(0)
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
