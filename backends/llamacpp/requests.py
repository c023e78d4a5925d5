"""Request bodies: what is accepted, what it must look like, and what it means for sampling.

Every accepted field is honoured; fields that change nothing about the answer are listed as harmless; all others are
refused by name.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import Meta

from backends.llamacpp.sampling import SamplingParams

EMPTY: dict[str, tuple[object, ...]] = {"tools": ([],), "tool_choice": ("none", "auto")}
"""Values that ask for nothing, which frameworks send along; any other value of these fields is refused."""

HARMLESS = frozenset(
    {
        "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "parallel_tool_calls",
    }
)  # fmt: skip
"""Accepted without effect: they concern the sender's bookkeeping, not the answer."""

MAX_STOPS = 1024
MAX_PROMPTS = 128
MAX_TOP_LOGPROBS = 20


class RequestError(Exception):
    """The request cannot be served as it is: HTTP status, message, the field at fault, OpenAI's code."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or "invalid_value"


Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
PositiveProbability = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """Its other fields belong to kinds that are refused."""

    type: str


class _Sampling(msgspec.Struct, frozen=True, kw_only=True):
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
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Part(msgspec.Struct, frozen=True):
    """A piece of content; those that are no text are refused by their type, whatever else they carry."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    refusal: str | None = None
    """This and the next two come back with an answer that a client sends again; they say nothing to the model."""
    annotations: Any = None
    audio: None = None


class ChatRequest(_Sampling, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(_Sampling, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: Any
    """A text, a list of texts, a list of token ids, or a list of such lists (`prompts` checks it)."""
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: int | None = None


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /tokenize: either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets that leaves a field out; a model may carry its own in `general.sampling.*`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


Request = TypeVar("Request", bound=msgspec.Struct)


def parse(body: bytes, kind: type[Request]) -> Request:
    """The body as a request. Raises RequestError that names the field."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError("the body must be a JSON object")
    unknown = [name for name in fields if name not in kind.__struct_fields__ and name not in HARMLESS]
    for name in unknown:
        if fields[name] is not None and fields[name] not in EMPTY.get(name, ()):
            raise RequestError(f"unsupported field: {name}", param=name, code="unsupported_field")
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from None


def _named(text: str) -> RequestError:
    """msgspec says "Expected `int`, got `str` - at `$.max_tokens`"."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", text, re.DOTALL)
    assert match is not None
    problem, path = match.group(1).replace("`", ""), match.group(2)
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


def chat_messages(request: ChatRequest | TokenizeRequest) -> list[dict[str, Any]]:
    """Messages as a template reads them: role and plain text. Raises RequestError."""
    return [_message(message, index) for index, message in enumerate(request.messages or [])]


def _message(message: Message, index: int) -> dict[str, Any]:
    where = f"messages[{index}]"
    if message.tool_calls or message.function_call or message.role in ("tool", "function"):
        raise RequestError(f"{where}: tool calls are not supported by this engine", param=f"{where}.role")
    if message.role not in ("system", "developer", "user", "assistant"):
        known = "system, developer, user, assistant"
        raise RequestError(f"{where}.role: unknown role {message.role!r} (known: {known})", param=f"{where}.role")
    content = message.content
    if isinstance(content, list):
        for number, part in enumerate(content):
            if part.type != "text" or part.text is None:
                at = f"{where}.content[{number}]"
                raise RequestError(f"{at}: this model reads text only, not {part.type!r}", param=f"{at}.type")
        content = "".join(part.text or "" for part in content)
    if content is None:
        if message.role != "assistant":
            raise RequestError(f"{where}.content: must be a text", param=f"{where}.content")
        content = ""
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content} | ({"name": message.name} if message.name else {})


def stops(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    """The stop strings. Raises RequestError for an empty one."""
    given = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(not stop for stop in given):
        raise RequestError("stop: an empty stop string would end every answer at once", param="stop")
    return tuple(given)


def prompts(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts, each a text or token ids. Raises RequestError."""
    given = request.prompt
    several = given if isinstance(given, list) and given and not _is_tokens(given) else [given]
    if len(several) > MAX_PROMPTS:
        raise RequestError(f"prompt: at most {MAX_PROMPTS} prompts in one request, got {len(several)}", param="prompt")
    if not all(isinstance(prompt, str) or _is_tokens(prompt) for prompt in several):
        raise RequestError("prompt: must be a text, token ids, or a list of either", param="prompt")
    return several


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and 0 <= item < 2**31 for item in value)


def check_unsupported(request: ChatRequest | CompletionRequest) -> None:
    """Refuse what this engine does not do. Raises RequestError."""
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options: only with stream: true", param="stream_options")
    if request.n not in (None, 1):
        raise RequestError("n: this engine gives one answer per prompt", param="n", code="unsupported_value")
    if isinstance(request, CompletionRequest) and request.best_of not in (None, 1):
        raise RequestError(
            "best_of: this engine gives one answer per prompt", param="best_of", code="unsupported_value"
        )
    if isinstance(request, ChatRequest):
        if request.response_format is not None and request.response_format.type != "text":
            kind = request.response_format.type
            raise RequestError(
                f"response_format: this engine answers in text, not {kind!r}",
                param="response_format",
                code="unsupported_value",
            )
        if request.top_logprobs and not request.logprobs:
            raise RequestError("top_logprobs: needs logprobs: true", param="top_logprobs")


def answer_budget(request: ChatRequest | CompletionRequest, num_prompt: int, max_length: int) -> int:
    """Tokens that the answer may have. Raises RequestError `context_length_exceeded` with both numbers."""
    room = max_length - num_prompt
    wanted = request.max_tokens
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        wanted = request.max_completion_tokens
    # An answer may be longer than one token only if there is room for it; a prompt alone may fill the context.
    if room < 0 or (room == 0 and wanted != 0) or (wanted is not None and wanted > room):
        asked = "" if wanted is None else f" and an answer of {wanted} tokens was asked for"
        fits = f"; at most {room} fit" if wanted is not None and room > 0 else ""
        raise RequestError(
            f"this model's context is {max_length} tokens; the prompt has {num_prompt}{asked}{fits}",
            param=_field_at_fault(request, room),
            code="context_length_exceeded",
        )
    if wanted is None:
        # OpenAI's default for text completions is 16; a chat answer may use what is left.
        wanted = room if isinstance(request, ChatRequest) else min(16, room)
    if (request.min_tokens or 0) > wanted:
        raise RequestError(f"min_tokens: more than max_tokens ({wanted})", param="min_tokens")
    return wanted


def _field_at_fault(request: ChatRequest | CompletionRequest, room: int) -> str:
    """What to change when prompt and answer do not fit the context."""
    if isinstance(request, CompletionRequest):
        return "max_tokens" if room > 0 else "prompt"
    if room <= 0:
        return "messages"
    return "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"


def sampling_params(
    request: ChatRequest | CompletionRequest, *, max_tokens: int, n_vocab: int, defaults: Defaults
) -> SamplingParams:
    """The request's sampling, defaults filled in. Raises RequestError."""

    def pick(name: str) -> Any:
        value = getattr(request, name)
        return getattr(defaults, name) if value is None else value

    for token in request.stop_token_ids or ():
        if token >= n_vocab:
            raise RequestError(f"stop_token_ids: no such token: {token}", param="stop_token_ids")
    logprobs, prompt_logprobs = _logprobs(request)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        temperature=pick("temperature"),
        top_k=max(pick("top_k"), 0),
        top_p=pick("top_p"),
        min_p=pick("min_p"),
        typical_p=1.0 if request.typical_p is None else request.typical_p,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        # 32 bits, of which llama.cpp takes the last value for "random"; a request without a seed gets its own.
        seed=(random.getrandbits(32) if request.seed is None else request.seed) % 0xFFFFFFFF,
        logit_bias=_logit_bias(request.logit_bias, n_vocab),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _logprobs(request: ChatRequest | CompletionRequest) -> tuple[int | None, int | None]:
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None, None
    return request.logprobs, request.logprobs if request.echo else None


def _logit_bias(bias: dict[str, float] | None, n_vocab: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, value in (bias or {}).items():
        if not key.isascii() or not key.isdigit() or len(key) > 10 or int(key) >= n_vocab:
            raise RequestError(f"logit_bias: no such token: {key[:20]!r} (0 to {n_vocab - 1})", param="logit_bias")
        # -100 means never; finite, because a request may bias every token and one has to be drawn.
        pairs.append((int(key), -1e4 if value <= -100 else value))
    return tuple(pairs)
