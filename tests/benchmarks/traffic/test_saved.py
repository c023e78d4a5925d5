from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from benchmarks.traffic.cancellations import Cancel
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.request import Request
from benchmarks.traffic.saved import read_requests, save_requests

REQUESTS = [
    Request(0, '{"model": "m",  "messages": ["ä"]}'.encode(), 5, True, session=3),
    Request(1, b'{"messages": []}', 6, False, "/v1/chat", 0.5, 0.25, "voice", 3, 1, Cancel(after_events=4)),
    Request(2, b"not JSON at all", 7, False, due_s=1.0),
]


def test_saved_requests_come_back_byte_for_byte(tmp_path: Path):
    path = tmp_path / "deep" / "requests.jsonl"
    save_requests(path, REQUESTS)
    assert read_requests(path) == REQUESTS
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], ":1: not a request list"),
        ([b"{"], ":1: not JSON"),
        ([b"[]"], ":1: not an object"),
        ([b'{"format": "other"}'], ":1: not a request list"),
        ([None, b"{}"], ":2: not a request"),
        ([None, b'{"index": 0, "body": 5, "max_tokens": 1, "is_exact": true}'], ":2: not a request"),
        ([None, b'{"index": 0, "body": "", "max_tokens": 1, "is_exact": true, "new": 1}'], ":2: not a request"),
        ([None], "incomplete: 0 requests of 2"),
    ],
)  # fmt: skip
def test_errors_name_file_and_line(tmp_path: Path, lines: list[bytes | None], says: str):
    path = tmp_path / "requests.jsonl"
    head = orjson.dumps({"format": "forgegate.requests", "format_version": 1, "num_requests": 2})
    path.write_bytes(b"".join((head if line is None else line) + b"\n" for line in lines))
    with pytest.raises(WorkloadError, match=says):
        read_requests(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(WorkloadError, match="cannot read requests"):
        read_requests(tmp_path / "absent")


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"messages": 5}', b"[]"])
def test_turns_of_a_session_have_messages(tmp_path: Path, body: bytes):
    path = tmp_path / "requests.jsonl"
    save_requests(path, [REQUESTS[2], REQUESTS[0], replace(REQUESTS[1], body=body)])
    with pytest.raises(WorkloadError, match=":4: a turn of a session"):
        read_requests(path)
