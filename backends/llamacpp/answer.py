"""One HTTP answer: tokens come in from the engine, bytes go out to the client.

    engine outputs --Choice.push--> pieces, log-probabilities --Wire--> bytes --Answer.read--> the connection

There is one path: a streamed answer sends each piece as it comes, the other kind keeps the pieces and sends one body.
Everything here runs on the event loop's thread, while the engine's thread computes the next step.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import orjson

from backends.llamacpp import sequence as engine
from backends.llamacpp.engine import Output
from backends.llamacpp.message import CallArguments, CallStart, Content, MessageParser, Piece, Reasoning
from backends.llamacpp.sampling import TokenLogprobs
from backends.llamacpp.sequence import Finish
from backends.llamacpp.text import TextStream

TokenBytes = Callable[[int], bytes]
"""The bytes of a token."""
_CALLED = "tool_calls"
"""OpenAI's finish reason for an answer that ends in calls."""


class Cancel(Protocol):
    """Engine.cancel."""

    def __call__(self, sequence: engine.Sequence, *, is_gone: bool) -> None: ...


class AnswerFailed(Exception):
    """The engine could not finish this answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer: its content, its reasoning, and its calls as (name, arguments)."""

    content: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of an answer."""

    num_prompt: int
    num_answer: int
    num_cached: int
    """Of the prompt: found in the prefix cache."""
    num_reasoning: int
    """Of the answer."""


class Wire(ABC):
    """How one answer looks on the wire of an API; a new one for each answer."""

    prefix: ClassVar[str]
    """Of the answer's id."""

    def __init__(self, model: str, token_text: TokenBytes) -> None:
        self.number = uuid.uuid4().hex
        self.identity = self.prefix + self.number
        self.created = int(time.time())
        self.model = model
        self.token_text = token_text

    @abstractmethod
    def opening(self, choice: Choice) -> bytes:
        """Before a choice's first piece."""

    @abstractmethod
    def delta(self, choice: Choice, pieces: Sequence[Piece], infos: Sequence[TokenLogprobs | None]) -> bytes:
        """What became certain of a choice; the log-probabilities are those of its content."""

    @abstractmethod
    def closing(self, choice: Choice) -> bytes:
        """After a choice's last piece."""

    @abstractmethod
    def ending(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """The end of the stream."""

    @abstractmethod
    def body(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The whole answer, where it is not streamed."""

    @abstractmethod
    def failure(self, message: str) -> bytes:
        """The end of a stream that failed."""

    def call_id(self, index: int, choice: int = 0) -> str:
        """The id of call number `index` of choice number `choice`."""
        return f"call_{self.number[-20:]}{choice:02x}{index:02x}"

    def logprob_entry(self, info: TokenLogprobs) -> dict[str, Any]:
        """A token's log-probability and its alternatives', as OpenAI's APIs have them."""
        top = [self._logprob(token, logprob) for token, logprob in info.top]
        return self._logprob(info.token, info.logprob) | {"top_logprobs": top}

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        data = self.token_text(token)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


@dataclass(slots=True, eq=False)
class Choice:
    """One answer to one prompt; the engine's outputs for its sequence end here."""

    answer: Answer
    index: int
    num_prompt: int
    stops: tuple[str, ...] = ()
    prompt_text: str = ""
    """Put before the answer where the request asked for an echo."""
    parser: MessageParser | None = None
    """None: the text is nothing but content."""
    leader: Choice | None = None
    """The first choice of the same prompt, whose computing of it this one shares."""
    sequence: engine.Sequence | None = None
    text: TextStream = field(init=False)
    pieces: list[Piece] = field(default_factory=list)
    infos: list[TokenLogprobs | None] = field(default_factory=list)
    num_tokens: int = 0
    num_reasoning: int = 0
    logprob: float = 0.0
    """Of the whole answer so far, where log-probabilities are computed."""
    offset: int = 0
    """Where the next token with log-probabilities begins, for `text_offset`; in characters, the echoed prompt included."""
    finish_reason: str | None = None
    stopped_by: str | None = None
    """The stop string that ended it."""
    _held: deque[tuple[int, TokenLogprobs]] = field(default_factory=deque)
    """Log-probabilities whose text is not certain yet, each with the character at which its token begins."""

    def __post_init__(self) -> None:
        self.text = TextStream(self.stops)

    @property
    def num_cached(self) -> int:
        """Tokens of its prompt that were found in the prefix cache; known once it has its first token."""
        return self.sequence.num_reused if self.sequence else 0

    @property
    def score(self) -> float:
        """The mean log-probability of its tokens."""
        return self.logprob / max(self.num_tokens, 1)

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
            if output.logprobs is not None:
                self.logprob += output.logprobs.logprob
            if output.finish is not Finish.STOP:
                if output.logprobs is not None:
                    self._held.append((self.text.num_seen, output.logprobs))
                new = self.text.push(self.answer.piece(output.token))
        if self.text.stopped_by is not None:
            self._end(Finish.STOP)
            self.answer.cancel(self, is_gone=False)
        elif output.finish is not None:
            new += self.text.finish()
            self._end(output.finish)
        self.answer.emit(self, self._parse(new), [*output.prompt_logprobs, *self._certain()])

    def written(self) -> Written:
        """The answer so far, put together."""
        names = [piece.name for piece in self.pieces if isinstance(piece, CallStart)]
        arguments = [""] * len(names)
        for piece in self.pieces:
            if isinstance(piece, CallArguments):
                arguments[piece.index] += piece.text
        return Written(
            "".join(piece.text for piece in self.pieces if isinstance(piece, Content)),
            "".join(piece.text for piece in self.pieces if isinstance(piece, Reasoning)),
            tuple(zip(names, arguments, strict=True)),
        )

    def _parse(self, new: str) -> list[Piece]:
        if self.parser is None:
            return [Content(new)] if new else []
        self.num_reasoning += self.parser.is_reasoning
        pieces = self.parser.feed(new)
        if self.finish_reason is None:
            return pieces
        pieces += self.parser.finish()
        if self.finish_reason == Finish.STOP.value and self.parser.num_calls and self.stopped_by is None:
            self.finish_reason = _CALLED
        return pieces

    def _end(self, finish: Finish) -> None:
        # The text that was held back may have completed a stop string.
        self.stopped_by = self.text.stopped_by
        self.finish_reason = (Finish.STOP if self.stopped_by is not None else finish).value

    def _certain(self) -> Iterator[TokenLogprobs]:
        """Log-probabilities of the content's tokens: those of a cut stop string are not, nor those of tags and calls."""
        is_whole = self.finish_reason is not None and self.stopped_by is None
        num_read = self.text.num_certain if self.parser is None else self.parser.num_read
        while self._held:
            start, info = self._held[0]
            # Half a character has no length, but belongs where the character is.
            end = max(self._held[1][0] if len(self._held) > 1 else self.text.num_seen, start + 1)
            is_content = self.parser is None or self.parser.is_content(start, end)
            is_decided = is_whole or (start < num_read and (is_content or end <= num_read or bool(self.finish_reason)))
            if not is_decided:
                return
            self._held.popleft()
            if is_content:
                yield info


class Answer:
    """All choices of one request, and the bytes that wait to be sent."""

    def __init__(
        self,
        wire: Wire,
        piece: TokenBytes,
        cancel: Cancel,
        *,
        stream: bool,
        num_shown: int | None = None,
        shows_logprobs: bool = True,
    ) -> None:
        """`num_shown`: of each prompt's choices only so many are shown, the likeliest ones."""
        self.piece = piece
        self.choices: list[Choice] = []
        self._wire = wire
        self._cancel = cancel
        self.is_streamed = stream
        self._num_shown = num_shown
        self._shows_logprobs = shows_logprobs
        self._pending = bytearray()
        self._wake = asyncio.Event()
        self._failure: str | None = None
        self._opened: set[int] = set()

    def emit(self, choice: Choice, pieces: list[Piece], infos: list[TokenLogprobs | None]) -> None:
        """Pass on what became certain of a choice."""
        if not self._shows_logprobs:
            infos = []
        if self.is_streamed:
            if choice.index not in self._opened:
                self._opened.add(choice.index)
                self._pending += self._wire.opening(choice)
            if pieces or infos:
                self._pending += self._wire.delta(choice, pieces, infos)
            if choice.finish_reason is not None:
                self._pending += self._wire.closing(choice)
        else:
            choice.pieces += pieces
            choice.infos += infos
        if self.is_streamed or self.is_done:
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

    def usage(self) -> Usage:
        """Token counts over all choices; a prompt that several share counts once."""
        leaders = [choice for choice in self.choices if choice.leader is None]
        return Usage(
            num_prompt=sum(choice.num_prompt for choice in leaders),
            num_answer=sum(choice.num_tokens for choice in self.choices),
            num_cached=sum(choice.num_cached for choice in leaders),
            num_reasoning=sum(choice.num_reasoning for choice in self.choices),
        )

    async def first(self) -> None:
        """Wait until there is something to send. Raises AnswerFailed when the answer failed before that."""
        await self._wake.wait()
        if self._failure and not self._pending:
            raise AnswerFailed(self._failure)

    async def read(self) -> AsyncIterator[bytes]:
        """The stream's bytes as they come, ending as the API has it, or in one error event."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            is_done, failure = self.is_done, self._failure
            chunk, self._pending = bytes(self._pending), bytearray()
            if failure:
                if chunk:
                    yield chunk
                yield self._wire.failure(failure)  # in a piece of its own, by which a relay knows it
                return
            if is_done:
                yield chunk + self._wire.ending(self.choices, self.usage())
                return
            if chunk:
                yield chunk

    async def body(self) -> bytes:
        """The whole answer as one JSON body. Raises AnswerFailed."""
        await self._wake.wait()
        if self._failure:
            raise AnswerFailed(self._failure)
        return orjson.dumps(self._wire.body(self._shown(), self.usage()))

    def _shown(self) -> list[Choice]:
        """The choices to show, numbered anew where some are left out."""
        if self._num_shown is None:
            return self.choices
        groups: dict[int, list[Choice]] = {}
        for choice in self.choices:
            groups.setdefault((choice.leader or choice).index, []).append(choice)
        shown: list[Choice] = []
        for group in groups.values():
            shown += sorted(group, key=lambda choice: -choice.score)[: self._num_shown]
        for index, choice in enumerate(shown):
            choice.index = index
        return shown
