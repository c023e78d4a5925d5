"""Every request of a run as a row of a Parquet file, with pyarrow where it is installed.

Times are seconds of the client's monotonic clock, as `benchmarks.record` has them; `ttft_s`, `tpot_s` and `e2e_s` are those of
`benchmarks.metrics`. What was asked and said is not in it. The file's metadata holds the plan and the environment, as JSON, under
`forgegate.benchmark`.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from benchmarks import metrics
from benchmarks.campaign import Level, MeasuredRun
from benchmarks.record import Record
from benchmarks.traffic.errors import WorkloadError

SUFFIX = ".parquet"
_METADATA = "forgegate.benchmark"
_KEPT = ("format", "format_version", "metrics_version", "command", "environment", "url", "plan", "is_valid", "faults")

_OF_RECORD: Mapping[str, tuple[str, Callable[[Record], Any]]] = {
    "index": ("int64", lambda record: record.index),
    "model": ("string", lambda record: record.adapter),
    "session": ("int64", lambda record: record.session),
    "turn": ("int64", lambda record: record.turn),
    "intended_s": ("float64", lambda record: record.intended_s),
    "sent_s": ("float64", lambda record: record.sent_s),
    "first_byte_s": ("float64", lambda record: record.first_byte_s),
    "end_s": ("float64", lambda record: record.end_s),
    "chunk_times_s": ("list<float64>", lambda record: record.chunk_times_s),
    "chunk_chars": ("list<int64>", lambda record: record.chunk_chars),
    "ttft_s": ("float64", metrics.ttft_s),
    "ttft_user_s": ("float64", metrics.ttft_user_s),
    "tpot_s": ("float64", metrics.tpot_s),
    "e2e_s": ("float64", metrics.e2e_s),
    "queue_s": ("float64", lambda record: record.queue_s),
    "max_tokens": ("int64", lambda record: record.max_tokens),
    "prompt_tokens": ("int64", lambda record: record.prompt_tokens),
    "output_tokens": ("int64", lambda record: record.num_output_tokens),
    "cached_tokens": ("int64", lambda record: record.cached_tokens),
    "token_source": ("string", lambda record: record.token_source),
    "finish_reason": ("string", lambda record: record.finish_reason),
    "status": ("int64", lambda record: record.status),
    "is_ok": ("bool", lambda record: record.is_ok),
    "is_cancelled": ("bool", lambda record: record.is_cancelled),
    "failure": ("string", lambda record: record.failure.kind.value if record.failure else None),
    "failure_detail": ("string", lambda record: record.failure.detail if record.failure else None),
}
"""Column, its type, and where it is in a record; before them stand `load` and `repeat`."""


def require_pyarrow() -> None:
    """Raises WorkloadError."""
    if importlib.util.find_spec("pyarrow") is None:
        raise WorkloadError(
            f"--out *{SUFFIX} needs pyarrow, which is not installed: `pip install pyarrow`, or name a .json"
        )


def rendered(result: Mapping[str, Any], levels: Sequence[Level]) -> bytes:
    """The bytes of the file; `result` is the document of the same run. Raises WorkloadError."""
    require_pyarrow()
    import pyarrow
    from pyarrow import parquet

    runs = [run for level in levels for run in level.runs]
    schema = pyarrow.schema([pyarrow.field(name, _type(pyarrow, kind)) for name, kind in _types()])
    about = orjson.dumps({name: result[name] for name in _KEPT if name in result})
    table = pyarrow.table(dict(_columns(runs)), schema=schema.with_metadata({_METADATA: about}))
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def _types() -> Iterator[tuple[str, str]]:
    yield from (("load", "string"), ("repeat", "int64"))
    yield from ((name, kind) for name, (kind, _) in _OF_RECORD.items())


def _type(pyarrow: Any, kind: str) -> Any:
    if kind.startswith("list<"):
        return pyarrow.list_(_type(pyarrow, kind[len("list<") : -1]))
    return pyarrow.type_for_alias(kind)


def _columns(runs: Sequence[MeasuredRun]) -> Iterator[tuple[str, list[Any]]]:
    yield "load", [run.label for run in runs for _ in run.load.records]
    yield "repeat", [run.repeat for run in runs for _ in run.load.records]
    for name, (_, of) in _OF_RECORD.items():
        yield name, [of(record) for run in runs for record in run.load.records]
