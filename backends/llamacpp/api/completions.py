"""POST /v1/completions (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from msgspec import Meta

from backends import protocol
from backends.llamacpp.answer import Choice, Usage
from backends.llamacpp.api.chunks import ChunkWire, shown_usage
from backends.llamacpp.api.fields import MAX_CHOICES, RequestError, Sampling
from backends.llamacpp.api.params import answer_budget
from backends.llamacpp.message import Content, Piece
from backends.llamacpp.sampling import TokenLogprobs

MAX_LOGPROBS = 20
_DEFAULT_BUDGET = 16
"""OpenAI's."""


class CompletionRequest(Sampling, frozen=True, kw_only=True):
    """The body."""

    prompt: Any
    """A text, a list of texts, a list of token ids, or a list of such lists (`prompts` checks it)."""
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None

    @property
    def prompt_field(self) -> str:
        return "prompt"

    @property
    def logprobs_wanted(self) -> tuple[int | None, int | None]:
        # The best of several is found by its log-probabilities, whether they are shown or not.
        hidden = 0 if self.num_drawn > (self.n or 1) else None
        return hidden if self.logprobs is None else self.logprobs, self.logprobs if self.echo else None

    @property
    def shows_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def num_drawn(self) -> int:
        return self.best_of or self.n or 1

    def default_budget(self, room: int) -> int:
        return min(_DEFAULT_BUDGET, room)


def check(request: CompletionRequest) -> None:
    """Fields that make no sense together. Raises RequestError."""
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options: only with stream: true", param="stream_options")
    if request.num_drawn < (request.n or 1):
        raise RequestError(f"best_of: must be at least n ({request.n})", param="best_of")
    if request.stream and request.num_drawn > (request.n or 1):
        raise RequestError("best_of: the best are known at the end only, so they cannot be streamed", param="best_of")


def prompts(request: CompletionRequest, max_length: int) -> list[str | list[int]]:
    """The prompts, each a text or up to `max_length` token ids. Raises RequestError."""
    given = request.prompt
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(several) > MAX_CHOICES:
        raise RequestError(f"prompt: at most {MAX_CHOICES} prompts in one request, got {len(several)}", param="prompt")
    for prompt in several:
        if isinstance(prompt, list):
            # Too long a list is refused before anything is done with it.
            answer_budget(request, len(prompt), max_length)
        if not isinstance(prompt, str) and not _is_tokens(prompt):
            raise RequestError("prompt: must be a text, token ids, or a list of either", param="prompt")
    return several


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and 0 <= item < 2**31 for item in value)


class CompletionWire(ChunkWire):
    """`text_completion` and its chunks, with the log-probability lists of the legacy API."""

    kind = chunk_kind = "text_completion"
    prefix = "cmpl-"

    def opening(self, choice: Choice) -> bytes:
        if not choice.prompt_text:
            return b""
        return protocol.choice_event(self.head, choice.index, b'"text":%b' % orjson.dumps(choice.prompt_text), None)

    def delta(self, choice: Choice, pieces: Sequence[Piece], infos: Sequence[TokenLogprobs | None]) -> bytes:
        text = "".join(piece.text for piece in pieces if isinstance(piece, Content))
        body = b'"text":%b' % orjson.dumps(text)
        if infos:
            body += b',"logprobs":%b' % orjson.dumps(self._logprobs(choice, infos))
        return protocol.choice_event(self.head, choice.index, body, None)

    def closing(self, choice: Choice) -> bytes:
        return protocol.choice_event(self.head, choice.index, b'"text":""', choice.finish_reason)

    def ending(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        return self.last_chunks(usage)

    def body(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        shown = [
            {
                "index": choice.index,
                "text": choice.prompt_text + choice.written().content,
                "logprobs": self._logprobs(choice, choice.infos) if choice.infos else None,
                "finish_reason": choice.finish_reason,
            }
            for choice in choices
        ]
        return self.envelope() | {"choices": shown, "usage": shown_usage(usage)}

    def _logprobs(self, choice: Choice, infos: Sequence[TokenLogprobs | None]) -> dict[str, Any]:
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
        return self.token_text(token).decode("utf-8", "replace")
