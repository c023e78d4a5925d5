"""What was asked and answered, from the bytes of one relayed request: pure.

Requests and answers of all APIs are kept in the form of chat completions (`gateway.data.chatform`), so that whoever reads the log knows
one form. A streamed answer is put together again from its events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from backends.dialects import Dialect, dialect_of
from gateway.accesslog import AccessLine
from gateway.data.chatform import chat, messages, responses
from gateway.data.chatform.message import Said, Unreadable
from gateway.data.framing import ChunkDecoder
from gateway.errors import BadAnswer

FORMAT, VERSION = "forgegate-conversation", 1
_FRAMED = re.compile(rb"[0-9a-fA-F]{1,8}\r\n").match
"""No JSON object and no event begins like the size of a chunk."""
_EVENT = b"data:"
_ARGUMENTS = "arguments"
"""Of a call: JSON in a text."""


@dataclass(frozen=True, slots=True)
class _Api:
    """How its requests and answers become those of a chat; each function raises Unreadable."""

    asked: Callable[[Mapping[str, Any]], dict[str, Any]]
    """`messages`, and what else an answer cannot be understood without."""
    whole: Callable[[Mapping[str, Any]], Said]
    streamed: Callable[[Iterator[dict[str, Any]]], Said]


_APIS = {
    Dialect.OPENAI: _Api(chat.asked, chat.whole, chat.streamed),
    Dialect.RESPONSES: _Api(responses.asked, responses.whole, responses.streamed),
    Dialect.MESSAGES: _Api(messages.asked, messages.whole, messages.streamed),
}


def transcript(
    request: bytes, answer: bytes, line: AccessLine, mask: Callable[[str], str] | None
) -> dict[str, Any] | None:
    """One record of the log; None where the request itself says that it is not to be kept (`store: false`). Raises Unreadable."""
    body, api = _object(request), _APIS[dialect_of(line.path)]
    if body.get("store") is False:
        return None
    asked = api.asked(body)
    said, finish_reason = _answer(answer, api) if answer else (None, None)
    texts = {**asked, "answer": said}
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
        return {name: _member(name, each, mask) for name, each in value.items()}
    return value


def _member(name: str, value: Any, mask: Callable[[str], str]) -> Any:
    return _arguments(value, mask) if name == _ARGUMENTS and isinstance(value, str) else masked(value, mask)


def _arguments(text: str, mask: Callable[[str], str]) -> str:
    """JSON stays JSON: each value is masked by itself, whose beginning no escape hides then, and all of it for what its neighbours tell."""
    try:
        value = json.loads(text)
    except ValueError:  # cut short, or never any
        return mask(text)
    apart = _dumped(_values(value, mask))
    together = mask(apart)
    if _is_json(together):
        return together
    # A tag can take a text's place, not a number's.
    return mask(_dumped(json.loads(apart, parse_int=str, parse_float=str)))


def _values(value: Any, mask: Callable[[str], str]) -> Any:
    """Masked one by one; a number that is personal becomes a text."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_values(each, mask) for each in value]
    if isinstance(value, dict):
        return {name: _values(each, mask) for name, each in value.items()}
    plain = _dumped(value)
    hidden = mask(plain)
    return value if hidden == plain else hidden


def _dumped(value: Any) -> str:
    """Half of a surrogate pair becomes `?`: no UTF-8 has it."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _answer(body: bytes, api: _Api) -> Said:
    """Raises Unreadable."""
    content = _unframed(body) if _FRAMED(body) else body
    if content.lstrip().startswith(b"{"):
        return api.whole(_object(content))
    return api.streamed(_events(content))


def _unframed(body: bytes) -> bytes:
    try:
        return ChunkDecoder().feed(body)
    except BadAnswer as exc:
        raise Unreadable(str(exc)) from exc


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    """Of one cut short, those that are whole. Raises Unreadable."""
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.splitlines():
        data = line[len(_EVENT) :].strip()
        if line.startswith(_EVENT) and data != b"[DONE]":
            yield _object(data)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError as exc:
        raise Unreadable(str(exc)) from exc
    if not isinstance(found, dict):
        raise Unreadable("no JSON object")
    return found
