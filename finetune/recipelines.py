"""A recipe's keys as YAML reads them, and the line that each stands on: for whoever proposes another value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from finetune.gating.remedies import remedies


def keys_of(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, int]]:
    """Values and lines (from 1) of the top level; what `overrides` (`key=value`) says stands on none. Empty where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        values, tree = yaml.safe_load(text), yaml.compose(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}, {}
    if not isinstance(values, dict) or not isinstance(tree, yaml.MappingNode):
        return {}, {}
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in tree.value}
    for text in overrides:
        name, _, value = text.partition("=")
        first, *rest = name.strip().split(".")
        lines.pop(first, None)
        if rest:
            _put(values, [first, *rest], value)
        else:
            values[first] = _plain(value)
    return values, lines


def _put(values: Any, steps: Sequence[str], text: str) -> None:
    """Where all that lies above it is keys with values."""
    for step in steps[:-1]:
        values = values.setdefault(step, {}) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values[steps[-1]] = _plain(text)


def _plain(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def remedy_lines(path: Path, overrides: Sequence[str] = ()) -> Iterator[str]:
    """What to change in a recipe that forgets, in order, each with the line to write; of any recipe where `path` cannot be read."""
    values, lines = keys_of(path, overrides)
    for number, remedy in enumerate(remedies(values, lines), 1):
        yield f"  {number}. {remedy.name}: {remedy.words}"
        yield from (f"       {change.words}" for change in remedy.changes)
