"""Settings of an engine: options with listed values, read from the command line, and every combination of them.

n_seq_max=16,64,256                     one option, its values
n_seq_max=16|64|256,flash_attn=on|off   several at once, in quotes: a name with `=` begins the next option
speculative=off,ngram                   words for groups of options; any group can be given as JSON as well
kv_unified=default,false                `default` leaves the option to the engine
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "default"
MAX_SETTINGS = 100_000
_NAMED = re.compile(r"([A-Za-z_][\w-]*)\s*=(.*)", re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}

Problems = Callable[[Mapping[str, Any]], list[str]]
"""What an engine refuses in options."""
Words = Mapping[str, Mapping[str, Any]]
"""By option: words that stand for a value; None leaves the option to the engine."""


class SettingError(ValueError):
    """Options or values that no engine has; says which, and the nearest one."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Options that differ from the engine's own; `key` is their JSON, the same for the same options."""

    key: str = "{}"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Setting":
        """Left-out options (None) are none."""
        return cls(json.dumps({name: value for name, value in options.items() if value is not None}, sort_keys=True))

    @property
    def options(self) -> dict[str, Any]:
        """For a pool of `forgegate.yaml`."""
        options: dict[str, Any] = json.loads(self.key)
        return options

    @property
    def label(self) -> str:
        """For people: `n_seq_max 64, kv_unified false`."""
        shown = (f"{name} {shown_value(value)}" for name, value in self.options.items())
        return ", ".join(shown) or "defaults"


DEFAULTS = Setting()


@dataclass(frozen=True, slots=True)
class Dimension:
    """One option and the values to try; None stands for the engine's own."""

    name: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}={','.join(DEFAULT if value is None else shown_value(value) for value in self.values)}"


@dataclass(frozen=True, slots=True)
class Space:
    """All combinations; `fixed` holds for every one of them, the defaults included."""

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> list[Setting]:
        """In the order of the lists, each once, without the defaults."""
        names = [dimension.name for dimension in self.dimensions]
        rows = itertools.product(*(dimension.values for dimension in self.dimensions))
        found = dict.fromkeys(Setting.of(dict(zip(names, row, strict=True))) for row in rows)
        found.pop(DEFAULTS, None)
        return list(found)

    def options_of(self, setting: Setting) -> dict[str, Any]:
        """What the engine is started with."""
        return {**self.fixed, **setting.options}


def shown_value(value: Any) -> str:
    """As it may be written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def parse_over(texts: Iterable[str], words: Words, problems: Problems) -> tuple[Dimension, ...]:
    """Read `--over`; every value is held against the engine's schema by itself. Raises SettingError."""
    found: dict[str, list[Any]] = {}
    for name, value in _read(texts, "--over", words):
        if value is not None and (refused := problems({name: value})):
            raise SettingError(f"--over {name}: {refused[0]}")
        if value in (values := found.setdefault(name, [])):
            raise SettingError(f"--over {name}: {shown_value(value)} is listed twice")
        values.append(value)
    dimensions = tuple(Dimension(name, tuple(values)) for name, values in found.items())
    num = math.prod(len(dimension.values) for dimension in dimensions)
    if num > MAX_SETTINGS:
        raise SettingError(f"--over: {num:,} combinations (at most {MAX_SETTINGS:,}): list fewer options or values")
    return dimensions


def parse_fixed(texts: Iterable[str], words: Words, problems: Problems) -> dict[str, Any]:
    """Read `--set`: one value for each option. Raises SettingError."""
    found: dict[str, Any] = {}
    for name, value in _read(texts, "--set", words):
        if name in found:
            raise SettingError(f"--set {name}: one value; --over {name}=... tries several")
        found[name] = value
    found = {name: value for name, value in found.items() if value is not None}
    if refused := problems(found):
        raise SettingError(f"--set: {refused[0]}")
    return found


def check_apart(dimensions: Sequence[Dimension], fixed: Mapping[str, Any]) -> None:
    """Raises SettingError for an option that is both fixed and varied."""
    for dimension in dimensions:
        if dimension.name in fixed:
            raise SettingError(f"{dimension.name} is in --set and in --over: it cannot be fixed and varied")


def _read(texts: Iterable[str], option: str, words: Words) -> Iterator[tuple[str, Any]]:
    """(option, value) in order."""
    for text in texts:
        name = ""
        for token in _split(text):
            if named := _NAMED.fullmatch(token):
                name, token = named[1].replace("-", "_"), named[2].strip()
            if not name:
                raise SettingError(f"{option} {text!r}: write NAME=VALUE,VALUE, for example n_seq_max=16,64")
            if not token:
                raise SettingError(f"{option} {name}: an empty value")
            yield name, _value(token, words.get(name, {}))


def _value(token: str, words: Mapping[str, Any]) -> Any:
    """JSON where it is any (16, true, {...}), else the text itself: `off` is a word, not false."""
    if token == DEFAULT:
        return None
    if token in words:
        return words[token]
    try:
        return json.loads(token)
    except json.JSONDecodeError:
        return token


def _split(text: str) -> list[str]:
    """At commas and bars outside of JSON's brackets and quotes."""
    parts, closing, is_quoted = [""], [], False
    for before, char in itertools.pairwise(" " + text):
        if char == '"' and before != "\\":
            is_quoted = not is_quoted
        if not is_quoted and char in _CLOSING:
            closing.append(_CLOSING[char])
        elif not is_quoted and closing and char == closing[-1]:
            closing.pop()
        if char in ",|" and not closing and not is_quoted:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]
