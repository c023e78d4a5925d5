"""The result as one HTML page: the verdict, the block, the Pareto front, every launch, and how to do it again. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from benchmarks.optimize.document import HEADS, rejected_of, rows_of
from benchmarks.pages import chart
from benchmarks.pages.chart import NUM_STYLES, Chart, Series
from benchmarks.pages.markup import banner, folded, page, table, text


def render(result: Mapping[str, Any]) -> str:
    """The page of a document of kind `optimize`."""
    return page(f"Optimise: {result['model']}", _body(result))


def _body(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"<header><h1>{text(result['model'])}</h1>"
    yield f'<p class="soft">{text(result["engine"])}, {text(result["slo"])}, {text(result["environment"]["date"])}</p></header><main>'
    verdict = "Recommended" if result["is_recommended"] else "No recommendation"
    said = [words for each in result["slo_shown"].values() for words in each]
    yield from banner(result["is_recommended"], f"{verdict}: {result['reason']}", [*said, *result["notes"]])
    if result["block"]:
        yield f"<h2>forgegate.yaml</h2><pre>{text(result['block'])}</pre>"
    drawing = pareto_chart(result)
    if not drawing.is_empty:
        yield f'<h2>All against one</h2><div class="plots">{chart.draw(drawing)}</div>'
    yield from table("Launches that carried a load within the SLO", HEADS, rows_of(result))
    if rejected := rejected_of(result):
        yield from table("Launches that did not", ("setting", "ended", "why"), rejected)
    yield "<h2>How it was made</h2>"
    yield f"<pre>{text(shlex.join(result['command']))}</pre>"
    yield folded("What was searched", "\n".join(result["over"]) or "nothing")
    yield folded("Environment", orjson.dumps(result["environment"], option=orjson.OPT_INDENT_2).decode())
    yield "</main>"


def pareto_chart(result: Mapping[str, Any]) -> Chart:
    """The front, the defaults, the candidate, and the best others, each over its loads."""
    front = tuple((point["tps_per_user"], point["output_tps"]) for point in result["pareto"])
    told = tuple(f"{point['label']} at load {point['load']:.3g}" for point in result["pareto"])
    lines = [Series("Pareto front", front, labels=told)]
    named: dict[str, Mapping[str, Any]] = {"defaults": {}}
    if result["candidate"]:
        named["candidate"] = result["candidate"]
    lines += [_line(name, setting, result["trials"]) for name, setting in named.items()]
    best = sorted(
        (trial for trial in result["trials"] if trial["stage"] == "search"), key=lambda trial: -trial["score"]
    )
    for trial in best:
        label = ", ".join(f"{name} {value}" for name, value in trial["setting"].items())
        if (
            len(lines) < NUM_STYLES
            and trial["setting"] not in named.values()
            and label not in [line.name for line in lines]
        ):
            lines.append(_line(label, trial["setting"], result["trials"]))
    return Chart("pareto", "By load", "tokens/s of one user", "tokens/s of all", tuple(lines))


def _line(name: str, setting: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Series:
    """Of the launch that was looked at longest."""
    launches = [
        trial for trial in trials if trial["setting"] == setting and trial["outcome"] == "measured" and trial["probes"]
    ]
    if not launches:
        return Series(name, ())
    probes = sorted(max(launches, key=lambda trial: trial["effort"])["probes"], key=lambda probe: probe["load"])
    known = [probe for probe in probes if probe["tps_per_user"]]
    return Series(
        name, tuple((probe["tps_per_user"], probe["output_tps"]) for probe in known),
        labels=tuple(f"load {probe['load']:.3g}" for probe in known),
    )  # fmt: skip
