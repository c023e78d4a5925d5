"""POST /v1/responses: items as messages of a chat (https://platform.openai.com/docs/api-reference/responses).

instructions, message                    ->  a message
reasoning, message, function_call        ->  of the assistant, one after the other: one message
function_call_output                     ->  a tool's message
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.data.chatform.message import (
    CALLS,
    LENGTH,
    STOP,
    Message,
    Said,
    Unreadable,
    assistant,
    call,
    content_of,
    is_assistants,
    joined,
    tool,
)

_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
"""Fields that stand for something said before, which is not in the request."""
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_THOUGHTS = {"reasoning_text": "text", "summary_text": "text", "text": "text"}
_PIECES = {
    "response.output_text.delta": ("message", "content", {"type": "output_text"}, "text"),
    "response.refusal.delta": ("message", "content", {"type": "refusal"}, "refusal"),
    "response.reasoning_text.delta": ("reasoning", "content", {"type": "reasoning_text"}, "text"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary", {"type": "summary_text"}, "text"),
}
"""By event: the item that its text is of, the member of the item, and what the text is there."""
_REASONS = {"max_output_tokens": LENGTH}
_ITEMS = ("response.output_item.added", "response.output_item.done")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Unreadable."""
    for name in _ELSEWHERE:
        if request.get(name):
            raise Unreadable(f"{name}: what it stands for is not here")
    given, instructions = request.get("input"), request.get("instructions")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise Unreadable("the request has no input")
    head = [{"role": "system", "content": instructions}] if instructions else []
    return {"messages": [*head, *joined(map(_message, given))], **_kept(request)}


def whole(answer: Mapping[str, Any]) -> Said:
    items = answer.get("output")
    if not isinstance(items, list):
        return None, None
    message = _answer(items)
    return message, _reason(answer, message)


def streamed(events: Iterable[Mapping[str, Any]]) -> Said:
    """From its last event, which has all of it; of one cut short, from its pieces. Raises Unreadable."""
    items: dict[int, dict[str, Any]] = {}
    end: Mapping[str, Any] = {}
    has_begun = False
    for event in events:
        match event:
            case {"type": str(kind), "output_index": int(at), "item": dict(item)} if kind in _ITEMS:
                items[at] = {name: [*each] if isinstance(each, list) else each for name, each in item.items()}
            case {"type": kind, "response": dict(response)}:
                has_begun = True
                end = response if kind in _ENDS else end
            case {"type": str(kind), "delta": str(text)}:
                _add(items, event, kind, text)
    if end.get("output"):
        return whole(end)
    if not has_begun and not items:
        return None, None
    message = _answer([items[at] for at in sorted(items)])
    return message, _reason(end, message)


def _add(items: dict[int, dict[str, Any]], event: Mapping[str, Any], kind: str, text: str) -> None:
    """A piece of an item; events of other kinds are not kept."""
    at = event.get("output_index", 0)
    if not isinstance(at, int):
        raise Unreadable("a piece of the answer belongs to no item")
    if kind == "response.function_call_arguments.delta":
        item = items.setdefault(at, {"type": "function_call"})
        item["arguments"] = (item.get("arguments") or "") + text
    elif kind in _PIECES:
        of, member, part, name = _PIECES[kind]
        item = items.setdefault(at, {"type": of, "role": "assistant"})
        if not isinstance(item.get(member), list):
            item[member] = []
        item[member].append({**part, name: text})


def _answer(items: Iterable[Any]) -> Message:
    said = [message for message in map(_message, items) if is_assistants(message)]
    return joined(said)[0] if said else assistant("")


def _reason(response: Mapping[str, Any], message: Message) -> str | None:
    match response:
        case {"status": "completed"}:
            return CALLS if message.get("tool_calls") else STOP
        case {"status": "incomplete", "incomplete_details": {"reason": str(reason)}}:
            return _REASONS.get(reason, reason)
        case _:
            return None


def _message(item: Any) -> Any:
    """What is no item of a conversation stays as it came. Raises Unreadable."""
    match item:
        case {"type": "item_reference"}:
            raise Unreadable("item_reference: what it stands for is not here")
        case {"type": "function_call"}:
            return assistant("", calls=[call(item.get("call_id"), item.get("name"), item.get("arguments") or "")])
        case {"type": "function_call_output"}:
            content = content_of(item.get("output"), _TEXTS)
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
        case {"type": "reasoning"}:
            thought = content_of(item.get("content") or item.get("summary") or "", _THOUGHTS)
            return assistant("", thought if isinstance(thought, str) else "")
        case {"role": "assistant"}:
            return assistant(content_of(item.get("content"), _TEXTS))
        case {"role": role}:
            return {"role": role, "content": content_of(item.get("content"), _TEXTS)}
        case _:
            return item if isinstance(item, dict) else {"role": None, "content": item}


def _kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer cannot be understood without."""
    kept: dict[str, Any] = {}
    if isinstance(tools := request.get("tools"), list) and tools:
        kept["tools"] = [_tool(each) for each in tools]
    match request.get("tool_choice"):
        case {"type": "function", "name": name}:
            kept["tool_choice"] = {"type": "function", "function": {"name": name}}
        case choice if choice:
            kept["tool_choice"] = choice
    match request.get("text"):
        case {"format": {"type": "json_schema", **schema}}:
            kept["response_format"] = {"type": "json_schema", "json_schema": schema}
        case {"format": {"type": "json_object"}}:
            kept["response_format"] = {"type": "json_object"}
    return kept


def _tool(given: Any) -> Any:
    """A server's own tool stays as it came."""
    if not isinstance(given, dict) or given.get("type") != "function":
        return given
    return tool(given.get("name"), given.get("description"), given.get("parameters"))
