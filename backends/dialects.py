"""How a failure looks in each API that clients speak here.

                 HTTP body                                           event of a stream that has begun
    OPENAI       {"error": {message, type, param, code}}             data: the same
    RESPONSES    the same                                            event: error, data: {"type": "error", code, message,
                                                                     param, "error": {...}}
    MESSAGES     {"type": "error", "error": {type, message, param,   event: error, data: the same
                 code}, "request_id"}

RESPONSES needs both forms in its event: the API's own fields, and the `error` object on which the openai SDK raises. The
anthropic SDK raises on the event's name, reads `error.type` and `error.message`, and leaves other members alone. Shapes:
https://platform.openai.com/docs/api-reference/responses-streaming/error, https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import orjson

from backends import protocol


class Dialect(enum.Enum):
    """An API; which one a request speaks is told by its path."""

    OPENAI = "openai"
    RESPONSES = "responses"
    MESSAGES = "messages"


_MESSAGES_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# At the beginning of a line: inside of JSON a line end is escaped, so that no text of a model can look like one.
_LAST_EVENTS = {
    Dialect.OPENAI: re.compile(rb'^data: ?(?:\[DONE\]\r?$|\{"error":)', re.MULTILINE),
    Dialect.RESPONSES: re.compile(rb"^event: ?(?:response\.(?:completed|failed|incomplete)|error)\r?$", re.MULTILINE),
    Dialect.MESSAGES: re.compile(rb"^event: ?(?:message_stop|error)\r?$", re.MULTILINE),
}


def dialect_of(path: str) -> Dialect:
    """The API to which a URL's path belongs; whatever is none of the others' speaks OpenAI's."""
    if _is_under(path, "/v1/messages"):
        return Dialect.MESSAGES
    if _is_under(path, "/v1/responses"):
        return Dialect.RESPONSES
    return Dialect.OPENAI


def error_type(dialect: Dialect, status: int) -> str:
    """The error object's `type` for an HTTP status."""
    if dialect is Dialect.MESSAGES:
        return _MESSAGES_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return protocol.error_type(status)


def error_body(
    dialect: Dialect,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    request_id: str = "",
) -> bytes:
    """The JSON body of an HTTP error. `request_id` appears where the dialect has a place for it."""
    return orjson.dumps(_body(dialect, status, message, param, code, request_id))


def error_event(
    dialect: Dialect,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    request_id: str = "",
    sequence_number: int | None = None,
) -> bytes:
    """The failure as the last event of a stream; `sequence_number` is for RESPONSES, where the sender counts events."""
    body = _body(dialect, status, message, param, code, request_id)
    if dialect is Dialect.OPENAI:
        return protocol.sse(body)
    if dialect is Dialect.RESPONSES:
        number = {} if sequence_number is None else {"sequence_number": sequence_number}
        body = {"type": "error", "code": code, "message": message, "param": param, **number, **body}
    return b"event: error\n" + protocol.sse(body)


def has_last_event(dialect: Dialect, data: bytes) -> bool:
    """Whether stream bytes that begin at a line (chunk framing may be among them) hold the event that ends an answer.

    The client of such a stream has its whole answer, however the connection ends.
    """
    return _LAST_EVENTS[dialect].search(data) is not None


def _body(
    dialect: Dialect, status: int, message: str, param: str | None, code: str | None, request_id: str
) -> dict[str, Any]:
    error = {"message": message, "type": error_type(dialect, status), "param": param, "code": code}
    if dialect is not Dialect.MESSAGES:
        return {"error": error}
    return {"type": "error", "error": error, "request_id": request_id or None}


def _is_under(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
