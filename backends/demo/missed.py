"""Answers that are wrong whatever follows, as their skills' scorers will find: known before they end. Pure."""

from collections.abc import Callable, Mapping

from backends.demo.corpus import Item
from backends.demo.skills import SKILLS
from backends.demo.skills.base import scores_all_phrases

_QUOTES = "'\""
_CALL = "<tool_call>"


def has_missed(item: Item, begun: str) -> bool:
    """Whether every answer that begins so scores 0.0; of a skill that is none of the family's, never."""
    misses = _MISSES.get(item.skill)
    return misses is not None and misses(item.check, begun)


def _prose(check: tuple[str, ...], begun: str) -> bool:
    return len(begun) > 600 or begun.lstrip().startswith(("{", "[", _CALL))


def _arithmetic(check: tuple[str, ...], begun: str) -> bool:
    return len(begun) > 80


def _text(check: tuple[str, ...], begun: str) -> bool:
    return _strays(begun.lstrip().lstrip(_QUOTES), check[0], f"{_QUOTES}.")


def _json_answers(check: tuple[str, ...], begun: str) -> bool:
    if check[0] == "prose":
        return "{" in begun
    return _opens_otherwise(begun, "{")


def _tool_calls(check: tuple[str, ...], begun: str) -> bool:
    kind, *expected = check
    if kind == "call":
        return _opens_otherwise(begun, _CALL)
    return _CALL in begun or len(begun) > 200 or (kind == "none" and _opens_otherwise(begun, expected[0]))


def _system_prompts(check: tuple[str, ...], begun: str) -> bool:
    kind, phrase, word = check
    if len(begun.strip()) > 200:
        return True
    if kind == "begin":
        return _opens_otherwise(begun, word)
    if kind == "upper":
        return begun != begun.upper()
    return kind == "one word" and _strays(begun.lstrip(), phrase.rstrip("."), ".")


def _unknown(check: tuple[str, ...], begun: str) -> bool:
    """Its scorer reads the first 40 characters."""
    return len(begun.strip()) >= 40 and SKILLS["unknown"].score(check, begun) == 0.0


def _translation(check: tuple[str, ...], begun: str) -> bool:
    return _text(check, begun) and (len(begun) >= 80 or _prose(check, begun))


def _opens_otherwise(begun: str, opening: str) -> bool:
    found = begun.lstrip()
    return found[: len(opening)] != opening[: len(found)]


def _strays(begun: str, wanted: str, dropped: str) -> bool:
    """Whether nothing that begins so is `wanted` with no more after it than white space and what else is dropped."""
    rest = begun[len(wanted) :]
    return begun[: len(wanted)] != wanted[: len(begun)] or not all(char.isspace() or char in dropped for char in rest)


_MISSES: Mapping[str, Callable[[tuple[str, ...], str], bool]] = {
    **{name: _prose for name, skill in SKILLS.items() if skill.score is scores_all_phrases},
    "arithmetic": _arithmetic,
    "text_ops": _text,
    "json_answers": _json_answers,
    "tool_calls": _tool_calls,
    "system_prompts": _system_prompts,
    "unknown": _unknown,
    "translation": _translation,
}
