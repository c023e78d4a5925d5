"""How many threads compute on a CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping

_GIVEN = "OMP_NUM_THREADS"


def choose_threads(num_cores: int, load: float, environment: Mapping[str, str] = os.environ) -> int | None:
    """As many as there are cores that nobody else uses, `load` being how many processes want to run; None where the user has said.

    Threads wait for one another after every product: one that has to share its core holds up the others, so that on two busy
    cores two of them train at a third to a tenth of the speed of one.
    """
    if environment.get(_GIVEN):
        return None
    return max(1, min(num_cores, round(num_cores - load)))


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
