"""POST /v1/chat/completions: messages stay as they came, a streamed answer is put together again from its deltas.

Of several answers (`n`) the first is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.data.chatform import tools
from gateway.data.chatform.message import Message, Said, Unreadable, assistant, call


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Unreadable."""
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise Unreadable("the request has no messages")
    return {"messages": messages, **_kept(request)}


def whole(answer: Mapping[str, Any]) -> Said:
    choice = _first_choice(answer)
    message = choice.get("message")
    return (message if isinstance(message, dict) else None), choice.get("finish_reason")


def streamed(events: Iterable[Mapping[str, Any]]) -> Said:
    """Raises Unreadable."""
    message = assistant("")
    calls: dict[int, Message] = {}
    finish_reason, num_choices = None, 0
    for event in events:
        choice = _first_choice(event)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            continue
        num_choices += 1
        for name in ("content", "reasoning_content"):
            if isinstance(delta.get(name), str):
                message[name] = message.get(name, "") + delta[name]
        for each in delta.get("tool_calls") or ():
            _add_call(calls, each)
        finish_reason = choice.get("finish_reason") or finish_reason
    if not num_choices:
        return None, None
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, finish_reason


def _kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer cannot be understood without."""
    kept: dict[str, Any] = {}
    if isinstance(given := request.get("tools"), list) and given:
        kept["tools"] = [_tool(each) for each in given]
    if chosen := request.get("tool_choice"):
        kept["tool_choice"] = tools.choice(chosen)
    if form := request.get("response_format"):
        kept["response_format"] = form
    return kept


def _tool(given: Any) -> dict[str, Any]:
    match given:
        case {"type": "function", "function": described}:
            return {"type": "function", "function": described}
        case {"type": "custom", "custom": described}:
            return {"type": "custom", "custom": tools.other(described)}
        case _:
            return tools.other(given)


def _add_call(calls: dict[int, Message], delta: Any) -> None:
    if not isinstance(delta, dict) or not isinstance(delta.get("index"), int):
        raise Unreadable("a tool call of the answer has no index")
    made = calls.setdefault(delta["index"], call("", "", ""))
    made["id"] = delta.get("id") or made["id"]
    function = delta.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            made["function"][name] += function[name]


def _first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    found = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    return next((each for each in found if each.get("index", 0) == 0), {})
