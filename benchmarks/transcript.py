"""Reads what came back for a request: from raw bytes with arrival times to a Record. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.http1 import Exchange
from benchmarks.record import Failure, FailureKind, Record
from benchmarks.sse import EventParser
from benchmarks.traffic.request import Request

EMBEDDINGS_PATH = "/v1/embeddings"
_DONE = b"[DONE]"
_QUEUE_HEADER = b"x-forgegate-queue-ms"


@dataclass(slots=True)
class Transcript:
    """The stream's events, taken together as they are read."""

    times_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Of the texts what is neither reasoning nor a tool's arguments."""
    reasoning_chars: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    is_done: bool = False
    is_cut: bool = False
    failure: Failure | None = None

    def take(self, data: bytes, at_s: float) -> None:
        """One event's data; after a failure nothing more is taken."""
        if self.failure is not None:
            return
        if data == _DONE:
            self.is_done = True
            return
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.failure = Failure(FailureKind.BAD_RESPONSE, f"event is not JSON: {_shown(data)}")
            return
        if not isinstance(message, dict):
            self.failure = Failure(FailureKind.BAD_RESPONSE, f"event is not an object: {_shown(data)}")
        elif message.get("error"):
            self.failure = Failure(FailureKind.ERROR_EVENT, _error_text(message["error"]))
        else:
            self._take_message(message, at_s)

    def _take_message(self, message: dict[str, Any], at_s: float) -> None:
        if isinstance(message.get("usage"), dict):
            self.usage = message["usage"]
        choices = message.get("choices") or [{}]
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            self.failure = Failure(FailureKind.BAD_RESPONSE, "event's choices are not a list of objects")
            return
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        answer, reasoning, arguments = _choice_texts(choice)
        if text := answer + reasoning + arguments:
            self.times_s.append(at_s)
            self.texts.append(text)
            self.answers.append(answer)
            self.reasoning_chars += len(reasoning)

    def verdict(self) -> Failure | None:
        """None when the stream ended as it should. A server that closes early, or sends `[DONE]` without a
        `finish_reason` (llama-cpp-python does when a newer request interrupts one), must not look like a success.
        """
        if self.failure is not None:
            return self.failure
        missing = [name for name, seen in (("finish_reason", self.finish_reason), ("[DONE]", self.is_done)) if not seen]
        if missing:
            return Failure(FailureKind.TRUNCATED, f"stream ended without {' and '.join(missing)}")
        return Failure(FailureKind.TRUNCATED, "stream ended within an event") if self.is_cut else None


def read(exchange: Exchange, request: Request, intended_s: float) -> Record:
    """The record of an exchange that has ended."""
    transcript = _transcribe(exchange, request) if exchange.status == 200 else Transcript()
    usage = transcript.usage
    return Record(
        index=request.index,
        max_tokens=request.max_tokens,
        is_exact=request.is_exact,
        intended_s=intended_s,
        sent_s=exchange.sent_s,
        first_byte_s=exchange.first_byte_s,
        end_s=exchange.end_s,
        chunk_times_s=tuple(transcript.times_s),
        chunk_chars=tuple(map(len, transcript.texts)),
        num_reads=len(set(transcript.times_s)),
        text="".join(transcript.texts),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details") or {}, "cached_tokens"),
        finish_reason=transcript.finish_reason,
        status=exchange.status,
        failure=None if exchange.is_cancelled else _failure(exchange, transcript),
        adapter=request.adapter,
        session=request.session,
        turn=request.turn,
        is_cancelled=exchange.is_cancelled,
        reasoning_chars=transcript.reasoning_chars,
        queue_s=_queue_s(exchange.headers),
    )


def answer_of(exchange: Exchange) -> str:
    """What the assistant said, without its reasoning; empty where it said nothing."""
    if exchange.status != 200 or not exchange.reads:
        return ""
    return "".join(_transcribe_stream(exchange).answers)


def error_message(body: bytes) -> str:
    """The message of an OpenAI error body, or the body's beginning."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _shown(body)
    if isinstance(message, dict) and message.get("error"):
        return _error_text(message["error"])
    return _shown(body)


def stamped_events(exchange: Exchange) -> Iterator[tuple[float, bytes]]:
    """Each event's data with the arrival of the read that completed it."""
    parser = EventParser()
    for at_s, piece in zip(exchange.times, exchange.pieces, strict=True):
        for event in parser.feed(piece):
            yield at_s, event.data


def _transcribe(exchange: Exchange, request: Request) -> Transcript:
    is_stream = request.path != EMBEDDINGS_PATH
    wanted, content_type = b"text/event-stream" if is_stream else b"application/json", _content_type(exchange)
    if content_type != wanted:
        what = "an event stream" if is_stream else "JSON"
        detail = f"not {what} but {content_type.decode('latin-1') or 'no content-type'}"
        return Transcript(failure=Failure(FailureKind.BAD_RESPONSE, f"{detail}: {_shown(exchange.body)}"))
    return _transcribe_stream(exchange) if is_stream else _transcribe_embeddings(exchange)


def _content_type(exchange: Exchange) -> bytes:
    return exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _transcribe_stream(exchange: Exchange) -> Transcript:
    transcript, parser = Transcript(), EventParser()
    for at_s, piece in zip(exchange.times, exchange.pieces, strict=True):
        for event in parser.feed(piece):
            transcript.take(event.data, at_s)
    transcript.is_cut = parser.is_inside_event
    return transcript


def _transcribe_embeddings(exchange: Exchange) -> Transcript:
    """The answer comes in one piece, when its last byte has come: ttft and e2e are the same. It has no output tokens."""
    if not exchange.is_complete:
        return Transcript()
    try:
        message = orjson.loads(exchange.body)
        vectors = [row["embedding"] for row in message["data"]]
        usage = {**(message.get("usage") or {}), "completion_tokens": 0}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        vectors, usage = [], {}
    if not vectors or not all(vectors):
        return Transcript(failure=Failure(FailureKind.BAD_RESPONSE, f"no embeddings: {_shown(exchange.body)}"))
    return Transcript([exchange.end_s], [""], usage=usage, finish_reason="stop", is_done=True)


def _queue_s(headers: dict[bytes, bytes]) -> float | None:
    """How long a forgegate let the request wait for an engine; other servers do not tell."""
    try:
        return float(headers[_QUEUE_HEADER]) / 1e3
    except (KeyError, ValueError):
        return None


def _failure(exchange: Exchange, transcript: Transcript) -> Failure | None:
    if exchange.status is not None and exchange.status != 200:
        return Failure(FailureKind.HTTP_STATUS, f"{exchange.status}: {error_message(exchange.body)}")
    if transcript.failure is not None:  # the server's own words come before the way in which the connection ended
        return transcript.failure
    return exchange.failure or transcript.verdict()


def _choice_texts(choice: dict[str, Any]) -> tuple[str, str, str]:
    """What a chunk holds of the answer, of reasoning and of tool arguments: all of them were generated."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return str(choice.get("text") or ""), "", ""
    content = str(delta.get("content") or "")
    reasoning = "" if content else str(delta.get("reasoning_content") or delta.get("reasoning") or "")
    calls = delta.get("tool_calls") or ()
    return content, reasoning, "".join(str((call.get("function") or {}).get("arguments") or "") for call in calls)


def _count(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _error_text(error: object) -> str:
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)


def _shown(data: bytes, limit: int = 200) -> str:
    text = data[:limit].decode("utf-8", "replace").strip()
    return repr(text) + (" ..." if len(data) > limit else "")
