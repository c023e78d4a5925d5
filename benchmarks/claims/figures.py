"""The figures of a run that claims are about. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from benchmarks.metrics import Distribution, Summary
from benchmarks.record import Record
from benchmarks.statistics.difference import paired
from benchmarks.statistics.interval import Interval

OUTPUT_TPS, TTFT, TPOT, ITL_P99, AT_ONCE = "output tok/s", "ttft s p50", "tpot s p50", "itl s p99", "answers at once"
HIT_RATE = "prefix hit rate"
_LOWER_IS_BETTER = (TTFT, TPOT, ITL_P99)


@dataclass(frozen=True, slots=True)
class Score:
    """One run of one contestant. JSON-able by `as_dict` and back."""

    figures: Mapping[str, float]
    faults: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the file of kept turns."""
        return {"figures": dict(self.figures), "faults": list(self.faults)}

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Score":
        """What `as_dict` made."""
        return cls(dict(found["figures"]), tuple(found["faults"]))


def score_of(summary: Summary, records: Sequence[Record], faults: Sequence[str]) -> Score:
    """Of a run over HTTP; a figure that its samples do not have is left out."""
    known = {
        OUTPUT_TPS: summary.output_tps,
        TTFT: _of(summary.ttft_s, "p50"),
        TPOT: _of(summary.tpot_s, "p50"),
        ITL_P99: _of(summary.itl_s, "p99"),
        AT_ONCE: float(most_at_once(records)),
        HIT_RATE: summary.prefix_hit_rate,
    }
    return Score({name: value for name, value in known.items() if value is not None}, tuple(faults))


def most_at_once(records: Sequence[Record]) -> int:
    """The most answers that were being written at the same moment: each from its first text to its last."""
    spans = [(record.chunk_times_s[0], record.chunk_times_s[-1]) for record in records if record.chunk_times_s]
    # An end comes before a begin at the same moment: the one has made room for the other.
    changes = sorted([*((begin, 1) for begin, _ in spans), *((end, -1) for _, end in spans)])
    return max(accumulate(change for _, change in changes), default=0)


def advantage(without: Sequence[Score], having: Sequence[Score], figure: str) -> Interval | None:
    """How many times better `having` is, turn by turn: its rate over the other's, or the other's time over its. None where a turn
    lacks the figure, or it is 0.
    """
    pairs = [
        (before.figures.get(figure), after.figures.get(figure)) for before, after in zip(without, having, strict=True)
    ]
    known = [(before, after) for before, after in pairs if before and after]
    if len(known) < len(pairs):
        return None
    ordered = [(after, before) for before, after in known] if figure in _LOWER_IS_BETTER else known
    return paired(ordered, is_higher_better=True).ratio


def _of(distribution: Distribution | None, name: str) -> float | None:
    value: float | None = None if distribution is None else getattr(distribution, name)
    return value
