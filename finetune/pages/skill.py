"""A task or skill as the report tells it: by the gate, where its verdict is given, else by the evaluation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.evaluation.compare import Compared, compared
from finetune.evaluation.result import Evaluation
from finetune.gating.judging import Judged

_STYLES = {
    "better": "good", "kept": "good", "dropped": "bad", "forgotten": "bad", "worse": "bad", "undecided": "warn",
    "no difference shown": "warn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Skill:
    """`live` and `candidate` in [0, 1]; difference, its interval and its limit in points of 100."""

    name: str
    live: float
    candidate: float
    difference: float
    lower: float
    upper: float
    limit: float
    """The difference has to lie above it: 0, or less what may be lost."""
    words: str = ""
    """What that says."""
    metric: str = ""
    num_items: int = 0
    num_clusters: int = 0

    @property
    def mark(self) -> str:
        """How its interval is drawn."""
        return "good" if self.lower > self.limit else "bad" if self.upper < self.limit else "unsure"

    @property
    def style(self) -> str:
        """How its words are shown."""
        return _STYLES.get(self.words, "bad")


def skills_of(evaluation: Evaluation, candidate: str, judged: Sequence[Judged]) -> list[Skill]:
    """The task, then the general skills. What was judged was held against all that is live, by its weights."""
    by_name = {one.name: one for one in judged}
    return [_skill(row, by_name.get(row.name)) for row in compared(evaluation, candidate)]


def _skill(row: Compared, judged: Judged | None) -> Skill:
    told: Compared | Judged = judged or row
    return Skill(
        row.name, told.live, told.candidate, told.difference, told.lower, told.upper, -(row.max_drop or 0.0),
        row.words if judged is None else judged.state, row.metric, told.num_items, told.num_clusters,
    )  # fmt: skip
