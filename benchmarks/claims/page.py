"""Claims for people: Markdown of result files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.claims.figures import OUTPUT_TPS
from benchmarks.claims.sections import SECTIONS
from benchmarks.engine_choice import CHOICES

Found = Mapping[str, Any]
_HEAD = (
    "| claim | of | said | measured | interval | figure | verdict |",
    "|---|---|--:|--:|--:|---|---|",
)


def markdown(result: Found) -> list[str]:
    """One result file."""
    lines = [f"{where(result)}; {result['environment']['date']}.", "", f"`{' '.join(result['command'])}`"]
    for section in SECTIONS:
        part = result["parts"].get(section.name)
        if part is not None:
            lines += ["", f"## {section.title}", "", *_section(part)]
    return lines


def summary(results: Sequence[Found]) -> list[str]:
    """What all of these files have shown: by section and file, each claim once, with its cases below it."""
    rows = [
        row
        for section in SECTIONS
        for result in results
        for row in _rows(section.title, result, result["parts"].get(section.name, {}).get("judgements", ()))
    ]
    return ["| claim | case | measured (95 % interval) | verdict |", "|---|---|--:|---|", *rows]


def _rows(section: str, result: Found, judgements: Sequence[Found]) -> Iterator[str]:
    told = None
    for found in judgements:
        claim = found["claim"]
        cell = ""
        if claim["says"] != told:
            told = claim["says"]
            cell = f"**{section}** ({_engine(result)}, {_machine(result)}): {told} ({claim['source']})"
        yield f"| {cell} | {found['case']} | {_measured(found)} | {found['verdict']} |"


def where(result: Found) -> str:
    """The machine and what was measured on it."""
    plan = result["plan"]
    weights = ", weights declared synthetic" if plan["synthetic_weights"] else ""
    return f"{_machine(result)}; {_engine(result)}, model `{plan['model']}`{weights}, {plan['repeats']} turns"


def said(claim: Found) -> str:
    """`2-3x`, or `at least 0.97x`."""
    return f"at least {claim['least']:g}x" if claim["most"] is None else f"{claim['least']:g}-{claim['most']:g}x"


def _engine(result: Found) -> str:
    return CHOICES[result["plan"]["engine"]].title


def _machine(result: Found) -> str:
    gpu, machine = result["gpu"], result["environment"]
    return f"one {gpu['name']}" if gpu else f"{machine['cpu']}, {machine['cores']} cores"


def _section(part: Found) -> Iterator[str]:
    if "error" in part:
        yield f"Not measured: {part['error']}"
        return
    yield from _HEAD
    for found in part["judgements"]:
        ratio = found["ratio"]
        interval = "-" if ratio is None else f"{_end(ratio['low'])} - {_end(ratio['high'])}"
        estimate = "-" if ratio is None else f"{ratio['estimate']:.3g}x"
        yield (
            f"| {found['claim']['says']} ({found['claim']['source']}) | {found['case']} | {said(found['claim'])} | {estimate} | {interval} "
            f"| {found['figure']} | **{found['verdict']}** |"
        )
    faults = [f"- {found['case']}: {fault}" for found in part["judgements"] for fault in found["faults"]]
    yield from ("", *faults) if faults else ()
    for line in beside(part):
        yield from ("", line)
    yield from _medians(part.get("medians", {}))
    yield from _levels(part.get("levels", {}))
    yield from _said(part)


def beside(part: Found) -> Iterator[str]:
    """How other engines did with the same requests."""
    for name, ratio in part.get("beside", {}).items():
        yield (
            f"Beside it: {_measured({'ratio': ratio})} of {name}'s {OUTPUT_TPS}, which is another engine: no claim is judged by it."
        )


def _medians(contests: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Iterator[str]:
    for loads in contests.values():
        names = list(dict.fromkeys(name for found in loads.values() for figures in found.values() for name in figures))
        yield from ("", f"| load | | {' | '.join(names)} |", f"|---|---|{'--:|' * len(names)}")
        for load, by_name in loads.items():
            for contestant, figures in by_name.items():
                cells = (f"{figures[name]:,.4g}" if name in figures else "-" for name in names)
                yield f"| {load} | {contestant} | {' | '.join(cells)} |"


def _levels(levels: Mapping[str, Found]) -> Iterator[str]:
    if not levels:
        return
    yield from (
        "",
        "| level | MB | decode tok/s | prefill tok/s | perplexity | its ratio |",
        "|---|--:|--:|--:|--:|--:|",
    )
    for level, form in levels.items():
        ratio = form["perplexity_ratio"]
        yield (
            f"| {level} | {form['size_bytes'] / 1e6:,.1f} | {_number(form['decode_tok_s'])} | {_number(form['prefill_tok_s'])} "
            f"| {_number((form['perplexity'] or {}).get('value'))} | {_number(ratio and ratio['value'])} |"
        )


def _said(part: Found) -> Iterator[str]:
    """What a section tells beside its figures."""
    for name in ("computed", "acceptance", "batch_sizes", "engines"):
        if part.get(name):
            told = ", ".join(f"{key.replace('_', ' ')}: {_number(value)}" for key, value in part[name].items())
            yield from ("", f"{name.replace('_', ' ').capitalize()}: {told}.")


def _number(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _measured(found: Found) -> str:
    ratio = found["ratio"]
    return "-" if ratio is None else f"{ratio['estimate']:.3g}x ({_end(ratio['low'])} - {_end(ratio['high'])})"


def _end(value: float | None) -> str:
    return "open" if value is None else f"{value:.3g}"
