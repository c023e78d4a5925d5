"""Where a recipe's paths lead: relative ones to the recipe's folder, and to the current one what is not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    recipe: Path
    current: Path
    home: Path
    """$FORGEGATE_HOME"""

    @classmethod
    def of(cls, recipe: Path, env: Mapping[str, str] = os.environ) -> Folders:
        chosen = env.get("FORGEGATE_HOME") or "~/.local/share/forgegate"
        return cls(recipe.absolute().parent, Path.cwd(), Path(chosen).expanduser().absolute())

    def find(self, text: str) -> Path:
        """Absolute; of the current folder where there is no such file in either."""
        path = _expanded(text)
        if path.is_absolute() or not os.path.lexists(self.recipe / path):
            return Path(os.path.normpath(self.current / path))
        return Path(os.path.normpath(self.recipe / path))

    def new(self, text: str) -> Path:
        """Absolute, of what is written: below the current folder."""
        return Path(os.path.normpath(self.current / _expanded(text)))


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~nobody`
        return Path(text)
