"""One table: what failed -> whose fault it is, whether another replica may be tried, whether control should look.

Only failures that prove that the engine has not produced anything may be retried, and only before the first byte went
to the client. An engine that does not hold an adapter says so before it computes anything, and whatever one that has died had
computed is lost. A time-out proves nothing: the
engine may be computing the answer, and a second copy of the work on another replica turns one slow engine into a slow
fleet. A client's mistake (4xx) never counts against an engine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gateway import errors
from gateway.errors import GatewayError


class Fault(enum.Enum):
    """Who has to change something."""

    CLIENT = "client"
    ENGINE = "engine"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class FailureClass:
    """What the data path does about a failure."""

    fault: Fault
    can_retry: bool = False
    """On another ready replica, before the first byte; for an adapter also on one that has yet to load it."""
    tells_control: bool = False
    """An `EngineTrouble` goes out, so that control probes now."""


_CLIENT = FailureClass(Fault.CLIENT)
_ENGINE = FailureClass(Fault.ENGINE)
_ENGINE_LOST = FailureClass(Fault.ENGINE, can_retry=True, tells_control=True)
_ENGINE_SUSPECT = FailureClass(Fault.ENGINE, tells_control=True)
_GATEWAY = FailureClass(Fault.GATEWAY)

BY_ERROR: dict[type[GatewayError], FailureClass] = {
    errors.InternalError: _GATEWAY,
    errors.ControlUnreachable: _GATEWAY,
    errors.BadRequest: _CLIENT,
    errors.MalformedHttp: _CLIENT,
    errors.Unauthorized: _CLIENT,
    errors.Forbidden: _CLIENT,
    errors.NotFound: _CLIENT,
    errors.ModelNotFound: _CLIENT,
    errors.MethodNotAllowed: _CLIENT,
    errors.RequestTimeout: _CLIENT,
    errors.Conflict: _CLIENT,
    errors.BodyTooLarge: _CLIENT,
    errors.TooManyRequests: _CLIENT,
    errors.HeadTooLarge: _CLIENT,
    errors.ClientGone: _CLIENT,
    errors.EngineFailed: _ENGINE_SUSPECT,
    errors.ConnectFailed: _ENGINE_LOST,
    errors.EngineReset: _ENGINE_LOST,
    errors.EngineDied: _ENGINE_LOST,
    errors.BadAnswer: _ENGINE_SUSPECT,
    errors.StreamFailed: _ENGINE_SUSPECT,
    errors.NoEngineReady: _ENGINE,
    errors.AdapterNotReady: _ENGINE,
    errors.AdapterAbsent: _ENGINE_LOST,
    errors.EngineTimeout: _ENGINE_SUSPECT,
    # A connect time-out proves that no byte of the request left, yet it is not retried: the client has already waited
    # connect_s, and a black-holed host is for control to take out.
    errors.ConnectTimeout: _ENGINE_SUSPECT,
    errors.FirstByteTimeout: _ENGINE_SUSPECT,
    errors.IdleTimeout: _ENGINE_SUSPECT,
    errors.TotalTimeout: _ENGINE,
}
"""Every concrete class of `gateway.errors`; a test holds the two together."""
_BY_CODE = {error.code: failure for error, failure in BY_ERROR.items()}


def of_error(error: GatewayError) -> FailureClass:
    """Return the class of a failure that the gateway itself saw."""
    return BY_ERROR[type(error)]


def of_status(status: int) -> FailureClass | None:
    """Return the class of an answer that an engine gave whole, None where it is no failure.

    Such answers are passed through unchanged, so none is retried, but for the 404 that means `AdapterAbsent` and the 500 that
    means `EngineDied`. 429 and 503 are the engine saying that it is full, which must reach the client with its retry-after;
    any other 500 may have cost a whole prefill.
    """
    if status < 400:
        return None
    if status < 500:
        return _CLIENT
    return _ENGINE


def is_engines(status: int, code: str) -> bool:
    """Return whether a request ended by an engine's fault; `code` is that of the failure, empty where an answer was passed on whole."""
    failure = _BY_CODE.get(code) if code else of_status(status)
    return failure is not None and failure.fault is Fault.ENGINE
