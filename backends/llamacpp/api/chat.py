"""POST /v1/chat/completions (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from backends import protocol
from backends.llamacpp.answer import Choice, Usage
from backends.llamacpp.api.chunks import ChunkWire, shown_usage
from backends.llamacpp.api.fields import HARMLESS, Count, RequestError, Sampling, check_depth, convert, read_object
from backends.llamacpp.chat import ChatTemplate
from backends.llamacpp.grammar import GrammarError
from backends.llamacpp.message import CallArguments, CallStart, Content, Piece, Reasoning
from backends.llamacpp.sampling import TokenLogprobs
from backends.llamacpp.tools import Tool, check_name

MAX_TOOLS = 128
MAX_TOP_LOGPROBS = 20
_ROLES = ("system", "developer", "user", "assistant", "tool")


class Part(msgspec.Struct, frozen=True):
    """A piece of content; those that are no text are refused by their type, whatever else they carry."""

    type: str
    text: str | None = None


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that an earlier answer made."""

    function: CalledFunction
    id: str | None = None
    type: str = "function"
    index: int | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same under the name that some servers have for it."""
    refusal: str | None = None
    """This and the next three come back with an answer that a client sends again; they say nothing to the model."""
    annotations: Any = None
    audio: None = None
    function_call: None = None


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Calls follow their schema either way."""


class ToolDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    function: Function | None = None


class ToolName(msgspec.Struct, frozen=True):
    name: str


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: ToolName
    type: Literal["function"] = "function"


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    """Answers follow the schema either way."""


class ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Sampling, frozen=True, kw_only=True):
    """The body."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolDefinition], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the model's template, as vLLM and llama-server take them."""

    @property
    def prompt_field(self) -> str:
        return "messages"

    @property
    def budget_field(self) -> str:
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def logprobs_wanted(self) -> tuple[int | None, int | None]:
        return (self.top_logprobs or 0) if self.logprobs else None, None


def read(body: bytes) -> ChatRequest:
    """The body as a request. Raises RequestError."""
    return convert(without_nulls(read_object(body)), ChatRequest, harmless=HARMLESS)


def without_nulls(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body whose messages, and the calls in them, have no members that say nothing: clients send back what they got."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return fields
    return {**fields, "messages": [_message_without_nulls(message) for message in messages]}


def _message_without_nulls(message: Any) -> Any:
    message = _members(message)
    if isinstance(message, dict) and isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_members(call) for call in message["tool_calls"]]
    return message


def _members(value: Any) -> Any:
    return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


def check(request: ChatRequest) -> None:
    """Fields that make no sense together. Raises RequestError."""
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options: only with stream: true", param="stream_options")
    if request.top_logprobs and not request.logprobs:
        raise RequestError("top_logprobs: needs logprobs: true", param="top_logprobs")
    if request.tool_choice not in (None, "none", "auto") and not request.tools:
        raise RequestError("tool_choice: there are no tools to choose from", param="tool_choice")


# ---------------------------------------------------------------------- what the request means


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a template reads them: role, plain text, calls with their arguments as objects. Raises RequestError."""
    return [_template_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _template_message(message: Message, where: str) -> dict[str, Any]:
    if message.role not in _ROLES:
        known = ", ".join(_ROLES)
        raise RequestError(f"{where}.role: unknown role {message.role!r} (known: {known})", param=f"{where}.role")
    if message.tool_calls and message.role != "assistant":
        raise RequestError(f"{where}.tool_calls: only an assistant calls tools", param=f"{where}.tool_calls")
    content = _text(message, where)
    shown: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": content}
    if message.name:
        shown["name"] = message.name
    if message.reasoning and message.reasoning_content and message.reasoning != message.reasoning_content:
        raise RequestError(f"{where}.reasoning: differs from reasoning_content", param=f"{where}.reasoning")
    if reasoning := message.reasoning_content or message.reasoning:
        shown["reasoning_content"] = reasoning
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        at = f"{where}.tool_calls"
        shown["tool_calls"] = [_template_call(call, f"{at}[{n}]") for n, call in enumerate(message.tool_calls)]
    return shown


def _text(message: Message, where: str) -> str:
    content = message.content
    if isinstance(content, list):
        for number, part in enumerate(content):
            if part.type != "text" or part.text is None:
                at = f"{where}.content[{number}]"
                raise RequestError(f"{at}: this model reads text only, not {part.type!r}", param=f"{at}.type")
        return "".join(part.text or "" for part in content)
    if content is None and message.role != "assistant":
        raise RequestError(f"{where}.content: must be a text", param=f"{where}.content")
    return content or ""


def _template_call(call: ToolCall, where: str) -> dict[str, Any]:
    at = f"{where}.function.arguments"
    arguments = arguments_object(call.function.arguments)
    if arguments is None:
        raise RequestError(f"{at}: must be the text of a JSON object", param=at)
    check_depth(arguments, at)
    function = {"name": call.function.name, "arguments": arguments}
    return {"type": "function", "id": call.id or "", "function": function}


def arguments_object(arguments: str | dict[str, Any]) -> dict[str, Any] | None:
    """A call's arguments as an object; None where they are the text of something else."""
    if isinstance(arguments, dict):
        return arguments
    try:
        value = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def tools_of(request: ChatRequest) -> tuple[Tool, ...]:
    """The tools that the model is told of; none where it must not call any. Raises RequestError."""
    if request.tool_choice == "none":
        return ()
    found: dict[str, Tool] = {}
    for number, definition in enumerate(request.tools or ()):
        tool = _tool(definition, f"tools[{number}]")
        if tool.name in found:
            at = f"tools[{number}].function.name"
            raise RequestError(f"{at}: there is another tool {tool.name!r}", param=at)
        found[tool.name] = tool
    return tuple(found.values())


def _tool(definition: ToolDefinition, where: str) -> Tool:
    if definition.type != "function":
        raise RequestError(f"{where}.type: only functions, not {definition.type!r}", param=f"{where}.type")
    function = definition.function
    if function is None:
        raise RequestError(f"missing field: {where}.function", param=f"{where}.function", code="missing_field")
    if not check_name(function.name):
        at = f"{where}.function.name"
        raise RequestError(f"{at}: 1 to 64 letters, digits and _ . - only, got {function.name[:80]!r}", param=at)
    parameters = {"type": "object", **(function.parameters or {"properties": {}, "additionalProperties": False})}
    if parameters["type"] != "object":
        at = f"{where}.function.parameters.type"
        raise RequestError(f"{at}: arguments are an object, not {parameters['type']!r}", param=at)
    check_depth(parameters, f"{where}.function.parameters")
    return Tool(function.name, function.description or "", parameters)


def callable_tools(request: ChatRequest, tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Those that this answer may call. Raises RequestError for a named one that does not exist."""
    if not isinstance(request.tool_choice, NamedTool):
        return tuple(tools)
    name = request.tool_choice.function.name
    chosen = tuple(tool for tool in tools if tool.name == name)
    if not chosen:
        known = ", ".join(tool.name for tool in tools)
        raise RequestError(f"tool_choice: no tool {name!r} (there are: {known})", param="tool_choice")
    return chosen


def answer_schema(request: ChatRequest) -> dict[str, Any] | None:
    """The schema that content must follow; None: any text. Raises RequestError."""
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        at = "response_format.json_schema"
        raise RequestError(f"missing field: {at}", param=at, code="missing_field")
    return wanted.json_schema.schema if wanted.json_schema.schema is not None else {}


def template_context(request: ChatRequest, template: ChatTemplate) -> dict[str, Any]:
    """The template's variables that the request sets. Raises RequestError for one that the template does not read."""
    context = dict(request.chat_template_kwargs or {})
    check_depth(context, "chat_template_kwargs")
    for name in context:
        if name not in template.variables or name in ("messages", "tools", "add_generation_prompt"):
            known = ", ".join(sorted(template.variables)) or "none"
            at = f"chat_template_kwargs.{name}"
            raise RequestError(f"{at}: this model's template reads no such variable (it reads: {known})", param=at)
    if request.reasoning_effort is not None:
        if "reasoning_effort" not in template.variables:
            raise RequestError(
                "reasoning_effort: this model knows no levels", param="reasoning_effort", code="unsupported_field"
            )
        context["reasoning_effort"] = request.reasoning_effort
    return context


def refused(error: GrammarError, request: ChatRequest) -> RequestError:
    """What a client is told about a schema that cannot be used."""
    wanted = request.response_format
    names = [definition.function.name for definition in request.tools or () if definition.function]
    if any(error.path.startswith(f"{name}.parameters") for name in names) or not wanted or wanted.type == "text":
        field = "tools"
    else:
        field = "response_format.json_schema.schema" if wanted.json_schema else "response_format"
    at = f"{field}.{error.path}" if error.path else field
    return RequestError(f"{at}: cannot be followed: {error}", param=at, code="invalid_schema")


# ---------------------------------------------------------------------- how the answer looks


class ChatWire(ChunkWire):
    """`chat.completion` and its chunks."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def opening(self, choice: Choice) -> bytes:
        return protocol.choice_event(self.head, choice.index, b'"delta":{"role":"assistant","content":""}', None)

    def delta(self, choice: Choice, pieces: Sequence[Piece], infos: Sequence[TokenLogprobs | None]) -> bytes:
        # Log-probabilities go with the first piece, or alone while their text is held back.
        logprobs = b',"logprobs":%b' % orjson.dumps(self._logprobs(infos)) if infos else b""
        if not pieces:
            return protocol.choice_event(self.head, choice.index, b'"delta":{"content":""}%b' % logprobs, None)
        events = []
        for piece in pieces:
            body = b'"delta":{%b}%b' % (self._delta(choice, piece), logprobs)
            events.append(protocol.choice_event(self.head, choice.index, body, None))
            logprobs = b""
        return b"".join(events)

    def _delta(self, choice: Choice, piece: Piece) -> bytes:
        match piece:
            case Content(text):
                return b'"content":%b' % orjson.dumps(text)
            case Reasoning(text):
                return b'"reasoning_content":%b' % orjson.dumps(text)
            case CallStart(index, name):
                function = {"name": name, "arguments": ""}
                call = {
                    "index": index,
                    "id": self.call_id(index, choice.index),
                    "type": "function",
                    "function": function,
                }
            case CallArguments(index, text):
                call = {"index": index, "function": {"arguments": text}}
        return b'"tool_calls":%b' % orjson.dumps([call])

    def closing(self, choice: Choice) -> bytes:
        return protocol.choice_event(self.head, choice.index, b'"delta":{}', choice.finish_reason)

    def ending(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        return self.last_chunks(usage)

    def body(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        shown = [self._choice(choice) for choice in choices]
        return self.envelope() | {"choices": shown, "usage": shown_usage(usage)}

    def _choice(self, choice: Choice) -> dict[str, Any]:
        written = choice.written()
        message: dict[str, Any] = {"role": "assistant", "content": written.content, "refusal": None}
        if written.reasoning:
            message["reasoning_content"] = written.reasoning
        if written.calls:
            message["content"] = written.content or None
            message["tool_calls"] = [
                {
                    "id": self.call_id(n, choice.index),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for n, (name, arguments) in enumerate(written.calls)
            ]
        logprobs = self._logprobs(choice.infos) if choice.infos else None
        return {
            "index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason,
        }  # fmt: skip

    def _logprobs(self, infos: Sequence[TokenLogprobs | None]) -> dict[str, Any]:
        return {"content": [self.logprob_entry(info) for info in infos if info is not None]}
