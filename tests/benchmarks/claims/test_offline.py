"""Quantisation levels and kinds of attention against the article's tables."""

from __future__ import annotations

from benchmarks.claims.claim import Verdict
from benchmarks.claims.figures import Score
from benchmarks.claims.offline import SECONDS, of_length, of_level

FORMS = {
    "F16": {"size_bytes": 16_100, "decode_ratio": None},
    "Q5_K_M": {"size_bytes": 5_700, "decode_ratio": {"value": 1.3, "low": 1.2, "high": 1.4}},
}


def test_a_level_is_held_against_its_row() -> None:
    speed, size = of_level("Q5_K_M", FORMS)
    assert (speed.claim.least, speed.verdict) == (1.71, Verdict.NOT_HELD)
    assert size.verdict is Verdict.HELD


def test_a_level_whose_speed_was_not_measured_shows_nothing() -> None:
    speed, _ = of_level("Q5_K_M", FORMS | {"Q5_K_M": {"size_bytes": 5_700, "decode_ratio": None}})
    assert speed.verdict is Verdict.NOT_SHOWN


def timed(*seconds: float) -> list[Score]:
    return [Score({SECONDS: value}) for value in seconds]


def test_attention_is_held_against_what_is_said_of_its_length() -> None:
    scores = {"eager": timed(4.0, 4.2, 4.1), "sdpa": timed(2.0, 2.1, 2.05)}
    (found,) = of_length(4096, scores)
    assert (found.claim.least, found.claim.most, found.verdict) == (1.5, 2.0, Verdict.HELD)
    (found,) = of_length(1024, scores)
    assert (found.claim.least, found.claim.most) == (1.0, None)


def test_plain_attention_that_does_not_fit_is_a_fault_not_a_ratio() -> None:
    scores = {"eager": [Score({}, ("does not fit into the memory",))], "sdpa": timed(2.0, 2.1, 2.05)}
    (found,) = of_length(32768, scores)
    assert (found.verdict, found.faults) == (Verdict.NOT_SHOWN, ("eager: does not fit into the memory",))
