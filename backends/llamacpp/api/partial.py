"""The whole part of JSON that was cut off."""

from __future__ import annotations

from typing import Any

import orjson


def partial_object(text: str) -> dict[str, Any]:
    """The members of an object that are whole, where its text ends early; a number at the end may have gone on.

    {"a": [1, 23, "x   ->  {"a": [1, 23]}        {"a": "b", "c": 2   ->  {"a": "b"}
    """
    certain, closers = 0, ""
    stack: list[str] = []
    is_in_string = is_escaped = is_value = False
    for at, character in enumerate(text):
        if is_in_string:
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = True
            elif character == '"':
                is_in_string = False
                if is_value:
                    certain, closers = at + 1, "".join(reversed(stack))
        elif character == '"':
            is_in_string = True
        elif character == ":":
            is_value = True
        elif character in "{}[],":
            if character in "{[":
                stack.append("}" if character == "{" else "]")
            elif character in "}]":
                stack.pop()
            certain, closers = at + (character != ","), "".join(reversed(stack))
            is_value = stack[-1:] == ["]"]
    try:
        value = orjson.loads(text[:certain] + closers)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
