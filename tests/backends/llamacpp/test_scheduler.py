"""Traffic over a tiny cache: nothing leaks, nobody starves, no sequence sees another's tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backends.llamacpp.cache import KVCache
from backends.llamacpp.effects import Remove
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull, Scheduler
from backends.llamacpp.sequence import Sequence
from benchmarks.scheduling import NUM_TOKENS, Traffic, World

tokens = st.lists(st.integers(0, NUM_TOKENS - 1), min_size=1, max_size=40)
SYSTEMS = ([], [1, 2, 3] * 4, list(range(30)), [5] * 40)


class TinyCache(RuleBasedStateMachine):
    """Every order of arrivals, cancellations and steps that hypothesis thinks of."""

    num_steps = 0
    is_apart = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(num_cells=96, max_cached=60, is_apart=self.is_apart)

    @rule(
        head=st.sampled_from(SYSTEMS),
        rest=tokens,
        max_tokens=st.sampled_from([0, 1, 5, 20, 60]),
        num_answers=st.sampled_from([1, 1, 2, 5]),
        ignores_end=st.booleans(),
        scores=st.booleans(),
        forces=st.booleans(),
    )
    def arrive(
        self, head: list[int], rest: list[int], max_tokens: int, num_answers: int, ignores_end: bool, scores: bool,
        forces: bool,
    ) -> None:  # fmt: skip
        self.world.arrive(
            [*head, *rest], max_tokens, num_answers=num_answers, ignores_end=ignores_end, scores=scores, forces=forces
        )

    @precondition(lambda self: self.world.histories)
    @rule(number=st.integers(0, 7), rest=tokens)
    def next_turn(self, number: int, rest: list[int]) -> None:
        history = self.world.histories[number % len(self.world.histories)]
        self.world.arrive([*history, *rest], 8, num_answers=1, ignores_end=True, scores=False, forces=False)

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        self.world.cancel(number)

    @rule(count=st.integers(1, 6))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @invariant()
    def nothing_is_lost(self) -> None:
        self.world.audit()

    def teardown(self) -> None:
        self.world.drain()
        TinyCache.num_steps += self.world.num_steps


TinyCache.TestCase.settings = settings(
    max_examples=200, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
test_every_order_of_events = TinyCache.TestCase


class TinyCaches(TinyCache):
    """The same with a cache for each request."""

    is_apart = True


TinyCaches.TestCase.settings = TinyCache.TestCase.settings
test_every_order_of_events_apart = TinyCaches.TestCase


@pytest.mark.parametrize("is_apart", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_traffic_over_a_tiny_cache(seed: int, is_apart: bool) -> None:
    world = World(is_apart=is_apart)
    Traffic(world, seed).run(2500)
    assert world.tally.finished > 200
    assert world.tally.cancelled > 20
    assert world.tally.reused > 500
    assert world.tally.refused > 0
    assert world.tally.followers > 30
    assert world.tally.forced > 50


def test_without_a_prefix_cache_only_answers_to_one_prompt_share() -> None:
    world = World(max_cached=0)
    Traffic(world, 99).run(500)
    assert world.cache.num_free == world.cells.num_cells
    world.arrive(list(range(20)), 5, num_answers=3, ignores_end=True, scores=False, forces=False)
    reused = world.tally.reused
    world.drain()
    assert world.tally.reused - reused == 2 * 19


def test_oldest_is_served_first_and_youngest_is_preempted() -> None:
    cache = KVCache(64, 4, 64, max_cached=0)
    scheduler = Scheduler(cache, max_running=2, max_batch_tokens=32, max_rows=4, max_waiting=4)
    old, young = (Sequence.of(number, np.arange(8, dtype=np.int32), SamplingParams(max_tokens=50)) for number in (0, 1))
    scheduler.add(old)
    scheduler.add(young)
    preempted = False
    while old.num_generated < 50:
        step = scheduler.schedule()
        assert step is not None
        scheduler.computed(step)
        for sequence, _ in step.drawing:
            scheduler.append(sequence, 1, is_end=False)
        preempted = preempted or young in scheduler.waiting
        scheduler.check_integrity()
    assert preempted
    assert young.num_generated > 0, "a preempted request keeps its answer"


def test_a_full_line_refuses() -> None:
    scheduler = Scheduler(
        KVCache(64, 2, 64, max_cached=0), max_running=1, max_batch_tokens=32, max_rows=4, max_waiting=2
    )

    def add() -> None:
        scheduler.check_room()
        scheduler.add(Sequence.of(0, np.arange(4, dtype=np.int32), SamplingParams(max_tokens=4)))

    for _ in range(3):
        add()
    with pytest.raises(QueueFull, match="3 requests are waiting"):
        add()


def test_a_request_longer_than_the_bound_keeps_its_beginning() -> None:
    cache = KVCache(64, 4, 64, max_cached=20)
    tokens = np.arange(40, dtype=np.int32)
    first, reused = cache.acquire(tokens)
    assert reused == 0
    cache.extend(first, tokens[:30], 30)
    cache.reserve(10)
    cache.release(first, tokens, keep=True)
    cache.check_integrity()
    assert cache.num_cached == 20
    assert cache.effects[-1] == Remove(first, 20)
    assert cache.acquire(tokens)[1] == 20
    cache.check_integrity()
