"""A run second by second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.record import FailureKind
from benchmarks.timeline import MAX_BINS, timeline
from tests.benchmarks.records import failed, record


def test_what_is_due_ends_and_is_under_way() -> None:
    first = record(intended_s=10.0, end_s=12.5, chunk_times_s=(11.0, 12.5), chunk_chars=(1, 3), completion_tokens=8)
    second = replace(failed(FailureKind.RESET), intended_s=11.5, end_s=12.0, chunk_times_s=(), chunk_chars=())
    found = timeline([first, second], 10.0, 40.0)
    assert found.width_s == 0.5
    assert found.sent[0] == 1 / 0.5
    assert found.sent[3] == 1 / 0.5
    assert sum(found.sent) == 2 / 0.5
    assert found.answered[5] == 1 / 0.5
    assert found.failed[4] == 1 / 0.5
    assert found.in_flight[:6] == (1.0, 1.0, 1.0, 2.0, 1.0, 0.0), "the second is under way from 11.5 to 12.0"
    assert (found.output_tps[2], found.output_tps[5]) == (2 / 0.5, 6 / 0.5), "8 tokens, a quarter of the text first"


@pytest.mark.parametrize("length_s", [0.01, 1.0, 59.9, 61.0, 4000.0, 100_000.0])
def test_the_number_of_bins_is_bounded(length_s: float) -> None:
    found = timeline([], 0.0, length_s)
    assert 1 <= len(found.sent) <= MAX_BINS
    assert len(found.sent) * found.width_s >= length_s


def test_a_run_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has no length"):
        timeline([], 3.0, 3.0)
