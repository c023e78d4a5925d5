"""Random traffic over a tiny cache: nothing leaks, nobody starves, no sequence sees another's tokens."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

from backends.llamacpp.cache import KVCache, Remove, Share
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull, Scheduler, Step
from backends.llamacpp.sequence import Finish, Sequence


class Cells:
    """What llama.cpp would hold: per sequence id the tokens at each position, with the unified cache's cell count."""

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self.held: dict[int, list[tuple[int, int]]] = {}  # id -> [(token, cell)]
        self.next_cell = 0

    def apply(self, effect: Remove | Share) -> None:
        if isinstance(effect, Remove):
            self.held[effect.sequence_id] = self.held.get(effect.sequence_id, [])[: effect.start]
        else:
            assert not self.held.get(effect.target), "a shared-into id must be empty"
            assert len(self.held[effect.source]) >= effect.length, "shared cells that are not computed"
            self.held[effect.target] = self.held[effect.source][: effect.length]

    def decode(self, step: Step) -> None:
        for token, position, sequence_id in zip(step.tokens, step.positions, step.sequence_ids, strict=True):
            line = self.held.setdefault(int(sequence_id), [])
            assert len(line) == position, "positions must follow one another"
            line.append((int(token), self.next_cell))
            self.next_cell += 1
        cells = {cell for line in self.held.values() for _, cell in line}
        assert len(cells) <= self.num_cells, "more cells than exist"


def next_token(tokens: list[int]) -> int:
    """The fake model: a pure function of everything before."""
    value = 7
    for token in tokens:
        value = (value * 31 + token + 1) % 1000003
    return value % 50


def reference(prompt: list[int], max_tokens: int, end: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(next_token(tokens))
        if tokens[-1] == end:
            break
    return tokens[len(prompt) :]


class World:
    def __init__(self, seed: int, *, num_cells: int = 160, max_cached: int = 120) -> None:
        self.random = random.Random(seed)
        self.max_cached = max_cached
        self.cells = Cells(num_cells)
        self.cache = KVCache(num_cells, 8, num_cells, max_cached=max_cached)
        self.scheduler = Scheduler(self.cache, max_running=4, max_batch_tokens=24, max_rows=8, max_waiting=6)
        self.systems = [[self.random.randrange(50) for _ in range(length)] for length in (0, 12, 30, 40)]
        self.prompts: dict[int, list[int]] = {}
        self.histories: deque[list[int]] = deque(maxlen=8)
        self.num_finished = self.num_cancelled = self.num_refused = self.num_reused = 0
        self.next_id = 0
        self.waiting_since: dict[int, int] = {}
        self.num_steps = 0

    def arrive(self) -> None:
        if self.histories and self.random.random() < 0.3:
            prompt = list(self.random.choice(self.histories)) + [self.random.randrange(50) for _ in range(3)]
        else:
            prompt = list(self.random.choice(self.systems)) + [
                self.random.randrange(50) for _ in range(self.random.randrange(1, 40))
            ]
        max_tokens = self.random.choice([0, 1, 5, 20, 60])
        if len(prompt) + max_tokens > self.cells.num_cells:
            return
        wants_all = self.random.random() < 0.15
        params = SamplingParams(
            max_tokens=max_tokens, ignore_eos=self.random.random() < 0.5, prompt_logprobs=0 if wants_all else None
        )
        sequence = Sequence.of(self.next_id, np.array(prompt, dtype=np.int32), params, None, 0.0)
        self.next_id += 1
        try:
            self.scheduler.check_room()
            self.scheduler.add(sequence)
        except QueueFull:
            self.num_refused += 1
            return
        self.prompts[sequence.request_id] = prompt
        self.waiting_since[sequence.request_id] = self.num_steps

    def cancel(self) -> None:
        everyone = [*self.scheduler.running, *self.scheduler.waiting]
        if everyone:
            sequence = self.random.choice(everyone)
            assert self.scheduler.cancel(sequence)
            assert not self.scheduler.cancel(sequence)
            del self.waiting_since[sequence.request_id]
            self.num_cancelled += 1

    def step(self) -> None:
        self.num_steps += 1
        step = self.scheduler.schedule()
        for effect in self.cache.effects:
            self.cells.apply(effect)
        self.cache.effects.clear()
        if step is None:
            assert self.scheduler.is_idle
            return
        assert len(step.tokens) <= 24
        assert step.num_rows == int(step.wants_logits.sum()) <= 8
        self.cells.decode(step)
        self.scheduler.computed(step)
        for sequence, row in step.drawing:
            assert 0 <= row < step.num_rows
            line = [token for token, _ in self.cells.held[sequence.sequence_id]]
            assert line == sequence.tokens[: sequence.num_tokens].tolist(), "a sequence's cells hold other tokens"
            token = next_token(line)
            if self.scheduler.append(sequence, token, is_end=token == 0 and not sequence.params.ignore_eos) is not None:
                self.finished(sequence)
        for chunk in step.chunks:
            if not chunk.draws and chunk.sequence.num_pending == 0:
                self.scheduler.finish(chunk.sequence, Finish.LENGTH)
                self.finished(chunk.sequence)

    def finished(self, sequence: Sequence) -> None:
        self.num_finished += 1
        self.num_reused += sequence.num_reused
        prompt = self.prompts[sequence.request_id]
        answer = sequence.tokens[sequence.num_prompt : sequence.num_tokens].tolist()
        end = -1 if sequence.params.ignore_eos else 0
        assert answer == reference(prompt, sequence.params.max_tokens, end)
        self.histories.append(prompt + answer)
        assert self.num_steps - self.waiting_since.pop(sequence.request_id) < 2000, "a request starved"

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            if self.random.random() < 0.4:
                self.arrive()
            if self.random.random() < 0.05:
                self.cancel()
            self.step()
            self.scheduler.check_integrity()
            assert self.cache.num_cached <= self.max_cached or self.scheduler.running
        while not self.scheduler.is_idle:
            self.step()
        self.scheduler.check_integrity()
        assert self.cache.num_used == 0
        assert not self.waiting_since
        self.cache.clear()
        assert self.cache.num_free == self.cells.num_cells


@pytest.mark.parametrize("seed", range(4))
def test_random_traffic_over_a_tiny_cache(seed: int) -> None:
    world = World(seed)
    world.run(2500)
    assert world.num_finished > 200
    assert world.num_cancelled > 20
    assert world.num_reused > 500
    assert world.num_refused > 0


def test_without_reuse_every_cell_is_free_when_idle() -> None:
    world = World(99, max_cached=0)
    world.run(500)
    assert world.num_reused == 0
    assert world.cache.num_free == world.cells.num_cells


def test_oldest_is_served_first_and_youngest_is_preempted() -> None:
    cache = KVCache(64, 4, 64, max_cached=0)
    scheduler = Scheduler(cache, max_running=2, max_batch_tokens=32, max_rows=4, max_waiting=4)
    old, young = (
        Sequence.of(number, np.arange(8, dtype=np.int32), SamplingParams(max_tokens=50), None, 0.0) for number in (0, 1)
    )
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
        scheduler.add(Sequence.of(0, np.arange(4, dtype=np.int32), SamplingParams(max_tokens=4), None, 0.0))

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
