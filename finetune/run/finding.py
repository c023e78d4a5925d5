"""A step as guards see it, and what they say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ROWS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, as the training process tells it."""

    number: int
    loss: float
    """NaN where there is none."""
    grad_norm: float | None
    num_trained_tokens: int | None
    peak_bytes: int
    total_bytes: int
    """Of the device; 0 where it is not known."""
    rows: tuple[int, ...]

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Step:
        return cls(
            number=int(event["step"]),
            loss=_number(event.get("loss")),
            grad_norm=None if event.get("grad_norm") is None else float(event["grad_norm"]),
            num_trained_tokens=event.get("num_trained_tokens"),
            peak_bytes=int(event.get("peak_bytes") or 0),
            total_bytes=int(event.get("total_bytes") or 0),
            rows=tuple(event.get("rows") or ()),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard found; `message` names the likely cause, the rows and the remedy."""

    name: str
    """`nan`, `zero_loss`, `never_falls`, `spike`, `diverged` or `memory`."""
    message: str
    step: int
    rows: tuple[int, ...] = ()
    is_fatal: bool = False
    """More steps would be wasted."""

    def as_event(self) -> dict[str, Any]:
        return {
            "event": "guard", "name": self.name, "message": self.message, "step": self.step,
            "rows": list(self.rows), "is_fatal": self.is_fatal,
        }  # fmt: skip


def rows_words(rows: Sequence[int]) -> str:
    """`row 7`, `rows 3, 9 and 12`, `rows 1, 2, 3 and 40 more`."""
    known = sorted(set(rows))
    if not known:
        return "rows that are not known"
    if len(known) == 1:
        return f"row {known[0]}"
    shown = known if len(known) <= MAX_ROWS_SHOWN else known[: MAX_ROWS_SHOWN - 1]
    rest = len(known) - len(shown)
    last = f"{rest} more" if rest else str(shown[-1])
    return f"rows {', '.join(map(str, shown if rest else shown[:-1]))} and {last}"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
