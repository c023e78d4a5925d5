import pytest

from benchmarks.metrics import outcomes
from benchmarks.statistics.goodput import Goodput, goodput
from benchmarks.statistics.interval import Interval
from benchmarks.statistics.settled import settling
from benchmarks.statistics.slo import parse_slo
from benchmarks.statistics.steady import Window
from benchmarks.steadystate import WHOLE, Kept, SteadyState
from benchmarks.verdicts import settling_dict, slo_sentence
from tests.benchmarks.records import failed, record


def found(**widths: float) -> SteadyState:
    """Of figures whose intervals are so wide, shares of the estimate; three repeats, 60 s in all."""
    figures = {
        name.replace("__", "."): Interval(1.0, 1 - width, 1 + width, 0.95, 300, 3, 300.0)
        for name, width in widths.items()
    }
    settlings = {name: settling(interval) for name, interval in figures.items()}
    return SteadyState((Kept(WHOLE, Window(0.0, 60.0)),), figures, settlings)


def test_narrow_figures_are_settled():
    told = settling_dict(found(output_tps=0.01, ttft_user_s__p50=0.04))
    assert told["is_settled"]
    assert told["more_s"] == 0
    assert told["sentence"] == "ttft p50 settled: +-4.0%"


def test_the_widest_is_named_and_the_slowest_says_how_long():
    told = settling_dict(found(output_tps=0.1, ttft_user_s__p50=0.2, tpot_s__p50=0.01))
    assert not told["is_settled"]
    assert (told["figure"], told["width"]) == ("ttft_user_s.p50", pytest.approx(0.2))
    assert told["more_s"] == pytest.approx(60 * 15)
    assert told["sentence"].startswith("ttft p50 not settled: +-20.0%, wanted +-5%; about 900 s more")


def test_figures_that_no_table_shows_do_not_count():
    assert settling_dict(found(output_tps=0.01, tpot_s__mean=0.5))["is_settled"]


def test_without_an_interval_nothing_is_settled():
    told = settling_dict(found())
    assert (told["is_settled"], told["figure"], told["more_s"]) == (False, None, None)
    assert told["sentence"] == "not settled: no figure has an interval"


def test_an_open_interval_cannot_be_foretold():
    told = settling_dict(found(output_tps=float("inf"), ttft_user_s__p50=0.1))
    assert (told["is_settled"], told["width"], told["more_s"]) == (False, None, None)
    assert "too few samples" in told["sentence"]


def promised(slo: str, num: int, num_failed: int = 0) -> Goodput:
    """Answers whose first token comes after 1.5 s, as users see it, and failures."""
    return goodput(outcomes([*([record()] * num), *([failed()] * num_failed)]), parse_slo(slo), 10.0)


@pytest.mark.parametrize(
    ("slo", "num", "num_failed", "expected"),
    [
        ("ttft_p90<2s", 50, 0, "passed with 99% confidence: ttft_p90<2000ms held by 100.00% of 50"),
        ("ttft_p90<1s", 50, 0, "failed with 99% confidence: ttft_p90<1000ms held by 0.00% of 50"),
        ("ttft_p90<2s", 30, 10, "failed with 99% confidence: ttft_p90<2000ms held by 75.00% of 40"),
        (
            "ttft_p90<2s", 10, 0,
            "undecided: ttft_p90<2000ms held by 100.00% of 10; 34 more requests without a miss would pass, about 17 s",
        ),
        ("ttft:2000", 10, 0, "ttft:2000 held by 100.00% of 10"),
        ("queue:5", 10, 0, "queue:5 not defined for any answer"),
    ],
)  # fmt: skip
def test_a_promise_in_a_sentence(slo: str, num: int, num_failed: int, expected: str):
    assert slo_sentence(promised(slo, num, num_failed), request_rate=2.0) == expected
