"""Runs trials: starts an engine, holds its answers against the defaults', raises the load, and writes all of it down."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.optimize import quality
from benchmarks.optimize.journal import Journal
from benchmarks.optimize.levels import Axis, climb
from benchmarks.optimize.quality import MARGIN, Quality, Reference
from benchmarks.optimize.search import Cost, OutOfBudget, Strategy
from benchmarks.optimize.settings import DEFAULTS, Problems, Setting, Space
from benchmarks.optimize.trial import DiedError, Engine, Launches, Outcome, Probe, StartError, Trial
from benchmarks.statistics.difference import MIN_PAIRS
from benchmarks.statistics.slo import Slo

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched, and how long."""

    space: Space
    slo: Slo
    axis: Axis
    budget_s: float
    problems: Problems
    strategy: Strategy = Strategy.HALVING
    seed: int = 0
    num_pairs: int = MIN_PAIRS
    margin: float = MARGIN


@dataclass(frozen=True, slots=True)
class Order:
    """One trial. `start` is the load to begin with; what comes after `deadline_s` of the budget is not begun."""

    stage: str
    setting: Setting
    effort: int
    seed: int
    start: float
    deadline_s: float
    cost: Cost | None = None
    """What it will take, where that is known."""

    @property
    def key(self) -> str:
        """In the journal."""
        return f"{self.stage}|{self.effort}|{self.seed}|{self.setting.key}"


class Runner:
    """One trial after the other. The budget's clock goes on from what the journal says was spent before."""

    def __init__(
        self, task: Task, launches: Launches, journal: Journal, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._task = task
        self._launches = launches
        self._journal = journal
        self._say = say
        self._clock = clock
        self._began_s = clock() - journal.spent_s
        self._known_s = 0.0
        """Of the running trial: what an earlier call measured of it."""

    @property
    def spent_s(self) -> float:
        """Of the budget, earlier calls included."""
        return self._clock() - self._began_s

    async def run(self, order: Order) -> Trial:
        """From the journal where it is there. Raises OutOfBudget."""
        if (known := self._journal.trial(order.key)) is not None:
            return known
        options = self._task.space.options_of(order.setting)
        if problems := self._task.problems(options):
            return self._told(_trial(order, Outcome.REFUSED, "; ".join(problems)))
        self._check_time(order, order.cost.of(order.effort) if order.cost else 0.0)
        began_s, self._known_s = self._clock(), 0.0
        probes: list[Probe] = []
        found = _trial(order, Outcome.MEASURED, "")
        try:
            async with self._launches.launch(options) as engine:
                answers = await self._quality(engine)
                found = replace(found, start_s=engine.start_s, quality=answers)
                if not answers.why_not:
                    await climb(self._task.axis, order.start, partial(self._carried, engine, order, probes))
        except StartError as exc:
            found = _trial(order, Outcome.NO_START, str(exc))
        except DiedError as exc:
            found = _trial(order, Outcome.DIED, str(exc))
        return self._ended(order, found, probes, self._clock() - began_s + self._known_s)

    def _ended(self, order: Order, found: Trial, probes: list[Probe], took_s: float) -> Trial:
        trial = replace(found, took_s=took_s, probes=tuple(probes))
        if found.quality and found.quality.why_not:
            trial = replace(trial, outcome=Outcome.WORSE, reason=found.quality.why_not)
        # What keeps the defaults from running may be mended until the next call.
        if trial.is_measured or order.setting != DEFAULTS:
            self._journal.add_trial(order.key, trial, self.spent_s)
        return self._told(trial)

    async def _carried(self, engine: Engine, order: Order, probes: list[Probe], load: float) -> float | None:
        probe = self._journal.probe(order.key, load)
        if probe is not None:
            self._known_s += probe.duration_s
        else:
            self._check_time(order, 0.0)
            probe = await engine.probe(load, order.effort, order.seed)
            self._journal.add_probe(order.key, probe, self.spent_s)
        probes.append(probe)
        return probe.goodput if probe.is_carried else None

    async def _quality(self, engine: Engine) -> Quality:
        """Of the first engine, which has the defaults, the reference itself."""
        reference = self._journal.reference
        if reference is None:
            prompts = quality.prompts_of()
            reference = Reference(prompts, await engine.answer(prompts), None)
            reference = Reference(prompts, reference.answers, await engine.score(reference.texts))
            self._journal.add_reference(reference, self.spent_s)
        answers = await engine.answer(reference.prompts)
        return quality.judge(reference, answers, await engine.score(reference.texts), self._task.margin)

    def _check_time(self, order: Order, needed_s: float) -> None:
        if self.spent_s + needed_s > order.deadline_s:
            raise OutOfBudget

    def _told(self, trial: Trial) -> Trial:
        self._say(f"{self.spent_s:5.0f} s  {trial.stage}: {trial.setting.label}: {trial.words}")
        return trial


def _trial(order: Order, outcome: Outcome, reason: str) -> Trial:
    return Trial(order.stage, order.setting, order.effort, outcome, reason)
