"""POST /v1/responses (https://platform.openai.com/docs/api-reference/responses): the request, and the chat that it means.

    instructions, input items -> messages          text.format -> response_format          everything else as chat has it

Nothing is kept between requests: what refers to an earlier answer is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from backends.llamacpp.api import fields
from backends.llamacpp.api.chat import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    ChatRequest,
    Function,
    JsonSchema,
    NamedTool,
    ResponseFormat,
    ToolDefinition,
    ToolName,
)
from backends.llamacpp.api.fields import (
    PositiveProbability,
    Probability,
    Renames,
    RequestError,
    Seed,
)
from backends.llamacpp.api.items import NOTHING_KEPT, messages_of
from backends.llamacpp.api.thinking import switched
from backends.llamacpp.chat import ChatTemplate

LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = (LOGPROBS, "reasoning.encrypted_content")
"""The second one is how hosted models carry reasoning from request to request; here it is readable text and needs no more."""
HARMLESS = fields.HARMLESS | {"prompt_cache_options", "max_tool_calls"}
"""The last one bounds calls that a server makes itself, of which there are none."""


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Calls follow their schema either way."""


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    """Answers follow the schema either way."""


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    effort: str | None = None
    summary: Literal["auto"] | None = None
    """What is shown of the reasoning is up to the server: all of it."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: PositiveProbability | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """This and the next two are no part of OpenAI's API."""
    min_p: Probability | None = None
    seed: Seed | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    truncation: Literal["disabled"] | None = None
    metadata: dict[str, str] | None = None
    """This and the next five come back with the answer, or change nothing about it."""
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())


RENAMES: Renames = [
    (re.compile(r"response_format\.json_schema\.schema"), "text.format.schema"),
    (re.compile(r"response_format"), "text.format"),
    (re.compile(r"tools\[(\d+)\]\.function"), r"tools[\1]"),
    (re.compile(r"reasoning_effort"), "reasoning.effort"),
    (re.compile(r"max_completion_tokens|max_tokens"), "max_output_tokens"),
    (re.compile(r"messages"), "input"),
]
"""How the fields of a chat are called here."""


def read(body: bytes, template: ChatTemplate) -> tuple[ResponsesRequest, ChatRequest]:
    """A body, and the same request to the chat API. Raises RequestError."""
    request = fields.parse(body, ResponsesRequest, HARMLESS)
    check(request)
    return request, to_chat(request, template)


def check(request: ResponsesRequest) -> None:
    """Fields that ask for what is not done here, or make no sense together. Raises RequestError."""
    if request.background:
        raise RequestError("background: answers are given to whoever waits for them only", param="background")
    for name in ("previous_response_id", "conversation"):
        if getattr(request, name) is not None:
            raise RequestError(f"{name}: {NOTHING_KEPT}", param=name, code="unsupported_field")
    if request.prompt is not None:
        raise RequestError("prompt: no prompts are kept here", param="prompt", code="unsupported_field")
    for number, name in enumerate(request.include or ()):
        if name not in _INCLUDABLE:
            at = f"include[{number}]"
            raise RequestError(f"{at}: must be one of {', '.join(_INCLUDABLE)}, not {name[:80]!r}", param=at)
    if request.top_logprobs and not request.wants_logprobs:
        raise RequestError(f'top_logprobs: needs include: ["{LOGPROBS}"]', param="top_logprobs")
    if request.stream_options is not None:
        if not request.stream:
            raise RequestError("stream_options: only with stream: true", param="stream_options")
        if request.stream_options.include_obfuscation:
            at = "stream_options.include_obfuscation"
            raise RequestError(f"{at}: streams are not padded here", param=at, code="unsupported_field")


def to_chat(request: ResponsesRequest, template: ChatTemplate) -> ChatRequest:
    """The same request to the chat API. Raises RequestError."""
    config = request.reasoning or ReasoningConfig()
    variables: dict[str, Any] = {}
    level = config.effort
    if level == "none" and "reasoning_effort" not in template.variables:
        variables, level = switched(template, on=False, param="reasoning.effort"), None
    if config.summary is not None and template.think is None:
        at = "reasoning.summary"
        raise RequestError(f"{at}: this model does not reason first", param=at, code="unsupported_field")
    return ChatRequest(
        model=request.model,
        messages=messages_of(request.instructions, request.input),
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        max_completion_tokens=request.max_output_tokens,
        logprobs=request.wants_logprobs,
        top_logprobs=request.top_logprobs if request.wants_logprobs else None,
        response_format=_response_format(request.text),
        tools=[_tool(tool) for tool in request.tools or ()] or None,
        tool_choice=_tool_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        reasoning_effort=level,
        chat_template_kwargs=variables or None,
        stream=request.stream,
    )


def _tool(tool: FunctionTool) -> ToolDefinition:
    return ToolDefinition("function", Function(tool.name, tool.description, tool.parameters, tool.strict))


def _tool_choice(choice: str | NamedFunction | None) -> Any:
    return NamedTool(ToolName(choice.name)) if isinstance(choice, NamedFunction) else choice


def _response_format(text: TextConfig | None) -> ResponseFormat | None:
    wanted = text and text.format
    if not wanted:
        return None
    if wanted.type != "json_schema":
        return ResponseFormat(wanted.type)
    for name in ("name", "schema"):
        if getattr(wanted, name) is None:
            at = f"text.format.{name}"
            raise RequestError(f"missing field: {at}", param=at, code="missing_field")
    return ResponseFormat(wanted.type, JsonSchema(wanted.name or "", wanted.schema))
