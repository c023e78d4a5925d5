"""A recipe as JSON, as attempts are told it; what comes back is equal to what went in."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Recipe


def to_json(recipe: Recipe) -> dict[str, Any]:
    plain = _plain(recipe)
    assert isinstance(plain, dict)
    return plain


def from_json(content: Mapping[str, Any]) -> Recipe:
    """Raises RecipeUnusable naming what is missing, unknown, or of another type."""
    try:
        recipe = _value(Recipe, content, "recipe")
    except ValueError as exc:
        raise RecipeUnusable(
            f"{exc}: go on with the version of forgegate that began this run, or begin another run"
        ) from exc
    assert isinstance(recipe, Recipe)
    return recipe


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _value(args[0], value, where)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type[Any], hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], each, f"{where}[{index}]") for index, each in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(name): _value(args[1], each, f"{where}.{name}") for name, each in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


def _record(cls: type[Any], value: Any, where: str) -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(value, Mapping) or value.keys() != hints.keys():
        odd = sorted(set(value) ^ set(hints)) if isinstance(value, Mapping) else [repr(value)]
        raise ValueError(f"{where}: not written by this version: {', '.join(odd)}")
    return cls(**{name: _value(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
