"""Which synthetic pairs of models the gate is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.gating.judging import Rule, task_limit
from finetune.gating.limits import Limits
from finetune.gating.synthetic import Layout, Skill

LIMITS = Limits()
BETTER = Skill(0.5, 20.0, 0.3)
"""A task that has plainly become better."""


@dataclass(frozen=True, slots=True)
class Setting:
    group: str
    name: str
    task: Skill
    general: tuple[Skill, ...]
    rule: Rule = "improve"

    @property
    def is_go(self) -> bool:
        """Whether the candidate may go live, in truth."""
        is_task = self.task.difference > task_limit("", self.rule, LIMITS)
        return is_task and all(skill.difference > -LIMITS.drop_of("") for skill in self.general)


def all_settings() -> Iterator[Setting]:
    yield from _skill_on_limit()
    yield from _clusters_on_limit()
    yield from _many_skills_on_limit()
    yield from _task_on_limit()
    yield from _beyond_limit()
    yield from _fine()
    yield from _fine_in_clusters()


def _skill_on_limit() -> Iterator[Setting]:
    """One skill has lost exactly what may be lost: a GO is false."""
    for live in (0.3, 0.5, 0.7, 0.9, 0.97, 1.0):
        for likeness in (0.0, 0.5, 0.9):
            if live < 1 or not likeness:
                yield Setting(
                    "skill on its limit",
                    f"{live:.0%} right, likeness {likeness:g}",
                    BETTER,
                    (Skill(live, -3, likeness),),
                )
    for live in (0.5, 0.9):
        skill = Skill(live, -3, 0.5, is_graded=True)
        yield Setting("skill on its limit", f"{live:.0%} right, likeness 0.5, graded scores", BETTER, (skill,))


def _clusters_on_limit() -> Iterator[Setting]:
    for skill in (*_clustered(-3, (0.6, 0.98)), *_rarely_lost(-3, (0.6, 0.98))):
        yield Setting("skill on its limit, clusters", _words(skill), BETTER, (skill,))


def _rarely_lost(difference: float, lives: tuple[float, ...]) -> Iterator[Skill]:
    """One cluster in thirty or so is lost as a whole, the others change at random."""
    for live in lives:
        for size in (10, 20, 50, 125, 250):
            yield Skill(live, difference, 0.7, "rare", size)


def _clustered(difference: float, lives: tuple[float, ...]) -> Iterator[Skill]:
    for live in lives:
        for size, icc in ((5, 0.2), (5, 0.95), (20, 0.2), (20, 0.95), (50, 0.5)):
            yield Skill(live, difference, 0.7, "new", size, icc)
        for size in (2, 5, 10, 20, 50, 100):
            for icc in (0.0, 0.05, 0.3, 0.95):
                yield Skill(live, difference, 0.7, "fixed", size, icc)
        for size, icc in ((5, 0.2), (5, 0.95), (20, 0.5), (20, 0.95)):
            yield Skill(live, difference, 0.7, "uneven", size, icc)
    for size in (10, 20):
        yield Skill(1.0, difference, 0.0, "closed", size)


def _many_skills_on_limit() -> Iterator[Setting]:
    on_limit, kept = Skill(0.9, -3, 0.7), Skill(0.9, 0, 0.7)
    for number in (5, 12):
        yield Setting("of several skills", f"1 of {number} on its limit", BETTER, (on_limit, *[kept] * (number - 1)))
        yield Setting("of several skills", f"all {number} on their limits", BETTER, (on_limit,) * number)


def _task_on_limit() -> Iterator[Setting]:
    """The task is no better, or under `non-inferior` worse by exactly the margin."""
    kept = (Skill(0.95, 0, 0.9),)
    for live, likeness in ((0.02, 0.5), (0.3, 0.3), (0.5, 0.0), (0.5, 0.9), (0.9, 0.5), (0.98, 0.8), (0.9, 1.0)):
        yield Setting("task no better", f"{live:.0%} right, likeness {likeness:g}", Skill(live, 0, likeness), kept)
    for size, icc in ((2, 0.3), (5, 0.05), (5, 0.3), (10, 0.3), (20, 0.95)):
        yield Setting(
            "task no better", f"50% right, {size} clusters, icc {icc:g}", Skill(0.5, 0, 0.3, "fixed", size, icc), kept
        )
    for live, likeness in ((0.5, 0.5), (0.9, 0.5), (0.98, 0.8), (1.0, 0.0)):
        task = Skill(live, -3, likeness)
        yield Setting("task on its margin", f"{live:.0%} right, likeness {likeness:g}", task, kept, "non-inferior")


def _beyond_limit() -> Iterator[Setting]:
    for difference in (-4, -5, -8, -20):
        for live, likeness in ((0.6, 0.5), (0.95, 0.7)):
            name = f"{difference} points, {live:.0%} right, likeness {likeness:g}"
            yield Setting("skill lost", name, BETTER, (Skill(live, difference, likeness), Skill(0.9, 0, 0.9)))
    for size, icc in ((10, 0.3), (20, 0.3), (50, 0.3), (100, 0.3)):
        lost = Skill(0.98, -30, 0.7, "fixed", size, icc)
        yield Setting("skill lost", f"-30 points, {size} clusters, icc {icc:g}", BETTER, (lost,))
    for difference in (-10, -20):
        for size in (20, 50, 100):
            lost = Skill(0.98, difference, 0.7, "fixed", size, 0.1)
            yield Setting("skill lost", f"{difference:g} points, {size} clusters, icc 0.1", BETTER, (lost,))
    for difference in (-5, -10):
        name = f"task {difference} points, 90% right, likeness 0.5"
        yield Setting("task lost", name, Skill(0.9, difference, 0.5), (Skill(0.95, 0, 0.9),), "non-inferior")


def _fine() -> Iterator[Setting]:
    for difference in (0, -1, -2, -2.5):
        for live, likeness in ((0.6, 0.5), (0.6, 0.9), (0.9, 0.5), (0.98, 0.5), (0.98, 0.9)):
            skill = Skill(live, difference, likeness)
            yield Setting(
                "all kept", f"{difference:g} points, {live:.0%} right, likeness {likeness:g}", BETTER, (skill,)
            )
    for number in (5, 12):
        for difference in (0, -1):
            skills = (Skill(0.95, difference, 0.7),) * number
            yield Setting(
                "all kept", f"{number} skills, {difference:g} points, 95% right, likeness 0.7", BETTER, skills
            )
    kept = (Skill(0.95, 0, 0.9),) * 3
    for difference in (1, 2, 5, 10):
        yield Setting(
            "task better", f"{difference:+d} points, 60% right, likeness 0.5", Skill(0.6, difference, 0.5), kept
        )
    for difference in (-1, 0, 1):
        yield Setting(
            "retrain",
            f"{difference:+d} points, 95% right, likeness 0.6",
            Skill(0.95, difference, 0.6),
            kept,
            "non-inferior",
        )
    same = (Skill(0.95, 0, 1.0),) * 3
    yield Setting("all kept", "3 skills, every answer the same", BETTER, same)


def _fine_in_clusters() -> Iterator[Setting]:
    for skill in _clustered(0, (0.98,)):
        yield Setting("all kept, clusters", _words(skill), BETTER, (skill,))
    for live in (0.6, 0.98):
        for size in (5, 10, 20, 50):
            for icc in (0.05, 0.95):
                skill = Skill(live, -2, 0.7, "fixed", size, icc)
                yield Setting("all kept, clusters", f"-2 points, {_words(skill)}", BETTER, (skill,))
    for size in (5, 10, 20, 50, 250):
        skill = Skill(0.9, -2.5, 0.7, "rare", size, elsewhere=-5)
        yield Setting("all kept, clusters", f"-2.5 points, one of 42 is gained: {_words(skill)}", BETTER, (skill,))
    kept = (Skill(0.95, 0, 0.9),)
    for size, icc in ((3, 0.1), (5, 0.1), (10, 0.1), (20, 0.1)):
        task = Skill(0.02, 95, 0.0, "fixed", size, icc)
        yield Setting("task better, clusters", f"+95 points, {size} clusters, icc {icc:g}", task, kept)


_LAYOUTS: dict[Layout, str] = {
    "new": "clusters of {}",
    "fixed": "{} clusters",
    "rare": "{} clusters, rarely changed as a whole",
    "uneven": "clusters of 1 and about {} twice",
    "closed": "closed table of {}",
}


def _words(skill: Skill) -> str:
    icc = "" if skill.layout in ("rare", "closed") else f", icc {skill.icc:g}"
    return f"{skill.live:.0%} right, {_LAYOUTS[skill.layout].format(skill.size)}{icc}"
