"""Which tokens go into the next step. Pure: no clock, no I/O, no llama.cpp; driven by hand in the tests.

    schedule()  ->  Step            decode first, then prompt chunks under the token budget, in one step or by turns
    (the engine runs it and draws)
    computed(), append(), finish()  <-  drawn tokens: sequences grow, end, or go on

Rules
- Decode first: each decoding sequence gets its one token in every step, or every other one; what is left of the budget goes
  to prompts, first come first served.
- Admission: the oldest waiting request enters when an id is free and its tokens fit beside what already runs, after
  cached sequences were evicted; nobody overtakes it, so nobody starves.
- Preemption: when a decode step finds no cell, the youngest running sequence gives its cells back and waits at the front
  of the queue; its answer is kept and recomputed. The oldest is never preempted, so it always finishes.
- Turns: where one step for both costs more than two (backends.llamacpp.arrangement), a step that decodes and one with
  prompt chunks follow each other. Tokens that a grammar forces go beside the decoding ones, or take turns with prompts.
- Adapters: a step has sequences of one adapter only, or of the base model; they take turns (backends.llamacpp.adapter_turns).
  Admission and preemption know no adapters.
- Several answers to one prompt: the first one's sequence leads. The others wait beside the line until its prompt is
  computed, then go to the front of the line and take its cells over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator

from backends.llamacpp.adapter_turns import Demand, Turns
from backends.llamacpp.arrangement import Arrangement
from backends.llamacpp.cache import KVCache
from backends.llamacpp.effects import Remove
from backends.llamacpp.separate import SeparateCaches
from backends.llamacpp.sequence import Finish, Sequence
from backends.llamacpp.step import Chunk, Step

_GROWTH_ROOM = 16
"""Cells kept free for each running sequence at admission, so that a newcomer is not preempted at once."""


class QueueFull(Exception):
    """The waiting line is at its bound."""

    def __init__(self, num_waiting: int) -> None:
        super().__init__(f"{num_waiting} requests are waiting already")
        self.num_waiting = num_waiting


class Scheduler:
    """Waiting line, running set and KV cells of one context."""

    def __init__(
        self,
        cache: KVCache | SeparateCaches,
        arrangement: Arrangement,
        *,
        max_running: int,
        max_batch_tokens: int,
        max_rows: int,
        max_waiting: int,
    ) -> None:
        self.cache = cache
        self._arrangement = arrangement
        self._prompts_turn: set[Hashable] = set()
        """Adapters whose next step is one with prompt chunks, where these have steps of their own."""
        self._is_forced_turn = False
        self._last_forced = -1
        """The id whose forced tokens were computed last."""
        self._max_running = max_running
        self._max_batch_tokens = max_batch_tokens
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._num_following = 0
        """Sequences that wait for their leader's prompt."""
        self.num_preempted = 0
        self.turns = Turns()
        self.num_present: Counter[Hashable] = Counter()
        """Requests that have not ended, by adapter."""

    @property
    def adapter(self) -> Hashable:
        """Whose sequences the last step had."""
        return self.turns.current

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def num_places(self) -> int:
        """Requests that can be here at once, running and waiting."""
        return self._max_waiting + self._max_running

    @property
    def num_waiting(self) -> int:
        """Requests that do not run yet."""
        return len(self.waiting) + self._num_following

    @property
    def everyone(self) -> list[Sequence]:
        """Every request that has not ended."""
        present = [*self.waiting, *self.running]
        return present + [follower for sequence in present for follower in sequence.followers]

    def check_room(self, num_arriving: int = 0) -> None:
        """Raises QueueFull when the line has no place behind `num_arriving` requests that are on their way."""
        if self.num_waiting + num_arriving >= self.num_places - min(len(self.running), self._max_running):
            raise QueueFull(self.num_waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a request, for which `check_room` was asked."""
        self.num_present[sequence.adapter] += 1
        leader = sequence.leader
        if leader is not None and leader.num_computed < leader.num_prompt and self._is_present(leader):
            leader.followers.append(sequence)
            self._num_following += 1
        else:
            self.waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> bool:
        """Take a request out wherever it is. False: it had ended already."""
        leader = sequence.leader
        if leader is not None and sequence in leader.followers:
            leader.followers.remove(sequence)
            self._num_following -= 1
            self._leave(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            self._release_followers(sequence)
            self._leave(sequence)
        elif sequence in self.running:
            self._end(sequence, keep=True)
        else:
            return False
        return True

    def schedule(self) -> Step | None:
        """The next step, or None when there is nothing to do. Its effects are in `cache.effects`."""
        while self.running or self.waiting:
            self._choose_adapter()
            step = self._plan()
            if step is not None:
                return step
            if not any(sequence.adapter is self.adapter for sequence in self.running):
                continue  # its sequences had to step back for an older one's
            # Prompts alone filled the cache between them: one has to step back.
            if self.preempt_youngest() is None:
                raise AssertionError("one sequence alone outgrew the cache: its length was not checked")
        return None

    def forget(self, adapter: Hashable) -> None:
        """An adapter that no request uses is gone for good: nothing computed with it is reused."""
        assert not self.num_present[adapter], "an adapter is in use"
        del self.num_present[adapter]
        self.cache.forget(adapter)
        self.turns.forget(adapter)
        self._prompts_turn.discard(adapter)

    def _choose_adapter(self) -> None:
        if self.num_present[self.adapter] == len(self.waiting) + len(self.running) + self._num_following:
            return
        newcomers: dict[Hashable, int | None] = {}
        heads = [self.waiting[0]] if self.waiting and self._can_admit(self.waiting[0]) else []
        for sequence in [*self.running, *heads]:
            oldest = newcomers.setdefault(sequence.adapter, None)
            is_new = sequence.num_generated == 0
            if is_new and (oldest is None or sequence.request_id < oldest):
                newcomers[sequence.adapter] = sequence.request_id
        self.turns.choose([Demand(adapter, newcomer) for adapter, newcomer in newcomers.items()])

    def _mine(self) -> list[Sequence]:
        """The running sequences of the adapter whose turn it is."""
        if self.num_present[self.adapter] >= len(self.running) + len(self.waiting) + self._num_following:
            return self.running
        return [sequence for sequence in self.running if sequence.adapter is self.adapter]

    def _plan(self) -> Step | None:
        decoding = self._room_for_decoding()
        if decoding and self._arrangement.can_mix(len(decoding), 0):
            chunks = self._chunks(decoding, self._prefilling())
            if self._arrangement.can_mix(len(decoding), sum(chunk.count for chunk in chunks)):
                return self._step(decoding, chunks)
        fed = [other for other in self._mine() if self._is_fed(other, len(decoding))]
        if self.adapter in self._prompts_turn or not decoding:
            chunks = self._chunks([], self._taking_turns(fed))
            if chunks:
                self._prompts_turn.discard(self.adapter)
                return self._step([], chunks)
        self._prompts_turn.add(self.adapter)
        return self._step(decoding, [Chunk(other, other.num_computed, 1, False, -1, 0) for other in fed])

    def _step(self, decoding: list[Sequence], chunks: list[Chunk]) -> Step | None:
        if not decoding and not chunks:
            return None
        num_rows = len(decoding) + sum(chunk.num_rows for chunk in chunks)
        return self._arrangement.assemble(decoding, chunks, num_rows, self.running)

    def _chunks(self, decoding: list[Sequence], prompts: Iterator[Sequence]) -> list[Chunk]:
        """As much of `prompts` as fits beside `decoding`."""
        budget = self._max_batch_tokens - len(decoding)
        num_planned, rows = len(decoding), len(decoding)
        chunks: list[Chunk] = []
        for sequence in prompts:
            self.cache.make_room(num_planned + min(sequence.num_pending, budget))
            chunk = self._chunk(sequence, min(budget, self.cache.num_free - num_planned), rows)
            if chunk is None:
                break
            chunks.append(chunk)
            if _is_forced(sequence):
                self._last_forced = sequence.sequence_id
            budget -= chunk.count
            num_planned += chunk.count
            rows += chunk.num_rows
            if len(chunks) == self._arrangement.max_chunks:
                break
        return chunks

    def _is_fed(self, sequence: Sequence, num_decoding: int) -> bool:
        """Whether it computes what a grammar forced one token a step, while others decode."""
        return _is_forced(sequence) and self._arrangement.can_feed(sequence.num_pending, num_decoding)

    def _taking_turns(self, fed: list[Sequence]) -> Iterator[Sequence]:
        """Prompts and forced tokens that are not fed: by turns these or those come first, so that neither waits for all others."""
        self._is_forced_turn = not self._is_forced_turn
        first, last = list(fed), []
        if self._is_forced_turn:
            forced = [sequence for sequence in self._mine() if _is_forced(sequence) and sequence not in fed]
            first += forced
            yield from self._after_last(forced)
        for sequence in self._prefilling():
            if _is_forced(sequence):
                last.append(sequence)
            else:
                yield sequence
        yield from self._after_last([sequence for sequence in last if sequence not in first])

    def _after_last(self, forced: list[Sequence]) -> list[Sequence]:
        """In the order of ids, round and round: the oldest would come first each time that it drew."""
        return sorted(forced, key=lambda sequence: (sequence.sequence_id <= self._last_forced, sequence.sequence_id))

    def computed(self, step: Step) -> None:
        """Record that the step's tokens are in the KV cache now."""
        self.cache.effects += [Remove(filler.sequence_id, filler.position) for filler in step.fillers]
        self.cache.reserve(len(step.decoding))
        for sequence in step.decoding:
            sequence.num_computed += 1
        for chunk in step.chunks:
            sequence = chunk.sequence
            sequence.num_computed += chunk.count
            self.cache.extend(sequence.sequence_id, sequence.tokens[: sequence.num_computed], chunk.count)
            if sequence.num_computed >= sequence.num_prompt:
                self._release_followers(sequence)

    def append(self, sequence: Sequence, token: int, *, is_end: bool) -> Finish | None:
        """Add a drawn token to a running sequence; says why it ended, if it did, and frees its cells then.

        `is_end`: the token ends this request's answer by itself (end of generation, or one of its stop ids).
        """
        sequence.append(token)
        if is_end:
            return self.finish(sequence, Finish.STOP)
        if not sequence.room:
            return self.finish(sequence, Finish.LENGTH)
        return None

    def finish(self, sequence: Sequence, reason: Finish) -> Finish:
        """End a running sequence; what it computed stays for reuse unless it failed."""
        self._end(sequence, keep=reason is not Finish.ERROR)
        return reason

    def preempt_youngest(self) -> Sequence | None:
        """Send the youngest running sequence back to the front of the line; None when only one is left."""
        if len(self.running) < 2:
            return None
        sequence = self.running[-1]
        self._retire(sequence, keep=False)
        sequence.num_computed = 0
        self.waiting.appendleft(sequence)
        self.num_preempted += 1
        return sequence

    def check_integrity(self) -> None:
        """Audit the cells; when idle, nothing may be in use. Raises AssertionError."""
        self.cache.check_integrity()
        assert self.running or self.cache.num_used == 0, "cells are in use though nothing runs"
        computed = sum(sequence.num_computed for sequence in self.running)
        assert computed == self.cache.num_counted, "the sequences and their cells disagree"
        following = sum(len(sequence.followers) for sequence in [*self.waiting, *self.running])
        assert following == self._num_following, "a sequence waits for a leader that is gone"
        present = Counter(sequence.adapter for sequence in self.everyone)
        assert present == self.num_present, "an adapter's requests were miscounted"

    def _is_present(self, sequence: Sequence) -> bool:
        return sequence in self.running or sequence in self.waiting

    def _release_followers(self, leader: Sequence) -> None:
        """To the front of the line: their prompt is computed, or nobody computes it for them any more."""
        self.waiting.extendleft(reversed(leader.followers))
        self._num_following -= len(leader.followers)
        leader.followers.clear()

    def _end(self, sequence: Sequence, *, keep: bool) -> None:
        self._retire(sequence, keep=keep)
        self._release_followers(sequence)
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self.num_present[sequence.adapter] -= 1

    def _retire(self, sequence: Sequence, *, keep: bool) -> None:
        self.running.remove(sequence)
        self.cache.release(sequence.sequence_id, sequence.tokens[: sequence.num_computed], keep=keep)
        sequence.sequence_id = -1

    def _room_for_decoding(self) -> list[Sequence]:
        """The decoding sequences, after preempting until each has a cell for its token."""
        while True:
            decoding = [sequence for sequence in self._mine() if sequence.is_decoding]
            if self.cache.make_room(len(decoding)):
                return decoding
            if self.preempt_youngest() is None:
                raise AssertionError("one sequence alone outgrew the cache: its length was not checked")

    def _prefilling(self) -> Iterator[Sequence]:
        """Running sequences with prompt tokens left, then newly admitted ones; those of other adapters wait for their turn."""
        yield from [sequence for sequence in self._mine() if not sequence.is_decoding]
        while self.waiting and self._can_admit(self.waiting[0]):
            sequence = self._admit(self.waiting.popleft())
            if sequence.adapter is self.adapter:
                yield sequence

    def _can_admit(self, sequence: Sequence) -> bool:
        """Whether its tokens fit beside what runs, what that still has to compute, and some growth of each."""
        if not self.running:
            return True
        if len(self.running) >= self._max_running:
            return False
        num_pending = sum(other.num_pending for other in self.running)
        growth = _GROWTH_ROOM * (len(self.running) + 1)
        num_shared = sequence.num_prompt - 1 if self._prompt_holder(sequence) >= 0 else 0
        return sequence.num_tokens - num_shared + num_pending + growth <= self.cache.num_available

    def _admit(self, sequence: Sequence) -> Sequence:
        known = sequence.tokens[: sequence.num_tokens]
        sequence.sequence_id, sequence.num_computed = self.cache.acquire(
            known, adapter=sequence.adapter, reuse=sequence.can_reuse_prefix, source=self._prompt_holder(sequence)
        )
        if not sequence.was_admitted:
            sequence.was_admitted = True
            sequence.num_reused = sequence.num_computed
        self.running.append(sequence)
        return sequence

    def _prompt_holder(self, sequence: Sequence) -> int:
        """The id of a running sibling that has computed the prompt, else -1."""
        if sequence.leader is None:
            return -1
        holders = (s.sequence_id for s in self.running if s.is_sibling_of(sequence) and s.num_computed >= s.num_prompt)
        return next(holders, -1)

    def _chunk(self, sequence: Sequence, budget: int, rows: int) -> Chunk | None:
        """As much of the sequence's pending tokens as budget and rows allow; None: nothing fits."""
        wants_all = sequence.params.prompt_logprobs is not None
        count = min(sequence.num_pending, budget)
        if wants_all:
            count = min(count, self._max_rows - rows)
        is_last = count == sequence.num_pending
        if count <= 0 or (is_last and not wants_all and rows >= self._max_rows):
            return None
        draws = is_last and sequence.num_generated < sequence.params.max_tokens
        num_rows = count if wants_all else int(draws)
        return Chunk(sequence, sequence.num_computed, count, draws, rows if num_rows else -1, num_rows)


def _is_forced(sequence: Sequence) -> bool:
    """Whether what it has to compute belongs to its answer: what a grammar forced, or the rest after a preemption."""
    return not sequence.is_decoding and sequence.num_generated > 0 and sequence.num_computed >= sequence.num_prompt
