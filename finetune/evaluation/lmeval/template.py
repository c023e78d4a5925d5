"""Texts made of a row, as lm-eval makes them: the name of a column stands for its value, all else is a Jinja template."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from finetune.errors import LacksPackage, RecipeUnusable

Row = Mapping[str, Any]


def text_of(template: str, row: Row) -> str:
    """Raises RecipeUnusable where the row has not what the template asks for."""
    return str(row[template]) if template in row else _rendered(template, row)


def choices_of(template: str | Sequence[str], row: Row) -> tuple[str, ...]:
    """Raises RecipeUnusable where there are not at least two."""
    found: Any = row.get(template) if isinstance(template, str) else template
    if isinstance(template, str) and template not in row:
        rendered = _rendered(template, row)
        try:
            found = ast.literal_eval(rendered)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise RecipeUnusable(f"doc_to_choice gives {rendered[:80]!r}, which is no list") from None
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) < 2:
        raise RecipeUnusable(f"doc_to_choice gives {str(found)[:80]!r}: choices are a list of two or more")
    return tuple(map(str, found))


def place_of(template: str | int, row: Row, choices: Sequence[str]) -> int:
    """Of the right choice, by its number from 0 or by its text; digits that a template gives are a number. Raises RecipeUnusable."""
    target: Any = template
    if isinstance(template, str):
        target = row[template] if template in row else _rendered(template, row)
        if template not in row and target.isdecimal():
            target = int(target)
    if isinstance(target, str) and target in choices:
        return choices.index(target)
    is_number = isinstance(target, int | float) and not isinstance(target, bool) and target == int(target)
    if not is_number or not 0 <= int(target) < len(choices):
        raise RecipeUnusable(f"doc_to_target gives {target!r}, which is none of the {len(choices)} choices")
    return int(target)


def targets_of(template: str | int, row: Row) -> tuple[str, ...]:
    """Of a generated answer: one text, or several of which each is right."""
    if isinstance(template, int):
        return (str(template),)
    found = row[template] if template in row else _rendered(template, row)
    return tuple(map(str, found)) if isinstance(found, list | tuple) else (str(found),)


def _rendered(template: str, row: Row) -> str:
    from jinja2 import TemplateError

    try:
        return str(_compiled(template).render(**row))
    except TemplateError as exc:
        raise RecipeUnusable(f"the template {template[:60]!r}: {exc.message or type(exc).__name__}") from exc
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, ArithmeticError) as exc:
        raise RecipeUnusable(f"the template {template[:60]!r}: {exc}") from exc


@cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@cache
def _environment() -> Any:
    """Raises LacksPackage."""
    try:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as exc:
        raise LacksPackage("task files of lm-eval are Jinja templates: run `forgegate install trainer`") from exc
    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters["regex_replace"] = lambda text, pattern, repl, count=0: re.sub(pattern, repl, text, count=count)
    return made
