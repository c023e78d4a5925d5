"""Records of the gateway's log of conversations, and which of them are rows: pure.

The log's format is the gateway's (`gateway.data.transcript`): one JSON object a line, `format` forgegate-conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.dataset.formats import ROLES, text_of
from finetune.dataset.row import ASSISTANT, SYSTEM, TOOL, USER

FORMAT, VERSION = "forgegate-conversation", 1
UNREADABLE, FAILED, CUT, FILTERED, TOOLS, NO_TEXT, PART = (
    "unreadable", "failed", "cut", "filtered", "tools", "no_text", "part"
)  # fmt: skip
REASONS: Mapping[str, str] = {
    UNREADABLE: "lines that are no record of a conversation",
    FAILED: "requests that failed, or whose client left",
    CUT: "answers that were cut: by max_tokens, or before their end",
    FILTERED: "answers that a filter stopped",
    TOOLS: "conversations with tools, which training does not render",
    NO_TEXT: "no question, no answer, or a question that is not all text",
    PART: "the beginning of a longer conversation that is here too",
    "duplicate": "copies of earlier rows",
    "near_duplicate": "nearly the question of an earlier row",
}
"""Why a conversation is left out, in the order in which it is looked for."""


@dataclass(frozen=True, slots=True)
class Conversation:
    model: str
    """As it was asked for."""
    resolved: str
    messages: tuple[tuple[str, str], ...]
    """Roles and texts; the answer is the last one."""

    def record(self) -> dict[str, Any]:
        """A row in ChatML's form."""
        return {"messages": [{"role": role, "content": text} for role, text in self.messages]}

    def digest(self) -> bytes:
        return _digest(self.messages)

    def beginnings(self) -> Iterator[bytes]:
        """Digests of what it was after each earlier answer: a client sends all of them anew."""
        for place, (role, _) in enumerate(self.messages[:-1], 1):
            if role == ASSISTANT:
                yield _digest(self.messages[:place])


def read_line(line: bytes) -> Conversation | str:
    """Or the reason why it is no row."""
    record = _record(line)
    if record is None:
        return UNREADABLE
    if record.get("status") != 200 or record.get("error"):
        return FAILED
    answer, reason = record.get("answer"), record.get("finish_reason")
    if reason in ("tool_calls", "function_call") or record.get("tools"):
        return TOOLS
    if reason == "content_filter":
        return FILTERED
    if reason != "stop":
        return CUT
    messages = _messages([*record["messages"], answer])
    if isinstance(messages, str):
        return messages
    return Conversation(str(record.get("model", "")), str(record.get("resolved", "")), messages)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(found, dict) and found.get("format") == FORMAT and found.get("format_version") == VERSION
    return found if is_ours and isinstance(found.get("messages"), list) else None


def _messages(said: list[Any]) -> tuple[tuple[str, str], ...] | str:
    """Roles and texts, or the reason why they are no row."""
    found = []
    for message in said:
        if not isinstance(message, dict):
            return NO_TEXT
        role = ROLES.get(str(message.get("role")).lower(), "")
        if role == TOOL or message.get("tool_calls") or message.get("function_call"):
            return TOOLS
        if not role or not _is_text(message.get("content")):
            return NO_TEXT
        found.append((role, text_of(message["content"]).strip()))
    has_question = any(role == USER and text for role, text in found)
    is_whole = all(text for role, text in found if role != SYSTEM) and found[-1][0] == ASSISTANT
    return tuple(pair for pair in found if pair[1]) if has_question and is_whole else NO_TEXT


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        )
    return isinstance(content, str)


def _digest(messages: tuple[tuple[str, str], ...]) -> bytes:
    return hashlib.blake2b(json.dumps(messages).encode(), digest_size=16).digest()
