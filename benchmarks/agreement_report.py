"""Whether load generators agree about one endpoint, figure by figure, and what explains where they do not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.agreement_bounds import may_explain
from benchmarks.foreign.definitions import (
    DEFINITIONS,
    HIGHER_IS_BETTER,
    LATENCIES,
    OURS,
    RATES,
    metric_of,
    provisos,
)
from benchmarks.foreign.measured import MeasuredLoad, between
from benchmarks.statistics.difference import MIN_PAIRS, paired
from benchmarks.statistics.interval import Interval

FIGURES = (*RATES, *(f"{name}.{which}" for name in LATENCIES for which in ("mean", "p50")))
MARGIN = 0.05
"""Two figures whose ratio lies within this, its whole interval, are the same for whoever reads them."""
AGREE, NOT_SHOWN, DIFFER = "agree", "no difference shown", "differ"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure as another tool has it, beside ours."""

    figure: str
    tool: str
    ours: Interval
    theirs: Interval
    ratio: Interval
    """Theirs / ours, of the runs of the same turn."""
    verdict: str
    because: tuple[str, ...]
    """What differs by definition, where that can account for a difference of this size and direction."""

    @property
    def is_unexplained(self) -> bool:
        """True for a difference that no definition accounts for."""
        return self.verdict == DIFFER and not self.because


def rows_of(runs: Mapping[str, Sequence[MeasuredLoad]]) -> list[Row]:
    """`runs`: by tool, those of the same turn at the same place. Raises ValueError with fewer than three turns."""
    turns = runs[OURS]
    if len(turns) < MIN_PAIRS:
        raise ValueError(f"{len(turns)} turns show nothing about how turns vary: at least {MIN_PAIRS}")
    others = [tool for tool in runs if tool != OURS]
    found = (_row(figure, tool, turns, runs[tool]) for figure in FIGURES for tool in others)
    return [row for row in found if row is not None]


def document_of(rows: Sequence[Row], runs: Mapping[str, Sequence[MeasuredLoad]]) -> dict[str, Any]:
    """For the result file."""
    return {
        "margin": MARGIN,
        "rows": [asdict(row) | {"is_unexplained": row.is_unexplained} for row in rows],
        "runs": {tool: [_run(load) for load in loads] for tool, loads in runs.items()},
        "definitions": {tool: {name: asdict(each) for name, each in DEFINITIONS[tool].items()} for tool in runs},
        "is_explained": not any(row.is_unexplained for row in rows),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result file in Markdown."""
    plan, tools = result["plan"], [tool for tool in result["runs"] if tool != OURS]
    lines = [
        f"One endpoint as {', '.join((OURS, *tools))} measure it: {plan['concurrency']} streams, {plan['num_requests']} requests of "
        f"{plan['input_tokens']} tokens in and {plan['output_tokens']} out ({plan['endpoint']}), {plan['turns']} turns.",
        "",
        f"| figure | {OURS} | tool | its figure | its / ours (95 %) | |",
        "|---|--:|---|--:|--:|---|",
    ]  # fmt: skip
    lines += [f"| {' | '.join(_cells(row))} |" for row in result["rows"]]
    lines += ["", f"agree: the interval of the ratio lies within {MARGIN:.0%}; no difference shown: it holds 1.", ""]
    lines += [f"- {line}" for line in dict.fromkeys(_reasons(result["rows"]))]
    lines += [f"- {tool} was not measured: {why}" for tool, why in result["left_out"].items()]
    lines += ["", "| figure | tool | its name | definition |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _definitions(result["definitions"])]
    return "\n".join((*lines, "", _where(result), ""))


def _row(figure: str, tool: str, ours: Sequence[MeasuredLoad], theirs: Sequence[MeasuredLoad]) -> Row | None:
    """None where either has no such figure in some turn."""
    pairs = [
        (a.figures[figure].estimate, b.figures[figure].estimate)
        for a, b in zip(ours, theirs, strict=True)
        if figure in a.figures and figure in b.figures
    ]
    if len(pairs) < len(ours) or any(min(pair) <= 0 for pair in pairs):
        return None
    ratio = paired(pairs, figure in HIGHER_IS_BETTER).ratio
    verdict = _verdict(ratio)
    of_ours, of_theirs = (between(values) for values in zip(*pairs, strict=True))
    is_by_definition = verdict == DIFFER and may_explain(figure, tool, of_ours.estimate, of_theirs.estimate)
    because = tuple(provisos(figure, OURS, tool)) if is_by_definition else ()
    return Row(figure, tool, of_ours, of_theirs, ratio, verdict, because)


def _verdict(ratio: Interval) -> str:
    low, high = ratio.low or 0.0, ratio.high or float("inf")
    if low >= 1 / (1 + MARGIN) and high <= 1 + MARGIN:
        return AGREE
    return NOT_SHOWN if ratio.contains(1.0) else DIFFER


def _run(load: MeasuredLoad) -> dict[str, Any]:
    return {
        "figures": {name: interval.estimate for name, interval in load.figures.items()},
        "num_requests": load.num_requests, "num_failed": load.num_failed, "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
    }  # fmt: skip


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    figure, ratio = row["figure"], row["ratio"]
    yield figure
    yield _shown(figure, row["ours"])
    yield row["tool"]
    yield _shown(figure, row["theirs"])
    yield f"{ratio['estimate']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})"
    yield f"**{row['verdict']}**, unexplained" if row["is_unexplained"] else str(row["verdict"])


def _shown(figure: str, found: Mapping[str, Any]) -> str:
    value = found["estimate"]
    return f"{value:,.1f}" if metric_of(figure) in RATES else f"{value * 1e3:,.2f} ms"


def _reasons(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield from (f"{metric_of(row['figure'])}: {words}" for words in row["because"])


def _definitions(known: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for metric in (*RATES, *LATENCIES):
        for tool, figures in known.items():
            if found := figures.get(metric):
                proviso = f"; {found['proviso']}" if found["proviso"] else ""
                yield metric, tool, f"`{found['field']}`", f"{found['formula']}{proviso}"


def _where(result: Mapping[str, Any]) -> str:
    found, versions = result["environment"], result["tool_versions"]
    told = ", ".join(f"{tool} {version}" for tool, version in versions.items() if version)
    return f"{found['date']}, {found['cpu']}, {found['cores']} cores; {told}."
