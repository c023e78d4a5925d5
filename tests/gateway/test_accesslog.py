"""The access log."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from gateway.accesslog import AccessLine, AccessLog


def line(number: int) -> AccessLine:
    return AccessLine(
        time=1.5, request_id=f"r{number}", client="::1", method="POST", path="/v1/x", status=200, duration_ms=2.0
    )


def test_several_workers_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs = [AccessLog.open(str(path)), AccessLog.open(str(path))]
    logs[0].write([line(0), line(2)])
    logs[1].write([line(1)])
    logs[0].write([])
    logs[0].write([line(4)])
    ids = [orjson.loads(text)["request_id"] for text in path.read_bytes().splitlines()]
    assert ids == ["r0", "r2", "r1", "r4"]
    assert path.stat().st_mode & 0o7 == 0
    for log in logs:
        assert log._fd is not None
        os.close(log._fd)


def test_off_and_broken_logs_cost_no_request() -> None:
    AccessLog.open("").write([line(0)])
    full = AccessLog.open("/dev/full")
    full.write([line(0)])
    assert full._fd is not None
    os.close(full._fd)
