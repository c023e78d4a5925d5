"""What was asked and answered, from relayed bytes."""

from __future__ import annotations

import json
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


PHONE, KEY, MAIL = "010-1234-5678", "ghp_abcdefghijklmnopqrstuvwxyz012345", "jane.doe@example.com"
PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages"]


def calling(path: str, arguments: str) -> tuple[dict[str, Any], bytes]:
    """A request in whose history a tool is called so, and an answer that calls it so once more."""
    if path == "/v1/responses":
        item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
        return {"input": [item]}, orjson.dumps({"status": "completed", "output": [item]})
    if path == "/v1/messages":
        use = {"type": "tool_use", "id": "c", "name": "f", "input": orjson.loads(arguments)}
        answer = {"type": "message", "content": [use], "stop_reason": "tool_use"}
        return {"messages": [{"role": "assistant", "content": [use]}]}, orjson.dumps(answer)
    said = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}],
    }
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    return {"messages": [said]}, orjson.dumps({"choices": [choice]})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"to": f"\n{PHONE}"}, {"to": "\n[PHONE]"}),
        ({"key": f"\t{KEY}"}, {"key": "\t[SECRET]"}),
        ({"mail": f'\n{MAIL} "x"'}, {"mail": '\n[EMAIL] "x"'}),
        ({"all": [{"of": f"\\{PHONE}"}, 7, None, True, 1.5]}, {"all": [{"of": "\\[PHONE]"}, 7, None, True, 1.5]}),
        ({"body": orjson.dumps({"to": f"\n{PHONE}"}).decode()}, {"body": '{"to":"\\n[PHONE]"}'}),
        ({"card": 4111111111111111, "num": 2}, {"card": "[CARD]", "num": 2}),
        ({"order": "5", "to": "110-123-456789"}, {"order": "5", "to": "[ACCOUNT]"}),
        ({"account": "110123456789"}, {"account": "[ACCOUNT]"}),
        ({"account": 110123456789, "num": 2}, {"account": "[ACCOUNT]", "num": "2"}),
        ({"note": "\nsupport@example.com", "bank": "우리은행", "to": 1101234567890},
         {"note": "\nsupport@example.com", "bank": "우리은행", "to": "[ACCOUNT]"}),
        ({MAIL: "a", f"\n{MAIL}": "b"}, {"[EMAIL]": "a", "\n[EMAIL]": "b"}),
        ({"city": "서울"}, {"city": "서울"}),
    ],
)  # fmt: skip
def test_arguments_of_calls_are_masked_by_what_they_mean_and_stay_json(path: str, given: Any, kept: Any) -> None:
    for arguments in (orjson.dumps(given).decode(), json.dumps(given)):  # the latter without a letter that is not ASCII
        found = record(*calling(path, arguments), at(path), mask=personal.mask)
        for message in (found["messages"][0], found["answer"]):
            assert orjson.loads(message["tool_calls"][0]["function"]["arguments"]) == kept


@pytest.mark.parametrize("path", PATHS[:2])
def test_arguments_that_are_no_json_are_masked_as_text(path: str) -> None:
    for arguments in (f'{{"to": "\\n{PHONE}, \\t{KEY}', f"{PHONE}, \n{KEY}"):
        found = record(*calling(path, arguments), at(path), mask=personal.mask)
        for message in (found["messages"][0], found["answer"]):
            kept = message["tool_calls"][0]["function"]["arguments"]
            assert kept == arguments.replace(PHONE, "[PHONE]").replace(KEY, "[SECRET]")


def test_half_of_a_surrogate_pair_in_arguments_can_be_written() -> None:
    found = record(*calling(PATHS[0], f'{{"to": "\\ud83d \\n{PHONE}"}}'), mask=personal.mask)
    assert (
        orjson.loads(orjson.dumps(found))["answer"]["tool_calls"][0]["function"]["arguments"]
        == '{"to": "? \\n[PHONE]"}'
    )


def test_arguments_of_a_streamed_call_are_masked_alike() -> None:
    events = [
        {"type": "message_start", "message": {}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in ('{"to": "\\', "n010-12", '34-5678"}')
        ),
    ]
    for given in (events, events[:-1]):
        found = record({"messages": []}, b"".join(map(named_sse, given)), at("/v1/messages"), mask=personal.mask)
        (call,) = found["answer"]["tool_calls"]
        assert PHONE not in call["function"]["arguments"]
    pieces = [
        delta(tool_calls=[{"index": 0, "function": {"arguments": each}}]) for each in ('{"to": "\\', f'n{PHONE}"}}')
    ]
    found = record(HELLO, b"".join(pieces), mask=personal.mask)
    assert found["answer"]["tool_calls"][0]["function"]["arguments"] == '{"to": "\\n[PHONE]"}'


def test_a_custom_tool_s_text_is_masked() -> None:
    item = {"type": "custom_tool_call", "call_id": "c", "name": "python", "input": f"print('\\n{PHONE}')"}
    answer = orjson.dumps({"status": "completed", "output": [item]})
    found = record({"input": [item]}, answer, at("/v1/responses"), mask=personal.mask)
    for message in (found["messages"][0], found["answer"]):
        assert message["tool_calls"][0]["custom"]["input"] == "print('\\n[PHONE]')"


TOKEN = "q7Vd0Zr3opaqueJ1xW"  # of no form that a pattern knows
MCP = {
    "type": "mcp", "server_label": "crm", "server_url": f"https://crm.example/{TOKEN}", "authorization": TOKEN, "name": "crm",
    "headers": {"x-api-key": TOKEN}, "description": "Customers", "parameters": {"type": "object"}, "require_approval": {"k": TOKEN},
    "allowed_tools": [TOKEN], "custom": TOKEN, "function": {"name": TOKEN},
}  # fmt: skip
BARE = {
    "type": "mcp", "server_label": "crm", "name": "crm", "description": "Customers", "parameters": {"type": "object"},
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mask", [None, personal.mask])
def test_how_a_tool_is_reached_never_gets_into_the_log(path: str, mask: Any) -> None:
    odd = {"type": "mcp", "name": {"key": TOKEN}, "parameters": TOKEN}
    asked = {
        "input": "x", "messages": [], "tools": [MCP, odd, TOKEN], "mcp_servers": [{"url": "u", "authorization_token": TOKEN}],
        "tool_choice": {"type": "mcp", "server_label": "crm", "authorization": TOKEN},
    }  # fmt: skip
    found = record(asked, b"", at(path), mask=mask)
    assert found["tools"] == [BARE, {"type": "mcp"}, {}]
    assert found["tool_choice"] in ("mcp", {"type": "mcp", "server_label": "crm"})
    assert TOKEN.encode() not in orjson.dumps(found)


def test_of_several_tools_to_choose_from_the_names_are_kept() -> None:
    tools = [{"type": "function", "name": "f"}, MCP]
    found = record(
        {"input": "x", "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": tools}},
        b"",
        at("/v1/responses"),
    )
    assert found["tool_choice"] == {
        "type": "allowed_tools", "mode": "auto",
        "tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "crm", "name": "crm"}],
    }  # fmt: skip
    chosen = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    }
    assert record(HELLO | {"tool_choice": chosen}, b"")["tool_choice"] == chosen
    custom = {"type": "custom", "custom": {"name": "python"}}
    asked = HELLO | {
        "tools": [{"type": "custom", "custom": {"name": "python", "description": "d", "format": TOKEN}}],
        "tool_choice": custom,
    }
    found = record(asked, b"")
    assert found["tools"] == [{"type": "custom", "custom": {"name": "python", "description": "d"}}]
    assert found["tool_choice"] == custom


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
