"""What was asked and answered, from relayed bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from backends import personal
from backends.protocol import DONE, named_sse, sse
from gateway.accesslog import AccessLine
from gateway.data.chatform.message import Unreadable
from gateway.data.transcript import transcript
from tests.gateway.data import vllm_wire
from tests.gateway.data.rig import chunk

LINE = AccessLine(
    time=5.0, request_id="r1", client="", method="POST", path="/v1/chat/completions", model="m", resolved="m@0", status=200,
    duration_ms=1.0, key="app",
)  # fmt: skip
HELLO = {"messages": [{"role": "user", "content": "안녕하세요"}], "model": "m", "temperature": 0}
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}


def at(path: str) -> AccessLine:
    """Of another API."""
    return msgspec.structs.replace(LINE, path=path)


def delta(finish_reason: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return sse({"choices": [{"index": index, "delta": fields, "finish_reason": finish_reason}]})


def record(request: dict[str, Any], answer: bytes, line: AccessLine = LINE, **rest: Any) -> dict[str, Any]:
    found = transcript(orjson.dumps(request), answer, line, rest.get("mask"))
    assert found is not None
    return found


def test_a_whole_answer() -> None:
    assert record(HELLO, orjson.dumps(WHOLE)) == {
        "format": "forgegate-conversation", "format_version": 1, "time": 5.0, "request_id": "r1", "path": "/v1/chat/completions",
        "model": "m", "resolved": "m@0", "key": "app", "status": 200, "error": "", "finish_reason": "stop", "is_masked": False,
        "messages": HELLO["messages"], "answer": {"role": "assistant", "content": "Hi"},
    }  # fmt: skip


STREAM = [delta(role="assistant", content=""), delta(content="안녕"), delta(content="\n\nhi"), delta("stop"), DONE]


@pytest.mark.parametrize(
    "body",
    [
        b"".join(STREAM),
        b"".join(map(chunk, STREAM)) + b"0\r\n\r\n",
        chunk(b"".join(STREAM)) + b"0\r\n\r\n",
        b"".join(STREAM).replace(b"\n\n", b"\r\n\r\n"),
        b": a comment\n\n" + b"".join(STREAM),
    ],
    ids=["plain", "chunks", "one chunk", "line ends", "comment"],
)
def test_a_stream_is_put_together(body: bytes) -> None:
    found = record(HELLO, body)
    assert found["answer"] == {"role": "assistant", "content": "안녕\n\nhi"}
    assert found["finish_reason"] == "stop"


def test_chunks_may_end_anywhere() -> None:
    whole = b"".join(STREAM)
    body = b"".join(chunk(whole[at : at + 7]) for at in range(0, len(whole), 7)) + b"0\r\n\r\n"
    assert record(HELLO, body)["answer"]["content"] == "안녕\n\nhi"


def test_calls_of_tools_are_put_together() -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments} | ({"name": more["name"]} if more else {}), **more}

    body = b"".join([
        delta(tool_calls=[call(0, '{"ci', id="a", name="weather")]), delta(tool_calls=[call(1, "{}", id="b", name="time")]),
        delta(tool_calls=[call(0, 'ty": "서울"}')]), delta("tool_calls"),
    ])  # fmt: skip
    tools = [{"type": "function", "function": {"name": "weather"}}]
    found = record(HELLO | {"tools": tools}, body)
    assert found["tools"] == tools
    assert found["finish_reason"] == "tool_calls"
    assert found["answer"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "서울"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]


def test_of_several_answers_the_first_is_taken() -> None:
    body = delta(content="B", index=1) + delta(content="A") + delta("stop") + delta("length", index=1)
    assert (record(HELLO, body)["answer"]["content"], record(HELLO, body)["finish_reason"]) == ("A", "stop")


def test_one_that_was_cut_has_no_reason() -> None:
    found = record(HELLO, chunk(delta(content="Half an ans")) + chunk(delta(content="wer"))[:-20])
    assert found["answer"]["content"] == "Half an ans"
    assert found["finish_reason"] is None


def test_an_error_event_is_no_answer() -> None:
    assert record(HELLO, sse({"error": {"message": "gone"}}))["answer"] is None
    found = record(HELLO, delta(content="Half") + sse({"error": {"message": "gone"}}))
    assert (found["answer"]["content"], found["finish_reason"]) == ("Half", None)
    assert record(HELLO, b"")["answer"] is None
    assert record(HELLO, orjson.dumps({"error": {"message": "no"}}))["answer"] is None


def test_texts_are_masked_wherever_they_stand() -> None:
    phone = "010-1234-5678"
    messages = [{"role": "user", "content": [{"type": "text", "text": f"제 번호는 {phone}"}]}]
    answer = {
        "role": "assistant",
        "content": f"{phone}, 맞나요?",
        "tool_calls": [{"function": {"arguments": f'"{phone}"'}}],
    }
    body = orjson.dumps({"choices": [{"index": 0, "message": answer, "finish_reason": "stop"}]})
    found = record({"messages": messages}, body, mask=personal.mask)
    assert found["is_masked"]
    assert phone not in orjson.dumps(found).decode()
    assert found["messages"][0]["content"][0]["text"] == "제 번호는 [PHONE]"
    assert found["answer"]["content"] == "[PHONE], 맞나요?"
    assert phone in orjson.dumps(record({"messages": messages}, body)).decode()


def test_what_is_not_to_be_stored_is_not() -> None:
    assert transcript(orjson.dumps(HELLO | {"store": False}), orjson.dumps(WHOLE), LINE, None) is None


@pytest.mark.parametrize(
    ("request_body", "answer"),
    [
        (b"[1]", b"{}"),
        (b'{"prompt": "x"}', b"{}"),
        (orjson.dumps(HELLO), b"{]"),
        (orjson.dumps(HELLO), b"5\r\n12"),
        (orjson.dumps(HELLO), b"data: {]\n\n"),
        (orjson.dumps(HELLO), delta(tool_calls=[{"id": "a"}])),
    ],
)
def test_the_rest_is_unreadable(request_body: bytes, answer: bytes) -> None:
    if answer.startswith(b"5\r\n"):
        assert transcript(request_body, answer, LINE, None)["answer"] is None  # type: ignore[index] - cut within the first chunk
        return
    with pytest.raises(Unreadable):
        transcript(request_body, answer, LINE, None)


def test_other_apis_are_kept_in_the_same_form() -> None:
    asked = {"model": "m", "input": "안녕하세요", "instructions": "Be brief."}
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}]
    responses = record(asked, orjson.dumps({"status": "completed", "output": output}), at("/v1/responses"))
    told = {"model": "m", "system": "Be brief.", "messages": HELLO["messages"], "max_tokens": 9}
    events = [
        {"type": "message_start", "message": {}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"},
    ]  # fmt: skip
    messages = record(told, b"".join(map(chunk, map(named_sse, events))) + b"0\r\n\r\n", at("/v1/messages"))
    chat = record({"messages": [{"role": "system", "content": "Be brief."}, *HELLO["messages"]]}, orjson.dumps(WHOLE))
    assert chat == messages | {"path": chat["path"]} == responses | {"path": chat["path"]}


def test_what_real_engines_send_until_they_die_is_read() -> None:
    asked = {"model": "m", "messages": HELLO["messages"]}
    cut = record(
        asked, b"".join(map(chunk, (*vllm_wire.MESSAGES_EVENTS, vllm_wire.MESSAGES_DEATH_EVENT))), at("/v1/messages")
    )
    assert (cut["answer"], cut["finish_reason"]) == ({"role": "assistant", "content": ""}, None)
    cut = record(
        {"input": "x"}, b"".join(map(chunk, (*vllm_wire.RESPONSES_EVENTS, vllm_wire.DEATH_EVENT))), at("/v1/responses")
    )
    assert (cut["answer"], cut["finish_reason"]) == ({"role": "assistant", "content": "The"}, None)
    assert record(asked, vllm_wire.MESSAGES_DEATH, at("/v1/messages"))["answer"] is None
    assert record({"input": "x"}, vllm_wire.DEATH, at("/v1/responses"))["answer"] is None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_store_false_holds_for_every_api(path: str) -> None:
    assert transcript(orjson.dumps({"input": "x", "messages": [], "store": False}), b"", at(path), None) is None
