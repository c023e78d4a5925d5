"""Which settings are measured, and how thoroughly: at random, in the order of the lists, or by successive halving.

Halving (Karnin, Koren, Somekh, ICML 2013; Jamieson and Talwalkar, AISTATS 2016) looks at many settings briefly and at the better
half of them twice as long, until few are left; random and grid search measure each setting once, at full length. For
configurations of engines random search is hard to beat (SLO-Guard, arXiv 2604.17627): halving is the default because
it shares the time out better, not because it is cleverer.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.optimize.settings import Setting
from benchmarks.optimize.trial import Trial

EFFORTS = (1, 2, 4)
"""How many times the shortest measurement, rung by rung."""
FULL = EFFORTS[-1]


class Strategy(StrEnum):
    """How to search."""

    HALVING = "halving"
    RANDOM = "random"
    GRID = "grid"


class OutOfBudget(Exception):
    """Too little time is left for another trial."""


Measure = Callable[[Setting, int], Awaitable[Trial]]
"""A trial at an effort; raises OutOfBudget."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a trial, seconds, as the defaults had it."""

    launch_s: float
    """Start, warm-up, answers: whatever the effort."""
    probing_s: float
    """At full effort."""

    def of(self, effort: int) -> float:
        """A trial at this effort."""
        return self.launch_s + self.probing_s * effort / FULL


def num_affordable(num_settings: int, left_s: float, cost: Cost) -> int:
    """How many settings may enter the lowest rung for halving to come to its end in the time."""
    num = 0
    while num < num_settings and _cost_of_halving(num + 1, cost) <= left_s:
        num += 1
    return num


def shortest_s(strategy: Strategy, cost: Cost) -> float:
    """The least time in which one setting comes to the end of the search."""
    return _cost_of_halving(1, cost) if strategy is Strategy.HALVING else cost.of(FULL)


def candidates(strategy: Strategy, settings: Sequence[Setting], seed: int) -> list[Setting]:
    """In the order in which they are tried."""
    ordered = list(settings)
    if strategy is not Strategy.GRID:
        random.Random(f"{seed}/settings").shuffle(ordered)
    return ordered


async def run(
    strategy: Strategy, settings: Sequence[Setting], measure: Measure, left_s: float, cost: Cost
) -> list[Trial]:
    """All trials, up to where the time ended; `settings` in the order of `candidates`."""
    found: list[Trial] = []
    rung = list(settings)
    if strategy is Strategy.HALVING:
        rung = rung[: num_affordable(len(rung), left_s, cost)]
    for effort in EFFORTS if strategy is Strategy.HALVING else (FULL,):
        trials: list[Trial] = []
        try:
            for setting in rung:
                trials.append(await measure(setting, effort))  # noqa: PERF401 - those before the end of the time count
        except OutOfBudget:
            return found + trials
        found += trials
        rung = better_half(trials)
    return found


def better_half(trials: Sequence[Trial]) -> list[Setting]:
    """Of those that carried any load, best first."""
    carried = sorted((trial for trial in trials if trial.score > 0), key=lambda trial: -trial.score)
    return [trial.setting for trial in carried[: math.ceil(len(trials) / 2)]]


def winner(trials: Sequence[Trial]) -> Trial | None:
    """The best of those that were looked at longest; None where nothing carried any load."""
    carried = [trial for trial in trials if trial.score > 0]
    return max(carried, key=lambda trial: (trial.effort, trial.score), default=None)


def _cost_of_halving(num: int, cost: Cost) -> float:
    total = 0.0
    for effort in EFFORTS:
        total += num * cost.of(effort)
        num = math.ceil(num / 2)
    return total
