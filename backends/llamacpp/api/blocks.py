"""The conversation of POST /v1/messages: turns of content blocks, and the messages that they are.

    user       text, tool_result, text       ->  a tool's message for each result, the user's texts around them
    assistant  thinking, text, tool_use      ->  one message

Turns of the same side that follow each other are one turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backends.llamacpp.api.chat import CalledFunction, Message, ToolCall
from backends.llamacpp.api.fields import RequestError, check_depth, convert_one_of
from backends.llamacpp.api.turns import join_turns


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    text: str
    cache_control: Any = None
    """Of this block and the others: a hint for a cache that needs none."""
    citations: Any = None


class ToolUseBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    id: str
    name: str
    input: dict[str, Any]
    cache_control: Any = None
    caller: Any = None


class ToolResultBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    tool_use_id: str
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None
    cache_control: Any = None


class ThinkingBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    thinking: str
    signature: str | None = None
    """Not looked at: whoever sends a conversation may have written any of it."""


Block = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock
_TEXT: Mapping[str, type[TextBlock]] = {"text": TextBlock}
_USER: Mapping[str, type[Block]] = {**_TEXT, "tool_result": ToolResultBlock}
_ASSISTANT: Mapping[str, type[Block]] = {**_TEXT, "tool_use": ToolUseBlock, "thinking": ThinkingBlock}
_BLOCKS = {"user": _USER, "assistant": _ASSISTANT, "system": _TEXT}

Content = str | Sequence[dict[str, Any]]


def messages_of(system: Content | None, turns: Sequence[tuple[str, Content]]) -> list[Message]:
    """The conversation as chat messages; a turn is a role and its content. Raises RequestError that names the block."""
    head = [Message(role="system", content=_text(system, "system"))] if system else []
    called: set[str] = set()
    read = (_turn(role, content, f"messages[{at}].content", called) for at, (role, content) in enumerate(turns))
    return [*head, *join_turns(itertools.chain.from_iterable(read), _goes_on)]


def _turn(role: str, content: Content, at: str, called: set[str]) -> list[Message]:
    """One turn; `called` are the ids of the calls so far."""
    if isinstance(content, str):
        return [Message(role=role, content=content)]
    blocks = [convert_one_of(block, _BLOCKS[role], f"{at}[{number}]") for number, block in enumerate(content)]
    if role == "assistant":
        for number, block in enumerate(blocks):
            if isinstance(block, ToolUseBlock):
                check_depth(block.input, f"{at}[{number}].input")
        called.update(block.id for block in blocks if isinstance(block, ToolUseBlock))
        return [_assistant(blocks)]
    messages: list[Message] = []
    texts: list[str] = []
    for number, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolResultBlock):
            if texts:
                messages.append(Message(role=role, content="".join(texts)))
                texts = []
            messages.append(_result(block, f"{at}[{number}]", called))
    if texts or not messages:
        messages.append(Message(role=role, content="".join(texts)))
    return messages


def _assistant(blocks: Sequence[Block]) -> Message:
    calls = [
        ToolCall(CalledFunction(block.name, block.input), block.id)
        for block in blocks
        if isinstance(block, ToolUseBlock)
    ]
    return Message(
        role="assistant",
        content="".join(block.text for block in blocks if isinstance(block, TextBlock)),
        reasoning_content="".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock)) or None,
        tool_calls=calls or None,
    )


def _result(block: ToolResultBlock, at: str, called: set[str]) -> Message:
    if block.tool_use_id not in called:
        wrong = f"{at}.tool_use_id"
        raise RequestError(f"{wrong}: no tool_use before it has the id {block.tool_use_id[:80]!r}", param=wrong)
    text = _text(block.content or "", f"{at}.content")
    # No template has another place for it.
    content = f"Error: {text}" if block.is_error else text
    return Message(role="tool", tool_call_id=block.tool_use_id, content=content)


def _text(content: Content, at: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(convert_one_of(block, _TEXT, f"{at}[{number}]").text for number, block in enumerate(content))


def _goes_on(last: Message, new: Message) -> bool:
    """Whether two messages are one turn; calls come last in it."""
    if last.role != new.role or last.role not in ("user", "assistant"):
        return False
    return not (last.tool_calls and (new.content or new.reasoning_content))
