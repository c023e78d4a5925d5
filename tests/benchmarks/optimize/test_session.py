"""Whole searches against engines of known truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.optimize.journal import opened
from benchmarks.optimize.levels import Concurrency
from benchmarks.optimize.runner import Runner, Task
from benchmarks.optimize.search import Strategy
from benchmarks.optimize.session import BudgetError, DefaultsError, Found, Session
from benchmarks.optimize.settings import DEFAULTS, Dimension, Setting, Space
from benchmarks.optimize.trial import Outcome
from benchmarks.statistics.slo import parse_slo
from tests.benchmarks.optimize.simulated import OBJECTIVE, Killed, SimulatedLaunches, Truth

SPACE = Space((Dimension("size", (None, 1, 2, 3)), Dimension("mode", (None, "slow", "broken", "cruder"))))
TASK = Task(SPACE, parse_slo(OBJECTIVE), Concurrency(), 3600.0, lambda options: [])
BEST = Setting.of({"size": 3})


def truth_of(options: Mapping[str, Any]) -> Truth:
    """Size 3 carries most; `slow` costs, `broken` does not start, `cruder` is fast and worse."""
    truth = Truth(
        streams=16 + 8 * options.get("size", 0), start_error="no such kernel" if options.get("mode") == "broken" else ""
    )
    if options.get("mode") == "slow":
        return replace(truth, per_stream=0.5)
    return replace(truth, per_stream=2.0, loss=0.1) if options.get("mode") == "cruder" else truth


async def searched(launches: SimulatedLaunches, work: Path, task: Task = TASK) -> Found:
    said: list[str] = []
    with opened(work, {"search": task.strategy.value}) as journal:
        return await Session(task, Runner(task, launches, journal, said.append, launches.clock), journal).run()


@pytest.mark.parametrize("strategy", Strategy)
async def test_the_best_setting_is_recommended(strategy: Strategy, tmp_path: Path) -> None:
    launches = SimulatedLaunches(truth_of, noise=0.02)
    found = await searched(launches, tmp_path, replace(TASK, strategy=strategy))
    assert found.candidate == BEST
    assert found.judgement.is_recommended
    assert found.judgement.ratio is not None
    assert found.judgement.ratio.estimate == pytest.approx(40 / 16, rel=0.2)  # loads are told apart to a fifth
    assert found.first.setting == DEFAULTS
    assert found.last is not None
    assert found.last.setting == DEFAULTS
    assert launches.launched[0] == launches.launched[-1] == {}
    assert found.drift == pytest.approx(1.0, abs=0.2)


async def test_what_does_not_start_or_answers_worse_is_told_with_its_reason(tmp_path: Path) -> None:
    found = await searched(SimulatedLaunches(truth_of), tmp_path)
    by_outcome = {outcome: [trial for trial in found.trials if trial.outcome is outcome] for outcome in Outcome}
    assert {trial.setting.options["mode"] for trial in by_outcome[Outcome.NO_START]} == {"broken"}
    assert {trial.reason for trial in by_outcome[Outcome.NO_START]} == {"no such kernel"}
    assert {trial.setting.options["mode"] for trial in by_outcome[Outcome.WORSE]} == {"cruder"}
    assert all("nats a token" in trial.reason and not trial.probes for trial in by_outcome[Outcome.WORSE])


async def test_a_setting_that_dies_under_load_is_out_and_the_search_goes_on(tmp_path: Path) -> None:
    def fragile(options: Mapping[str, Any]) -> Truth:
        return replace(truth_of(options), dies_above=20 if options.get("size") == 3 else float("inf"))

    found = await searched(SimulatedLaunches(fragile), tmp_path)
    assert found.candidate == Setting.of({"size": 2})
    died = [trial for trial in found.trials if trial.outcome is Outcome.DIED]
    assert {trial.setting.options["size"] for trial in died} == {3}
    assert "SIGSEGV" in died[0].reason


async def test_what_the_schema_refuses_is_not_started(tmp_path: Path) -> None:
    task = replace(TASK, problems=lambda options: ["size: too large"] if options.get("size") == 3 else [])
    launches = SimulatedLaunches(truth_of)
    found = await searched(launches, tmp_path, task)
    assert {trial.outcome for trial in found.trials if trial.setting.options.get("size") == 3} == {Outcome.REFUSED}
    assert not [options for options in launches.launched if options.get("size") == 3]


async def test_nothing_is_better_than_the_defaults(tmp_path: Path) -> None:
    found = await searched(SimulatedLaunches(lambda options: Truth(streams=8 if options else 16)), tmp_path)
    assert (found.candidate, found.judgement.is_recommended, found.pairs) == (None, False, ())
    assert found.last is not None
    assert found.last.stage == "defaults last"


async def test_equal_settings_in_noise_are_rarely_recommended(tmp_path: Path) -> None:
    """The best of fifteen equal ones looks better in the search; fresh measurements do not say so."""
    num = 0
    for seed in range(16):
        launches = SimulatedLaunches(lambda _: Truth(), noise=0.05, seed=seed)
        found = await searched(launches, tmp_path / str(seed))
        num += found.judgement.is_recommended
    assert num <= 2


async def test_no_load_is_carried_by_anything(tmp_path: Path) -> None:
    found = await searched(SimulatedLaunches(lambda _: Truth(streams=0.5)), tmp_path)
    assert not found.judgement.is_recommended
    assert found.first.score == 0


async def test_only_the_candidate_holds_the_slo(tmp_path: Path) -> None:
    found = await searched(
        SimulatedLaunches(lambda options: Truth(streams=8 if options.get("size") == 2 else 0.5)), tmp_path
    )
    assert found.judgement.is_recommended
    assert "the defaults in none" in found.judgement.reason


@pytest.mark.parametrize("budget_s", [500.0, 700.0, 1500.0])
async def test_the_budget_is_kept(budget_s: float, tmp_path: Path) -> None:
    launches = SimulatedLaunches(truth_of)
    began_s = launches.clock.now_s
    found = await searched(launches, tmp_path, replace(TASK, budget_s=budget_s))
    assert launches.clock.now_s - began_s == pytest.approx(found.spent_s)
    assert found.spent_s <= budget_s + 8.0  # a load that was begun is ended


async def test_a_budget_that_does_not_suffice_says_what_would(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"give at least (\d+)m") as caught:
        await searched(SimulatedLaunches(truth_of), tmp_path, replace(TASK, budget_s=90.0))
    minutes = int(str(caught.value).partition("at least ")[2].partition("m")[0])
    found = await searched(SimulatedLaunches(truth_of), tmp_path, replace(TASK, budget_s=minutes * 60.0))
    assert found.trials
    with pytest.raises(BudgetError, match="ended while the defaults were measured"):
        await searched(SimulatedLaunches(truth_of), tmp_path / "short", replace(TASK, budget_s=10.0))


async def test_defaults_that_do_not_run_end_the_search_until_they_do(tmp_path: Path) -> None:
    with pytest.raises(DefaultsError, match="did not start: no CUDA"):
        await searched(SimulatedLaunches(lambda _: Truth(start_error="no CUDA")), tmp_path)
    assert (await searched(SimulatedLaunches(truth_of), tmp_path)).candidate == BEST


def _story(found: Found) -> tuple[Any, ...]:
    trials = [(trial.setting, trial.effort, trial.outcome, trial.score) for trial in found.trials]
    return trials, found.candidate, found.judgement, len(found.pairs)


@pytest.mark.parametrize("kill_after", [1, 3, 10, 40, 90, 150])
async def test_killed_anywhere_a_second_call_comes_to_the_same_end(kill_after: int, tmp_path: Path) -> None:
    whole = await searched(SimulatedLaunches(truth_of), tmp_path / "whole")
    launches = SimulatedLaunches(truth_of)
    launches.kill_after = kill_after
    with pytest.raises(Killed):
        await searched(launches, tmp_path / "killed")
    assert launches.num_running == 0
    again = SimulatedLaunches(truth_of)
    found = await searched(again, tmp_path / "killed")
    assert _story(found) == _story(whole)
    assert again.num_probes + launches.num_probes == _num_probes(whole)


def _num_probes(found: Found) -> int:
    pairs = [trial for pair in found.pairs for trial in (pair.defaults, pair.candidate)]
    return sum(len(trial.probes) for trial in (found.first, *found.trials, *pairs))


async def test_a_search_that_has_ended_starts_nothing_again(tmp_path: Path) -> None:
    whole = await searched(SimulatedLaunches(truth_of), tmp_path)
    again = SimulatedLaunches(truth_of)
    assert _story(await searched(again, tmp_path)) == _story(whole)
    assert not again.launched


async def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    short = await searched(SimulatedLaunches(truth_of), tmp_path, replace(TASK, budget_s=600.0))
    launches = SimulatedLaunches(truth_of)
    found = await searched(launches, tmp_path, replace(TASK, budget_s=7200.0))
    assert len(found.trials) > len(short.trials)
    assert found.candidate == BEST
    assert {} not in launches.launched[:3]  # the defaults are known


async def test_a_candidate_is_judged_once(tmp_path: Path) -> None:
    """Whatever budget and pairs are given later: to look again until it is better would find what is not there."""
    task = replace(TASK, strategy=Strategy.GRID, space=Space((Dimension("size", (None, 3)),)), budget_s=700.0)
    short = await searched(SimulatedLaunches(truth_of, noise=0.02), tmp_path, task)
    assert 3 <= len(short.pairs) < 9
    for more in (replace(task, budget_s=7200.0), replace(task, budget_s=7200.0, num_pairs=9)):
        launches = SimulatedLaunches(truth_of, noise=0.02)
        found = await searched(launches, tmp_path, more)
        assert (found.pairs, found.judgement.ratio) == (short.pairs, short.judgement.ratio)
        assert not launches.launched
    assert f"judged by its first {len(short.pairs)} pairs" in found.judgement.reason


async def test_pairs_that_were_cut_off_before_they_were_judged_go_on(tmp_path: Path) -> None:
    task = replace(TASK, strategy=Strategy.GRID, space=Space((Dimension("size", (None, 3)),)))
    whole = await searched(SimulatedLaunches(truth_of), tmp_path / "whole", task)
    launches = SimulatedLaunches(truth_of)
    launches.kill_after = _num_probes(whole) - 3
    with pytest.raises(Killed):
        await searched(launches, tmp_path / "killed", task)
    assert _story(await searched(SimulatedLaunches(truth_of), tmp_path / "killed", task)) == _story(whole)


async def test_a_second_candidate_is_judged_at_less_error(tmp_path: Path) -> None:
    with opened(tmp_path, {"search": TASK.strategy.value}) as journal:
        journal.add_judged(Setting.of({"size": 1}), 3, 0.0)
    found = await searched(SimulatedLaunches(truth_of, noise=0.02), tmp_path)
    assert found.candidate == BEST
    assert found.judgement.ratio is not None
    assert found.judgement.ratio.level == 0.975
