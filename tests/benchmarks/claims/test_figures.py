"""The figures that claims are about."""

from __future__ import annotations

import pytest

from benchmarks.claims.figures import AT_ONCE, ITL_P99, OUTPUT_TPS, TTFT, Score, advantage, most_at_once, score_of
from benchmarks.metrics import summarise
from tests.benchmarks.records import failed, record


def test_answers_at_once_overlap_from_first_text_to_last() -> None:
    spans = [(0.0, 4.0), (1.0, 2.0), (1.5, 3.0), (5.0, 6.0)]
    assert most_at_once([record(chunk_times_s=span) for span in spans]) == 3


def test_an_answer_that_ends_makes_room_at_that_moment() -> None:
    assert most_at_once([record(chunk_times_s=span) for span in ((0.0, 1.0), (1.0, 2.0))]) == 1
    assert most_at_once([record(chunk_times_s=())]) == 0


def test_a_score_has_the_figures_that_its_samples_have() -> None:
    records = [record(), record(index=1)]
    score = score_of(summarise(records, 10.0), records, ["late"])
    assert score.figures[OUTPUT_TPS] == 0.8
    assert score.figures[TTFT] == 1.0
    assert score.figures[AT_ONCE] == 2
    assert ITL_P99 not in score.figures  # six gaps do not have a 99th percentile
    assert score.faults == ("late",)
    assert Score.read(score.as_dict()) == score


def test_failed_requests_are_no_output() -> None:
    records = [record(), failed()]
    assert score_of(summarise(records, 10.0), records, []).figures[OUTPUT_TPS] == 0.4


def test_more_than_1_is_better_whatever_the_figure() -> None:
    before = [
        Score({OUTPUT_TPS: 100.0, TTFT: 0.4}),
        Score({OUTPUT_TPS: 90.0, TTFT: 0.5}),
        Score({OUTPUT_TPS: 110.0, TTFT: 0.6}),
    ]
    after = [
        Score({OUTPUT_TPS: 200.0, TTFT: 0.2}),
        Score({OUTPUT_TPS: 180.0, TTFT: 0.25}),
        Score({OUTPUT_TPS: 220.0, TTFT: 0.3}),
    ]
    for figure in (OUTPUT_TPS, TTFT):
        ratio = advantage(before, after, figure)
        assert ratio is not None
        assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_a_turn_without_the_figure_leaves_no_ratio() -> None:
    assert advantage([Score({TTFT: 1.0})] * 3, [Score({TTFT: 1.0})] * 2 + [Score({})], TTFT) is None
