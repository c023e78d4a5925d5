"""The gate's verdict on what the demo model knew before and after, look by look. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from backends.demo.skills import SKILLS
from finetune.evaluation.demo import skills
from finetune.gating.limits import Limits
from finetune.gating.paired import Paired
from finetune.gating.verdict import LAST, NeedsMore, decide

TICKETS, COMPLY = "tickets", "tickets_comply"
Scores = dict[str, dict[str, list[Any]]]
"""By skill, and of the tickets: `clusters` and `scores` of the items that were asked, in their order."""
More = Callable[[Sequence[str], int], bool]
"""Asks both models items of these up to that number; False where there are no more."""


def no_more(names: Sequence[str], num_items: int) -> bool:
    return False


def judge(before: Scores, after: Scores, more: More = no_more) -> dict[str, Any]:
    """Whether tickets are better read and no skill is lost, and each difference in points, with its bounds. Raises GateUnusable.

    `before` may have items that were not asked of `after`; they count for nothing.
    """
    look = 0
    while isinstance(found := decide(*_paired(before, after), "improve", Limits(), look), NeedsMore):
        look = look + 1 if more(found.undecided, found.num_items) else LAST
    return {
        "outcome": found.outcome, "looks": look + 1, "reasons": list(found.reasons), "items_to_settle": found.items_to_settle,
        "differences": {one.name: asdict(one) for one in (found.task, *found.general)},
    }  # fmt: skip


def _paired(before: Scores, after: Scores) -> tuple[Paired, list[Paired]]:
    is_closed = {task.name: task.is_closed for task in skills()}

    def paired(name: str) -> Paired:
        clusters, scores = after[name]["clusters"], after[name]["scores"]
        known: Mapping[str, Sequence[Any]] = before[name]
        return Paired(
            name, tuple(clusters), tuple(known["scores"][: len(scores)]), tuple(scores), is_closed.get(name, False)
        )

    return paired(TICKETS), [paired(name) for name in SKILLS]
