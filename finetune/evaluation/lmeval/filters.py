"""What is cut out of a generated answer before it is compared: lm-eval's filters of these names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Step = Callable[[str], str]
FALLBACK = "[invalid]"
_REGEX_KEYS = ("function", "regex_pattern", "group_select", "fallback")


class Unfit(Exception):
    """A filter that is not supported; the message names it."""


@dataclass(frozen=True, slots=True)
class Filter:
    name: str
    steps: tuple[Step, ...]

    def apply(self, text: str) -> str:
        for step in self.steps:
            text = step(text)
        return text


def read_filter(told: Any) -> Filter:
    """Raises Unfit."""
    if not isinstance(told, dict) or not isinstance(told.get("filter"), list):
        raise Unfit("each is {name: NAME, filter: [{function: NAME}]}")
    steps = [_step(each) for each in told["filter"]]
    return Filter(str(told.get("name", "none")), tuple(step for step in steps if step is not None))


def _step(told: Any) -> Step | None:
    """None for one that changes nothing where there is one answer. Raises Unfit."""
    name = str(told.get("function")) if isinstance(told, dict) else ""
    if name == "regex":
        return _regex(told)
    if name not in _PLAIN:
        raise Unfit(f"supported are regex, {', '.join(_PLAIN)}, not {name!r}")
    if more := [key for key in told if key != "function"]:
        raise Unfit(f"{name}: the key {more[0]!r} is not supported")
    return _PLAIN[name]


def _regex(told: Mapping[str, Any]) -> Step:
    if more := [key for key in told if key not in _REGEX_KEYS]:
        raise Unfit(f"regex: the key {more[0]!r} is not supported")
    select, fallback = told.get("group_select", 0), str(told.get("fallback", FALLBACK))
    try:
        pattern = re.compile(str(told.get("regex_pattern", r"#### (\-?[0-9\.\,]+)")))
    except re.error as exc:
        raise Unfit(f"regex: {told.get('regex_pattern')!r} is no regular expression ({exc})") from exc
    if not isinstance(select, int):
        raise Unfit(f"regex: group_select is a whole number, not {select!r}")

    def cut(text: str) -> str:
        matches = pattern.findall(text)
        if not -len(matches) <= select < len(matches):
            return fallback
        found = matches[select]
        if isinstance(found, tuple):  # several groups: the first that took part
            found = next((part for part in found if part), fallback)
        return str(found).strip()

    return cut


_PLAIN: Mapping[str, Step | None] = {
    "take_first": None, "lowercase": str.lower, "uppercase": str.upper, "remove_whitespace": str.lstrip,
}  # fmt: skip
