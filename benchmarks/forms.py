"""A run's result in the form that its file's name asks for: `.json`, `.csv`, `.md`, `.html`, or vLLM's `.vllm.json`."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.foreign import vllm
from benchmarks.pages import run as run_page
from benchmarks.pages.runcharts import interval_of, load_of, name_of

Result = Mapping[str, Any]
_PERCENTILES = ("p50", "p90", "p95", "p99", "mean", "max")
_LATENCIES = ("ttft_s", "ttft_user_s", "tpot_s", "itl_s", "e2e_s", "e2e_user_s")
_COUNTS = (
    "num_requests",
    "num_ok",
    "success_rate",
    "duration_s",
    "output_tokens",
    "input_tokens",
    "cached_tokens",
    "request_rate",
    "energy_j",
    "energy_per_token_j",
)
_VERDICTS = (
    "goodput_requests_per_s", "goodput_tokens_per_s", "slo_attainment", "slo_answer", "slo_confidence", "capacity_requests_per_s",
    "is_settled", "settled_after_s_more", "too_much",
)  # fmt: skip


class FormError(ValueError):
    """No result is written in such a file; the message names those that are."""


def rendered(result: Result, path: Path) -> bytes:
    """The bytes of a document of kind `run` for a file of that name. Raises FormError."""
    return _form_of(path)(result)


def require_known(path: Path) -> Path:
    """The path itself; raises FormError before anything is measured."""
    _form_of(path)
    return path


def table_csv(result: Result) -> str:
    """One row a load: counts, rates and latencies in seconds, under the names of the JSON's fields."""
    text = io.StringIO()
    columns = [f"{name}_{which}" for name in _LATENCIES for which in _PERCENTILES]
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        [
            "load",
            "load_unit",
            "is_valid",
            "output_tps",
            "output_tps_low",
            "output_tps_high",
            *_COUNTS,
            *columns,
            *_VERDICTS,
        ]
    )
    for level in run_page.loads(result):
        unit, value = load_of(level)
        start = [f"{value:g}", unit, str(level["is_valid"]).lower()]
        rows.writerow([*start, *_rates(level), *_row(level["pooled"]), *_verdicts(result, level)])
    return text.getvalue()


def table_markdown(result: Result) -> str:
    """What a reader of a repository needs: validity, the table, the command."""
    lines = [f"{result['plan']['workload']['model']} at {result['url']}, {result['environment'].get('date', '')}", ""]
    if not result["is_valid"]:
        lines += ["**VOID: do not use these figures**", "", *(f"- {fault}" for fault in result["faults"]), ""]
    heads = run_page.heads(result)
    lines += [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(run_page.row(level))} |" for level in run_page.loads(result)]
    said = dict.fromkeys(f"- {line}" for line in _said(result))
    lines += ["", *said, *([""] if said else []), f"    {shlex.join(result['command'])}"]
    return "\n".join(lines) + "\n"


def _said(result: Result) -> Iterator[str]:
    """What was found, how sure each load is, and what else its reader must know."""
    yield from run_page.found(result)
    yield from run_page.sentences(result, "slo")
    yield from run_page.sentences(result, "settling")
    yield from run_page.sentences(result, "energy")
    for level in result["levels"]:
        yield from (f"{name_of(level)}: {remark}" for remark in level["remarks"])


def _rates(level: Mapping[str, Any]) -> Iterator[float]:
    rates = level["output_tps"]
    yield rates["median"]
    yield from interval_of(level, "output_tps") or (rates["min"], rates["max"])


def _row(pooled: Mapping[str, Any]) -> Iterator[object]:
    """A figure that is not known is an empty cell."""
    yield from (pooled.get(name) for name in _COUNTS)
    for name in _LATENCIES:
        yield from ((pooled.get(name) or {}).get(which) for which in _PERCENTILES)


def _verdicts(result: Result, level: Mapping[str, Any]) -> Iterator[object]:
    """Under _VERDICTS; empty where nothing was promised, or an older program wrote the result."""
    held, settling = level.get("slo") or {}, level.get("settling") or {}
    yield from (held.get(name) for name in ("requests_per_s", "tokens_per_s", "attainment", "answer"))
    yield result.get("slo", {}).get("confidence")
    yield result.get("capacity", {}).get("rate")
    yield str(settling["is_settled"]).lower() if settling else None
    yield settling.get("more_s")
    yield level.get("because")


_FORMS: Mapping[str, Callable[[Result], bytes]] = {
    ".json": lambda result: report.dump(dict(result)),
    ".csv": lambda result: table_csv(result).encode(),
    ".md": lambda result: table_markdown(result).encode(),
    ".html": lambda result: run_page.render(result).encode(),
    ".vllm.json": vllm.write,
}


def _form_of(path: Path) -> Callable[[Result], bytes]:
    endings = [ending for ending in _FORMS if path.name.lower().endswith(ending)]
    if not endings:
        raise FormError(f"{path}: a result is written as {', '.join(_FORMS)}: name such a file")
    return _FORMS[max(endings, key=len)]
