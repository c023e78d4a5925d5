"""Where a recipe's paths lead: relative ones to the recipe's folder, and to the current one what is not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOME = "FORGEGATE_HOME"


def home_of(env: Mapping[str, str] = os.environ) -> Path:
    """$FORGEGATE_HOME, absolute."""
    return Path(env.get(HOME) or "~/.local/share/forgegate").expanduser().absolute()


def digest_cache(env: Mapping[str, str] = os.environ) -> Path | None:
    """Where digests of model folders are kept; None where this user can keep nothing there."""
    models = home_of(env) / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return models if os.access(models, os.W_OK) else None


@dataclass(frozen=True, slots=True)
class Folders:
    recipe: Path
    current: Path
    home: Path
    """$FORGEGATE_HOME"""

    @classmethod
    def of(cls, recipe: Path, env: Mapping[str, str] = os.environ) -> Folders:
        return cls(recipe.absolute().parent, Path.cwd(), home_of(env))

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
