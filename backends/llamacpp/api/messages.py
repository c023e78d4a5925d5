"""POST /v1/messages and /v1/messages/count_tokens (https://platform.claude.com/docs/en/api/messages): their requests, and
the chat that they mean.

    system, messages -> messages        tools.input_schema -> tools        everything else as chat has it
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from backends.llamacpp.api.blocks import messages_of
from backends.llamacpp.api.chat import (
    MAX_TOOLS,
    ChatRequest,
    Function,
    JsonSchema,
    Message,
    NamedTool,
    ResponseFormat,
    ToolDefinition,
    ToolName,
)
from backends.llamacpp.api.fields import (
    MAX_STOPS,
    Count,
    PositiveProbability,
    Probability,
    Renames,
    RequestError,
    Seed,
    convert,
    parse,
)
from backends.llamacpp.api.thinking import switched
from backends.llamacpp.chat import ChatTemplate

HARMLESS = frozenset({"metadata", "service_tier", "cache_control", "betas", "inference_geo", "user_profile_id"})
"""Accepted without effect: they concern the sender's bookkeeping, or a cache that needs no hints."""


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class ToolParam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    """Calls follow their schema either way."""
    eager_input_streaming: bool | None = None
    """Arguments are always streamed as they are written."""
    cache_control: Any = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    """A target, which the model is not told of; what bounds an answer is max_tokens."""
    display: Literal["summarized"] | None = None
    """What is shown of the reasoning is up to the server: all of it."""


class OutputFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    effort: str | None = None
    format: OutputFormat | None = None


class CountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What makes the prompt: the body of count_tokens, and the greater part of that of messages."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    model: str | None = None
    system: str | list[dict[str, Any]] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """The body."""

    max_tokens: Count
    stop_sequences: Annotated[list[str], Meta(max_length=MAX_STOPS)] | None = None
    temperature: Probability | None = None
    top_p: PositiveProbability | None = None
    top_k: Count | None = None
    seed: Seed | None = None
    """No part of Anthropic's API."""
    stream: bool | None = None


class BoundedChat(ChatRequest, frozen=True, kw_only=True):
    """A chat whose answer ends with the model's context where that is reached before `at_most` tokens."""

    at_most: int

    def default_budget(self, room: int) -> int:
        return min(self.at_most, room)


RENAMES: Renames = [
    (re.compile(r"response_format(\.json_schema)?"), "output_config.format"),
    (re.compile(r"tools\[(\d+)\]\.function\.parameters"), r"tools[\1].input_schema"),
    (re.compile(r"tools\[(\d+)\]\.function"), r"tools[\1]"),
    (re.compile(r"tools\.([^ ]+?)\.parameters"), r"tools.\1.input_schema"),
    (re.compile(r"reasoning_effort"), "output_config.effort"),
    (re.compile(r"stop$"), "stop_sequences"),
]
"""How the fields of a chat are called here."""


def read(body: bytes, template: ChatTemplate) -> BoundedChat:
    """The body of messages as a request to the chat API. Raises RequestError."""
    request = parse(body, MessagesRequest, HARMLESS)
    thinking = request.thinking
    if thinking and thinking.type == "enabled":
        at = "thinking.budget_tokens"
        if thinking.budget_tokens is None:
            raise RequestError(f"missing field: {at}", param=at, code="missing_field")
        if thinking.budget_tokens >= request.max_tokens:
            raise RequestError(f"{at}: must be less than max_tokens ({request.max_tokens})", param=at)
    return BoundedChat(
        **_prompt(request, template),
        at_most=request.max_tokens,
        stop=request.stop_sequences,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        stream=request.stream,
    )


def read_counted(body: bytes, template: ChatTemplate) -> ChatRequest:
    """The body of count_tokens as a chat with the same prompt. Raises RequestError."""
    return ChatRequest(**_prompt(parse(body, CountRequest, HARMLESS), template))


def _prompt(request: CountRequest, template: ChatTemplate) -> dict[str, Any]:
    """The fields of a chat that make its prompt and the form of its answer."""
    choice, config, thinking = request.tool_choice, request.output_config, request.thinking
    variables: dict[str, Any] = {}
    if thinking and thinking.type != "adaptive":
        variables = switched(template, on=thinking.type == "enabled", param="thinking.type")
    schema = config.format.schema if config and config.format else None
    return {
        "model": request.model,
        "messages": _messages(request),
        "tools": [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools or ())] or None,
        "tool_choice": _tool_choice(choice) if choice else None,
        "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
        "response_format": None if schema is None else ResponseFormat("json_schema", JsonSchema("output", schema)),
        "reasoning_effort": config.effort if config else None,
        "chat_template_kwargs": variables or None,
    }


def _messages(request: CountRequest) -> list[Message]:
    turns = [(turn.role, turn.content) for turn in request.messages]
    messages = messages_of(request.system, turns)
    if messages[-1].role == "assistant":
        at = f"messages[{len(turns) - 1}].role"
        raise RequestError(
            f"{at}: answers cannot be begun for the model (prefill): end with a turn of the user", param=at
        )
    return messages


def _tool(fields: dict[str, Any], at: str) -> ToolDefinition:
    kind = fields.get("type")
    if kind not in (None, "custom"):
        raise RequestError(f"{at}.type: only tools of one's own (custom), not {str(kind)[:80]!r}", param=f"{at}.type")
    tool = convert(fields, ToolParam, at)
    return ToolDefinition("function", Function(tool.name, tool.description, tool.input_schema))


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if choice.name is None:
        at = "tool_choice.name"
        raise RequestError(f"missing field: {at}", param=at, code="missing_field")
    return NamedTool(ToolName(choice.name))
