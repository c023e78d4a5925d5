"""Every way in which a request can fail, and the one place where a failure becomes bytes.

    GatewayError
    |- RequestError                    the client's to mend
    |  |- BadRequest            400    MalformedHttp (the connection is closed)
    |  |- Unauthorized          401
    |  |- Forbidden             403
    |  |- NotFound              404    ModelNotFound (names what exists)
    |  |- MethodNotAllowed      405
    |  |- RequestTimeout        408
    |  |- Conflict              409
    |  |- BodyTooLarge          413
    |  |- TooManyRequests       429    + retry-after
    |  |- HeadTooLarge          431
    |  `- ClientGone            499    logged only: nobody is left to answer
    |- EngineError                     an engine's, or what lies between
    |  |- EngineFailed          502    ConnectFailed, EngineReset, EngineDied, BadAnswer, StreamFailed
    |  |- NoEngineReady         503    AdapterNotReady, AdapterAbsent; + retry-after
    |  `- EngineTimeout         504    ConnectTimeout, FirstByteTimeout, IdleTimeout, TotalTimeout
    |- ControlUnreachable       503    the admin API does not answer a worker; + retry-after
    `- InternalError            500    a bug of ours

Each is answered in the dialect of the path that was asked (`backends.dialects`), with the `type` that belongs to its status,
so that the SDKs of either vendor turn it into their exceptions. `gateway.failures` says for each whose fault it is and what may
be done about it.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import ClassVar

from backends import dialects
from backends.dialects import Dialect


class GatewayError(Exception):
    """Base: `message` is meant for the client."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InternalError(GatewayError):
    """A bug of ours, answered without its details."""


class ControlUnreachable(GatewayError):
    """A call for the admin API could not be passed on to it, or got no answer."""

    status = 503
    code = "control_unreachable"


class RequestError(GatewayError):
    """The request cannot be served as it is."""

    status = 400
    code = "bad_request"


class BadRequest(RequestError):
    """The body or a field of it is wrong; `param` names the field."""

    code = "invalid_request"


class MalformedHttp(BadRequest):
    """The bytes are no HTTP/1.1 request; where the next one would start is unknown, so the connection ends."""

    code = "malformed_http"


class Unauthorized(RequestError):
    """No API key, or none that is known."""

    status = 401
    code = "invalid_api_key"


class Forbidden(RequestError):
    """A known key that may not do this."""

    status = 403
    code = "forbidden"


class NotFound(RequestError):
    """No such path, or the model does not serve it."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model; the message lists those that exist."""

    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, for another method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The client was too slow in sending its request."""

    status = 408
    code = "request_timeout"


class Conflict(RequestError):
    """It contradicts the state that things are in."""

    status = 409
    code = "conflict"


class BodyTooLarge(RequestError):
    """More bytes than `Snapshot.max_body_bytes`."""

    status = 413
    code = "body_too_large"


class TooManyRequests(RequestError):
    """Refused for now; `retry_after_s` says how long."""

    status = 429
    code = "rate_limit_exceeded"


class HeadTooLarge(RequestError):
    """Request line and headers above the limit."""

    status = 431
    code = "headers_too_large"


class ClientGone(RequestError):
    """The client closed its connection before the answer was complete."""

    status = 499
    code = "client_disconnected"


class EngineError(GatewayError):
    """The engine, or the way to it, failed."""

    status = 502
    code = "engine_failed"


class EngineFailed(EngineError):
    """The engine did not give a whole answer."""


class ConnectFailed(EngineFailed):
    """The engine's port could not be reached: refused, unroutable, TLS."""

    code = "engine_unreachable"


class EngineReset(EngineFailed):
    """The engine closed the connection in the middle."""

    code = "engine_reset"


class EngineDied(EngineFailed):
    """The engine's server says that what computes behind it is gone."""

    code = "engine_died"


class BadAnswer(EngineFailed):
    """The engine's bytes are no HTTP/1.1 response."""

    code = "engine_bad_answer"


class StreamFailed(EngineFailed):
    """The engine ended a stream with an error event of its own, which is kept in `event`."""

    code = "stream_failed"
    event: bytes = b""


class NoEngineReady(EngineError):
    """No replica takes requests now; `retry_after_s` says when one may."""

    status = 503
    code = "no_engine_ready"


class AdapterNotReady(NoEngineReady):
    """No engine holds the adapter: none will, or none did in time, or too many requests wait already."""

    code = "adapter_not_ready"


class AdapterAbsent(NoEngineReady):
    """The engine that was said to hold the adapter does not know it: freed meanwhile, or restarted."""

    code = "adapter_absent"


class EngineTimeout(EngineError):
    """A phase of the request took longer than its limit."""

    status = 504
    code = "engine_timeout"


class ConnectTimeout(EngineTimeout):
    """`Timeouts.connect_s` passed."""

    code = "connect_timeout"


class FirstByteTimeout(EngineTimeout):
    """`Timeouts.first_byte_s` passed."""

    code = "first_byte_timeout"


class IdleTimeout(EngineTimeout):
    """`Timeouts.idle_s` passed between two pieces of the answer."""

    code = "idle_timeout"


class TotalTimeout(EngineTimeout):
    """`Timeouts.total_s` passed."""

    code = "total_timeout"


def status_line(status: int) -> bytes:
    """Return `HTTP/1.1 404 Not Found` with its line end; 499 and other unknown numbers get a generic phrase."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode())


def envelope(error: GatewayError, dialect: Dialect = Dialect.OPENAI, request_id: str = "") -> bytes:
    """Return the JSON body of `error`."""
    return dialects.error_body(
        dialect, error.status, error.message, param=error.param, code=error.code, request_id=request_id
    )


def sse_event(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """Return `error` as one server-sent event, for a stream that has already begun."""
    return dialects.error_event(
        dialect, error.status, error.message, param=error.param, code=error.code, request_id=request_id
    )


def headers(error: GatewayError) -> dict[str, str]:
    """Return the headers that belong to `error` whoever renders it."""
    answer = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        answer["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        answer["www-authenticate"] = "Bearer"
    return answer


def id_headers(dialect: Dialect, request_id: str) -> dict[str, str]:
    """Return the headers that tell a client its request's id; the anthropic SDK looks for a name of its own."""
    ids = {"x-request-id": request_id}
    if dialect is Dialect.MESSAGES:
        ids["request-id"] = request_id
    return ids


def render(
    error: GatewayError,
    dialect: Dialect,
    request_id: str,
    *,
    is_keep_alive: bool,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Return `error` as a whole HTTP/1.1 response, with the `extra` headers (engine, model)."""
    body = envelope(error, dialect, request_id)
    lines = {**headers(error), **id_headers(dialect, request_id), **(extra or {}), "content-length": str(len(body))}
    if not is_keep_alive:
        lines["connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return status_line(error.status) + head.encode("latin-1") + b"\r\n" + body
