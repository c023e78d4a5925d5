"""The OpenAI wire contract: the error object, server-sent events, and the pieces of chat and completion answers.

Shapes follow https://platform.openai.com/docs/api-reference. Engines of ours write them, tests and clients read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "engine_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


def error_type(status: int) -> str:
    """The error object's `type` for an HTTP status: one vocabulary for the gateway and its engines."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "internal_error")


def error_object(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The error envelope: `{"error": {"message", "type", "param", "code"}}`."""
    return {"error": {"message": message, "type": error_type(status), "param": param, "code": code}}


def sse(event: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def named_sse(event: Mapping[str, Any]) -> bytes:
    """One server-sent event with its `type` as its name."""
    return b"event: %b\n%b" % (event["type"].encode(), sse(event))


def parse_sse(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON events of a complete stream, without the closing `[DONE]`."""
    for line in body.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield orjson.loads(line[6:])


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int, reasoning_tokens: int = 0) -> dict[str, Any]:
    """The `usage` object; `cached_tokens` of the prompt were found in the prefix cache."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def choice_event(head: bytes, index: int, body: bytes, finish_reason: str | None) -> bytes:
    """A chunk with one choice, put together from encoded parts: this is made once per token.

    `head` is `event_head(...)`; `body` is the encoded `"delta": ...` or `"text": ...` members.
    """
    reason = b"null" if finish_reason is None else b'"%b"' % finish_reason.encode()
    return b'%b"choices":[{"index":%d,%b,"finish_reason":%b}]}\n\n' % (head, index, body, reason)


def event_head(identity: str, kind: str, created: int, model: str) -> bytes:
    """The constant beginning of every chunk of one answer, up to its `choices`."""
    fields = orjson.dumps({"id": identity, "object": kind, "created": created, "model": model})
    return b"data: " + fields[:-1] + b","
