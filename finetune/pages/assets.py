"""The files that pages are made of, in the folder `assets` beside this one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
THEME = "theme.css"
"""Colours and type, light and dark, of every page."""


@cache
def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
