"""Traffic over a tiny cache: nothing leaks, nobody starves, no sequence sees another's tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backends.llamacpp.arrangement import Arrangement, Invariant, Neighbours, Together
from backends.llamacpp.cache import KVCache
from backends.llamacpp.effects import Remove
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull, Scheduler
from backends.llamacpp.separate import SeparateCaches
from backends.llamacpp.sequence import Sequence
from benchmarks.scheduling import MAX_ADAPTERS, NUM_TOKENS, Kind, Traffic, World

tokens = st.lists(st.integers(0, NUM_TOKENS - 1), min_size=1, max_size=40)
SYSTEMS = ([], [1, 2, 3] * 4, list(range(30)), [5] * 40)


class TinyCache(RuleBasedStateMachine):
    """Every order of arrivals, cancellations and steps that hypothesis thinks of."""

    num_steps = 0
    kind = Kind.UNIFIED

    def __init__(self) -> None:
        super().__init__()
        self.world = World(num_cells=96, max_cached=60, kind=self.kind)

    @rule(
        head=st.sampled_from(SYSTEMS),
        rest=tokens,
        max_tokens=st.sampled_from([0, 1, 5, 20, 60]),
        num_answers=st.sampled_from([1, 1, 2, 5]),
        ignores_end=st.booleans(),
        scores=st.booleans(),
        forces=st.booleans(),
        adapter=st.integers(0, MAX_ADAPTERS),
    )
    def arrive(
        self, head: list[int], rest: list[int], max_tokens: int, num_answers: int, ignores_end: bool, scores: bool,
        forces: bool, adapter: int,
    ) -> None:  # fmt: skip
        self.world.arrive(
            [*head, *rest], max_tokens, num_answers=num_answers, ignores_end=ignores_end, scores=scores, forces=forces,
            adapter=adapter,
        )  # fmt: skip

    @rule(number=st.integers(1, MAX_ADAPTERS))
    def unload(self, number: int) -> None:
        self.world.unload(number)

    @precondition(lambda self: self.world.histories)
    @rule(number=st.integers(0, 7), rest=tokens, adapter=st.integers(0, MAX_ADAPTERS))
    def next_turn(self, number: int, rest: list[int], adapter: int) -> None:
        history, _ = self.world.histories[number % len(self.world.histories)]
        self.world.arrive(
            [*history, *rest], 8, num_answers=1, ignores_end=True, scores=False, forces=False, adapter=adapter
        )

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

    kind = Kind.SEPARATE


class InvariantCaches(TinyCache):
    """The same with the same kernels for every token."""

    kind = Kind.INVARIANT


TinyCaches.TestCase.settings = InvariantCaches.TestCase.settings = settings(
    TinyCache.TestCase.settings, max_examples=100
)
test_every_order_of_events_in_separate_caches = TinyCaches.TestCase
test_every_order_of_events_for_invariant_kernels = InvariantCaches.TestCase


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("seed", range(4))
def test_random_traffic_over_a_tiny_cache(seed: int, kind: Kind) -> None:
    world = World(kind=kind)
    Traffic(world, seed).run(2500)
    assert world.tally.finished > 150
    assert world.tally.cancelled > 20
    assert world.tally.reused > 500
    assert world.tally.refused > 0
    assert world.tally.followers > 30
    assert world.tally.forced > 50
    assert world.tally.switches > 100
    assert world.tally.unloaded > 10


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
    scheduler = Scheduler(
        cache, Together(is_tiled=False), max_running=2, max_batch_tokens=32, max_rows=4, max_waiting=4
    )
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
    cache, arrangement = KVCache(64, 2, 64, max_cached=0), Together(is_tiled=False)
    scheduler = Scheduler(cache, arrangement, max_running=1, max_batch_tokens=32, max_rows=4, max_waiting=2)

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


@pytest.mark.parametrize("make", [Neighbours, Invariant])
@pytest.mark.parametrize("num_forced", [4, 30])
def test_forced_tokens_do_not_take_the_prompts_turns(
    make: Callable[[SeparateCaches], Arrangement], num_forced: int
) -> None:
    """Everybody else is in a grammar that forces tokens after each that is drawn: a newcomer is read nonetheless."""
    caches = SeparateCaches(17, 20_000, keeps_finished=False)
    scheduler = Scheduler(caches, make(caches), max_running=17, max_batch_tokens=63, max_rows=64, max_waiting=4)

    def arrive() -> Sequence:
        sequence = Sequence.of(0, np.arange(20, dtype=np.int32), SamplingParams(max_tokens=19_000))
        scheduler.add(sequence)
        return sequence

    def step() -> None:
        planned = scheduler.schedule()
        assert planned is not None
        caches.effects.clear()
        scheduler.computed(planned)
        for sequence, _ in planned.drawing:
            for token in range(1 + num_forced):
                scheduler.append(sequence, token, is_end=False)

    others = [arrive() for _ in range(16)]
    while not all(other.num_generated for other in others):
        step()
    newcomer = arrive()
    for _ in range(8):
        step()
    assert newcomer.num_generated, "its prompt waits behind forced tokens"
    before = [other.num_computed for other in others]
    for _ in range(200):
        step()
    assert all(other.num_computed > start for other, start in zip(others, before, strict=True)), "forced tokens starve"


def test_a_short_forced_run_is_fed_beside_decoding_and_a_long_one_is_a_chunk() -> None:
    caches = SeparateCaches(4, 256, keeps_finished=False)
    arrangement = Neighbours(caches)
    assert arrangement.can_feed(3, 4)
    assert not arrangement.can_feed(5, 4)
    assert not arrangement.can_feed(2, 0), "nobody decodes: nothing to go beside"


@pytest.mark.parametrize(
    ("is_tiled", "num_decoding", "num_prompt_tokens", "mixes"),
    [(True, 31, 32, True), (True, 31, 33, False), (True, 64, 0, False), (False, 31, 400, True)],
)
def test_prompts_that_make_decoding_dear_take_turns(
    is_tiled: bool, num_decoding: int, num_prompt_tokens: int, mixes: bool
) -> None:
    assert Together(is_tiled=is_tiled).can_mix(num_decoding, num_prompt_tokens) is mixes
