"""What users call versions and aliases, and which one they mean. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway import errors

_DIGITS = re.compile("[0-9a-f]{4,}")
"""Enough of a digest to be meant as one."""
MAX_LISTED = 10


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def find_version(text: str, versions: Sequence[T], aliases: Sequence[str] | None = None) -> T:
    """By its whole name, or the beginning of its digits, with or without the label. Raises NotFound, which lists `aliases` too."""
    for version in versions:
        if version.name == text:
            return version
    label, _, digits = text.rpartition("@")
    if _DIGITS.fullmatch(digits):
        meant = [v for v in versions if v.name.startswith(text if label else f"{v.name.rpartition('@')[0]}@{digits}")]
        if len(meant) == 1:
            return meant[0]
        if meant:
            listed = ", ".join(version.name for version in meant[:MAX_LISTED])
            raise errors.BadRequest(f"{text!r} may be any of: {listed}")
    names = [*(aliases or ()), *(version.name for version in versions)]
    raise errors.NotFound(f"no {'version' if aliases is None else 'version or alias'} {text!r}{_hint(text, names)}")


def find_alias(text: str, aliases: Sequence[T]) -> T:
    """Raises NotFound."""
    for alias in aliases:
        if alias.name == text:
            return alias
    raise errors.NotFound(f"no alias {text!r}{_hint(text, [alias.name for alias in aliases])}")


def _hint(text: str, names: Sequence[str]) -> str:
    if not names:
        return ": nothing was published yet"
    close = difflib.get_close_matches(text, names, n=1)
    near = f"; did you mean {close[0]!r}?" if close else ";"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{near} there are: {', '.join(names[:MAX_LISTED])}{more}"
