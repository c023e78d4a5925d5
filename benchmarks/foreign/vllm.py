"""Results of `vllm bench serve --save-result`, with or without `--save-detailed`, read and written.

A file holds one run; with `--append-result` one a line, and those at the same load are its repeats. Times are in milliseconds where they
are summed up, and in seconds where they are listed, request by request, as `--save-detailed` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from benchmarks.foreign.definitions import VLLM
from benchmarks.foreign.measured import (
    ALL_AT_ONCE,
    MIN_REPEATS,
    Measured,
    MeasuredLoad,
    between,
    rate,
    sampled,
    streams,
)
from benchmarks.statistics.interval import Interval

Document = Mapping[str, Any]
_SIGNS = ("duration", "completed", "request_throughput")
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
"""Their names, and ours."""
_STATISTICS = {"mean": "mean", "median": "p50", "p50": "p50", "p99": "p99"}
_BACKENDS = {"chat": "openai-chat", "completions": "openai", "embeddings": "openai-embeddings"}
_PERCENTILES = ("p50", "p90", "p95", "p99")


def is_vllms(document: Document) -> bool:
    """Whether the document has what such a result always has."""
    return all(name in document for name in _SIGNS)


def read(documents: Sequence[Document]) -> Measured:
    """`documents`: the runs of one file, at least one."""
    by_load: dict[str, list[Document]] = {}
    for document in documents:
        by_load.setdefault(_load_name(document), []).append(document)
    loads = tuple(_load(name, runs) for name, runs in by_load.items())
    return Measured(VLLM, str(documents[0].get("model_id", "")), loads, notes=tuple(_notes(documents)))


def write(result: Document) -> bytes:
    """A result of `forgegate bench run`: one line a run, as `--append-result` leaves them.

    What vLLM would have measured in another way has vLLM's name all the same (`definitions`); percentiles that the requests were too
    few for, its peaks and its per-request lists are left out.
    """
    date = _date(result["environment"].get("date", ""))
    runs = (_run(result["plan"], date, level, run) for level in result["levels"] for run in level["runs"])
    return b"".join(orjson.dumps(run, option=orjson.OPT_APPEND_NEWLINE) for run in runs)


# Reading --------------------------------------------------------------------------------------------------------------


def _load_name(document: Document) -> str:
    """`inf` stands for a rate without end: all requests are there from the start."""
    per_s, at_once = document.get("request_rate", "inf"), document.get("max_concurrency")
    if isinstance(per_s, (int, float)) and math.isfinite(per_s):
        return rate(per_s) if at_once is None else f"{rate(per_s)}, {at_once} at once"
    return ALL_AT_ONCE if at_once is None else streams(int(at_once))


def _load(name: str, runs: Sequence[Document]) -> MeasuredLoad:
    num_ok = sum(int(run["completed"]) for run in runs)
    num_requests = sum(int(run.get("num_prompts", run["completed"])) for run in runs)
    return MeasuredLoad(
        name, dict(_figures(runs)), num_requests, num_requests - num_ok, _each(runs, "total_input_tokens", num_ok),
        _each(runs, "total_output_tokens", num_ok), len(runs),
    )  # fmt: skip


def _each(runs: Sequence[Document], name: str, num_ok: int) -> float | None:
    return sum(int(run.get(name, 0)) for run in runs) / num_ok if num_ok else None


def _figures(runs: Sequence[Document]) -> Iterator[tuple[str, Interval]]:
    """By repeats where there are enough; else by the requests of the one run, where they are listed."""
    for theirs, name in (("output_throughput", "output_tps"), ("request_throughput", "request_rate")):
        values = [float(run[theirs]) for run in runs if run.get(theirs)]
        if values:
            yield name, between(values)
    listed = _listed(runs[0]) if len(runs) < MIN_REPEATS else {}
    for theirs, name in _LATENCIES.items():
        for statistic, which in _STATISTICS.items():
            # Without a sample vLLM writes 0.
            values = [float(run[key]) for run in runs if run.get(key := f"{statistic}_{theirs}_ms")]
            if values:
                seconds = [value / 1e3 for value in values]
                of_samples = listed.get(f"{name}.{which}") if len(values) == 1 else None
                yield f"{name}.{which}", of_samples or between(seconds)
    yield from ((name, interval) for name, interval in listed.items() if name.startswith("e2e_s") and len(runs) == 1)


def _listed(run: Document) -> dict[str, Interval]:
    """Of its answered requests, in the order in which they were sent."""
    places = [place for place, tokens in enumerate(run.get("output_lens", ())) if tokens]
    if not places or not all(len(run.get(name, ())) > places[-1] for name in ("ttfts", "itls")):
        return {}
    starts = run.get("start_times") or range(len(run["ttfts"]))
    places.sort(key=lambda place: starts[place])
    ttfts = [run["ttfts"][place] for place in places]
    gaps = [run["itls"][place] for place in places]
    ends = [ttft + math.fsum(itl) for ttft, itl in zip(ttfts, gaps, strict=True)]
    tpots = [
        (end - ttft) / (run["output_lens"][place] - 1)
        for place, ttft, end in zip(places, ttfts, ends, strict=True)
        if run["output_lens"][place] > 1
    ]
    series = {"ttft_s": ttfts, "tpot_s": tpots, "itl_s": [gap for itl in gaps for gap in itl], "e2e_s": ends}
    return {f"{name}.{which}": found for name, values in series.items() for which, found in sampled(values).items()}


def _notes(documents: Sequence[Document]) -> Iterator[str]:
    if any(float(document.get("total_output_tokens") or 0) == 0 for document in documents):
        yield "it counted no output tokens"


# Writing --------------------------------------------------------------------------------------------------------------


def _run(plan: Document, date: str, level: Document, run: Document) -> dict[str, Any]:
    summary, workload = run["summary"], plan["workload"]
    backend = _BACKENDS[workload["endpoint"]]
    return {
        "date": date,
        "endpoint_type": backend,
        "backend": backend,
        "label": None,
        "model_id": workload["model"],
        "tokenizer_id": None,
        "num_prompts": summary["num_requests"],
        "request_rate": level.get("rate", "inf"),
        "burstiness": _burstiness(plan) if "rate" in level else 1.0,
        "max_concurrency": level["concurrency"] or None,
        "duration": summary["duration_s"],
        "completed": summary["num_ok"],
        "failed": summary["num_requests"] - summary["num_ok"],
        "total_input_tokens": summary["input_tokens"],
        "total_output_tokens": summary["output_tokens"],
        "request_throughput": summary["request_rate"],
        "request_goodput": None,
        "output_throughput": summary["output_tps"],
        "total_token_throughput": summary["output_tps"] + summary["input_tps"],
        **{key: value for theirs, name in _LATENCIES.items() for key, value in _latency(theirs, summary[name])},
    }


def _latency(theirs: str, found: Document | None) -> Iterator[tuple[str, float]]:
    if found is None:
        return
    num = found["num"]
    yield f"mean_{theirs}_ms", found["mean"] * 1e3
    if found["p50"] is not None:
        yield f"median_{theirs}_ms", found["p50"] * 1e3
    yield f"std_{theirs}_ms", found["stdev"] * math.sqrt((num - 1) / num) * 1e3  # vLLM divides by n
    for which in _PERCENTILES:
        if found[which] is not None:
            yield f"{which}_{theirs}_ms", found[which] * 1e3


def _burstiness(plan: Document) -> float | str | None:
    """vLLM's gamma shape: 1 for a Poisson process, without end where arrivals are evenly spaced; None of a trace."""
    arrivals = next((str(load["arrivals"]) for load in plan["loads"] if "arrivals" in load), "")
    kind, _, shape = arrivals.partition(":")
    known: dict[str, float | str | None] = {"poisson": 1.0, "constant": "inf", "": None}
    return known[kind] if kind in known else float(shape)


def _date(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y%m%d-%H%M%S")
    except ValueError:
        return text
