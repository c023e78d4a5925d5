"""The input of POST /v1/responses: items of a conversation, and the messages that they are.

reasoning, message, function_call, function_call   ->  one turn of the assistant
function_call_output                               ->  a tool's message
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from backends.llamacpp.api.chat import CalledFunction, Message, ToolCall, arguments_object
from backends.llamacpp.api.fields import RequestError, check_depth, convert_one_of
from backends.llamacpp.api.turns import join, join_turns

NOTHING_KEPT = "no answers are kept here: send the whole conversation as `input`"
_INSTRUCTING = ("system", "developer")


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    type: str = "message"
    id: str | None = None
    """This and the next two come back with an answer that a client sends again; they say nothing to the model."""
    status: str | None = None
    phase: str | None = None


class CallItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    caller: Any = None


class CallOutputItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: str | None = None
    name: str | None = None
    caller: Any = None


class ReasoningItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    summary: list[dict[str, Any]]
    content: list[dict[str, Any]] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None


class TextPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    text: str
    annotations: Any = None
    """This and the next two come back with an answer, or concern a cache that needs no hints."""
    logprobs: Any = None
    prompt_cache_breakpoint: Any = None


class RefusalPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


Item = MessageItem | CallItem | CallOutputItem | ReasoningItem
_ITEMS: Mapping[str, type[Item]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
    "reasoning": ReasoningItem,
}
_SAID: Mapping[str, type[TextPart | RefusalPart]] = {
    "input_text": TextPart,
    "output_text": TextPart,
    "refusal": RefusalPart,
}
_THOUGHT: Mapping[str, type[TextPart | RefusalPart]] = {"reasoning_text": TextPart, "summary_text": TextPart}


def messages_of(instructions: str | None, given: str | Sequence[dict[str, Any]]) -> list[Message]:
    """The conversation as chat messages. Raises RequestError that names the item."""
    messages = [Message(role="system", content=instructions)] if instructions else []
    if isinstance(given, str):
        return [*messages, Message(role="user", content=given)]
    messages += _read(given)
    # Many templates read no more than one message of instructions, the first.
    head = list(itertools.takewhile(lambda message: message.role in _INSTRUCTING, messages))
    return [*([join(head)] if head else []), *join_turns(messages[len(head) :], _goes_on)]


def _read(given: Sequence[dict[str, Any]]) -> Iterator[Message]:
    """A message for each item."""
    call_ids: set[str] = set()
    for number, fields in enumerate(given):
        at = f"input[{number}]"
        if fields.get("type") == "item_reference":
            raise RequestError(f"{at}.type: {NOTHING_KEPT}", param=f"{at}.type", code="unsupported_field")
        item = convert_one_of(fields, _ITEMS, at, "message")
        if isinstance(item, CallItem):
            call_ids.add(item.call_id)
        elif isinstance(item, CallOutputItem) and item.call_id not in call_ids:
            wrong = f"{at}.call_id"
            raise RequestError(f"{wrong}: no call before it has the id {item.call_id[:80]!r}", param=wrong)
        yield _message(item, at)


def _message(item: Item, at: str) -> Message:
    match item:
        case MessageItem():
            return Message(role=item.role, content=_text(item.content, f"{at}.content", _SAID))
        case CallItem():
            arguments = arguments_object(item.arguments)
            if arguments is None:
                raise RequestError(f"{at}.arguments: must be the text of a JSON object", param=f"{at}.arguments")
            check_depth(arguments, f"{at}.arguments")
            return Message(role="assistant", tool_calls=[ToolCall(CalledFunction(item.name, arguments), item.call_id)])
        case CallOutputItem():
            content = _text(item.output, f"{at}.output", _SAID)
            return Message(role="tool", tool_call_id=item.call_id, content=content)
        case ReasoningItem():
            return Message(role="assistant", reasoning_content=_thought(item, at))


def _thought(item: ReasoningItem, at: str) -> str:
    if item.encrypted_content and not item.content and not item.summary:
        wrong = f"{at}.encrypted_content"
        raise RequestError(f"{wrong}: only who wrote it can read it; leave the item out", param=wrong)
    name = "content" if item.content else "summary"
    return _text(item.content or item.summary, f"{at}.{name}", _THOUGHT)


def _text(content: str | Sequence[dict[str, Any]], at: str, kinds: Mapping[str, type[TextPart | RefusalPart]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(convert_one_of(part, kinds, f"{at}[{number}]").text for number, part in enumerate(content))


def _goes_on(last: Message, new: Message) -> bool:
    """Whether two items are of one turn: what it says comes in the order reasoning, content, calls."""
    if not last.role == new.role == "assistant":
        return False
    is_thought = last.content is None and not last.tool_calls
    return bool(new.tool_calls) or (new.content is not None and is_thought)
