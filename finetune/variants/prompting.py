"""What a request says, and what is read from its reply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from finetune.variants.seeds import Shots

_LANGUAGES = {"ko": "Korean", "en": "English"}
_DECODER = json.JSONDecoder()
_LIST = "examples"


@dataclass(frozen=True, slots=True)
class Pair:
    question: str
    answer: str
    """Empty where it is asked for apart."""


def messages(shots: Shots, num_new: int, with_answers: bool) -> list[dict[str, str]]:
    """For `num_new` questions after the pattern of the shots, with their answers or without."""
    fields = _fields(with_answers)
    shown = [json.dumps({name: getattr(seed, name) for name in fields}, ensure_ascii=False) for seed in shots.seeds]
    what = "questions with their answers" if with_answers else "questions"
    language = _LANGUAGES.get(shots.language, "the language of the examples")
    lines = [
        f"You write training data. Here are {len(shown)} {what}, one JSON object a line:",
        "",
        *shown,
        "",
        *(["The assistant that answers has these instructions:", shots.system, ""] if shots.system else []),
        f"Write {num_new} new {what} of the same kind, in {language}. Change what is asked, names, things, numbers, wording and length. "
        + ("Answers have exactly the form of those above and are right for their question. " if with_answers else "")
        + f"Print one JSON object a line with {' and '.join(map(repr, fields))}, and nothing else.",
    ]
    return [{"role": "user", "content": "\n".join(lines)}]


def asked_apart(shots: Shots, question: str) -> list[dict[str, str]]:
    """The question as a client of the assistant asks it."""
    system = [{"role": "system", "content": shots.system}] if shots.system else []
    return [*system, {"role": "user", "content": question}]


def read(reply: str, with_answers: bool) -> tuple[list[Pair], int]:
    """Pairs in the reply, and how many objects in it are none. They may stand in a list, in a fence, behind numbers."""
    found: list[Pair] = []
    num_unusable, at = 0, reply.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(reply, at)
        except (ValueError, RecursionError):
            num_unusable += 1
            end = _next_line(reply, at)
        else:
            pairs = [_pair(item, with_answers) for item in _items(value)]
            found += [pair for pair in pairs if pair is not None]
            num_unusable += sum(pair is None for pair in pairs)
        at = reply.find("{", end)
    return found, num_unusable


def response_format(num_new: int, with_answers: bool) -> dict[str, Any]:
    """The same as a JSON schema, to which a server can hold a model that does not keep to the form by itself."""
    fields = _fields(with_answers)
    item = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in fields},
        "required": [*fields],
        "additionalProperties": False,
    }
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": num_new}
    schema = {"type": "object", "properties": {_LIST: items}, "required": [_LIST], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": _LIST, "strict": True, "schema": schema}}


def _fields(with_answers: bool) -> tuple[str, ...]:
    return ("question", "answer") if with_answers else ("question",)


def _items(value: dict[str, Any]) -> list[Any]:
    """The object itself, or those in the list that it holds, as the schema has it."""
    inner = value.get(_LIST)
    return inner if isinstance(inner, list) and "question" not in value else [value]


def _next_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _pair(value: Any, with_answers: bool) -> Pair | None:
    if not isinstance(value, dict):
        return None
    question, answer = _text(value.get("question")), _text(value.get("answer")) if with_answers else ""
    return Pair(question, answer) if question and (answer or not with_answers) else None


def _text(value: Any) -> str:
    """An answer that is JSON is often written as such, and not as a text."""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) and value else ""
