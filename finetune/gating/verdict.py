"""GO, NO-GO, INCONCLUSIVE: decided from paired scores, and nothing else.

GO needs the task's bound and every general skill's. A false GO needs the one skill that is worse than allowed to be taken for kept, which
its own bound lets happen in 5 % of cases; that others must be kept too makes it rarer. So the lower bounds need no correction for the
number of skills (an intersection-union test: Berger, Technometrics 24, 1982). NO-GO is said for any one, so each further skill is a
further chance to err: the upper bounds are each at 5 % divided by their number, the task's among them (Bonferroni).

Both are corrected for looking four times: `finetune.gating.looks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.gating.errors import GateUnusable
from finetune.gating.judging import RULES, STATES, Judged, Levels, Rule, State, judge_skill, judge_task, task_limit
from finetune.gating.limits import CONFIDENCE, FORGETTING, MAX_DROP, Limits
from finetune.gating.looks import LAST, LOOKS, level
from finetune.gating.paired import Paired
from finetune.gating.settling import items_to_settle

__all__ = [
    "CONFIDENCE", "FORGETTING", "LAST", "LOOKS", "MAX_DROP", "OUTCOMES", "RULES", "STATES",
    "Judged", "Limits", "NeedsMore", "Outcome", "Rule", "State", "Verdict", "decide", "levels_of",
]  # fmt: skip

Outcome = Literal["GO", "NO-GO", "INCONCLUSIVE"]
OUTCOMES: tuple[Outcome, ...] = ("GO", "NO-GO", "INCONCLUSIVE")
NO_GENERAL = (
    "no general skill was measured, so forgetting cannot be seen: give the suite `general:`, "
    "which is `demo` for the demo model, a list of tasks, or `{lm_eval: FOLDER}`"
)


_SPENT = 0.85
"""Of the error that is allowed. The rest is left to what the looks' levels take for granted, increments that are normal and independent:
measured over thousands of pairs, false GO stay below what is allowed, not about it (`finetune.gating.simulation`)."""
_FEW = 100
"""Clusters of which one that is wholly lost may well be missed, and would take away a point or more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    rule: Rule
    task: Judged
    general: tuple[Judged, ...]
    reasons: tuple[str, ...]
    """Sentences, one for each task or skill that decided."""
    items_to_settle: int | None
    """Of each undecided skill, were the differences what they are now; None where nothing is undecided, or no number of items would do."""


@dataclass(frozen=True, slots=True)
class NeedsMore:
    """Ask for items of the undecided up to `num_items`, and decide at the next look; at LAST where there are no more."""

    undecided: tuple[str, ...]
    num_items: int


@dataclass(frozen=True, slots=True)
class _Findings:
    task: Judged
    general: tuple[Judged, ...]
    rule: Rule
    limits: Limits

    @property
    def all(self) -> tuple[Judged, ...]:
        return (self.task, *self.general)

    def limit(self, one: Judged) -> float:
        """Points that its difference has to lie above."""
        is_task = one is self.task
        return task_limit(one.name, self.rule, self.limits) if is_task else -self.limits.drop_of(one.name)

    def verdict(self, outcome: Outcome, reasons: Iterator[str], num_items: int | None = None) -> Verdict:
        return Verdict(outcome, self.rule, self.task, self.general, tuple(reasons), num_items)


def decide(
    task: Paired, general: Sequence[Paired], rule: Rule, limits: Limits, look: int = LAST
) -> Verdict | NeedsMore:
    """`look`: which of LOOKS this is, counted from 0. LAST always ends in a verdict: it is the look to take where items have run out.

    A skill that was settled at an earlier look, and got no items since, stays so. Raises GateUnusable for a rule or look that there is not,
    and for names that are given twice.
    """
    _check(task, general, rule, look)
    levels = levels_of(len(general), limits, look)
    skills = tuple(judge_skill(skill, limits, levels) for skill in general)
    found = _Findings(judge_task(task, rule, limits, levels), skills, rule, limits)
    undecided = tuple(one.name for one in found.all if one.state == "undecided")
    if any(one.is_lost for one in found.all):
        return found.verdict("NO-GO", _lost_words(found))
    if not general:
        return found.verdict("INCONCLUSIVE", iter((NO_GENERAL,)))
    if not undecided:
        return found.verdict("GO", _go_words(found))
    if look < LAST:
        return NeedsMore(undecided, LOOKS[look + 1])
    by_name = {one.name: one for one in (task, *general)}
    wanted = {
        one.name: items_to_settle(by_name[one.name], found.limit(one), levels)
        for one in found.all
        if one.state == "undecided"
    }
    most = None if None in wanted.values() else max(number for number in wanted.values() if number is not None)
    return found.verdict("INCONCLUSIVE", _undecided_words(found, wanted), most)


def levels_of(num_general: int, limits: Limits, look: int) -> Levels:
    """At which the bounds of a look err, beside that many general skills."""
    alpha = _SPENT * (1 - limits.confidence)
    return Levels(level(alpha, look), level(alpha / (num_general + 1), look))


def _check(task: Paired, general: Sequence[Paired], rule: str, look: int) -> None:
    if rule not in RULES:
        raise GateUnusable(f"there is no rule {rule!r}: write {' or '.join(RULES)}")
    if not 0 <= look <= LAST:
        raise GateUnusable(f"there is no look {look}: they are counted from 0 to {LAST}")
    names = [task.name, *(skill.name for skill in general)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise GateUnusable(f"{twice} is given twice: a task and its general skills have names of their own")


def _lost_words(found: _Findings) -> Iterator[str]:
    for one in found.all:
        if one.is_lost and one is found.task and found.rule == "improve":
            yield f"{one.name}: {_measured(one)}: the candidate is worse than what is live"
        elif one.is_lost:
            word = "forgotten" if one.state == "forgotten" else "dropped"
            yield f"{one.name}: {_measured(one)}: {word}, {-found.limit(one):g} points may be lost"


def _go_words(found: _Findings) -> Iterator[str]:
    word = "better" if found.task.state == "better" else f"not worse by {-found.limit(found.task):g} points"
    yield f"{found.task.name}: {_measured(found.task)}: {word}"
    worst = min(found.general, key=lambda one: one.lower - found.limit(one))
    number = len(found.general)
    kept = f"all {number} general skills are kept, nearest to its limit" if number > 1 else "the general skill is kept:"
    yield f"{kept} {worst.name}: {_measured(worst)}"


def _undecided_words(found: _Findings, wanted: dict[str, int | None]) -> Iterator[str]:
    for one in found.all:
        if one.name not in wanted:
            continue
        number = wanted[one.name]
        limit = found.limit(one)
        asked = "above 0 is wanted" if limit == 0 else f"{-limit:g} points may be lost"
        yield f"{one.name}: {_measured(one)}: {asked}; {_settling(one, number, found)}"


def _settling(one: Judged, number: int | None, found: _Findings) -> str:
    if number is not None:
        clusters = max(1, round(number * one.num_clusters / one.num_items))
        closed = (
            "; so few clusters say little of others, unless they are all that there are"
            if one.num_clusters < _FEW
            else ""
        )
        return f"about {number:,} items in {clusters:,} clusters would settle it{closed}"
    if one is found.task and found.rule == "improve":
        return "no number of items settles so small a difference: a retrain is judged by --rule non-inferior"
    return "no number of items settles a difference that lies on its limit"


def _measured(one: Judged) -> str:
    return (
        f"{one.difference:+.1f} points ({one.lower:+.1f} to {one.upper:+.1f}; {one.num_items:,} items, "
        f"{one.num_clusters:,} clusters)"
    )
