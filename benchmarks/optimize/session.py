"""The whole of a search: the defaults first, then settings, then the best one in turns with the defaults, which come last again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.optimize import search, verify
from benchmarks.optimize.journal import Journal
from benchmarks.optimize.runner import Order, Runner, Task
from benchmarks.optimize.search import FULL, Cost, OutOfBudget
from benchmarks.optimize.settings import DEFAULTS, Setting
from benchmarks.optimize.trial import Trial
from benchmarks.optimize.verify import Judgement, Pair

FIRST, SEARCH, LAST = "defaults first", "search", "defaults last"
SLACK = 1.25
"""A candidate may take longer than the defaults, from which the time for verifying is reckoned."""


class BudgetError(RuntimeError):
    """The budget does not suffice; says what would."""


class DefaultsError(RuntimeError):
    """The defaults themselves do not run: there is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured, and what follows from it."""

    first: Trial
    last: Trial | None
    """None where the budget ended before."""
    trials: tuple[Trial, ...]
    """Of the search, in its order."""
    pairs: tuple[Pair, ...]
    candidate: Setting | None
    judgement: Judgement
    num_settings: int
    """That there were to choose from."""
    spent_s: float

    @property
    def drift(self) -> float | None:
        """Goodput of the defaults, last over first; None where either is missing."""
        return self.last.score / self.first.score if self.last and self.last.score and self.first.score else None


@dataclass(frozen=True, slots=True)
class Explored:
    """What was measured before anything is verified."""

    first: Trial
    cost: Cost
    num_settings: int
    trials: Sequence[Trial]


class Session:
    """Goes on from what its journal holds."""

    def __init__(self, task: Task, runner: Runner, journal: Journal) -> None:
        self._task = task
        self._runner = runner
        self._journal = journal
        self._loads: dict[Setting, float] = {}
        """The best load known of a setting: where the next launch begins."""

    async def run(self) -> Found:
        """Raises BudgetError, DefaultsError."""
        explored = await self.explore(2 * self._least_pairs)
        best = search.winner(explored.trials)
        if best is None or best.score <= explored.first.score:
            num = len({trial.setting for trial in explored.trials})
            reason = f"none of {num} settings was measured to be better than the defaults"
            return self._found(explored, await self._last(explored.cost), (), None, Judgement(False, reason))
        pairs, last = await self._verify(best.setting, explored.cost)
        return self._found(explored, last, pairs, best.setting, self._judged(best.setting, pairs))

    async def explore(self, num_after: int) -> Explored:
        """The defaults, then the search; time for so many more launches is left over. Raises BudgetError, DefaultsError."""
        first = await self._first()
        cost, strategy, budget_s = cost_of(first), self._task.strategy, self._task.budget_s
        deadline_s = budget_s - SLACK * num_after * cost.of(FULL)
        left_s = deadline_s - self._journal.spent_until([FIRST])
        if left_s < (least_s := search.shortest_s(strategy, cost)):
            raise BudgetError(
                f"--budget {duration(budget_s)} is too short: a launch of the defaults took {first.took_s:.0f} s, and {num_after} "
                f"more verify what is found; give at least {duration(budget_s - left_s + least_s)}, better three times as much; "
                "what was measured is kept"
            )

        async def measure(setting: Setting, effort: int) -> Trial:
            return await self._trial(SEARCH, setting, effort, deadline_s, cost)

        settings = self._task.space.settings()
        order = search.candidates(strategy, settings, self._task.seed)
        return Explored(first, cost, len(settings), await search.run(strategy, order, measure, left_s, cost))

    async def _first(self) -> Trial:
        try:
            first = await self._trial(FIRST, DEFAULTS, FULL, self._task.budget_s)
        except OutOfBudget as exc:
            raise BudgetError(
                f"--budget {duration(self._task.budget_s)} ended while the defaults were measured for the first time: give "
                "several times as much; what was measured is kept"
            ) from exc
        if not first.is_measured:
            raise DefaultsError(f"the default settings do not run here: {first.words}")
        return first

    async def _verify(self, candidate: Setting, cost: Cost) -> tuple[tuple[Pair, ...], Trial | None]:
        """Whole pairs, and the last of the defaults."""
        left_s = self._task.budget_s - self._journal.spent_until([FIRST, SEARCH])
        num = self._journal.num_judged_pairs(candidate) or verify.num_pairs(
            self._least_pairs, left_s, SLACK * 2 * cost.of(FULL)
        )
        found: dict[int, dict[bool, Trial]] = {}
        last: Trial | None = None
        try:
            for number, is_candidate in verify.turns(num):
                setting = candidate if is_candidate else DEFAULTS
                trial = await self._trial(
                    f"pair {number + 1}", setting, FULL, self._task.budget_s, cost, fresh=number + 1
                )
                found.setdefault(number, {})[is_candidate] = trial
                last = last if is_candidate else trial
        except OutOfBudget:
            pass  # the judgement says that pairs are missing
        pairs = tuple(Pair(pair[False], pair[True]) for pair in found.values() if len(pair) == 2)
        return pairs, last

    def _judged(self, candidate: Setting, pairs: Sequence[Pair]) -> Judgement:
        """Once for all calls: the journal keeps by how many pairs, and after how many other candidates."""
        least, known = self._least_pairs, self._journal.num_judged_pairs(candidate)
        level = verify.level_of(self._journal.num_judged_before(candidate))
        if known is None:
            if len(pairs) >= least:
                self._journal.add_judged(candidate, len(pairs), self._runner.spent_s)
            return verify.judge(pairs, least, level)
        found = verify.judge(pairs, min(least, known), level)
        if known >= least:
            return found
        return replace(found, reason=f"{found.reason}; judged by its first {known} pairs, which more would not change")

    async def _last(self, cost: Cost) -> Trial | None:
        try:
            return await self._trial(LAST, DEFAULTS, FULL, self._task.budget_s, cost, fresh=1)
        except OutOfBudget:
            return None

    async def _trial(
        self, stage: str, setting: Setting, effort: int, deadline_s: float, cost: Cost | None = None, fresh: int = 0
    ) -> Trial:
        """`fresh`: another number sends other prompts."""
        start = self._loads.get(setting, self._loads.get(DEFAULTS, self._task.axis.start))
        seed = 1000 * self._task.seed + fresh
        trial = await self._runner.run(Order(stage, setting, effort, seed, start, deadline_s, cost))
        if trial.is_measured and trial.best:
            self._loads[setting] = trial.best.load
        return trial

    def _found(
        self,
        explored: Explored,
        last: Trial | None,
        pairs: Sequence[Pair],
        candidate: Setting | None,
        judgement: Judgement,
    ) -> Found:
        return Found(
            explored.first,
            last,
            tuple(explored.trials),
            tuple(pairs),
            candidate,
            judgement,
            explored.num_settings,
            self._runner.spent_s,
        )

    @property
    def _least_pairs(self) -> int:
        return verify.odd(self._task.num_pairs)


def cost_of(first: Trial) -> Cost:
    """What a trial takes, by the first one, which was at full effort."""
    probing_s = sum(probe.duration_s for probe in first.probes)
    return Cost(max(0.0, first.took_s - probing_s), probing_s)


def duration(seconds: float) -> str:
    """`90s`, `12m`: as `--budget` takes it."""
    return f"{seconds:.0f}s" if seconds < 120 else f"{-(-seconds // 60):.0f}m"
