"""A run's result as one HTML page: whether it may be believed, the figures, the plots, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from benchmarks import metrics
from benchmarks.pages import chart
from benchmarks.pages.markup import banner, folded, page, table, text
from benchmarks.pages.runcharts import charts, interval_of, limits_of, name_of

HEADS = (
    "load", "answered", "output tok/s", "from - to", "requests/s", "ttft ms p50 / p99", "tpot ms p50 / p99",
    "itl ms p50 / p99", "e2e ms p50 / p99",
)  # fmt: skip
_SLO_HEADS = ("goodput req/s", "within the SLO", "SLO")
_SURVEYS = ("sweep", "capacity")


def heads(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the table of loads."""
    return (*HEADS, *(_SLO_HEADS if "slo" in result else ()))


def loads(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that were measured, those beyond what the server carries last."""
    return [*result["levels"], *result.get("beyond", ())]


def render(result: Mapping[str, Any]) -> str:
    """The page of a document of kind `run`. Raises ValueError for another kind."""
    if result.get("kind") != "run":
        raise ValueError(f"a page is made of the result of `bench run`, this is of kind {result.get('kind')!r}")
    model = result["plan"]["workload"]["model"]
    return page(f"Benchmark: {model}", _body(result, model))


def _body(result: Mapping[str, Any], model: str) -> Iterator[str]:
    made = result["environment"]
    yield f"<header><h1>{text(model)}</h1>"
    yield f'<p class="soft">{text(result["url"])}, {text(made.get("date", ""))}</p></header><main>'
    yield from _verdict(result)
    yield from table("By load; latencies from when a request was due", heads(result), map(row, loads(result)))
    yield from _listed("How sure it is", sentences(result, "settling"))
    yield from _listed("Energy", sentences(result, "energy"))
    yield from _listed(f"Held against {result['slo']['text']}" if "slo" in result else "", sentences(result, "slo"))
    yield '<h2>Plots</h2><div class="plots">'
    is_survey = result.get("profile") in _SURVEYS
    drawn = charts(loads(result), limits_of(result.get("slo")), is_survey=is_survey)
    yield from (chart.draw(each) for each in drawn)
    yield "</div><h2>How it was made</h2>"
    yield f"<pre>{text(shlex.join(result['command']))}</pre>"
    if result.get("metrics_version") == metrics.VERSION:
        yield folded(f"What the figures mean (definitions, version {metrics.VERSION})", metrics.definitions())
    yield folded("Load and requests", _json(result["plan"]))
    yield folded("Environment", _json(made))
    yield "</main>"


def _verdict(result: Mapping[str, Any]) -> Iterator[str]:
    remarks = list(
        dict.fromkeys(f"{name_of(level)}: {remark}" for level in result["levels"] for remark in level["remarks"])
    )
    findings = list(found(result))
    if result["is_valid"]:
        yield from banner(True, "Valid: no rule is broken", [*findings, *remarks])
    else:
        yield from banner(False, "VOID: do not use these figures", [*result["faults"], *findings, *remarks])


def found(result: Mapping[str, Any]) -> Iterator[str]:
    """What a survey has found: up to which rate a promise holds, where a sweep stopped, and why."""
    if "capacity" in result:
        yield result["capacity"]["sentence"]
    if "stopped" in result:
        yield f"the sweep stopped at {result['stopped']['load']}, more than the server carries: {result['stopped']['because']}"
    for level in result.get("beyond", ()):
        if level["label"] != result.get("stopped", {}).get("load"):
            yield f"{level['label']} is more than the server carries: {level['because']}"


def sentences(result: Mapping[str, Any], key: str) -> Iterator[str]:
    """Of every load that has one: `settling`, `energy`, or `slo`."""
    for level in result["levels"]:
        if key in level:
            yield f"{name_of(level)}: {level[key]['sentence']}"


def _listed(title: str, lines: Iterator[str]) -> Iterator[str]:
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    if items:
        yield f"<h2>{text(title)}</h2><ul>{items}</ul>"


def row(level: Mapping[str, Any]) -> Sequence[str]:
    """A level, under `heads`."""
    pooled, rates = level["pooled"], level["output_tps"]
    low, high = interval_of(level, "output_tps") or (rates["min"], rates["max"])
    name = f"{name_of(level)} (too much)" if "because" in level else name_of(level)
    return (
        name, f"{pooled['num_ok']:,} of {pooled['num_requests']:,}", f"{rates['median']:,.1f}", f"{low:,.1f} - {high:,.1f}",
        f"{pooled['request_rate']:,.2f}", *(_pair(pooled.get(key)) for key in ("ttft_user_s", "tpot_s", "itl_s", "e2e_user_s")),
        *_promise(level),
    )  # fmt: skip


def _promise(level: Mapping[str, Any]) -> Iterator[str]:
    held = level.get("slo")
    if held is not None:
        yield f"{held['requests_per_s']:,.2f}"
        yield "-" if held["attainment"] is None else f"{held['attainment']:.2%}"
        yield held["answer"] or "-"


def _pair(of: Mapping[str, float | None] | None) -> str:
    """`-` where undefined, or beyond what the samples can tell."""
    return " / ".join(
        "-" if (value := (of or {}).get(key)) is None else f"{value * 1e3:,.1f}" for key in ("p50", "p99")
    )


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
