"""Two results of `bench run`, load by load: better, worse, or no difference shown. Pure, over documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.pages.runcharts import name_of
from benchmarks.report import FORMAT, FORMAT_VERSION
from benchmarks.statistics.difference import Difference, Verdict, compare
from benchmarks.statistics.interval import Interval

Result = Mapping[str, Any]
FIGURES: Mapping[str, bool] = {
    "output_tps": True, "request_rate": True, "ttft_user_s.p50": False, "ttft_user_s.p99": False, "tpot_s.p50": False, "tpot_s.p99": False,
    "e2e_user_s.p50": False, "e2e_user_s.p99": False,
}  # fmt: skip
"""What is compared, and whether more is better."""
_MACHINE = ("cpu", "cores", "memory_bytes", "system")


class CompareError(ValueError):
    """The two results cannot be held against each other; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure at one load, B against A."""

    load: str
    figure: str
    a: Interval | None
    b: Interval | None
    """None where its result has no interval for it: too few samples."""
    difference: Difference | None

    @property
    def sentence(self) -> str:
        """For people."""
        if self.difference is not None:
            unknown = [name for name, interval in (("A", self.a), ("B", self.b)) if interval and interval.is_unknown]
            if unknown:
                return f"{self.difference.ratio.estimate:.3g}x, not judged: no interval in {' and '.join(unknown)}"
            return self.difference.sentence()
        lacking = [name for name, interval in (("A", self.a), ("B", self.b)) if interval is None]
        return f"too few samples in {' and '.join(lacking)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, and what a reader must know before believing them."""

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """True when any figure is shown to be worse."""
        return any(row.difference is not None and row.difference.verdict is Verdict.WORSE for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is compared of a result."""

    loads: Mapping[str, Mapping[str, Interval]]
    """Those of FIGURES that have an interval, by load."""
    environment: Mapping[str, Any]
    workload: Mapping[str, Any]


def compared(a: Result, b: Result, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """`names` are what messages call the two.

    Raises CompareError for documents of another kind or version, void ones, broken ones, and results without a load in
    common.
    """
    of_a, of_b = (_run(name, result) for name, result in zip(names, (a, b), strict=True))
    common = [load for load in of_a.loads if load in of_b.loads]
    if not common:
        raise CompareError(
            f"no load in common: {names[0]} has {', '.join(of_a.loads)}, {names[1]} has {', '.join(of_b.loads)}"
        )
    rows = (row for load in common for row in _rows(load, of_a.loads[load], of_b.loads[load]))
    return Comparison(tuple(rows), tuple(_remarks(of_a, of_b)))


def _run(name: str, result: Result) -> _Run:
    try:
        _require_usable(name, result)
        loads = {name_of(level): _figures(level["steady"]["figures"]) for level in result["levels"]}
        return _Run(loads, dict(result["environment"]), dict(result["plan"]["workload"]))
    except CompareError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CompareError(f"{name} is not as its tool writes it: {exc!r}") from exc


def _require_usable(name: str, result: Result) -> None:
    if result.get("format") != FORMAT or result.get("kind") != "run":
        raise CompareError(f"{name} is no result of `forgegate bench run`")
    if result["format_version"] != FORMAT_VERSION:
        raise CompareError(f"{name} has format version {result['format_version']}, this program reads {FORMAT_VERSION}")
    if not all("steady" in level for level in result["levels"]):
        raise CompareError(f"{name} has no intervals: an older program wrote it; measure again")
    if not result["is_valid"]:
        raise CompareError(f"{name} is void: {'; '.join(result['faults'])}")


def _rows(load: str, a: Mapping[str, Interval], b: Mapping[str, Interval]) -> Iterator[Row]:
    for figure, is_higher_better in FIGURES.items():
        of_a, of_b = a.get(figure), b.get(figure)
        if of_a is None and of_b is None:
            continue
        is_comparable = of_a is not None and of_b is not None and min(of_a.estimate, of_b.estimate) > 0
        difference = compare(of_a, of_b, is_higher_better) if of_a and of_b and is_comparable else None
        yield Row(load, figure, of_a, of_b, difference)


def _figures(found: Mapping[str, Any]) -> dict[str, Interval]:
    return {figure: _interval(found[figure]) for figure in FIGURES if found.get(figure) is not None}


def _interval(found: Mapping[str, Any]) -> Interval:
    """Raises TypeError for fields of other names, and for ends that are no numbers."""
    known = {name: value for name, value in found.items() if name != "settling"}
    for name, value in known.items():
        if not isinstance(value, int | float) and (value is not None or name not in ("low", "high")):
            raise TypeError(f"{name} is {value!r}")
    return Interval(**known)


def _remarks(a: _Run, b: _Run) -> Iterator[str]:
    if lonely := set(a.loads) ^ set(b.loads):
        yield f"measured in one of them only: {', '.join(sorted(lonely))}"
    if changes := _changes(a.environment, b.environment, _MACHINE):
        yield f"on different machines: {changes}"
    if changes := _changes(a.workload, b.workload):
        yield f"different requests: {changes}"


def _changes(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    different = [name for name in names or {**a, **b} if a.get(name) != b.get(name)]
    return ", ".join(f"{name} {a.get(name)!r} and {b.get(name)!r}" for name in different)
