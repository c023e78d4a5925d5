"""The text that a model is measured or calibrated on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import BackendError

if TYPE_CHECKING:
    from backends.demo.corpus import Item


class TextTooShort(BackendError):
    """The text does not fill what is to be computed from it."""

    exit_code = 2


class TextUnreadable(BackendError):
    """The file cannot be read as text."""

    exit_code = 2


def read_text(path: Path) -> str:
    """UTF-8, with or without a byte order mark. Raises TextUnreadable."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise TextUnreadable(f"{path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise TextUnreadable(f"{path}: not UTF-8 (byte {exc.start}): save it as UTF-8 text") from exc


def demo_held_out() -> str:
    """The demo corpus' held-out conversations, some of every skill, as the demo model sees them: for measuring."""
    from backends.demo.corpus import held_out_items
    from backends.demo.skills import SKILLS

    items = [item for name in SKILLS for item in held_out_items(name, 32)]
    # One skill after the other would make windows that are hard for their skill alone.
    return _rendered(items[index] for index in sorted(range(len(items)), key=lambda index: index * 7919 % len(items)))


def demo_training(count: int = 600) -> str:
    """Conversations that the demo model learnt from: for calibrating, so that nothing is measured on what it was calibrated with."""
    from backends.demo.corpus import training_items

    return _rendered(training_items(0, count))


def _rendered(items: Iterable[Item]) -> str:
    from backends.demo.chat import render

    return "".join(part.text for item in items for part in render(item.conversation(), item.tools))
