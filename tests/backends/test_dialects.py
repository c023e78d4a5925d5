"""Failures in every dialect."""

from __future__ import annotations

import orjson
import pytest

from backends.dialects import Dialect, dialect_of, error_body, error_event, error_type, has_last_event

MESSAGES_TYPES = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
    "rate_limit_error", "api_error", "overloaded_error", "timeout_error",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/messages", Dialect.MESSAGES),
        ("/v1/messages/count_tokens", Dialect.MESSAGES),
        ("/v1/messages2", Dialect.OPENAI),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/responses/resp_1/cancel", Dialect.RESPONSES),
        ("", Dialect.OPENAI),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


def test_every_status_has_a_type_that_the_dialect_knows() -> None:
    statuses = (400, 401, 403, 404, 405, 408, 413, 429, 431, 500, 502, 503, 504, 529)
    found = {error_type(Dialect.MESSAGES, status) for status in statuses}
    assert found == MESSAGES_TYPES
    assert error_type(Dialect.RESPONSES, 502) == error_type(Dialect.OPENAI, 502) == "engine_error"


def test_bodies() -> None:
    fields = {"message": "no ü", "param": "model", "code": "x"}
    for dialect in (Dialect.OPENAI, Dialect.RESPONSES):
        body = error_body(dialect, 404, "no ü", param="model", code="x", request_id="r")
        assert orjson.loads(body) == {"error": {**fields, "type": "not_found_error"}}
    body = error_body(Dialect.MESSAGES, 413, "no ü", param="model", code="x", request_id="r")
    error = {**fields, "type": "request_too_large"}
    assert orjson.loads(body) == {"type": "error", "error": error, "request_id": "r"}
    assert orjson.loads(error_body(Dialect.MESSAGES, 500, "m"))["request_id"] is None


@pytest.mark.parametrize("dialect", Dialect)
def test_events_are_one_event_whose_data_is_one_line(dialect: Dialect) -> None:
    event = error_event(dialect, 502, "gone\n\n", code="engine_reset", request_id="r", sequence_number=7)
    *name, data, end, nothing = event.split(b"\n")
    assert (end, nothing) == (b"", b"")
    assert name == ([] if dialect is Dialect.OPENAI else [b"event: error"])
    fields = orjson.loads(data.removeprefix(b"data: "))
    assert fields["error"]["message"] == "gone\n\n"
    if dialect is Dialect.RESPONSES:
        own = {key: fields[key] for key in ("type", "code", "message", "param", "sequence_number")}
        assert own == {
            "type": "error", "code": "engine_reset", "message": "gone\n\n", "param": None, "sequence_number": 7,
        }  # fmt: skip
        assert b"sequence_number" not in error_event(dialect, 502, "gone")
    else:
        assert fields == orjson.loads(error_body(dialect, 502, "gone\n\n", code="engine_reset", request_id="r"))


@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        (Dialect.OPENAI, b"data: [DONE]\n\n"),
        (Dialect.OPENAI, b'5\r\ndata: {"x":1}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n'),
        (Dialect.OPENAI, b"data:[DONE]\r\n\r\n"),
        (Dialect.RESPONSES, b"event: response.completed\ndata: {}\n\n"),
        (Dialect.RESPONSES, b"30\r\nevent: response.incomplete\r\ndata: {}\r\n\r\n"),
        (Dialect.RESPONSES, b"event: response.failed\ndata: {}\n\n"),
        (Dialect.MESSAGES, b"2a\r\nevent: message_stop\ndata: {}\n\n\r\n"),
        *((dialect, error_event(dialect, 500, "the engine's own")) for dialect in Dialect),
    ],
)
def test_last_events_are_known(dialect: Dialect, data: bytes) -> None:
    assert has_last_event(dialect, data)
    others = [other for other in Dialect if other is not dialect and b"error" not in data]
    assert not any(has_last_event(other, data) for other in others)


@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        (Dialect.OPENAI, b'data: {"content":"data: [DONE]"}\n\n'),
        (Dialect.OPENAI, b'data: {"choices":[{"delta":{"content":"{\\"error\\":"}}]}\n\n'),
        (Dialect.OPENAI, orjson.dumps({"content": "\ndata: [DONE]\n\n"})),
        (Dialect.RESPONSES, b"event: response.output_text.delta\ndata: {}\n\n"),
        (Dialect.RESPONSES, b"event: response.completed_maybe\ndata: {}\n\n"),
        (Dialect.MESSAGES, b'event: message_delta\ndata: {"text":"event: message_stop"}\n\n'),
        (Dialect.MESSAGES, b""),
    ],
)
def test_what_only_looks_like_one(dialect: Dialect, data: bytes) -> None:
    assert not has_last_event(dialect, data)
