"""Forms of records: Alpaca, ShareGPT, ChatML, prompt/completion, ready-made text. Each record is recognised by its own fields."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.dataset.errors import DataUnusable
from finetune.dataset.row import ASSISTANT, SYSTEM, TOOL, USER, Place, Row, Turn

ALPACA, SHAREGPT, CHATML, COMPLETION, TEXT = "Alpaca", "ShareGPT", "ChatML", "prompt/completion", "ready-made text"
ROLES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "prompter": USER,
    "customer": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
    "chatgpt": ASSISTANT,
    "ai": ASSISTANT,
    "tool": TOOL,
    "function": TOOL,
    "observation": TOOL,
    "ipython": TOOL,
    "function_call": ASSISTANT,
    "tool_call": ASSISTANT,
}
_NAMES = {
    "instruction": (
        "instruction",
        "question",
        "query",
        "지시",
        "지시문",
        "명령",
        "질문",
        "문의",
        "문의내용",
        "고객문의",
        "질의",
        "고객질문",
    ),
    "input": ("input", "context", "입력", "본문", "문맥", "원문", "지문"),
    "output": (
        "output",
        "answer",
        "response",
        "reply",
        "label",
        "target",
        "출력",
        "답변",
        "응답",
        "답",
        "정답",
        "상담답변",
        "답변내용",
        "라벨",
        "분류",
        "요약",
    ),
}
_CHATML_MARK = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?=<\|im_end\|>|<\|im_start\|>|\Z)(<\|im_end\|>)?", re.DOTALL)
_ALPACA_MARK = re.compile(
    r"^#{2,3} *(Instruction|Input|Response|지시|입력|응답|명령어|답변)[^\n:]*:?[ \t]*\n?", re.MULTILINE | re.IGNORECASE
)
_ALPACA_ROLE = {"response": ASSISTANT, "응답": ASSISTANT, "답변": ASSISTANT}


class NoForm(Exception):
    """A record that is of none of the forms; the message says why."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which of the file's fields stand for `instruction`, `input`, `output`, `prompt`, `completion`, `messages`, `system`."""

    names: Mapping[str, str]

    def apply(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with its fields renamed."""
        return {self.names.get(name, name): value for name, value in record.items()} if self.names else record


def choose_columns(sample: list[dict[str, Any]], given: Mapping[str, str], where: str) -> Columns:
    """The user's own choice (`given`: field of the form -> field of the file), and for tables with headers of their own a known synonym.

    Raises DataUnusable where a named field is not there, or no field is known.
    """
    fields = {name for record in sample for name in record}
    if missing := [source for source in given.values() if source not in fields]:
        raise DataUnusable(
            f"{where} has no field {missing[0]!r}{_nearest(missing[0], fields)}; it has: {_listed(fields)}"
        )
    names = {source: target for target, source in given.items()}
    if not names and not any(_has_form(record) for record in sample):
        names = _synonyms(fields)
        if not {"instruction", "output"} <= set(names.values()):
            raise DataUnusable(
                f"{where}: no known form: it has {_listed(fields)}; known are instruction/input/output, messages, conversations, "
                "prompt/completion and text. Name yours: --columns instruction=FIELD,output=FIELD (in a recipe, beside path: columns: "
                "{instruction: FIELD, output: FIELD})"
            )
    return Columns(names)


def _synonyms(fields: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for target, names in _NAMES.items():
        plain = {re.sub(r"[\s_\-]", "", field).lower(): field for field in sorted(fields)}
        source = next((plain[name] for name in names if name in plain), None)
        if source is not None and source not in found:
            found[source] = target
    return found


def _has_form(record: Mapping[str, Any]) -> bool:
    return any(
        name in record for name in ("messages", "conversations", "conversation", "instruction", "prompt", "text")
    ) and not ("text" in record and "label" in record)


def _nearest(name: str, fields: set[str]) -> str:
    close = difflib.get_close_matches(name, fields, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(fields: set[str]) -> str:
    return ", ".join(sorted(fields)[:12]) or "no fields"


def to_row(record: Any, number: int) -> Row:
    """Raises NoForm."""
    if not isinstance(record, dict):
        raise NoForm(f"it is no object but {type(record).__name__}")
    for name in ("messages", "conversations", "conversation", "dialog", "dialogue"):
        if name in record:
            return _chat(record, name, number)
    if isinstance(record.get("prompt"), list):
        return _chat_completion(record, number)
    if "prompt" in record or "completion" in record or "chosen" in record:
        return _completion(record, number)
    if "instruction" in record or "output" in record:
        return _alpaca(record, number)
    if "text" in record:
        return _ready_made(record, number)
    raise NoForm(f"none of its fields is known: {', '.join(map(str, list(record)[:8])) or 'it has none'}")


def text_of(value: Any) -> str:
    """A field's text: null is none, parts of a message are joined, other values are written as JSON does."""
    if value is None or value != value:  # NaN, as tables have it for empty cells
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value):
        return "\n".join(str(part["text"]) for part in value if isinstance(part.get("text"), str))
    return json.dumps(value, ensure_ascii=False)


def _alpaca(record: dict[str, Any], number: int) -> Row:
    instruction, extra = text_of(record.get("instruction")), text_of(record.get("input"))
    turns = []
    if text_of(record.get("system")):
        turns.append(Turn(SYSTEM, text_of(record["system"]), ("system",)))
    history = record.get("history")
    for place, pair in enumerate(history if isinstance(history, list) else []):
        if isinstance(pair, list | tuple) and len(pair) == 2:
            turns.append(Turn(USER, text_of(pair[0]), ("history", place, 0)))
            turns.append(Turn(ASSISTANT, text_of(pair[1]), ("history", place, 1)))
    turns.append(Turn(USER, instruction, ("instruction",)))
    if extra.strip():
        turns.append(Turn(USER, extra, ("input",)))
    turns.append(Turn(ASSISTANT, text_of(record.get("output")), ("output",)))
    shared = instruction if extra.strip() else text_of(record.get("system"))
    return Row(number, ALPACA, tuple(turns), shared, record)


def _completion(record: dict[str, Any], number: int) -> Row:
    answer = next((name for name in ("completion", "chosen", "response", "output") if name in record), "completion")
    value = record.get(answer)
    turns = []
    if text_of(record.get("system")):
        turns.append(Turn(SYSTEM, text_of(record["system"]), ("system",)))
    turns += [Turn(USER, text_of(record.get("prompt")), ("prompt",)), Turn(ASSISTANT, text_of(value), (answer,))]
    return Row(number, COMPLETION, tuple(turns), text_of(record.get("system")), record)


def _chat_completion(record: dict[str, Any], number: int) -> Row:
    """TRL's conversational form: `prompt` and `completion` are lists of messages."""
    problems: list[str] = []
    turns = _turns(record["prompt"], ("prompt",), problems)
    value = record.get("completion")
    if isinstance(value, list):
        turns += _turns(value, ("completion",), problems)
    else:
        turns.append(Turn(ASSISTANT, text_of(value), ("completion",)))
    return Row(number, CHATML, tuple(turns), _system_of(turns), record, tuple(problems))


def _chat(record: dict[str, Any], name: str, number: int) -> Row:
    value = record[name]
    if isinstance(value, str):  # tables hold messages as JSON
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise NoForm(f"`{name}` is text that is no JSON") from None
        record = {**record, name: value}
    if not isinstance(value, list):
        raise NoForm(f"`{name}` is no list of messages")
    problems: list[str] = []
    turns = _turns(value, (name,), problems)
    if text_of(record.get("system")) and not any(turn.role == SYSTEM for turn in turns):
        turns.insert(0, Turn(SYSTEM, text_of(record["system"]), ("system",)))
    has_from = any(isinstance(message, dict) and "from" in message for message in value)
    return Row(number, SHAREGPT if has_from else CHATML, tuple(turns), _system_of(turns), record, tuple(problems))


def _turns(value: list[Any], place: Place, problems: list[str]) -> list[Turn]:
    turns = []
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            problems.append(f"message {index + 1} is no object")
            continue
        said = message.get("role", message.get("from"))
        role = ROLES.get(str(said).strip().lower(), "")
        if not role:
            problems.append(
                f"message {index + 1} has the role {said!r}" if said is not None else f"message {index + 1} has no role"
            )
        field = next((name for name in ("content", "value", "text") if name in message), "content")
        calls = message.get("tool_calls") or message.get("function_call") or str(said) in ("function_call", "tool_call")
        turns.append(
            Turn(
                role or str(said),
                text_of(message.get(field)),
                (*place, index, field),
                bool(calls),
                is_masked=message.get("weight") == 0 or message.get("train") is False,
            )
        )
    return turns


def _system_of(turns: list[Turn]) -> str:
    return "\n".join(turn.text for turn in turns if turn.role == SYSTEM)


def _ready_made(record: dict[str, Any], number: int) -> Row:
    """Text in which a template has been rendered already: ChatML's or Alpaca's marks tell its turns."""
    text = text_of(record["text"])
    problems: list[str] = []
    turns = []
    for mark in _CHATML_MARK.finditer(text):
        role = ROLES.get(mark[1].lower(), "")
        if not role:
            problems.append(f"a turn has the role {mark[1]!r}")
        if mark[2] or mark[3]:
            turns.append(Turn(role or mark[1], mark[2] + (mark[3] or ""), ("text",)))
    if not turns:
        turns = _alpaca_text(text)
    return Row(number, TEXT, tuple(turns), _system_of(turns), record, tuple(problems))


def _alpaca_text(text: str) -> list[Turn]:
    """Raises NoForm."""
    marks = list(_ALPACA_MARK.finditer(text))
    if not marks and text.strip():
        raise NoForm("`text` without the marks of a template: what is the question and what the answer cannot be told")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Turn(_ALPACA_ROLE.get(mark[1].lower(), USER), text[mark.end() : end].strip(), ("text",))
        for mark, end in zip(marks, ends, strict=True)
    ]


def describe(forms: Mapping[str, int], sample: list[dict[str, Any]], columns: Columns) -> list[str]:
    """What was recognised and why, one line a form."""
    total = sum(forms.values())
    lines = []
    for form, count in sorted(forms.items(), key=lambda item: -item[1]):
        keys = next((_keys(record) for record in map(columns.apply, sample) if _form_of(record) == form), "")
        lines.append(f"{form}: {count} of {total} rows{f' have {keys}' if keys else ''}")
    for source, target in columns.names.items():
        lines.append(f"column {source!r} is taken as {target}")
    return lines


def _form_of(record: dict[str, Any]) -> str:
    try:
        return to_row(record, 0).form
    except NoForm:
        return ""


def _keys(record: dict[str, Any]) -> str:
    for name in ("messages", "conversations", "conversation"):
        value = record.get(name)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return f"{name} with {', '.join(list(value[0])[:3])}"
    return ", ".join(
        name for name in record if name in ("instruction", "input", "output", "prompt", "completion", "text", "system")
    )
