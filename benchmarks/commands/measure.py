"""Measures what `bench run` was asked for: loads that are named, a sweep, or the search for a capacity."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.beyond import Beyond
from benchmarks.campaign import Level, Plan, run_plan
from benchmarks.capacity import (
    FIRST,
    LOOKS,
    Capacity,
    Search,
    Trial,
    capacity_of,
    find_capacity,
    first_rate,
    missed_alone,
    trial_of,
)
from benchmarks.client import Client
from benchmarks.commands.load_options import sweep_of
from benchmarks.commands.profile_options import Profile, profile_of
from benchmarks.loads import ClosedLoad, Load, OpenLoad
from benchmarks.progress import Expected, Progress, expected_of, span
from benchmarks.statistics.binomial import Answer
from benchmarks.statistics.slo import Slo
from benchmarks.sweep import Surveyor, Sweep, swept
from benchmarks.traffic.arrivals import Steady


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it."""

    plan: Plan
    levels: Sequence[Level]
    beyond: Sequence[Beyond] = ()
    """Loads that were more than the server carries, lowest rate first."""
    stop: Beyond | None = None
    """Of those, or of the `levels` if it is void, the one at which a sweep stopped."""
    capacity: Capacity | None = None


async def measured(options: argparse.Namespace, client: Client, plan: Plan) -> Measured:
    """Raises WarmUpError, WorkloadError, SloError."""
    kind = profile_of(options)
    if not kind.is_survey:
        return await _of_plan(client, plan, kind)
    return await _of_survey(options, client, plan, kind)


async def _of_survey(options: argparse.Namespace, client: Client, plan: Plan, kind: Profile) -> Measured:
    sweep = sweep_of(options)
    search = _search(options, plan.slo, sweep) if plan.slo else None
    expected, num_runs = _expected(plan, kind, sweep, search)
    progress = Progress(sys.stderr, expected, num_runs, lambda: client.num_ended)
    progress.announce(_described(kind, sweep, search, plan.repeats))
    surveyor = Surveyor(client, plan, progress.ended, progress)
    try:
        await surveyor.warm_up()
        if kind is Profile.SWEEP:
            return await _of_sweep(surveyor, sweep, search)
        assert search is not None, "the options of a capacity have an SLO"
        return await _of_capacity(surveyor, sweep, search)
    finally:
        progress.close()


async def _of_plan(client: Client, plan: Plan, kind: Profile) -> Measured:
    num = len(plan.all_loads)
    progress = Progress(
        sys.stderr, expected_of(plan.all_loads, plan.repeats), num * plan.repeats, lambda: client.num_ended
    )
    progress.announce(f"{kind.value}: {', '.join(load.label for load in plan.all_loads)}{_times(plan.repeats)}")
    try:
        levels = await run_plan(client, plan, progress.ended, progress)
    finally:
        progress.close()
    rates = [level for level in levels if _is_steady(level.runs[0].offered)]
    capacity = capacity_of(_trials(rates, plan.slo)) if rates and plan.slo else None
    return Measured(plan, levels, capacity=capacity if _is_tested(plan.slo) else None)


async def _of_sweep(surveyor: Surveyor, sweep: Sweep, search: Search | None) -> Measured:
    found = await swept(surveyor, sweep)
    levels, stop = found.levels, found.stop
    if search is None or not _is_tested(search.slo):
        beyond = [stop] if stop and not stop.cause.is_fault else []
        return Measured(_with_loads(surveyor.plan, levels), levels, beyond, stop)
    is_void = stop is not None and stop.cause.is_fault
    known = _trials([*levels[2:], *([stop.level] if stop and not is_void else [])], search.slo)
    why_none = missed_alone(levels[0], search.slo)
    open_ones = [trial for trial in known if trial.answer is Answer.UNDECIDED and not trial.is_void]
    trials = [trial for trial in known if trial.answer is not Answer.UNDECIDED or trial.is_void]
    if not why_none:
        search = replace(search, duration_s=sweep.length_s(levels[0]), num_sent=surveyor.plan.repeats)
        trials = list(await _searched(surveyor, search, trials, first_rate(levels[1])))
    return _survey(surveyor.plan, levels[:2], trials, open_ones, stop, why_none)


async def _of_capacity(surveyor: Surveyor, sweep: Sweep, search: Search) -> Measured:
    ends = await surveyor.ends(sweep.num_streams)
    why_none = missed_alone(ends[0], search.slo)
    search = replace(search, duration_s=sweep.length_s(ends[0]))
    trials = () if why_none else await _searched(surveyor, search, (), first_rate(ends[1]))
    return _survey(surveyor.plan, ends, trials, (), None, why_none)


async def _searched(surveyor: Surveyor, search: Search, known: Sequence[Trial], first: float) -> Sequence[Trial]:
    """Says how long that takes, now that it is known how fast the server is."""
    shortest, longest = span(search.look_s(first)), span(search.longest_s(first))
    sys.stderr.write(
        f"capacity: a rate near {first:.4g} requests/s takes {shortest} to {longest}, a lower one longer\n"
    )
    return await find_capacity(surveyor, search, known, first)


def _survey(
    plan: Plan,
    ends: Sequence[Level],
    trials: Sequence[Trial],
    open_ones: Sequence[Trial],
    stop: Beyond | None,
    why_none: str | None,
) -> Measured:
    """`open_ones` were measured and are shown, but say nothing about the capacity: the search has looked elsewhere for longer."""
    ordered = sorted((*trials, *open_ones), key=lambda trial: trial.rate)
    levels = (*ends, *(trial.level for trial in ordered if trial.beyond is None or trial.is_void))
    beyond = [trial.beyond for trial in ordered if trial.beyond and not trial.is_void]
    capacity = replace(capacity_of(trials), why_none=why_none)
    return Measured(_with_loads(plan, levels), levels, beyond, stop, capacity)


def _with_loads(plan: Plan, levels: Sequence[Level]) -> Plan:
    return replace(plan, loads=tuple(level.runs[0].offered for level in levels))


def _trials(levels: Sequence[Level], slo: Slo | None) -> list[Trial]:
    if slo is None or not _is_tested(slo):
        return []
    return [trial_of(level, level.runs[0].offered.rate or 0.0, slo) for level in levels]


def _is_steady(load: Load) -> bool:
    """Capacity is of a rate that stays: the mean of a ramp, a trace or a saved list says nothing about one."""
    return isinstance(load, OpenLoad) and isinstance(load.arrivals.profile, Steady)


def _is_tested(slo: Slo | None) -> bool:
    """An SLO without percentiles asks for goodput only."""
    return slo is not None and all(objective.percentile is not None for objective in slo.objectives)


def _search(options: argparse.Namespace, slo: Slo, sweep: Sweep) -> Search:
    default = Search(slo)
    return Search(
        slo,
        sweep.duration_s,
        options.capacity_precision or default.precision,
        options.capacity_rates or default.num_rates,
        sweep.spacing,
    )


def _expected(plan: Plan, kind: Profile, sweep: Sweep, search: Search | None) -> tuple[Expected, int | None]:
    """How long it takes, and how many runs it has where that is known."""
    ends = [ClosedLoad(num, plan.requests_at(num)) for num in (1, sweep.num_streams)]
    num_rates = sweep.num_rates if kind is Profile.SWEEP else 0
    is_search = search is not None and _is_tested(search.slo)

    def expected(e2e_s: float) -> tuple[float, float]:
        rate_s = max(sweep.duration_s, sweep.num_answers * e2e_s)
        least_s = plan.repeats * (sum(load.expected_s(e2e_s) for load in ends) + num_rates * (rate_s + e2e_s))
        if search is None or not is_search:
            return least_s, least_s
        # The rates follow from what is measured: those of a server that answers one at a time are the slowest to try.
        longest_s = replace(search, duration_s=rate_s).longest_s(FIRST / e2e_s if e2e_s else math.inf)
        return least_s, least_s + search.num_rates * (longest_s + len(LOOKS) * e2e_s)

    return expected, None if is_search else (len(ends) + num_rates) * plan.repeats


def _described(kind: Profile, sweep: Sweep, search: Search | None, repeats: int) -> str:
    ends = f"one request at a time, {sweep.num_streams} at once"
    rates, looks = "", ""
    if kind is Profile.SWEEP:
        rates = f"{sweep.num_rates} rates between, {span(sweep.duration_s)} each{_times(repeats)}"
    if search is not None and _is_tested(search.slo):
        looks = (
            f"up to {search.num_rates} rates until it is known where {search.slo} holds, each for at least "
            f"{span(search.duration_s)}, to pass for {search.num_needed:,} requests or more"
        )
    return f"{kind.value}: {', then '.join(filter(None, (ends, rates, looks)))}"


def _times(repeats: int) -> str:
    return f", all {repeats} times" if repeats > 1 else ""
