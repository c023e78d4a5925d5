"""Two ways to one engine: each turn measures both, with other prompts, and is compared with itself only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks import over_direct
from benchmarks.campaign import Plan
from benchmarks.client import Target
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.over_direct import DIRECT, GATEWAY, Ratio
from benchmarks.workload import Endpoint, Length, PromptForm, Workload

PLAN = Plan(
    Workload(
        "mock", Endpoint.COMPLETIONS, Length(8, 8), Length(10, 10), PromptForm.IDS
    ),
    (1, 4), repeats=2, requests_per_stream=1,
)  # fmt: skip


@pytest.fixture
async def slow() -> AsyncIterator[MockEngine]:
    async with MockEngine(Behaviour(ttft_ms=20, itl_ms=4, tokens=10)) as running:
        yield running


@pytest.fixture
async def fast() -> AsyncIterator[MockEngine]:
    async with MockEngine(Behaviour(ttft_ms=2, itl_ms=1, tokens=10)) as running:
        yield running


async def test_what_is_slower_is_found_slower(slow: MockEngine, fast: MockEngine, tmp_path: Path) -> None:
    said: list[str] = []
    targets = {GATEWAY: Target.from_url(slow.url), DIRECT: Target.from_url(fast.url)}
    levels = await over_direct.compare(targets, PLAN, said.append)
    assert [level.num_streams for level in levels] == [1, 4]
    assert len(said) == 8
    assert all(level.ratio.median < 0.8 and not level.ratio.is_met and not level.faults for level in levels)
    orders = [[run.order for run in levels[0].runs[way]] for way in (GATEWAY, DIRECT)]
    assert orders == [[0, 5], [1, 4]]  # every second turn begins with the other way
    found = over_direct.as_dict(levels[0])
    assert found["ratio"]["median"] == levels[0].ratio.median
    assert not found["is_met"]
    assert over_direct.table([found])[2].startswith("| 1 | ")


async def test_both_ways_alike_are_found_alike(fast: MockEngine) -> None:
    target = Target.from_url(fast.url)
    levels = await over_direct.compare({GATEWAY: target, DIRECT: target}, PLAN, lambda _: None)
    assert all(0.5 < level.ratio.median < 2 for level in levels)


def test_the_two_ways_get_prompts_of_the_same_length_that_no_cache_knows() -> None:
    plans = [over_direct._plan_of(way, PLAN) for way in (GATEWAY, DIRECT)]
    bodies = [plan.workload.requests(4, plan.seed_of(1, 0)) for plan in plans]
    assert not {request.body for request in bodies[0]} & {request.body for request in bodies[1]}


def test_the_median_decides() -> None:
    assert Ratio.of([0.5, 0.98, 1.1]).is_met
    assert not Ratio.of([0.96, 0.96, 1.3]).is_met
