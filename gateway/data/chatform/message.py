"""Messages of a chat, as the log keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Message = dict[str, Any]
Said = tuple[Message | None, str | None]
"""The assistant's message and why it ended; None for what is not known."""
STOP, LENGTH, CALLS, FILTER = "stop", "length", "tool_calls", "content_filter"
"""Why an answer ended."""
_TEXT = {"text": "text"}


class Unreadable(ValueError):
    """No conversation, or no answer in one."""


def assistant(content: Any, thought: str = "", calls: Iterable[Message] = ()) -> Message:
    """What the model said, beside what it thought and called."""
    message: Message = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    if called := list(calls):
        message["tool_calls"] = called
    return message


def call(identity: Any, name: Any, arguments: Any) -> Message:
    """One of a tool; `arguments` is JSON."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def custom_call(identity: Any, name: Any, text: Any) -> Message:
    """One of a tool that takes any text."""
    return {"id": identity, "type": "custom", "custom": {"name": name, "input": text}}


def kind_of(part: Any) -> Message:
    """What is left of one that is not understood: its type."""
    kind = part.get("type") if isinstance(part, dict) else None
    return {"type": kind if isinstance(kind, str) else None}


def content_of(content: Any, texts: Mapping[str, str]) -> Any:
    """One text where `content` has nothing else, else its parts. `texts`: where parts have theirs, by type."""
    if not isinstance(content, list):
        return content
    found = [text_of(part, texts) for part in content]
    whole = [text for text in found if text is not None]
    if len(whole) == len(found):
        return "".join(whole)
    return [part if text is None else {"type": "text", "text": text} for part, text in zip(content, found, strict=True)]


def said_of(content: Any, texts: Mapping[str, str]) -> Any:
    """`content_of` what the model said; of parts that are no text, their types."""
    found = content_of(content, texts)
    if not isinstance(found, list):
        return found
    return [part if text_of(part, _TEXT) is not None else kind_of(part) for part in found]


def text_of(part: Any, texts: Mapping[str, str]) -> str | None:
    """None for a part that is no text."""
    text = part.get(texts.get(str(part.get("type")), "")) if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def joined(messages: Iterable[Message]) -> list[Message]:
    """What the assistant says in messages that follow each other is one message, as an answer is."""
    found: list[Message] = []
    for message in messages:
        if found and is_assistants(found[-1]) and is_assistants(message):
            found[-1] = _merged(found[-1], message)
        else:
            found.append(message)
    return found


def is_assistants(message: Message) -> bool:
    """Whether it is the model's."""
    return message.get("role") == "assistant"


def _merged(first: Message, second: Message) -> Message:
    one, other = first.get("content"), second.get("content")
    content = one + other if isinstance(one, str) and isinstance(other, str) else [*_parts(one), *_parts(other)]
    thought = first.get("reasoning_content", "") + second.get("reasoning_content", "")
    return assistant(content, thought, [*first.get("tool_calls", ()), *second.get("tool_calls", ())])


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []
