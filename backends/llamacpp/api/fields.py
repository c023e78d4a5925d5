"""Fields of requests: what is accepted, what it must look like, and how a body becomes a request.

Every accepted field is honoured; fields that change nothing about the answer are listed as harmless; all others are
refused by name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import Meta

from backends.llamacpp.nesting import MAX_DEPTH, is_too_deep

HARMLESS = frozenset(
    {
        "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention",
    }
)  # fmt: skip
"""Accepted without effect: they concern the sender's bookkeeping, not the answer."""

MAX_STOPS = 1024
MAX_CHOICES = 128
"""Answers that one request may ask for, and prompts that it may bring."""


class RequestError(Exception):
    """The request cannot be served as it is: HTTP status, message, the field at fault, OpenAI's code."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or "invalid_value"

    def renamed(self, names: Renames) -> RequestError:
        """The same in the words of another API, by the first pattern that fits the beginning of `param`."""
        for pattern, new in names:
            if self.param and pattern.match(self.param):
                param = pattern.sub(new, self.param, count=1)
                is_first = self.message.startswith(f"{self.param}:")
                message = param + self.message.removeprefix(self.param) if is_first else self.message
                return RequestError(message, param=param, code=self.code, status=self.status)
        return self


Renames = Sequence[tuple[re.Pattern[str], str]]
"""Patterns for the names of fields, and what they are called elsewhere."""


@contextmanager
def renaming(names: Renames) -> Iterator[None]:
    """Errors inside are in the words of another API."""
    try:
        yield
    except RequestError as error:
        raise error.renamed(names) from None


Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
PositiveProbability = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that chat and text completions share."""

    model: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: PositiveProbability | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    typical_p: PositiveProbability | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[Token], Meta(max_length=MAX_STOPS)] | None = None
    max_tokens: Count | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def prompt_field(self) -> str:
        """Where the prompt is, for errors about its length."""
        raise NotImplementedError

    @property
    def budget_field(self) -> str:
        """The field that bounds the answer."""
        return "max_tokens"

    @property
    def logprobs_wanted(self) -> tuple[int | None, int | None]:
        """Alternatives wanted for each token of the answer, and of the prompt; None: no log-probabilities."""
        raise NotImplementedError

    @property
    def shows_logprobs(self) -> bool:
        """Whether log-probabilities are part of the answer."""
        return True

    def default_budget(self, room: int) -> int:
        """Tokens that an answer gets which asks for no number, when `room` are left."""
        return room

    @property
    def num_drawn(self) -> int:
        """Answers to compute for each prompt."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


Request = TypeVar("Request", bound=msgspec.Struct)


def check_depth(value: Any, at: str) -> None:
    """Raises RequestError where JSON is nested too deep to work on; `at` is where it stands in the body."""
    if is_too_deep(value):
        raise RequestError(f"{at}: nested deeper than {MAX_DEPTH} levels", param=at)


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises RequestError."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError("the body must be a JSON object")
    return fields


def parse(body: bytes, kind: type[Request], harmless: frozenset[str] = HARMLESS) -> Request:
    """The body as a request. Raises RequestError that names the field."""
    return convert(read_object(body), kind, harmless=harmless)


def convert(
    fields: Mapping[str, Any], kind: type[Request], at: str = "", harmless: frozenset[str] = frozenset()
) -> Request:
    """A JSON object as a `kind`; `at` is where it stands in the body. Raises RequestError that names the field.

    Fields that `kind` does not have are refused, unless they are `harmless` or null.
    """
    for name, value in fields.items():
        if value is not None and name not in kind.__struct_fields__ and name not in harmless:
            path = f"{at}.{name}" if at else name
            raise RequestError(f"unsupported field: {path}", param=path, code="unsupported_field")
    _prepare(kind)
    try:
        return msgspec.convert({name: fields[name] for name in kind.__struct_fields__ if name in fields}, kind)
    except msgspec.ValidationError as error:
        raise _named(str(error), at) from None


_prepared: set[type[msgspec.Struct]] = set()
_preparing = threading.Lock()


def _prepare(kind: type[msgspec.Struct]) -> None:
    """Have msgspec look at a type in one thread: at its first use it does, and crashes where two threads come at once."""
    if kind in _prepared:
        return
    with _preparing, suppress(msgspec.ValidationError):
        msgspec.convert({}, kind)
    _prepared.add(kind)


def convert_one_of(
    fields: Mapping[str, Any], kinds: Mapping[str, type[Request]], at: str, default: str | None = None
) -> Request:
    """A JSON object as what its `type` says. Raises RequestError that names the field, or the type where it is unknown."""
    name = fields.get("type", default)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        known = ", ".join(kinds)
        raise RequestError(f"{at}.type: must be one of {known}, not {str(name)[:80]!r}", param=f"{at}.type")
    return convert(fields, kind, at)


def _named(text: str, at: str = "") -> RequestError:
    """msgspec says "Expected `int`, got `str` - at `$.max_tokens`"."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", text, re.DOTALL)
    assert match is not None
    problem, path = match.group(1).replace("`", ""), ".".join(part for part in (at, match.group(2)) if part)
    unknown = re.fullmatch(r"Object contains unknown field (\w+)", problem)
    if unknown:
        path = f"{path}.{unknown.group(1)}" if path else unknown.group(1)
        return RequestError(f"unsupported field: {path}", param=path, code="unsupported_field")
    missing = re.fullmatch(r"Object missing required field (\w+)", problem)
    if missing:
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return RequestError(f"missing field: {path}", param=path, code="missing_field")
    problem = problem[0].lower() + problem[1:]
    return RequestError(f"{path}: {problem}" if path else problem, param=path or None, code="invalid_value")
