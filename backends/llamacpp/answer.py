"""One HTTP answer: tokens come in from the engine, bytes go out to the client.

    engine outputs --Choice.push--> text, logprobs --Format--> bytes --Answer.read--> the connection

There is one path: a streamed answer sends each piece as it comes, the other kind keeps the pieces and sends one body.
Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from backends import protocol
from backends.llamacpp.engine import Output
from backends.llamacpp.sampling import TokenLogprobs
from backends.llamacpp.sequence import Finish, Sequence
from backends.llamacpp.text import TextStream

Piece = Callable[[int], bytes]
"""The bytes of a token."""


class Cancel(Protocol):
    """Engine.cancel."""

    def __call__(self, sequence: Sequence, *, is_gone: bool) -> None: ...


class AnswerFailed(Exception):
    """The engine could not finish this answer."""


class Format(Protocol):
    """How pieces of an answer look on the wire (chat or text completion)."""

    def opening(self, choice: Choice) -> bytes: ...

    def delta(self, choice: Choice, text: str, infos: list[TokenLogprobs | None]) -> bytes: ...

    def closing(self, choice: Choice) -> bytes: ...

    def usage_event(self, usage: dict[str, Any]) -> bytes: ...

    def body(self, choices: list[Choice], usage: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(slots=True, eq=False)
class Choice:
    """One answer to one prompt; the engine's outputs for its sequence end here."""

    answer: Answer
    index: int
    num_prompt: int
    stops: tuple[str, ...] = ()
    prompt_text: str = ""
    """Put before the answer where the request asked for an echo."""
    sequence: Sequence | None = None
    text: TextStream = field(init=False)
    pieces: list[str] = field(default_factory=list)
    infos: list[TokenLogprobs | None] = field(default_factory=list)
    num_tokens: int = 0
    offset: int = 0
    """Where the next token with log-probabilities begins, for `text_offset`; in characters, the echoed prompt included."""
    finish_reason: str | None = None
    _held: deque[tuple[int, TokenLogprobs]] = field(default_factory=deque)
    """Log-probabilities whose text is not certain yet, each with the character at which its token begins."""

    def __post_init__(self) -> None:
        self.text = TextStream(self.stops)

    def push(self, output: Output) -> None:
        """Take one output of the engine."""
        if self.finish_reason is not None:
            return
        if output.finish is Finish.ERROR:
            self.answer.fail(output.error)
            return
        new = ""
        if output.token is not None:
            self.num_tokens += 1
            if output.finish is not Finish.STOP:
                if output.logprobs is not None:
                    self._held.append((self.text.num_seen, output.logprobs))
                new = self.text.push(self.answer.piece(output.token))
        if self.text.is_stopped:
            self.finish_reason = "stop"
            self.answer.cancel(self, is_gone=False)
        elif output.finish is not None:
            new += self.text.finish()
            self.finish_reason = self._reason(output.finish)
        self.answer.emit(self, new, [*output.prompt_logprobs, *self._certain()])

    def _certain(self) -> Iterator[TokenLogprobs]:
        """Log-probabilities of tokens that belong to the answer: those of a cut stop string never do."""
        is_whole = self.finish_reason is not None and not self.text.is_stopped
        while self._held and (is_whole or self._held[0][0] < self.text.num_certain):
            yield self._held.popleft()[1]

    def _reason(self, finish: Finish) -> str:
        # The text that was held back may have completed a stop string.
        return Finish.STOP.value if self.text.is_stopped else finish.value


class Answer:
    """All choices of one request, and the bytes that wait to be sent."""

    def __init__(self, format: Format, piece: Piece, cancel: Cancel, *, stream: bool) -> None:
        self.piece = piece
        self.choices: list[Choice] = []
        self._format = format
        self._cancel = cancel
        self._stream = stream
        self._pending = bytearray()
        self._wake = asyncio.Event()
        self._failure: str | None = None
        self._opened: set[int] = set()

    def emit(self, choice: Choice, text: str, infos: list[TokenLogprobs | None]) -> None:
        """Pass on what became certain of a choice."""
        if self._stream:
            if choice.index not in self._opened:
                self._opened.add(choice.index)
                self._pending += self._format.opening(choice)
            if text or infos:
                self._pending += self._format.delta(choice, text, infos)
            if choice.finish_reason is not None:
                self._pending += self._format.closing(choice)
        else:
            choice.pieces.append(text)
            choice.infos += infos
        if self._stream or self.is_done:
            self._wake.set()

    def fail(self, message: str) -> None:
        """End the answer with an error; the other choices are freed."""
        self._failure = message
        self.close()
        self._wake.set()

    def cancel(self, choice: Choice, *, is_gone: bool) -> None:
        """Free what the engine holds for a choice; `is_gone`: nobody waits for it any more."""
        if choice.sequence is not None:
            self._cancel(choice.sequence, is_gone=is_gone)

    def close(self) -> None:
        """Free every choice that is not finished; called on every way out."""
        for choice in self.choices:
            if choice.finish_reason is None:
                choice.finish_reason = Finish.CANCELLED.value
                self.cancel(choice, is_gone=True)

    @property
    def is_done(self) -> bool:
        return all(choice.finish_reason is not None for choice in self.choices)

    def usage(self) -> dict[str, Any]:
        """Token counts over all choices."""
        return protocol.usage(
            sum(choice.num_prompt for choice in self.choices),
            sum(choice.num_tokens for choice in self.choices),
            sum(choice.sequence.num_reused for choice in self.choices if choice.sequence),
        )

    async def first(self) -> None:
        """Wait until there is something to send. Raises AnswerFailed when the answer failed before that."""
        await self._wake.wait()
        if self._failure and not self._pending:
            raise AnswerFailed(self._failure)

    async def read(self, *, include_usage: bool) -> AsyncIterator[bytes]:
        """The stream's bytes as they come, ending in `[DONE]` or in one error event."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            is_done, failure = self.is_done, self._failure
            chunk, self._pending = bytes(self._pending), bytearray()
            if failure:
                yield chunk + protocol.sse(protocol.error_object(500, failure, code="engine_error"))
                return
            if is_done:
                if include_usage:
                    chunk += self._format.usage_event(self.usage())
                yield chunk + protocol.DONE
                return
            if chunk:
                yield chunk

    async def body(self) -> bytes:
        """The whole answer as one JSON body. Raises AnswerFailed."""
        await self._wake.wait()
        if self._failure:
            raise AnswerFailed(self._failure)
        return orjson.dumps(self._format.body(self.choices, self.usage()))


class ChatFormat:
    """`chat.completion` and its chunks."""

    def __init__(self, identity: str, created: int, model: str, piece: Piece) -> None:
        self._identity, self._created, self._model, self._piece = identity, created, model, piece
        self._head = protocol.event_head(identity, "chat.completion.chunk", created, model)

    def opening(self, choice: Choice) -> bytes:
        return protocol.choice_event(self._head, choice.index, b'"delta":{"role":"assistant","content":""}', None)

    def delta(self, choice: Choice, text: str, infos: list[TokenLogprobs | None]) -> bytes:
        body = b'"delta":{"content":%b}' % orjson.dumps(text)
        if infos:
            body += b',"logprobs":%b' % orjson.dumps(self._logprobs(infos))
        return protocol.choice_event(self._head, choice.index, body, None)

    def closing(self, choice: Choice) -> bytes:
        return protocol.choice_event(self._head, choice.index, b'"delta":{}', choice.finish_reason)

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        return b'%b"choices":[],"usage":%b}\n\n' % (self._head, orjson.dumps(usage))

    def body(self, choices: list[Choice], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._identity,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": choice.index,
                    "message": {"role": "assistant", "content": "".join(choice.pieces), "refusal": None},
                    "logprobs": self._logprobs(choice.infos) if choice.infos else None,
                    "finish_reason": choice.finish_reason,
                }
                for choice in choices
            ],
            "usage": usage,
        }

    def _logprobs(self, infos: list[TokenLogprobs | None]) -> dict[str, Any]:
        return {"content": [self._entry(info) for info in infos if info is not None]}

    def _entry(self, info: TokenLogprobs) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in info.top]
        return self._token(info.token, info.logprob) | {"top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._piece(token)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


class CompletionFormat:
    """`text_completion` and its chunks, with the log-probability lists of the legacy API."""

    def __init__(self, identity: str, created: int, model: str, piece: Piece) -> None:
        self._identity, self._created, self._model, self._piece = identity, created, model, piece
        self._head = protocol.event_head(identity, "text_completion", created, model)

    def opening(self, choice: Choice) -> bytes:
        if not choice.prompt_text:
            return b""
        return protocol.choice_event(self._head, choice.index, b'"text":%b' % orjson.dumps(choice.prompt_text), None)

    def delta(self, choice: Choice, text: str, infos: list[TokenLogprobs | None]) -> bytes:
        body = b'"text":%b' % orjson.dumps(text)
        if infos:
            body += b',"logprobs":%b' % orjson.dumps(self._logprobs(choice, infos))
        return protocol.choice_event(self._head, choice.index, body, None)

    def closing(self, choice: Choice) -> bytes:
        return protocol.choice_event(self._head, choice.index, b'"text":""', choice.finish_reason)

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        return b'%b"choices":[],"usage":%b}\n\n' % (self._head, orjson.dumps(usage))

    def body(self, choices: list[Choice], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._identity,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": choice.index,
                    "text": choice.prompt_text + "".join(choice.pieces),
                    "logprobs": self._logprobs(choice, choice.infos) if choice.infos else None,
                    "finish_reason": choice.finish_reason,
                }
                for choice in choices
            ],
            "usage": usage,
        }

    def _logprobs(self, choice: Choice, infos: list[TokenLogprobs | None]) -> dict[str, Any]:
        tokens, values, tops, offsets = [], [], [], []
        for info in infos:
            # The very first token of a text has no prediction, but its place in the lists.
            token = self._text(info.token) if info else self._first_text(choice)
            tokens.append(token)
            values.append(info.logprob if info else None)
            # The drawn token is listed too, as n + 1st where it is none of the n best.
            top = (*info.top, (info.token, info.logprob)) if info and info.top else info.top if info else None
            tops.append(None if top is None else {self._text(other): value for other, value in top})
            offsets.append(choice.offset)
            choice.offset += len(token)
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _first_text(self, choice: Choice) -> str:
        return self._text(int(choice.sequence.tokens[0])) if choice.sequence else ""

    def _text(self, token: int) -> str:
        return self._piece(token).decode("utf-8", "replace")
