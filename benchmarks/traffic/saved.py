"""A request list as a file, so that another run, or another tool, sends exactly the same.

The first line says what it is; each further line is one request, its body as the text that is sent, byte for byte.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.traffic.cancellations import Cancel
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.request import Request

FORMAT = "forgegate.requests"
FORMAT_VERSION = 1


def save_requests(path: Path, requests: Sequence[Request]) -> None:
    """Write the file whole or not at all. Raises OSError."""
    lines = [
        {"format": FORMAT, "format_version": FORMAT_VERSION, "num_requests": len(requests)},
        *map(_as_dict, requests),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
    partial.replace(path)


def read_requests(path: Path) -> list[Request]:
    """What `save_requests` wrote; raises WorkloadError with file and line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise WorkloadError(f"cannot read requests from {path}: {exc.strerror or exc}") from exc
    rows = [_parsed(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    head = rows[0] if rows else {}
    if (head.get("format"), head.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise WorkloadError(f"{path}:1: not a request list of version {FORMAT_VERSION}, as --save-requests writes it")
    requests = [_request(row, f"{path}:{number}") for number, row in enumerate(rows[1:], start=2)]
    if len(requests) != head.get("num_requests") or not requests:
        raise WorkloadError(f"{path} is incomplete: {len(requests)} requests of {head.get('num_requests')}")
    _check_turns(requests, path)
    return requests


def _as_dict(request: Request) -> dict[str, Any]:
    """Fields at their defaults left out."""
    fields = {spec.name: getattr(request, spec.name) for spec in dataclasses.fields(request)}
    optional = {
        spec.name: spec.default for spec in dataclasses.fields(request) if spec.default is not dataclasses.MISSING
    }
    fields["body"] = request.body.decode()
    if request.cancel is not None:
        fields["cancel"] = dataclasses.asdict(request.cancel)
    return {name: value for name, value in fields.items() if name not in optional or value != optional[name]}


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise WorkloadError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(row, dict):
        raise WorkloadError(f"{where}: not an object")
    return row


def _request(row: dict[str, Any], where: str) -> Request:
    try:
        cancel = Cancel(**row["cancel"]) if row.get("cancel") else None
        body = row["body"].encode()
        return Request(**{**row, "body": body, "cancel": cancel})
    except (KeyError, TypeError, AttributeError) as exc:
        raise WorkloadError(f"{where}: not a request: {exc}") from exc


def _check_turns(requests: Sequence[Request], path: Path) -> None:
    """Of sessions, each request's messages are put together with those of the others."""
    for number, (before, request) in enumerate(itertools.pairwise(requests), start=3):
        if request.turn and not (_has_messages(before) and _has_messages(request)):
            raise WorkloadError(
                f"{path}:{number}: a turn of a session, but it or the one before it has no list of messages"
            )


def _has_messages(request: Request) -> bool:
    try:
        return isinstance(orjson.loads(request.body)["messages"], list)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
