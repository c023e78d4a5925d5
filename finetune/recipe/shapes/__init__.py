"""Shapes of the bases of the shipped recipes: config.json as far as a plan reads it, so that one can be made before the model is here."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def known_shape(name: str) -> Path | None:
    """A folder with the config.json of `ORG/NAME`; None where it is not known."""
    folders = {f"{path.parent.name}/{path.name}".casefold(): path for path in _FOLDER.glob("*/*/") if path.is_dir()}
    return folders.get(name.strip().casefold())
