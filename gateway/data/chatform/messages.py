"""POST /v1/messages: turns of content blocks as messages of a chat (https://platform.claude.com/docs/en/api/messages).

system, user: text, tool_result      ->  the system's message, the user's texts, a tool's message for each result
assistant: thinking, text, tool_use  ->  one message
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from gateway.data.chatform import tools
from gateway.data.chatform.message import (
    CALLS,
    FILTER,
    LENGTH,
    STOP,
    Message,
    Said,
    Unreadable,
    assistant,
    call,
    content_of,
    said_of,
)

_TEXTS = {"text": "text"}
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_REASONS = {
    "end_turn": STOP, "stop_sequence": STOP, "max_tokens": LENGTH, "model_context_window_exceeded": LENGTH, "tool_use": CALLS,
    "refusal": FILTER,
}  # fmt: skip
_CHOICES = {"any": "required"}


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Unreadable."""
    turns = request.get("messages")
    if not isinstance(turns, list):
        raise Unreadable("the request has no messages")
    system = request.get("system")
    head = [{"role": "system", "content": content_of(system, _TEXTS)}] if system else []
    return {"messages": [*head, *(message for turn in turns for message in _turn(turn))], **_kept(request)}


def whole(answer: Mapping[str, Any]) -> Said:
    blocks = answer.get("content")
    if answer.get("type") != "message" or not isinstance(blocks, list):
        return None, None
    return _assistant(blocks), _reason(answer.get("stop_reason"))


def streamed(events: Iterable[Mapping[str, Any]]) -> Said:
    """Raises Unreadable."""
    blocks: dict[int, dict[str, Any]] = {}
    has_begun, reason = False, None
    for event in events:
        match event:
            case {"type": "message_start"}:
                has_begun = True
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                blocks[index] = dict(block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                if index not in blocks:
                    raise Unreadable("a piece of the answer belongs to no block")
                _add(blocks[index], delta)
            case {"type": "message_delta", "delta": dict(delta)}:
                reason = delta.get("stop_reason") or reason
    if not has_begun:
        return None, None
    return _assistant([blocks[index] for index in sorted(blocks)]), _reason(reason)


def _add(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """What is no text (a signature, a citation) is not kept."""
    name = _DELTAS.get(str(delta.get("type")), "")
    if isinstance(delta.get(name), str):
        block[name] = block.get(name, "") + delta[name]


def _reason(told: Any) -> str | None:
    return _REASONS.get(told, told) if isinstance(told, str) else None


def _turn(turn: Any) -> Iterator[Any]:
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        yield turn
    elif turn.get("role") == "assistant":
        yield _assistant(content)
    else:
        for is_result, blocks in itertools.groupby(content, _is_result):
            if is_result:
                yield from map(_result, blocks)
            else:
                yield {"role": turn.get("role"), "content": content_of(list(blocks), _TEXTS)}


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


def _result(block: Mapping[str, Any]) -> Message:
    content = content_of(block.get("content") or "", _TEXTS)
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _assistant(blocks: list[Any]) -> Message:
    rest: list[Any] = []
    thoughts: list[str] = []
    calls: list[Message] = []
    for block in blocks:
        match block:
            case {"type": "thinking", "thinking": str(thought)}:
                thoughts.append(thought)
            case {"type": "tool_use"}:
                calls.append(call(block.get("id"), block.get("name"), _arguments(block)))
            case {"type": "redacted_thinking"}:
                pass
            case _:
                rest.append(block)
    return assistant(said_of(rest, _TEXTS), "".join(thoughts), calls)


def _arguments(block: Mapping[str, Any]) -> Any:
    """As the model wrote them, where they were streamed."""
    return block.get("partial_json") or orjson.dumps(block.get("input") or {}).decode()


def _kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer cannot be understood without."""
    kept: dict[str, Any] = {}
    if isinstance(given := request.get("tools"), list) and given:
        kept["tools"] = [_tool(each) for each in given]
    match request.get("tool_choice"):
        case {"type": "tool", "name": name}:
            kept["tool_choice"] = {"type": "function", "function": {"name": name}}
        case {"type": str(kind)}:
            kept["tool_choice"] = _CHOICES.get(kind, kind)
    match request.get("output_config"):
        case {"format": {"type": "json_schema", "schema": schema}}:
            kept["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    return kept


def _tool(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or "input_schema" not in given:
        return tools.other(given)
    return tools.function(given.get("name"), given.get("description"), given["input_schema"])
