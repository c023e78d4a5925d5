"""An engine's options as frozen dataclasses: read from a mapping or from flags, with every mistake named at once.

A field is a `bool`, `int`, `float`, `str`, a tuple of these, another such dataclass (a group of options, written as a mapping), or one
of these `| None`. The string under it is its help text. Standard library only: a configuration is checked without the engine.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Schema = TypeVar("Schema", bound=DataclassInstance)
else:
    Schema = TypeVar("Schema")

Check = tuple[bool, str]
"""Whether a value is fine, and what is said where it is not: `name: what it must be, got ...`."""
_BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


class OptionsError(ValueError):
    """One or more options are unknown or out of range; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a schema's documentation."""

    name: str
    default: Any
    """Without meaning where `is_group`."""
    doc: str
    depth: int = 0
    """In how many groups it is."""
    is_group: bool = False
    """Whether the entries that follow, one deeper, are its own."""


def check_all(checks: Iterator[Check]) -> None:
    """Raises OptionsError with what is said of all values that are not fine."""
    problems = [text for is_fine, text in checks if not is_fine]
    if problems:
        raise OptionsError(problems)


def read(schema: type[Schema], mapping: Mapping[str, Any], hint: Callable[[str], str] | None = None) -> Schema:
    """Build from a YAML mapping. `hint` says what to do about an unknown key, in place of the nearest known one.

    Raises OptionsError naming every unknown key, wrong type and value out of range; those of a group as `group.key`.
    """
    hints = get_type_hints(schema)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in hints:
            problems.append(f"unknown option {key!r}{(hint and hint(str(key))) or nearest(str(key), hints)}")
            continue
        try:
            values[key] = _coerce(value, hints[key])
        except OptionsError as error:
            problems += [_inside(key, problem) for problem in error.problems]
        except (TypeError, ValueError, KeyError):
            problems.append(f"{key}: expected {_type_words(hints[key])}, got {value!r}")
    try:
        built = schema(**values)
    except OptionsError as error:
        raise OptionsError(problems + error.problems) from None
    if problems:
        raise OptionsError(problems)
    return built


def nearest(key: str, known: Mapping[str, Any]) -> str:
    """What follows the name of something unknown: `(did you mean ...?)`, or all that is known."""
    close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"


def docs_of(schema: type[DataclassInstance]) -> dict[str, str]:
    """Help text of every option, from the attribute docstrings."""
    return dict(_docs(schema))


@cache
def _docs(schema: type[DataclassInstance]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            docs[node.target.id] = str(ast.literal_eval(following.value))
    return docs


def entries(schema: type[DataclassInstance], depth: int = 0) -> Iterator[Entry]:
    """Every option with its default and help text, groups before what is in them."""
    hints, docs = get_type_hints(schema), _docs(schema)
    for field in dataclasses.fields(schema):
        group = group_of(hints[field.name])
        yield Entry(field.name, field.default, docs[field.name], depth, group is not None)
        if group is not None:
            yield from entries(group, depth + 1)


def group_of(kind: Any) -> type[DataclassInstance] | None:
    """The dataclass behind a field's type, if it is a group of options."""
    kind = _without_none(kind)
    return kind if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None


def add_arguments(parser: argparse.ArgumentParser, schema: type[DataclassInstance]) -> None:
    """Add one `--kebab-case` flag per option to `parser`; values stay strings until `from_args` checks them. Without groups."""
    docs = _docs(schema)
    for field in dataclasses.fields(schema):
        shown = _as_flag(field.default) or "none"
        parser.add_argument(_flag(field.name), metavar="V", help=f"{docs[field.name]} (default: {shown})")


def from_args(schema: type[Schema], args: argparse.Namespace) -> Schema:
    """The options named on the command line. Raises OptionsError."""
    names = [field.name for field in dataclasses.fields(schema)]
    return read(schema, {name: value for name in names if (value := getattr(args, name)) is not None})


def to_argv(options: DataclassInstance) -> list[str]:
    """The flags that differ from the defaults, as `--n-ctx 4096 ...`. Without groups."""
    argv: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            argv += [_flag(field.name), _as_flag(value)]
    return argv


def _coerce(value: Any, kind: Any) -> Any:
    """`value` (YAML or flag text) as `kind`; raises TypeError, ValueError, KeyError, or a group's OptionsError."""
    if value is None and _without_none(kind) is not kind:
        return None
    kind = _without_none(kind)
    group = group_of(kind)
    if group is not None:
        return read(group, value) if isinstance(value, Mapping) else _refuse(value)
    if get_origin(kind) is tuple:
        return _coerce_tuple(value, get_args(kind))
    return _PLAIN[kind](value)


def _coerce_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        _refuse(value)
    if kinds[1:] == (Ellipsis,):
        return tuple(_coerce(part, kinds[0]) for part in parts)
    return tuple(_coerce(part, kind) for part, kind in zip(parts, kinds, strict=True))


def _to_bool(value: Any) -> bool:
    return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]


def _to_int(value: Any) -> int:
    return int(_refuse(value) if isinstance(value, bool | float) else value)


def _to_float(value: Any) -> float:
    return float(_refuse(value) if isinstance(value, bool) else value)


def _to_text(value: Any) -> str:
    # YAML reads a bare `on` as true.
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else str(_refuse(value))


_PLAIN: dict[Any, Callable[[Any], Any]] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_text}


def _refuse(value: Any) -> Any:
    raise TypeError(f"not accepted: {value!r}")


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not types.NoneType)
    return kind


def _type_words(kind: Any) -> str:
    kind = _without_none(kind)
    if group_of(kind) is not None:
        return "a group of options"
    if get_origin(kind) is not tuple:
        return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a text")
    first, *others = get_args(kind)
    if get_origin(first) is tuple:
        return f"a list of lists of {len(get_args(first))} whole numbers each"
    assert others == [Ellipsis]
    return {int: "a list of whole numbers", float: "a list of numbers"}.get(first, "a list of texts")


def _inside(group: str, problem: str) -> str:
    """A problem of an option, told from outside its group."""
    unknown = "unknown option '"
    if problem.startswith(unknown):
        return f"{unknown}{group}.{problem.removeprefix(unknown)}"
    return f"{group}.{problem}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_flag(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" for part in value)
    return str(value)
