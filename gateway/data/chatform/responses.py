"""POST /v1/responses: items as messages of a chat (https://platform.openai.com/docs/api-reference/responses).

instructions, message                                ->  a message
reasoning, message, function_call, custom_tool_call  ->  of the assistant, one after the other: one message
function_call_output, custom_tool_call_output        ->  a tool's message
any other (mcp_call, web_search_call, ...)           ->  its type alone: what it carries may be anyone's
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.data.chatform import tools
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
    custom_call,
    is_assistants,
    joined,
    kind_of,
    said_of,
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
_CALL_PIECES = {
    "response.function_call_arguments.delta": ("function_call", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input"),
}
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
    if kind in _CALL_PIECES:
        of, name = _CALL_PIECES[kind]
        item = items.setdefault(at, {"type": of})
        item[name] = (item.get(name) or "") + text
    elif kind in _PIECES:
        of, member, part, name = _PIECES[kind]
        item = items.setdefault(at, {"type": of, "role": "assistant"})
        if not isinstance(item.get(member), list):
            item[member] = []
        item[member].append({**part, name: text})


def _answer(items: Iterable[Any]) -> Message:
    said = joined(map(_said, items))
    return said[0] if said else assistant("")


def _said(item: Any) -> Message:
    """Of what is no message of the model, its type, as a part of one."""
    message: Message = _message(item)
    return message if is_assistants(message) else assistant([kind_of(item)])


def _reason(response: Mapping[str, Any], message: Message) -> str | None:
    """That it just stopped is known only where all of it is text, thoughts and calls: an item of another kind may wait for the client."""
    match response:
        case {"status": "completed"} if message.get("tool_calls"):
            return CALLS
        case {"status": "completed"}:
            return STOP if isinstance(message["content"], str) else None
        case {"status": "incomplete", "incomplete_details": {"reason": str(reason)}}:
            return _REASONS.get(reason, reason)
        case _:
            return None


def _message(item: Any) -> Any:
    """Raises Unreadable."""
    match item:
        case {"type": "item_reference"}:
            raise Unreadable("item_reference: what it stands for is not here")
        case {"type": "function_call"}:
            return assistant("", calls=[call(item.get("call_id"), item.get("name"), item.get("arguments") or "")])
        case {"type": "custom_tool_call"}:
            return assistant("", calls=[custom_call(item.get("call_id"), item.get("name"), item.get("input") or "")])
        case {"type": "function_call_output" | "custom_tool_call_output"}:
            content = content_of(item.get("output"), _TEXTS)
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
        case {"type": "reasoning"}:
            thought = content_of(item.get("content") or item.get("summary") or "", _THOUGHTS)
            return assistant("", thought) if isinstance(thought, str) else assistant([kind_of(item)])
        case {"role": "assistant"}:
            return assistant(said_of(item.get("content"), _TEXTS))
        case {"role": role}:
            return {"role": role, "content": content_of(item.get("content"), _TEXTS)}
        case _:
            return kind_of(item) if isinstance(item, dict) else {"role": None, "content": item}


def _kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer cannot be understood without."""
    kept: dict[str, Any] = {}
    if isinstance(given := request.get("tools"), list) and given:
        kept["tools"] = [_tool(each) for each in given]
    match request.get("tool_choice"):
        case {"type": "function", "name": name}:
            kept["tool_choice"] = {"type": "function", "function": {"name": name}}
        case chosen if chosen:
            kept["tool_choice"] = tools.choice(chosen)
    match request.get("text"):
        case {"format": {"type": "json_schema", **schema}}:
            kept["response_format"] = {"type": "json_schema", "json_schema": schema}
        case {"format": {"type": "json_object"}}:
            kept["response_format"] = {"type": "json_object"}
    return kept


def _tool(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or given.get("type") != "function":
        return tools.other(given)
    return tools.function(given.get("name"), given.get("description"), given.get("parameters"))
