"""The log of conversations beside real requests: what is kept, what is not, and that no request is the worse for it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from backends.protocol import DONE as LAST
from backends.protocol import named_sse, sse
from gateway.config import Conversations
from gateway.data import conversations
from gateway.data.conversations import MAX_CONVERSATION_BYTES, ConversationLog, Tap
from gateway.data.exchange import Exchange
from gateway.metrics import TABLE
from tests.gateway.data.rig import ADMIN_TOKEN, Call, Rig, StubEngine, chunk

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Mail me at jane.doe@example.com"}]}
NO_LOG = "x-forgegate-no-log"


def said(text: str, finish_reason: str | None = None) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]})


async def streamed(call: Call) -> None:
    await call.begin_stream()
    for text in ("I ", "will", ", jane.doe@example.com"):
        await call.send(chunk(said(text)))
    await call.send(chunk(said("", "stop")) + chunk(LAST) + b"0\r\n\r\n")


async def whole(call: Call) -> None:
    message = {"role": "assistant", "content": "I will"}
    await call.send_json(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


async def dies(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(said("I wi")))
    await asyncio.sleep(0.02)
    call.kill()


class Kept:
    """A log in a folder of its own, and what stands in it."""

    def __init__(self, rig: Rig, folder: Path, draws: list[float] | None = None, **rules: Any) -> None:
        self.path = folder / "kept.jsonl"
        left = iter(draws or ())
        self.log = ConversationLog(
            Conversations(file=str(self.path), **{"share": 1.0} | rules), lambda: next(left, 0.0)
        )
        self.rig = rig
        rig.relay.conversations = self.log
        self.log.start()

    def records(self) -> list[dict[str, Any]]:
        """All of them: nothing is kept from now on."""
        self.log.close()
        self.rig.relay.conversations = None
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


async def test_what_is_asked_and_answered_is_kept_and_masked(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(streamed, whole))
    kept = Kept(rig, tmp_path)
    first = await rig.ask(ASKED | {"stream": True})
    await rig.ask(ASKED)
    await rig.settle()
    one, other = kept.records()
    assert one["request_id"] == first.headers["x-request-id"]
    assert one["messages"][0]["content"] == "Mail me at [EMAIL]"
    assert one["answer"] == {"role": "assistant", "content": "I will, [EMAIL]"}
    assert (one["status"], one["error"], one["finish_reason"], one["resolved"]) == (200, "", "stop", "m@0123456789ab")
    assert other["answer"]["content"] == "I will"
    assert kept.log.take_counts() == {"written": 2}
    assert "jane.doe@example.com" in first.text  # the client's own answer is untouched


MAIL = "jane.doe@example.com"
RESPONSE = {
    "id": "resp_1", "object": "response", "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"I will, {MAIL}"}]}],
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": f"I will, {MAIL}"}],
    "stop_reason": "end_turn",
}  # fmt: skip
_PLACE = {"output_index": 0, "content_index": 0}
EVENTS = {
    "/v1/responses": [
        {"type": "response.created", "response": RESPONSE | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": RESPONSE["output"][0] | {"content": []}},  # type: ignore[operator]
        *({"type": "response.output_text.delta", "delta": text, **_PLACE} for text in ("I ", "will", f", {MAIL}")),
        {"type": "response.completed", "response": RESPONSE},
    ],
    "/v1/messages": [
        {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in ("I ", "will", f", {MAIL}")
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ],
}
BODIES = {
    "/v1/responses": {"model": "m", "instructions": "Be brief.", "input": f"Mail me at {MAIL}"},
    "/v1/messages": {
        "model": "m", "system": "Be brief.", "max_tokens": 9, "messages": [{"role": "user", "content": f"Mail me at {MAIL}"}],
    },
}  # fmt: skip
WHOLE = {"/v1/responses": RESPONSE, "/v1/messages": MESSAGE}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("is_masked", [True, False])
async def test_chats_of_other_apis_are_kept_in_the_same_form(
    rig: Rig, tmp_path: Path, path: str, is_masked: bool
) -> None:
    async def streams(call: Call) -> None:
        await call.begin_stream()
        for event in EVENTS[path]:
            await call.send(chunk(named_sse(event)))
        await call.send(b"0\r\n\r\n")

    async def answers(call: Call) -> None:
        await call.send_json(200, WHOLE[path])

    rig.capabilities = ("responses", "messages")
    await rig.start(StubEngine(streams, answers))
    kept = Kept(rig, tmp_path, mask=is_masked)
    async with rig.client() as client:
        for stream in (True, False):
            response = await client.post(path, json=BODIES[path] | {"stream": stream})
            assert response.status_code == 200
            assert MAIL in response.text  # the client's own answer is untouched
        await client.post(path, json=BODIES[path], headers={NO_LOG: "1"})
    mail = "[EMAIL]" if is_masked else MAIL
    found = kept.records()
    assert len(found) == 2
    for record in found:
        assert record["messages"] == [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Mail me at {mail}"},
        ]  # fmt: skip
        assert record["answer"] == {"role": "assistant", "content": f"I will, {mail}"}
        assert (record["path"], record["finish_reason"], record["is_masked"]) == (path, "stop", is_masked)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("is_masked", [True, False])
async def test_tokens_of_tools_are_not_on_the_disk(rig: Rig, tmp_path: Path, path: str, is_masked: bool) -> None:
    async def answers(call: Call) -> None:
        await call.send_json(200, WHOLE[path])

    token = "q7Vd0Zr3opaqueJ1xW"
    tool = {
        "type": "mcp", "server_label": "crm", "server_url": "https://crm.example/sse", "authorization": token,
        "headers": {"x-api-key": token},
    }  # fmt: skip
    rig.capabilities = ("responses", "messages")
    await rig.start(StubEngine(answers))
    kept = Kept(rig, tmp_path, mask=is_masked)
    async with rig.client() as client:
        assert (await client.post(path, json=BODIES[path] | {"tools": [tool]})).status_code == 200
    (found,) = kept.records()
    assert found["tools"] == [{"type": "mcp", "server_label": "crm"}]
    assert token.encode() not in kept.path.read_bytes()


async def test_masking_can_be_switched_off(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(streamed))
    kept = Kept(rig, tmp_path, mask=False)
    await rig.ask(ASKED | {"stream": True})
    assert kept.records()[0]["answer"]["content"] == "I will, jane.doe@example.com"


async def test_without_a_log_nothing_is_tapped(rig: Rig) -> None:
    await rig.start(StubEngine(whole))
    assert rig.relay.conversations is None
    writes: list[Any] = []
    before = Exchange._write_first

    def spy(self: Exchange, data: bytes) -> None:
        before(self, data)
        writes.append((self._tap, self._body is not None and self._body.write == self._client.write))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exchange, "_write_first", spy)
        await rig.ask(ASKED)
    assert writes == [(None, True)]


@pytest.mark.parametrize(
    ("value", "is_kept"), [("1", False), ("true", False), ("please", False), ("0", True), ("false", True), ("", True)]
)
async def test_a_client_opts_out_by_a_header(rig: Rig, tmp_path: Path, value: str, is_kept: bool) -> None:
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    for _ in range(2):  # the second time the head is a known one
        await rig.ask(ASKED, headers={NO_LOG: value})
    assert len(kept.records()) == 2 * is_kept


async def test_a_client_opts_out_by_store_false(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    await rig.ask(ASKED | {"store": False})
    await rig.ask(ASKED | {"store": True})
    assert len(kept.records()) == 1


async def test_a_share_of_them_is_kept(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path, [0.05, 0.1, 0.0, 0.99], share=0.1)
    for _ in range(4):
        await rig.ask(ASKED)
    assert len(kept.records()) == 2


async def test_only_named_models_are_kept_and_candidates_never(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(whole))
    rig.hold("support@aa", "m-0")
    rig.hold("support@bb", "m-0", is_candidate=True)
    rig.split("support", aa=1)
    rig.push()
    kept = Kept(rig, tmp_path, models=("support",))
    admin = {"authorization": f"Bearer {ADMIN_TOKEN.decode()}"}
    for model in ("m", "support", "support@aa", "support@bb"):
        assert (await rig.ask(ASKED | {"model": model}, headers=admin)).status_code == 200
    assert [found["model"] for found in kept.records()] == ["support", "support@aa"]


async def test_only_chats_are_kept(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    async with rig.client() as client:
        await client.post("/v1/completions", json={"model": "m", "prompt": "x"})
        await client.post("/v1/messages/count_tokens", json={"model": "m", "messages": []})
    assert kept.records() == []


async def test_failures_are_kept_with_their_reason(rig: Rig, tmp_path: Path) -> None:
    async def refuses(call: Call) -> None:
        await call.send_json(400, {"error": {"message": "no"}})

    await rig.start(StubEngine(dies, refuses))
    kept = Kept(rig, tmp_path)
    await rig.ask(ASKED | {"stream": True})
    await rig.ask(ASKED)
    cut, refused = kept.records()
    assert (cut["error"], cut["answer"]["content"], cut["finish_reason"]) == ("engine_reset", "I wi", None)
    assert (refused["status"], refused["answer"]) == (400, None)


async def test_a_client_that_leaves_is_kept_as_one(rig: Rig, tmp_path: Path) -> None:
    async def stalls(call: Call) -> None:
        await call.begin_stream()
        await call.send(chunk(said("I wi")))
        await call.gone.wait()

    await rig.start(StubEngine(stalls))
    kept = Kept(rig, tmp_path)
    async with (
        rig.client() as client,
        client.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as answer,
    ):
        await anext(answer.aiter_raw())
    await rig.settle()
    assert kept.records()[0]["error"] == "client_disconnected"


async def test_what_is_too_large_is_dropped_and_counted(rig: Rig, tmp_path: Path) -> None:
    async def long(call: Call) -> None:
        await call.begin_stream()
        for _ in range(4):
            await call.send(chunk(said("x" * (MAX_CONVERSATION_BYTES // 3))))
        await call.send(chunk(said("", "stop")) + chunk(LAST) + b"0\r\n\r\n")

    await rig.start(StubEngine(long, whole))
    kept = Kept(rig, tmp_path)
    answer = await rig.ask(ASKED | {"stream": True})
    assert len(answer.content) > MAX_CONVERSATION_BYTES
    await rig.ask(ASKED | {"messages": [{"role": "user", "content": "y" * MAX_CONVERSATION_BYTES}]})
    assert kept.records() == []
    assert kept.log.take_counts() == {"too_large": 2}


async def test_a_full_queue_drops_and_never_waits(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_QUEUED", 3)
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    blocked = asyncio.Event()
    loop, is_free = asyncio.get_running_loop(), [False]

    def slow(lines: bytes) -> None:
        loop.call_soon_threadsafe(blocked.set)
        while not is_free[0]:
            time.sleep(0.005)
        append(lines)

    append = kept.log._file.append
    monkeypatch.setattr(kept.log._file, "append", slow)
    await rig.ask(ASKED)
    await asyncio.wait_for(blocked.wait(), 5)
    begun = time.monotonic()
    for _ in range(8):
        assert (await rig.ask(ASKED)).status_code == 200
    assert time.monotonic() - begun < 2
    is_free[0] = True
    assert len(kept.records()) == 4
    assert kept.log.take_counts() == {"written": 4, "queue_full": 5}


async def test_many_bytes_fill_the_queue_too(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_QUEUED_BYTES", 10)
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    assert (await rig.ask(ASKED)).status_code == 200
    assert kept.records() == []
    assert kept.log.take_counts() == {"queue_full": 1}


async def test_a_disk_that_refuses_and_an_answer_that_is_none_are_counted(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def nonsense(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]")

    (tmp_path / "kept.jsonl").mkdir()
    await rig.start(StubEngine(nonsense, whole))
    kept = Kept(rig, tmp_path)
    for _ in range(2):
        assert (await rig.ask(ASKED)).status_code == 200
    kept.log.close()
    assert kept.log.take_counts() == {"unreadable": 1, "disk": 1}
    assert kept.log.take_counts() == {}
    assert not caplog.records


async def test_a_bug_of_ours_ends_neither_request_nor_log(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(conversations, "transcript", broken)
        assert (await rig.ask(ASKED)).status_code == 200
        for _ in range(200):
            if kept.log._num_out:
                break
            await asyncio.sleep(0.01)
    await rig.ask(ASKED)
    assert len(kept.records()) == 1
    assert kept.log.take_counts() == {"unreadable": 1, "written": 1}
    assert "KeyError" in caplog.text


async def test_outcomes_are_a_metric(rig: Rig, tmp_path: Path) -> None:
    await rig.start(StubEngine(whole))
    kept = Kept(rig, tmp_path)
    await rig.ask(ASKED)
    for _ in range(200):
        rig.relay.flush()
        if kept.log._num_out:
            break
        await asyncio.sleep(0.01)
    rig.relay.flush()
    async with rig.client() as client:
        page = (await client.get("/metrics")).text
    kept.records()
    assert "forgegate_conversations" in {row.name for row in TABLE}
    assert 'forgegate_conversations_total{outcome="written"} 1.0' in page


def test_a_tap_holds_references_and_lets_go_of_what_is_too_large() -> None:
    written: list[bytes] = []
    tap = Tap(b"q")
    write = tap.writing(written.append, b"a")
    write(b"b")
    assert (written, tap.content(), tap.is_too_large) == ([b"b"], (b"q", b"ab"), False)
    write(b"x" * MAX_CONVERSATION_BYTES)
    assert tap.is_too_large
    assert tap.content() == (b"", b"")
    write(b"c")
    assert tap.content() == (b"", b"")
