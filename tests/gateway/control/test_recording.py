"""The log of conversations as control sees to it: said loudly, refused early, handed to the workers; and the whole of it, running."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.config import Conversations
from gateway.control.recording import for_workers, notice, require_writable
from gateway.exits import CommandError
from tests.processes import Served, stub_config

KEPT = Conversations("/var/log/kept.jsonl", models=("support", "demo"))


def test_it_is_said_loudly() -> None:
    assert notice(Conversations()) == ""
    assert notice(KEPT) == (
        "CONVERSATIONS ARE KEPT: 10 % of the chats with support, demo are written to /var/log/kept.jsonl; personal data is masked; "
        "clients opt out with the header x-forgegate-no-log: 1"
    )
    assert "100 % of the chats with all models" in notice(Conversations("/x", share=1))
    assert "PERSONAL DATA IS NOT MASKED" in notice(Conversations("/x", mask=False))


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"conversations\.file: .*: Is a directory"):
        require_writable(Conversations(str(tmp_path)))
    require_writable(Conversations(str(tmp_path / "new" / "kept.jsonl")))
    assert (tmp_path / "new" / "kept.jsonl").exists()
    require_writable(Conversations())


def test_workers_get_all_of_it_or_nothing() -> None:
    assert for_workers(Conversations()) == ""
    assert msgspec.json.decode(for_workers(KEPT), type=Conversations) == KEPT


@pytest.mark.e2e
@pytest.mark.slow
def test_conversations_of_a_running_gateway(tmp_path: Path) -> None:
    path = tmp_path / "log" / "kept.jsonl"
    config = stub_config(tmp_path, workers=2, extra=f"conversations: {{file: {path}, share: 1}}\n")
    asked = {"model": "demo", "messages": [{"role": "user", "content": "Call me at 010-1234-5678"}]}
    with Served(tmp_path / "home", "--config", str(config)) as served:
        served.wait_ready()
        assert str(path) in served.wait_for("note")["detail"]
        ids = []
        for stream in (True, False):
            for _ in range(4):  # each on a connection of its own, so that both workers get some
                answer = httpx.post(f"{served.url}/v1/chat/completions", json=asked | {"stream": stream}, timeout=10)
                assert answer.status_code == 200
                ids.append(answer.headers["x-request-id"])
        httpx.post(f"{served.url}/v1/chat/completions", json=asked, headers={"x-forgegate-no-log": "1"}, timeout=10)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and path.read_text().count("\n") < 8:
            time.sleep(0.05)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(record["request_id"] for record in records) == sorted(ids)
    assert all(record["messages"][0]["content"] == "Call me at [PHONE]" for record in records)
    assert all(record["finish_reason"] and record["answer"]["content"] for record in records)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
