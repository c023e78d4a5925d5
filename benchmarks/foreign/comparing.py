"""Two results of whatever tools, load by load. Pure.

Figures of one name are held against each other; where both have an interval, a difference is shown or not. Another tool counts some
things otherwise: each such proviso goes with the figure, since a difference may be its definition's and not the server's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.compare import CompareError, Comparison, Row
from benchmarks.foreign.definitions import DEFINITIONS, HIGHER_IS_BETTER, LATENCIES, RATES, metric_of, provisos
from benchmarks.foreign.measured import Measured, MeasuredLoad
from benchmarks.statistics.difference import compare

_ORDER = (*RATES, *(f"{name}.{which}" for name in LATENCIES for which in ("mean", "p50", "p99")))
_TOLERANCE = 0.02
"""Of mean lengths; by more the requests were others."""


def compared(a: Measured, b: Measured, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """`names` are what messages call the two. Raises CompareError for results without a load in common."""
    of_a, of_b = ({load.name: load for load in measured.loads} for measured in (a, b))
    common = [name for name in of_a if name in of_b]
    if not common:
        raise CompareError(f"no load in common: {names[0]} has {', '.join(of_a)}, {names[1]} has {', '.join(of_b)}")
    figures = [figure for figure in _ORDER if all(metric_of(figure) in DEFINITIONS[tool] for tool in (a.tool, b.tool))]
    rows = (row for name in common for row in _rows(figures, of_a[name], of_b[name]))
    remarks = (
        *_tools(a, b, names), *_loads(a, b, names), *_requests([(of_a[name], of_b[name]) for name in common], names), *_definitions(a, b),
    )  # fmt: skip
    return Comparison(tuple(rows), remarks)


def _rows(figures: Sequence[str], a: MeasuredLoad, b: MeasuredLoad) -> Iterator[Row]:
    for figure in figures:
        of_a, of_b = a.figures.get(figure), b.figures.get(figure)
        if of_a is None and of_b is None:
            continue
        is_comparable = of_a is not None and of_b is not None and min(of_a.estimate, of_b.estimate) > 0
        difference = compare(of_a, of_b, figure in HIGHER_IS_BETTER) if of_a and of_b and is_comparable else None
        yield Row(a.name, figure, of_a, of_b, difference)


def _tools(a: Measured, b: Measured, names: tuple[str, str]) -> Iterator[str]:
    for name, measured in zip(names, (a, b), strict=True):
        yield f"{name} was written by {measured.tool}{f' {measured.version}' if measured.version else ''}"
        yield from (f"{name}: {note}" for note in measured.notes)
    if a.model != b.model:
        yield f"different models: {a.model or 'not said'} and {b.model or 'not said'}"


def _loads(a: Measured, b: Measured, names: tuple[str, str]) -> Iterator[str]:
    loads = [{load.name for load in measured.loads} for measured in (a, b)]
    if lonely := loads[0] ^ loads[1]:
        yield f"measured in one of them only: {', '.join(sorted(lonely))}"
    for name, measured in zip(names, (a, b), strict=True):
        for load in measured.loads:
            if load.num_failed:
                yield f"{name}, {load.name}: {load.num_failed} of {load.num_requests} requests failed, which is in no latency"


def _requests(pairs: list[tuple[MeasuredLoad, MeasuredLoad]], names: tuple[str, str]) -> Iterator[str]:
    for a, b in pairs:
        for what in ("input_tokens", "output_tokens"):
            of_a, of_b = getattr(a, what), getattr(b, what)
            if of_a and of_b and abs(of_a - of_b) > _TOLERANCE * max(of_a, of_b):
                yield f"{a.name}: different requests: {of_a:.1f} and {of_b:.1f} {what.replace('_', ' ')} each"
        if a.num_repeats != b.num_repeats:
            yield f"{a.name}: {a.num_repeats} repeats in {names[0]}, {b.num_repeats} in {names[1]}"


def _definitions(a: Measured, b: Measured) -> Iterator[str]:
    """What differs between the tools themselves."""
    if a.tool == b.tool:
        return
    known = {metric_of(figure) for measured in (a, b) for load in measured.loads for figure in load.figures}
    for metric in (name for name in (*RATES, *LATENCIES) if name in known):
        if lacking := [tool for tool in (a.tool, b.tool) if metric not in DEFINITIONS[tool]]:
            other = a.tool if lacking[0] == b.tool else b.tool
            found = DEFINITIONS[other][metric]
            yield f"{metric}: {lacking[0]} has no such figure; {other}'s {found.field} is {found.formula}"
        for words in provisos(metric, a.tool, b.tool):
            yield f"{metric}: {words}"
