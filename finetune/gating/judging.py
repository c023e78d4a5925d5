"""What the scores say of one task or skill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from finetune.gating.intervals import Array, Bounds, Sample, best_seen, bounds, chance_above, chance_below, sample_of
from finetune.gating.limits import Limits
from finetune.gating.paired import Paired

Rule = Literal["improve", "non-inferior"]
State = Literal["better", "kept", "dropped", "forgotten", "undecided"]
RULES: tuple[Rule, ...] = ("improve", "non-inferior")
STATES: tuple[State, ...] = ("better", "kept", "dropped", "forgotten", "undecided")


@dataclass(frozen=True, slots=True)
class Levels:
    """At which the bounds of one look err."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Judged:
    """`live` and `candidate` are means in [0, 1]; `difference`, candidate - live, and its one-sided bounds are points of 100."""

    name: str
    num_items: int
    num_clusters: int
    live: float
    candidate: float
    difference: float
    lower: float
    upper: float
    state: State

    @property
    def is_lost(self) -> bool:
        return self.state in ("dropped", "forgotten")


def judge_task(task: Paired, rule: Rule, limits: Limits, levels: Levels) -> Judged:
    """The task is better, kept where the rule asks no more, or dropped; it is never forgotten, since it is what is learnt."""
    limit = task_limit(task.name, rule, limits)
    found = _bounds(task, levels)
    return _judged(task, found, _state(found, limit))


def judge_skill(skill: Paired, limits: Limits, levels: Levels) -> Judged:
    found = _bounds(skill, levels)
    state = _state(found, -limits.drop_of(skill.name))
    if state == "dropped" and min(found.upper, skill.difference) <= -limits.forgetting:
        state = "forgotten"
    return _judged(skill, found, state)


def kept_chance(sample: Sample, limit: float) -> Array:
    """[...]: at levels above this a skill is kept, which is all that is good for a GO: nothing is supposed of clusters not seen."""
    return chance_below(sample, limit)


def lost_chance(sample: Sample, limit: float) -> Array:
    """[...]: at levels above this a skill is lost.

    Other clusters are supposed to gain no more than those that were seen. A few that are lost by much would never do otherwise, and where
    the supposition is wrong a candidate is refused, not let in.
    """
    return chance_above(sample, limit, best_seen(sample))


def _bounds(paired: Paired, levels: Levels) -> Bounds:
    """As `kept_chance` and `lost_chance` have them."""
    sample = sample_of(paired.totals())
    found = bounds(sample, levels.lower, levels.upper, float(best_seen(sample)))
    return Bounds(min(found.lower, paired.difference), max(found.upper, paired.difference))


def _state(found: Bounds, limit: float) -> State:
    if found.lower > limit:
        return "better" if found.lower > 0 else "kept"
    return "dropped" if found.upper < limit else "undecided"


def task_limit(name: str, rule: Rule, limits: Limits) -> float:
    """Points that its difference has to lie above."""
    return 0.0 if rule == "improve" else -limits.drop_of(name)


def _judged(paired: Paired, found: Bounds, state: State) -> Judged:
    live, candidate = (math.fsum(scores) / paired.num_items for scores in (paired.live, paired.candidate))
    return Judged(
        paired.name, paired.num_items, paired.num_clusters, live, candidate, paired.difference, found.lower, found.upper, state,
    )  # fmt: skip
