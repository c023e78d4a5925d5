"""How a request ended, as its client sees it: a strict verdict, by the rules of each API."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from benchmarks.http1 import Exchange
from benchmarks.record import Failure, FailureKind
from benchmarks.sse import Event, EventParser

_ERROR_FIELDS = {"message", "type", "param", "code"}


class Ending(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    """Whole, with the reason why it ended; a stream with its API's last event after that."""
    ERROR_EVENT = "error event"
    """A started stream whose last event is its only error event."""
    HTTP_ERROR = "HTTP error"
    """A whole error object."""
    CUT = "cut with its worker"
    """No valid end; allowed only where the worker that held the connection was killed."""
    CANCELLED = "cancelled by the client"
    VIOLATION = "violation"
    """Anything else: a second terminal event, none, a hang, a cut without cause, a refused connection."""


Verdict = tuple[Ending, str]
"""The ending, and the error's code or what is wrong."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API's rules. Streamed events are JSON objects, but for a bare `[DONE]`, which is read as `{"done": true}`."""

    path: str
    has_reason: Callable[[dict[str, Any]], object]
    """Of a whole answer or of one event: whether it says why the answer ended."""
    is_last: Callable[[str, dict[str, Any]], bool]
    """Whether the event of this name ends a stream well."""

    @property
    def name(self) -> str:
        """For the table."""
        return self.path.removeprefix("/v1/")


def _finish_reason(content: dict[str, Any]) -> object:
    return any(choice.get("finish_reason") for choice in content.get("choices", []))


CHAT = Api("/v1/chat/completions", _finish_reason, lambda _, event: "done" in event)
COMPLETIONS = Api("/v1/completions", _finish_reason, lambda _, event: "done" in event)
RESPONSES = Api(
    "/v1/responses",
    lambda content: content.get("response", content).get("status") in ("completed", "incomplete"),
    lambda name, _: name in ("response.completed", "response.incomplete"),
)
MESSAGES = Api(
    "/v1/messages",
    lambda content: content.get("delta", content).get("stop_reason"),
    lambda name, _: name == "message_stop",
)


def judge(api: Api, exchange: Exchange, is_stream: bool, is_condemned: bool) -> Verdict:
    """How the exchange ended. `is_condemned`: the worker that held its connection was killed or stopped."""
    failure = exchange.failure
    if failure is not None:
        return _judge_cut(api, exchange, failure, is_stream, is_condemned)
    if exchange.status != 200:
        return _judge_error(exchange)
    return _judge_stream(api, exchange.body) if is_stream else _judge_whole(api, exchange.body)


def _judge_cut(api: Api, exchange: Exchange, failure: Failure, is_stream: bool, is_condemned: bool) -> Verdict:
    if failure.kind not in (FailureKind.RESET, FailureKind.TRUNCATED):
        return Ending.VIOLATION, f"{failure.kind}: {failure.detail}"
    if not is_condemned:
        return Ending.VIOLATION, f"cut although its worker lived: {failure.detail}"
    if exchange.status == 200 and is_stream:
        ending, detail = _judge_stream(api, exchange.body)
        if ending is not Ending.VIOLATION:
            return ending, detail  # it was all there before the worker died
    return Ending.CUT, failure.kind.value


def _judge_error(exchange: Exchange) -> Verdict:
    try:
        error = orjson.loads(exchange.body)["error"]
        is_whole = set(error) == _ERROR_FIELDS and (exchange.status or 0) >= 400
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        return Ending.VIOLATION, f"status {exchange.status} without an error object: {exchange.body[:200]!r}"
    return Ending.HTTP_ERROR, f"{exchange.status} {error['code']}"


def _judge_whole(api: Api, body: bytes) -> Verdict:
    try:
        content = orjson.loads(body)
        has_reason = api.has_reason(content)
    except (ValueError, AttributeError):
        return Ending.VIOLATION, f"200 without an answer: {body[:200]!r}"
    return (Ending.ANSWERED, "") if has_reason else (Ending.VIOLATION, "200 without a reason for its end")


def _judge_stream(api: Api, body: bytes) -> Verdict:
    parser = EventParser()
    found = parser.feed(body)
    if parser.is_inside_event:
        return Ending.VIOLATION, "ends inside an event"
    try:
        events = [(event.name, _content(event)) for event in found]
    except ValueError:
        return Ending.VIOLATION, "an event that is not a JSON object"
    ends = [at for at, (name, event) in enumerate(events) if _is_error(event) or api.is_last(name, event)]
    if len(ends) != 1:
        return Ending.VIOLATION, f"{len(ends)} terminal events"
    if ends[0] != len(events) - 1:
        return Ending.VIOLATION, "something follows the terminal event"
    last = events[-1][1]
    if _is_error(last):
        return Ending.ERROR_EVENT, str(last["error"].get("code"))
    has_reason = any(api.has_reason(event) for _, event in events)
    return (Ending.ANSWERED, "") if has_reason else (Ending.VIOLATION, "a last event without a reason for the end")


def _is_error(event: dict[str, Any]) -> bool:
    return isinstance(event.get("error"), dict)


def _content(event: Event) -> dict[str, Any]:
    """Raises ValueError."""
    if event.data == b"[DONE]":
        return {"done": True}
    content = orjson.loads(event.data)
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content
