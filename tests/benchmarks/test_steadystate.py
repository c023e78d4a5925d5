"""What counts of a run, and how sure its figures are."""

from __future__ import annotations

import random

import pytest

from benchmarks.record import Record
from benchmarks.statistics.bootstrap import LEVEL
from benchmarks.steadystate import FILLED, MSER, WHOLE, Run, steady_state
from tests.benchmarks.records import failed, record

NUM_TOKENS = 20
TTFT_S, GAP_S = 0.05, 0.01


def closed_loop(seed: int, num: int, concurrency: int, slow_s: float = 0.0) -> Run:
    """Streams that never wait; the first tenth of the requests takes `slow_s` longer to begin."""
    rng, free, records = random.Random(seed), [0.0] * concurrency, []
    for index in range(num):
        stream = min(range(concurrency), key=free.__getitem__)
        began_s, at_s = free[stream], free[stream] + TTFT_S + (slow_s if index < num / 10 else 0.0)
        times_s = [at_s := at_s + rng.expovariate(1 / GAP_S) for _ in range(NUM_TOKENS)]
        records.append(answered(index, began_s, times_s))
        free[stream] = at_s
    return Run(records, 0.0, max(free), concurrency)


def answered(index: int, began_s: float, times_s: list[float]) -> Record:
    return record(
        index=index, intended_s=began_s, sent_s=began_s, end_s=times_s[-1], chunk_times_s=tuple(times_s), chunk_chars=(4,) * NUM_TOKENS,
        completion_tokens=NUM_TOKENS,
    )  # fmt: skip


def test_intervals_hold_the_truth_and_say_whether_they_are_settled() -> None:
    found = steady_state([closed_loop(seed, 800, 8) for seed in range(3)])
    truth = {
        "output_tps": 8 * NUM_TOKENS / (TTFT_S + NUM_TOKENS * GAP_S),
        "request_rate": 8 / (TTFT_S + NUM_TOKENS * GAP_S),
        "ttft_user_s.mean": TTFT_S + GAP_S,
        "tpot_s.mean": GAP_S,
        "e2e_user_s.mean": TTFT_S + NUM_TOKENS * GAP_S,
    }
    for name, value in truth.items():
        interval = found.figures[name]
        assert interval.level == LEVEL
        assert interval.contains(value), f"{name}: {interval}, {value}"
    assert found.settlings["output_tps"].is_settled
    assert not found.settlings["ttft_user_s.p99"].is_settled
    assert "more" in found.settlings["ttft_user_s.p99"].sentence(found.measured_s)


def test_a_warm_up_is_left_out() -> None:
    (kept,) = steady_state([closed_loop(1, 2000, 8, slow_s=0.3)]).kept
    assert kept.rule == MSER
    slow_until_s = 200 / 8 * (TTFT_S + 0.3 + NUM_TOKENS * GAP_S)
    assert kept.window.start_s == pytest.approx(slow_until_s, rel=0.1)


def test_a_short_closed_loop_counts_while_all_streams_work() -> None:
    run = closed_loop(1, 40, 8)
    (kept,) = steady_state([run]).kept
    assert kept.rule == FILLED
    assert 0 < kept.window.start_s < kept.window.end_s < run.ended_s


def test_a_short_open_loop_counts_whole() -> None:
    run = closed_loop(1, 40, 8)
    (kept,) = steady_state([Run(run.records, run.started_s, run.ended_s, 0)]).kept
    assert (kept.rule, kept.window.start_s, kept.window.end_s) == (WHOLE, run.started_s, run.ended_s)


def test_failed_requests_count_as_nothing() -> None:
    run = closed_loop(1, 40, 8)
    lost = [failed() for _ in range(40)]
    figures = steady_state([Run([*run.records, *lost], run.started_s, run.ended_s, 0)]).figures
    assert figures == steady_state([Run(run.records, run.started_s, run.ended_s, 0)]).figures


def test_too_few_samples_have_no_percentile() -> None:
    figures = steady_state([closed_loop(1, 40, 8)]).figures
    assert "ttft_s.p50" in figures
    assert "ttft_s.p99" not in figures


def test_no_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="no repeat"):
        steady_state([])
