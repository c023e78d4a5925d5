"""Random traffic through the llama.cpp engine's scheduler and KV cache books, against a model of what llama.cpp holds.

    python -m benchmarks.scheduling --steps 1000000 --seed 1

Arrivals, lengths, shared prefixes, several answers to a prompt, forced tokens, adapters that come and go, cancellations and
a cache far too small. At every step: no cell is lost or held twice, no sequence's cells hold other tokens than its own or
were computed with another adapter, nothing is planned that does not fit; for every request: its answer is the one it would
get alone, and it ends within a bound of steps.
Raises AssertionError at the first violation. The tests drive the same world by hypothesis.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from enum import Enum

import numpy as np

from backends.llamacpp.arrangement import TILE, Arrangement, Invariant, Neighbours, Together
from backends.llamacpp.cache import KVCache
from backends.llamacpp.effects import Copy, Effect, Remove
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull, Scheduler
from backends.llamacpp.separate import SeparateCaches
from backends.llamacpp.sequence import Finish, Sequence
from backends.llamacpp.step import Step

NUM_CELLS = 160
MAX_RUNNING = 4
MAX_BATCH_TOKENS = 24
MAX_ROWS = 8
MAX_WAITING = 6
SMALL_TILE = 16
"""Tokens from which decoding and prompts take turns here."""
END = 0
NUM_TOKENS = 50
MAX_STEPS = 2000
"""A request that takes longer starved: the 10 requests there can be, each alone and preempted over and over, take less."""
MAX_ADAPTERS = 3
SWITCH_S, TOKEN_S = 0.003, 0.001
"""What a change of adapter and each token of a step take here."""


@dataclass(eq=False, slots=True)
class Adapter:
    """One that was loaded; the same number loaded again is another."""

    number: int


class Cells:
    """What llama.cpp would hold: for each sequence id the tokens at its positions, each in a cell of a unified cache."""

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self.held: dict[int, list[tuple[int, int]]] = {}
        """id -> [(token, cell)]"""
        self.adapter_of: dict[int, Adapter | None] = {}
        """cell -> what it was computed with"""
        self._next_cell = 0

    def apply(self, effect: Effect) -> None:
        """Carry out what the cache decided."""
        if isinstance(effect, Remove):
            self.held[effect.sequence_id] = self.held.get(effect.sequence_id, [])[: effect.start]
            return
        assert not self.held.get(effect.target), "an id that takes over must be empty"
        line = self.held[effect.source][: effect.length]
        assert len(line) == effect.length, "cells are taken over that are not computed"
        if isinstance(effect, Copy):
            line = [(token, self._new_cell(self.adapter_of[cell])) for token, cell in line]
        self.held[effect.target] = line

    def decode(self, step: Step, adapter: Adapter | None) -> None:
        """Compute a step's tokens with an adapter."""
        for token, position, sequence_id in zip(step.tokens, step.positions, step.sequence_ids, strict=True):
            line = self.held.setdefault(int(sequence_id), [])
            assert len(line) == position, "positions must follow one another"
            line.append((int(token), self._new_cell(adapter)))
        cells = {cell for line in self.held.values() for _, cell in line}
        assert len(cells) <= self.num_cells, "more cells than exist"

    def _new_cell(self, adapter: Adapter | None) -> int:
        self._next_cell += 1
        self.adapter_of[self._next_cell] = adapter
        return self._next_cell


@dataclass(frozen=True, slots=True)
class Task:
    """One answer: what the fake model makes of it depends on its tokens and `salt` alone."""

    prompt: tuple[int, ...]
    params: SamplingParams
    salt: int
    forces: bool
    """After some of its tokens, several more follow without being drawn."""
    arrived_step: int
    adapter: Adapter | None

    def draw(self, tokens: Seq[int]) -> int:
        """The next token."""
        value = 7 + self.salt + (0 if self.adapter is None else 1000 + self.adapter.number)
        for token in tokens:
            value = (value * 31 + token + 1) % 1000003
        return value % NUM_TOKENS

    def forced(self, tokens: Seq[int]) -> list[int]:
        """What must follow `tokens`, whose last one was drawn."""
        if not self.forces or tokens[-1] % 3:
            return []
        return [(tokens[-1] + offset) % (NUM_TOKENS - 1) + 1 for offset in range(1 + tokens[-1] % 5)]

    def answer(self) -> list[int]:
        """The whole answer, as it is without anybody else."""
        tokens = list(self.prompt)
        end = len(tokens) + self.params.max_tokens
        while len(tokens) < end:
            tokens.append(self.draw(tokens))
            if tokens[-1] == END and not self.params.ignore_eos:
                break
            tokens += self.forced(tokens)[: end - len(tokens)]
        return tokens[len(self.prompt) :]


@dataclass(slots=True)
class Tally:
    """What happened, to see that a run tried what it is for."""

    finished: int = 0
    cancelled: int = 0
    refused: int = 0
    reused: int = 0
    followers: int = 0
    forced: int = 0
    switches: int = 0
    unloaded: int = 0


class Kind(Enum):
    """Where the KV cells are, and what is asked of the steps."""

    UNIFIED = "one cache for all"
    SEPARATE = "a cache for each"
    INVARIANT = "a cache for each, the same kernels for every token"


class World:
    """Scheduler, cache, cells and the requests in them."""

    def __init__(self, *, num_cells: int = NUM_CELLS, max_cached: int = 120, kind: Kind = Kind.UNIFIED) -> None:
        """`num_cells`: for all, or for each where each has its own."""
        self.max_length = num_cells
        self.kind = kind
        self.cache, arrangement = self._make_cache(num_cells, max_cached)
        self.cells = Cells(self.cache.num_cells)
        self.scheduler = Scheduler(
            self.cache,
            arrangement,
            max_running=MAX_RUNNING,
            max_batch_tokens=MAX_BATCH_TOKENS,
            max_rows=MAX_ROWS,
            max_waiting=MAX_WAITING,
        )
        self.tally = Tally()
        self.histories: deque[tuple[list[int], Adapter | None]] = deque(maxlen=8)
        """Ended conversations, which a next turn may continue, with whoever answered."""
        self.adapters: list[Adapter | None] = [None, *(Adapter(number) for number in range(MAX_ADAPTERS))]
        self._computed_with: Adapter | None = None
        self.num_steps = 0
        self._tasks: dict[int, Task] = {}
        self._next_id = 0

    def _make_cache(self, num_cells: int, max_cached: int) -> tuple[KVCache | SeparateCaches, Arrangement]:
        if self.kind is Kind.UNIFIED:
            cache = KVCache(num_cells, 2 * MAX_RUNNING, num_cells, max_cached=max_cached)
            return cache, _SmallTiles(is_tiled=True)
        caches = SeparateCaches(MAX_RUNNING, num_cells, keeps_finished=max_cached > 0)
        return caches, Invariant(caches) if self.kind is Kind.INVARIANT else Neighbours(caches)

    def arrive(
        self,
        prompt: Seq[int],
        max_tokens: int,
        *,
        num_answers: int,
        ignores_end: bool,
        scores: bool,
        forces: bool,
        adapter: int = 0,
    ) -> None:
        """A request for `num_answers` answers; `scores`: the log-probabilities of its prompt too; `adapter` 0: the base model."""
        if len(prompt) + max_tokens > self.max_length:
            return
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=ignores_end, prompt_logprobs=0 if scores else None)
        leader: Sequence | None = None
        for salt in range(num_answers):
            sequence = Sequence.of(self._next_id, np.array(prompt, dtype=np.int32), params)
            sequence.leader = leader
            asked = sequence.adapter = self.adapters[adapter]
            try:
                self.scheduler.check_room()
            except QueueFull:
                self.tally.refused += 1
                return
            self.scheduler.add(sequence)
            self._next_id += 1
            self.tally.followers += leader is not None
            self._tasks[sequence.request_id] = Task(tuple(prompt), params, salt, forces, self.num_steps, asked)
            leader = leader or sequence

    def cancel(self, number: int) -> None:
        """The client of one request goes away."""
        everyone = self.scheduler.everyone
        if everyone:
            sequence = everyone[number % len(everyone)]
            assert self.scheduler.cancel(sequence)
            assert not self.scheduler.cancel(sequence), "a request was cancelled twice"
            del self._tasks[sequence.request_id]
            self.tally.cancelled += 1

    def unload(self, number: int) -> None:
        """An adapter that no request uses goes, and comes back as another."""
        adapter = self.adapters[number]
        if adapter is not None and not self.scheduler.num_present[adapter]:
            self.scheduler.forget(adapter)
            self._apply_effects()
            held = {cell for line in self.cells.held.values() for _, cell in line}
            assert not any(self.cells.adapter_of[cell] is adapter for cell in held), "cells of a freed adapter are kept"
            self._computed_with = None if self._computed_with is adapter else self._computed_with
            self.adapters[number] = Adapter(adapter.number)
            self.tally.unloaded += 1

    def step(self) -> None:
        """One turn of the engine."""
        self.num_steps += 1
        step = self.scheduler.schedule()
        self._apply_effects()
        if step is None:
            assert self.scheduler.is_idle
            assert not self._tasks, "a request was forgotten"
            return
        assert len(step.tokens) <= MAX_BATCH_TOKENS
        assert step.num_rows == int(step.wants_logits.sum()) <= MAX_ROWS
        _check_shape(step, self.kind)
        self._compute(step)
        self.scheduler.computed(step)
        for sequence, row in step.drawing:
            assert 0 <= row < step.num_rows
            self._draw(sequence)
        for chunk in step.chunks:
            if not chunk.draws and chunk.sequence.num_pending == 0:
                self.scheduler.finish(chunk.sequence, Finish.LENGTH)
                self._ended(chunk.sequence)

    def audit(self) -> None:
        """Recount everything."""
        self.scheduler.check_integrity()
        late = [n for n, task in self._tasks.items() if self.num_steps - task.arrived_step > MAX_STEPS]
        assert not late, f"requests starve: {late}"

    def drain(self) -> None:
        """Let everything end; then nothing may be in use."""
        while not self.scheduler.is_idle:
            self.step()
        self.step()
        self.audit()
        assert self.cache.num_used == 0
        self.cache.clear()
        assert self.cache.num_free == self.cells.num_cells, "cells leaked"
        self._apply_effects()
        assert not any(self.cells.held.values()), "llama.cpp holds what nobody knows of"

    def _apply_effects(self) -> None:
        for effect in self.cache.effects:
            self.cells.apply(effect)
        self.cache.effects.clear()

    def _compute(self, step: Step) -> None:
        (adapter,) = {self._tasks[sequence.request_id].adapter for sequence in step.sequences}
        assert adapter is self.scheduler.adapter, "a step is of another adapter than it is said to be"
        is_changed = adapter is not self._computed_with
        self._computed_with = adapter
        self.tally.switches += is_changed
        self.cells.decode(step, adapter)
        num_tokens = len(step.tokens)
        duration_s = TOKEN_S * num_tokens + SWITCH_S * is_changed
        self.scheduler.turns.ran(num_tokens, duration_s, is_decoding=not step.chunks)

    def _draw(self, sequence: Sequence) -> None:
        task = self._tasks[sequence.request_id]
        cells = self.cells.held[sequence.sequence_id]
        assert all(self.cells.adapter_of[cell] is task.adapter for _, cell in cells), "computed with another adapter"
        line = [token for token, _ in cells]
        assert line == sequence.tokens[: sequence.num_tokens].tolist(), "a sequence's cells hold other tokens"
        token = task.draw(line)
        is_end = token == END and not task.params.ignore_eos
        if self.scheduler.append(sequence, token, is_end=is_end) is not None:
            self._ended(sequence)
            return
        for extra in task.forced([*line, token])[: sequence.room]:
            self.tally.forced += 1
            if self.scheduler.append(sequence, extra, is_end=False) is not None:
                self._ended(sequence)
                return

    def _ended(self, sequence: Sequence) -> None:
        task = self._tasks.pop(sequence.request_id)
        answer = sequence.tokens[sequence.num_prompt : sequence.num_tokens].tolist()
        assert answer == task.answer(), "an answer depends on its neighbours"
        self.tally.finished += 1
        self.tally.reused += sequence.num_reused
        self.histories.append(([*task.prompt, *answer], task.adapter))


class _SmallTiles(Together):
    """The rule for the CPU's attention, with tiles as small as the steps here."""

    def can_mix(self, num_decoding: int, num_prompt_tokens: int) -> bool:
        return super().can_mix(num_decoding, num_prompt_tokens + TILE - SMALL_TILE)


def _check_shape(step: Step, kind: Kind) -> None:
    """What makes steps cheap, or every token go through the same kernels."""
    ids = step.sequence_ids.tolist()
    num_chunk_tokens = sum(chunk.count for chunk in step.chunks)
    if kind is Kind.UNIFIED:
        is_mixed = step.decoding and step.chunks
        assert not is_mixed or len(ids) < SMALL_TILE, "prompts make decoding dear"
        return
    assert ids == sorted(ids), "neighbouring ids lie apart"
    if step.decoding:
        assert len(ids) == len(set(ids)), "one of the decoding ids has several tokens"
        assert num_chunk_tokens == len(step.chunks)
    if kind is Kind.INVARIANT:
        _check_kernels(step, ids, num_chunk_tokens)


def _check_kernels(step: Step, ids: list[int], num_chunk_tokens: int) -> None:
    """Nothing is ever alone, and neighbours are computed together."""
    assert len(ids) >= 2, "a lone token"
    assert step.num_rows != 1, "a lone row of logits"
    if step.decoding or num_chunk_tokens == 1:
        assert ids == list(range(ids[0], ids[0] + len(ids))), "ids are not neighbours"
    else:
        assert len(step.chunks) == 1


class Traffic:
    """Seeded random traffic for a world."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._systems = [self._some(length) for length in (0, 12, 30, 40)]

    def run(self, num_steps: int) -> None:
        """So many steps, then drain."""
        for _ in range(num_steps):
            if self._random.random() < 0.4:
                self._arrive()
            if self._random.random() < 0.05:
                self._world.cancel(self._random.randrange(100))
            if self._random.random() < 0.05:
                self._world.unload(self._random.randrange(MAX_ADAPTERS + 1))
            self._world.step()
            self._world.audit()
        self._world.drain()

    def _some(self, count: int) -> list[int]:
        return [self._random.randrange(NUM_TOKENS) for _ in range(count)]

    def _arrive(self) -> None:
        draw, histories = self._random, self._world.histories
        goes_on = histories and draw.random() < 0.3
        head, spoke = draw.choice(histories) if goes_on else (draw.choice(self._systems), None)
        known = [number for number, adapter in enumerate(self._world.adapters) if adapter is spoke]
        self._world.arrive(
            [*head, *self._some(3 if goes_on else draw.randrange(1, 40))],
            draw.choice([0, 1, 5, 20, 60]),
            num_answers=draw.choice([1, 1, 1, 2, 5]),
            ignores_end=draw.random() < 0.5,
            scores=draw.random() < 0.15,
            forces=draw.random() < 0.3,
            adapter=known[0] if known and draw.random() < 0.5 else draw.randrange(MAX_ADAPTERS + 1),
        )


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps in all (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first of the worlds (default: 0)")
    args = parser.parse_args(argv)
    began_s, done, seed = time.monotonic(), 0, args.seed
    total = Tally()
    while done < args.steps:
        # A small cache, a smaller one, one without any reuse, one for each request, the same for all kernels: by turns.
        num_cells, max_cached, kind = (
            (NUM_CELLS, 120, Kind.UNIFIED),
            (128, 60, Kind.UNIFIED),
            (NUM_CELLS, 0, Kind.UNIFIED),
            (128, 60, Kind.SEPARATE),
            (128, 60, Kind.INVARIANT),
        )[seed % 5]
        world = World(num_cells=num_cells, max_cached=max_cached, kind=kind)
        Traffic(world, seed).run(min(10_000, args.steps - done))
        done += min(10_000, args.steps - done)
        seed += 1
        for name in Tally.__slots__:
            setattr(total, name, getattr(total, name) + getattr(world.tally, name))
        print(f"{done:>9,} steps, {time.monotonic() - began_s:6.0f} s: {total}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
