"""The questions in a plain terminal: y, n, back, why, quit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.decide.chart import Outcome, Question, Way, follow
from gateway.decide.words import Words

Read = Callable[[str], str]
"""Shows a prompt and returns the line that is typed. Raises EOFError."""
Tell = Callable[[str], object]
_YES = frozenset({"y", "yes", "예", "네", "ㅇ", "응"})
_NO = frozenset({"n", "no", "아니요", "아니오", "아뇨", "ㄴ"})
_BACK = frozenset({"b", "back", "뒤로"})
_QUIT = frozenset({"q", "quit", "exit", "끝", "종료"})
_WHY = frozenset({"?", "w", "why", "왜"})


class Quit(Exception):
    """The user does not want to go on."""


def ask(given: Mapping[Question, bool], words: Words, read: Read, tell: Tell) -> Way:
    """To an outcome, asking only what `given` leaves open. Raises Quit."""
    said: dict[Question, bool] = {}
    while True:
        way = follow({**said, **given})
        if isinstance(way.end, Outcome):
            return way
        answer = _one(way.end, len(way.steps) + 1, words, read, tell)
        if answer is not None:
            said[way.end] = answer
        elif said:
            said.popitem()
        else:
            tell(words.labels["first"])


def ask_text(question: str, default: str, read: Read) -> str:
    """A line; `default` where it is empty. Raises Quit."""
    shown = f" [{default}]" if default else ""
    line = _line(f"{question}{shown} ", read)
    if line.lower() in _QUIT:
        raise Quit
    return line or default


def _one(question: Question, number: int, words: Words, read: Read, tell: Tell) -> bool | None:
    """None: back to the question before it. Raises Quit."""
    tell(f"\n{number}. {words.questions[question]}")
    while True:
        line = _line(f"   {words.labels['keys']} ", read).lower()
        if line in _YES | _NO:
            return line in _YES
        if line in _BACK:
            return None
        if line in _QUIT:
            raise Quit
        tell(f"   {words.reasons[question] if line in _WHY else words.labels['unknown']}")


def _line(prompt: str, read: Read) -> str:
    try:
        return read(prompt).strip()
    except EOFError as exc:
        raise Quit from exc
