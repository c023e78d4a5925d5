"""One model held against another, task by task: means, their paired difference, its interval."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.evaluation.result import Evaluation
from finetune.gating.intervals import bounds, sample_of

LEVEL = 0.025
"""Of each end: intervals of 95 %."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Means in [0, 1], differences in points of 100."""

    name: str
    metric: str
    is_task: bool
    num_items: int
    num_clusters: int
    live: float
    candidate: float
    difference: float
    lower: float
    upper: float
    max_drop: float | None
    """That a general skill may lose; None for the task."""

    @property
    def words(self) -> str:
        """What the interval says, without the gate's correction for looking more than once."""
        if self.is_task:
            return "better" if self.lower > 0 else "worse" if self.upper < 0 else "no difference shown"
        assert self.max_drop is not None
        if self.lower > -self.max_drop:
            return "kept"
        return f"lost more than {self.max_drop:g}" if self.upper < -self.max_drop else "undecided"


def compared(evaluation: Evaluation, candidate: str) -> list[Compared]:
    """Against the first model: the task, then the general skills."""
    live = evaluation.models[0].asked
    return [_one(evaluation, name, live, candidate) for name in (evaluation.task, *evaluation.general)]


def _one(evaluation: Evaluation, name: str, live: str, candidate: str) -> Compared:
    paired = evaluation.paired(name, live, candidate)
    found = bounds(sample_of(paired.totals()), LEVEL, LEVEL)
    is_task = name == evaluation.task
    return Compared(
        name, evaluation.scores[name].metric, is_task, paired.num_items, paired.num_clusters,
        sum(paired.live) / paired.num_items, sum(paired.candidate) / paired.num_items, paired.difference, found.lower, found.upper,
        None if is_task else float(evaluation.suite["max_drop"][name]),
    )  # fmt: skip
