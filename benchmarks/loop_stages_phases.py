"""What `forgegate train --publish --json` does one after the other, and how long each of it takes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BEGINS = (
    ("prepare", "stage"), ("train", "stage train"), ("export", "done"), ("references", "progress load"), ("publish", "progress upload"),
    ("proof", "progress proof"), ("parity", "progress rows"), ("evaluate", "progress gate"), ("gate", "progress verdict"),
    ("flip", "progress alias"),
)  # fmt: skip
"""Phase -> the first event of it that is told. Of later phases some tell what sounds like an earlier one: none is gone back to."""
FIRST = "plan"
GATE = "gate"
PHASES = (FIRST, *(name for name, _ in _BEGINS))


@dataclass(frozen=True, slots=True)
class Told:
    """One event, and when it was read, in seconds since the command began."""

    at_s: float
    event: Mapping[str, Any]

    @property
    def key(self) -> str:
        """`stage train`, `progress upload`, `done`."""
        kind = str(self.event.get("event", ""))
        name = self.event.get("name" if kind == "stage" else "stage") if kind in ("stage", "progress") else None
        return f"{kind} {name}" if name else kind


@dataclass(frozen=True, slots=True)
class Phase:
    """`name`: one of PHASES."""

    name: str
    seconds: float


def phases(told: Sequence[Told], total_s: float) -> list[Phase]:
    """Those that were reached, in order; together they take `total_s`."""
    begun = [(FIRST, 0.0)]
    left = list(_BEGINS)
    previous_s = 0.0
    for each in told:
        place = next((number for number, (_, mark) in enumerate(left) if _is_begun(mark, each.key)), None)
        if place is not None:
            name = left[place][0]
            # The verdict is told once it has been reached: that took from the last answer on.
            begun.append((name, previous_s if name == GATE else each.at_s))
            left = left[place + 1 :]
        previous_s = each.at_s
    ends = [at_s for _, at_s in begun[1:]] + [total_s]
    return [Phase(name, round(end_s - at_s, 2)) for (name, at_s), end_s in zip(begun, ends, strict=True)]


def _is_begun(mark: str, key: str) -> bool:
    return key == mark or key.startswith(f"{mark} ")
