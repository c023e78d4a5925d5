"""What a load's figures amount to, for result files: whether they are settled, whether an SLO holds, and up to which rate. Pure."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.campaign import Level, goodput_of
from benchmarks.capacity import Capacity
from benchmarks.statistics.binomial import CONFIDENCE, Answer
from benchmarks.statistics.goodput import Goodput, ObjectiveResult
from benchmarks.statistics.slo import Slo
from benchmarks.steadystate import SteadyState

TOLD = {
    "output_tps": "output tok/s", "ttft_user_s.p50": "ttft p50", "ttft_user_s.p99": "ttft p99", "tpot_s.p50": "tpot p50",
    "tpot_s.p99": "tpot p99", "e2e_user_s.p50": "e2e p50", "e2e_user_s.p99": "e2e p99",
}  # fmt: skip
"""Figures that every table shows, and what people call them."""


def settling_dict(found: SteadyState) -> dict[str, Any]:
    """Of a load, by the widest interval among the figures that tables show; `more_s` is what the slowest of them would take,
    None where one cannot be foretold.
    """
    settlings = {name: found.settlings[name] for name in TOLD if name in found.settlings}
    if not settlings:
        return {
            "is_settled": False,
            "figure": None,
            "width": None,
            "more_s": None,
            "sentence": "not settled: no figure has an interval",
        }
    name, widest = max(settlings.items(), key=lambda item: (not item[1].is_settled, item[1].relative_half_width))
    more = [each.more_s(found.measured_s) for each in settlings.values()]
    known = [each for each in more if each is not None]
    return {
        "is_settled": all(each.is_settled for each in settlings.values()),
        "figure": name,
        "width": None if math.isinf(widest.relative_half_width) else widest.relative_half_width,
        "more_s": max(known) if len(known) == len(more) else None,
        "sentence": f"{TOLD[name]} {widest.sentence(found.measured_s)}",
    }


def slo_of(slo: Slo) -> dict[str, Any]:
    """The promise itself."""
    return {
        "text": str(slo),
        "confidence": CONFIDENCE,
        "objectives": [
            {"metric": each.metric, "limit_s": each.limit_s, "percentile": each.percentile} for each in slo.objectives
        ],
    }


def slo_dict(level: Level, slo: Slo) -> dict[str, Any]:
    """A load under the promise: its goodput, and whether the promise is shown to hold."""
    found = goodput_of(level, slo)
    return {
        "answer": found.answer and found.answer.value,
        "sentence": slo_sentence(found, level.pooled.request_rate),
        "requests_per_s": found.requests_per_s,
        "tokens_per_s": found.tokens_per_s,
        "attainment": found.attainment,
        "num_good": found.num_good,
        "num_missed": found.num_missed,
        "num_failed": found.num_failed,
        "num_undefined": found.num_undefined,
        "num_cancelled": found.num_cancelled,
        "objectives": [_objective_dict(result) for result in found.objectives],
    }


def slo_sentence(found: Goodput, request_rate: float) -> str:
    """`passed with 99 % confidence: ttft_p99<500ms held by 99.9 % of 1,203`, and so on."""
    shares = ", ".join(
        f"{result.objective} held by {result.attainment:.2%} of {result.num:,}"
        if result.attainment is not None
        else f"{result.objective} not defined for any answer"
        for result in found.objectives
    )
    if found.answer is None:
        return shares
    told = (
        f"{found.answer.value} with {CONFIDENCE:.0%} confidence"
        if found.answer is not Answer.UNDECIDED
        else "undecided"
    )
    more = ""
    if found.answer is Answer.UNDECIDED and found.num_more:
        seconds = f", about {found.num_more / request_rate:,.0f} s" if request_rate else ""
        more = f"; {found.num_more:,} more requests without a miss would pass{seconds}"
    return f"{told}: {shares}{more}"


def capacity_dict(found: Capacity) -> dict[str, Any]:
    """Between which rates the capacity lies."""
    return {
        "rate": found.rate,
        "confidence": found.confidence,
        "above": found.above and {"rate": found.above.rate, "answer": found.above.answer.value},
        "why_none": found.why_none,
        "sentence": found.sentence(),
    }


def _objective_dict(result: ObjectiveResult) -> dict[str, Any]:
    test = result.test
    return {
        "objective": str(result.objective),
        "num": result.num,
        "num_missed": result.num_missed,
        "num_undefined": result.num_undefined,
        "attainment": result.attainment,
        "answer": test and test.answer.value,
        "num_allowed": test and test.num_allowed,
        "num_more": test and test.num_more,
    }
