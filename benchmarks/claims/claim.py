"""What somebody says of a way to serve faster, and what a measured ratio makes of it. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from benchmarks.statistics.interval import Interval


class Verdict(StrEnum):
    """Of a claim, on one machine and one load."""

    HELD = "held"
    """The whole interval is at or above the least that is claimed."""
    NOT_HELD = "not held"
    """The whole interval is below it."""
    NOT_SHOWN = "not shown"
    """The interval holds it, a run is not valid, or the figure is not there."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A ratio, with over without: 2 says twice as fast, as many, or as early."""

    source: str
    says: str
    least: float
    most: float | None = None
    """Upper end of what is said; more than that is no fault."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One claim at one load."""

    claim: Claim
    case: str
    """`64 streams`: the load, and what is held against what."""
    figure: str
    ratio: Interval | None
    verdict: Verdict
    faults: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        ratio = None if self.ratio is None else {
            "estimate": self.ratio.estimate, "low": self.ratio.low, "high": self.ratio.high, "level": self.ratio.level,
            "num_turns": self.ratio.num_repeats,
        }  # fmt: skip
        return {
            "claim": asdict(self.claim), "case": self.case, "figure": self.figure, "ratio": ratio, "verdict": self.verdict.value,
            "faults": list(self.faults),
        }  # fmt: skip


def judge(claim: Claim, case: str, figure: str, ratio: Interval | None, faults: Sequence[str] = ()) -> Judgement:
    """Hold a measured ratio against a claim; with faults nothing is shown."""
    return Judgement(
        claim, case, figure, ratio, _verdict(claim, ratio) if not faults else Verdict.NOT_SHOWN, tuple(faults)
    )


def _verdict(claim: Claim, ratio: Interval | None) -> Verdict:
    if ratio is None:
        return Verdict.NOT_SHOWN
    if ratio.low is not None and ratio.low >= claim.least:
        return Verdict.HELD
    if ratio.high is not None and ratio.high < claim.least:
        return Verdict.NOT_HELD
    return Verdict.NOT_SHOWN


def exact(value: float) -> Interval:
    """A ratio that is counted, not measured: a file's size over another's."""
    return Interval(value, value, value, 1.0, 1, 1, 1.0)
