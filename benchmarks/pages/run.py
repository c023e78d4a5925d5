"""A run's result as one HTML page: whether it may be believed, the figures, the plots, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from benchmarks.pages import chart
from benchmarks.pages.markup import banner, folded, page, table, text
from benchmarks.pages.runcharts import charts, interval_of, name_of

HEADS = (
    "load", "answered", "output tok/s", "from - to", "requests/s", "ttft ms p50 / p99", "tpot ms p50 / p99",
    "itl ms p50 / p99", "e2e ms p50 / p99",
)  # fmt: skip


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
    yield from table("By load; latencies from when a request was due", HEADS, map(row, result["levels"]))
    yield '<h2>Plots</h2><div class="plots">'
    yield from (chart.draw(each) for each in charts(result["levels"], result.get("slo")))
    yield "</div><h2>How it was made</h2>"
    yield f"<pre>{text(shlex.join(result['command']))}</pre>"
    yield folded("Load and requests", _json(result["plan"]))
    yield folded("Environment", _json(made))
    yield "</main>"


def _verdict(result: Mapping[str, Any]) -> Iterator[str]:
    remarks = list(
        dict.fromkeys(f"{name_of(level)}: {remark}" for level in result["levels"] for remark in level["remarks"])
    )
    if result["is_valid"]:
        yield from banner(True, "Valid: no rule is broken", remarks)
    else:
        yield from banner(False, "VOID: do not use these figures", [*result["faults"], *remarks])


def row(level: Mapping[str, Any]) -> Sequence[str]:
    """A level, under HEADS."""
    pooled, rates = level["pooled"], level["output_tps"]
    low, high = interval_of(level, "output_tps") or (rates["min"], rates["max"])
    return (
        name_of(level), f"{pooled['num_ok']:,} of {pooled['num_requests']:,}", f"{rates['median']:,.1f}", f"{low:,.1f} - {high:,.1f}",
        f"{pooled['request_rate']:,.2f}", *(_pair(pooled.get(key)) for key in ("ttft_user_s", "tpot_s", "itl_s", "e2e_user_s")),
    )  # fmt: skip


def _pair(of: Mapping[str, float | None] | None) -> str:
    """`-` where undefined, or beyond what the samples can tell."""
    return " / ".join(
        "-" if (value := (of or {}).get(key)) is None else f"{value * 1e3:,.1f}" for key in ("p50", "p99")
    )


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
