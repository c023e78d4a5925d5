"""The files of `bench run --out`: of the result, and of the requests behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks import forms, report
from benchmarks.campaign import Level
from benchmarks.foreign import parquet


def require_possible(path: Path) -> None:
    """Before anything is measured. Raises FormError, WorkloadError."""
    if _is_of_requests(path):
        parquet.require_pyarrow()
    else:
        forms.require_known(path)
    report.require_writable(path)


def write(path: Path, result: bytes, levels: Sequence[Level]) -> None:
    """`result`: the document, as JSON."""
    document = orjson.loads(result)
    report.write(path, parquet.rendered(document, levels) if _is_of_requests(path) else forms.rendered(document, path))


def _is_of_requests(path: Path) -> bool:
    return path.suffix.lower() == parquet.SUFFIX
