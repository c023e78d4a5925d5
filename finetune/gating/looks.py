"""How often may be looked, and at which level each time.

Items are added for undecided skills, at most four times looked at. Each look may err, so the error is spent over them in proportion to
the items seen: alpha * t at the share t of all items. That is the power family with exponent 1 of Kim and DeMets (Biometrika 74, 1987), an
alpha-spending function of Lan and DeMets (Biometrika 70, 1983), between Pocock's even bounds and O'Brien and Fleming's, whose first look at
an eighth of the items would never end anything. The level of each look follows by the recursion of Armitage, McPherson and Rowe (1969)
for independent increments. Where later items tell less (clusters that are asked again), looks are more alike, and err less often together.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LOOKS = (500, 1000, 2000, 4000)
"""Items of an undecided skill at each look."""
LAST = len(LOOKS) - 1
_STEP = 0.01
_FAR = 8.5
"""Standard deviations that the integral reaches over."""
_NORMAL = NormalDist()


def level(alpha: float, look: int) -> float:
    """One-sided level of a look, counted from 0, that errs with `alpha` over all of them. Levels rise: what is settled stays so."""
    return levels(alpha)[look]


@cache
def levels(alpha: float, looks: tuple[int, ...] = LOOKS) -> tuple[float, ...]:
    """Of every look: the chance to cross the first bound there and then is what is spent there."""
    shares = [items / looks[-1] for items in looks]
    grid = np.arange(-_FAR, _FAR + _STEP / 2, _STEP)
    spent, found = 0.0, list[float]()
    density: NDArray[np.float64] = np.empty(0)  # of the sum so far, on `reached`, where no bound was crossed
    reached: NDArray[np.float64] = np.empty(0)
    for place, share in enumerate(shares):
        wanted, spent = alpha * share - spent, alpha * share
        points = grid * math.sqrt(share)
        if place == 0:
            here = _bell(points, math.sqrt(share))
        else:
            width = math.sqrt(share - shares[place - 1])
            step = float(reached[1] - reached[0])
            here = np.array([float(density @ _bell(point - reached, width)) * step for point in points])
        bound = _bound(points, here, wanted)
        found.append(1 - _NORMAL.cdf(bound / math.sqrt(share)))
        reached, density = points, np.where(points < bound, here, 0.0)
    return tuple(found)


def _bell(x: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * (x / width) ** 2) / (width * math.sqrt(2 * math.pi))


def _bound(points: NDArray[np.float64], density: NDArray[np.float64], wanted: float) -> float:
    """Above which the density has the mass that is wanted."""
    step = float(points[1] - points[0])
    above = np.cumsum((density[:0:-1] + density[-2::-1]) / 2 * step)[::-1]  # beyond points[:-1]
    place = int(np.flatnonzero(above >= wanted)[-1])
    beyond = float(above[place + 1]) if place + 1 < len(above) else 0.0
    share = (float(above[place]) - wanted) / (float(above[place]) - beyond)
    return float(points[place] + share * step)
