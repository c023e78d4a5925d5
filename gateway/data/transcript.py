"""What was asked and answered, from the bytes of one relayed request: pure.

A streamed answer is put together again from its events. Of several answers (`n`) the first is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from gateway.accesslog import AccessLine
from gateway.data.framing import ChunkDecoder
from gateway.errors import BadAnswer

FORMAT, VERSION = "forgegate-conversation", 1
_FRAMED = re.compile(rb"[0-9a-fA-F]{1,8}\r\n").match
"""No JSON object and no event begins like the size of a chunk."""
_EVENT = b"data:"
_KEPT = ("tools", "tool_choice", "response_format")
"""Of the request, beside its messages: what an answer cannot be understood without."""


class Unreadable(ValueError):
    """Not a chat, or not an answer to one."""


def transcript(
    request: bytes, answer: bytes, line: AccessLine, mask: Callable[[str], str] | None
) -> dict[str, Any] | None:
    """One record of the log; None where the request itself says that it is not to be kept (`store: false`). Raises Unreadable."""
    asked = _object(request)
    messages = asked.get("messages")
    if not isinstance(messages, list):
        raise Unreadable("the request has no messages")
    if asked.get("store") is False:
        return None
    said, finish_reason = _answer(answer) if answer else (None, None)
    texts = {"messages": messages, "answer": said, **{name: asked[name] for name in _KEPT if asked.get(name)}}
    return {
        "format": FORMAT, "format_version": VERSION, "time": line.time, "request_id": line.request_id, "path": line.path,
        "model": line.model, "resolved": line.resolved, "key": line.key, "status": line.status, "error": line.error,
        "finish_reason": finish_reason, "is_masked": mask is not None, **(texts if mask is None else masked(texts, mask)),
    }  # fmt: skip


def masked(value: Any, mask: Callable[[str], str]) -> Any:
    """The value with every text in it masked; names of members are not texts."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked(each, mask) for each in value]
    if isinstance(value, dict):
        return {name: masked(each, mask) for name, each in value.items()}
    return value


def _answer(body: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The assistant's message and why it ended; None for what is not known. Raises Unreadable."""
    content = _unframed(body) if _FRAMED(body) else body
    if content.lstrip().startswith(b"{"):
        choice = _first_choice(_object(content))
        message = choice.get("message")
        return (message if isinstance(message, dict) else None), choice.get("finish_reason")
    return _put_together(_events(content))


def _unframed(body: bytes) -> bytes:
    try:
        return ChunkDecoder().feed(body)
    except BadAnswer as exc:
        raise Unreadable(str(exc)) from exc


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    """Of one cut short, those that are whole."""
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.splitlines():
        data = line[len(_EVENT) :].strip()
        if line.startswith(_EVENT) and data != b"[DONE]":
            yield _object(data)


def _put_together(events: Iterator[dict[str, Any]]) -> tuple[dict[str, Any] | None, str | None]:
    """One message of its deltas. Raises Unreadable."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
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
        for call in delta.get("tool_calls") or ():
            _add_call(calls, call)
        finish_reason = choice.get("finish_reason") or finish_reason
    if not num_choices:
        return None, None
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, finish_reason


def _add_call(calls: dict[int, dict[str, Any]], delta: Any) -> None:
    if not isinstance(delta, dict) or not isinstance(delta.get("index"), int):
        raise Unreadable("a tool call of the answer has no index")
    call = calls.setdefault(delta["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = delta.get("id") or call["id"]
    function = delta.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            call["function"][name] += function[name]


def _first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    found = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    return next((each for each in found if each.get("index", 0) == 0), {})


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError as exc:
        raise Unreadable(str(exc)) from exc
    if not isinstance(found, dict):
        raise Unreadable("no JSON object")
    return found
