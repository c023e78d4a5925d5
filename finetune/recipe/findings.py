"""What is wrong with a recipe, and what its reader is told: collected, so that all of it is said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was given; places of the file come before those of the command line."""

    is_override: bool
    number: int
    """The line, or which `--set` it was."""
    words: str
    """`recipe.yaml:12` or `--set`."""


@dataclass(slots=True)
class Findings:
    problems: list[tuple[Place, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, place: Place, key: str, reason: str) -> None:
        self.problems.append((place, f"{place.words}: {key}: {reason}" if key else f"{place.words}: {reason}"))

    def note(self, key: str, words: str) -> None:
        """Once, however often it is said."""
        text = f"{key}: {words}"
        if text not in self.notes:
            self.notes.append(text)

    def sentences(self) -> list[str]:
        """The problems, each once, in the order of their places."""
        return list(dict.fromkeys(text for _, text in sorted(self.problems, key=lambda pair: pair[0])))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Empty where none is near."""
    close = difflib.get_close_matches(name.strip().lower().replace("-", "_"), list(known), n=1, cutoff=cutoff)
    return close[0] if close else ""
