"""The installed version."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """`0+source` when run from a checkout that is not installed."""
    try:
        return metadata.version("forgegate")
    except metadata.PackageNotFoundError:
        return "0+source"
