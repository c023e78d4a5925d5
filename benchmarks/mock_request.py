"""What the mock engine reads in a request's body; refuses what a real engine would refuse. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from benchmarks.mock_behaviour import Behaviour, BehaviourError, Wanted


class RefusedError(Exception):
    """The request is answered with `status` and an OpenAI error."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class Kind(StrEnum):
    """Which API is asked, by its path."""

    CHAT = "/v1/chat/completions"
    TEXT = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion to be answered; embeddings are one without tokens."""

    kind: Kind
    model: str
    is_streamed: bool
    includes_usage: bool
    prompt_tokens: int
    wanted: Wanted
    behaviour: Behaviour
    num_inputs: int = 1
    """Of embeddings."""


def read_completion(
    body: bytes, header: str | None, *, kind: Kind, models: Sequence[str], behaviour: Behaviour
) -> Completion:
    """Raises RefusedError with 400 or 404."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise RefusedError(400, f"the body is not JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise RefusedError(400, "the body is not a JSON object")
    model = fields.get("model")
    if not isinstance(model, str) or model not in models:
        detail = f"the model {model!r} does not exist; there is {', '.join(models)}"
        raise RefusedError(404 if isinstance(model, str) else 400, detail, "model", "model_not_found")
    overridden = _overridden(behaviour, header, fields.get("mock"))
    if kind is Kind.EMBEDDINGS:
        inputs = _demanded(fields, "input", str | list)
        listed = [inputs] if isinstance(inputs, str) or isinstance(inputs[0], int) else inputs
        return Completion(
            kind, model, False, False, sum(map(_words, listed)), Wanted(0, 0, False), overridden, len(listed)
        )
    options = fields.get("stream_options") or {}
    return Completion(
        kind,
        model,
        fields.get("stream") is True,
        bool(options.get("include_usage")),
        _prompt_tokens(fields, kind is Kind.CHAT),
        _wanted(fields),
        overridden,
    )


def _overridden(behaviour: Behaviour, header: str | None, field: object) -> Behaviour:
    try:
        if header:
            behaviour = behaviour.overridden(Behaviour.parse_header(header))
        if isinstance(field, dict):
            behaviour = behaviour.overridden(field)
        elif field is not None:
            raise BehaviourError(f"mock: must be an object, not {field!r}")
    except BehaviourError as exc:
        raise RefusedError(400, str(exc), "mock") from exc
    return behaviour


def _wanted(fields: dict[str, Any]) -> Wanted:
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    for name, value in (("max_tokens", limit), ("min_tokens", fields.get("min_tokens"))):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise RefusedError(400, f"{name} must be a number of tokens, not {value!r}", name)
    return Wanted(limit, fields.get("min_tokens") or 0, fields.get("ignore_eos") is True)


def _prompt_tokens(fields: dict[str, Any], is_chat: bool) -> int:
    """Words count as tokens; token ids as themselves."""
    if not is_chat:
        return _words(_demanded(fields, "prompt", str | list))
    messages = _demanded(fields, "messages", list)
    return sum(_words(message.get("content")) for message in messages if isinstance(message, dict))


def _demanded(fields: dict[str, Any], name: str, kind: Any) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind) or not value:
        raise RefusedError(400, f"{name} is missing or empty", name)
    return value


def _words(content: object) -> int:
    if isinstance(content, str):
        return len(content.split())
    return len(content) if isinstance(content, list) else 0
