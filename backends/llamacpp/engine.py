"""The one thread that owns the context.

    other threads --submit, cancel, close--> inbox --> [ schedule -> decode -> draw -> account ] --outputs--> deliver

Requests enter through an inbox that is emptied between steps; what a step produced leaves as one list per step, right
before the next one is computed (backends.llamacpp.mailbox): text, stop strings and SSE of step k are made on the event
loop while this thread is inside llama_decode for step k+1, with the GIL released.

A batch that llama.cpp refuses fails the sequences of that step. Anything worse (a fatal return code, an exception of ours)
ends the engine: every request that is left is told so, `failure` says why, and the process is replaced by its supervisor.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.adapter_file import AdapterFile
from backends.llamacpp.adapters import LoadedAdapter
from backends.llamacpp.arrangement import Arrangement, Invariant, Neighbours, Together
from backends.llamacpp.binding.context import Context, Logits
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.errors import CacheFull, DecodeAborted, DecodeError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.cache import KVCache, default_max_cached
from backends.llamacpp.drawing import Drawing, forget
from backends.llamacpp.effects import Copy, Remove
from backends.llamacpp.metrics import EngineMetrics
from backends.llamacpp.options import Options
from backends.llamacpp.residents import Residents
from backends.llamacpp.sampling import SamplingParams, TokenLogprobs, scored
from backends.llamacpp.scheduler import Scheduler
from backends.llamacpp.separate import SeparateCaches
from backends.llamacpp.sequence import Constraint, Finish, Sequence
from backends.llamacpp.step import Chunk, Step

log = logging.getLogger(__name__)

# The thread comes back from C wanting the GIL at once; with the default of 5 ms it would wait longer than a small
# model's whole step for the event loop's thread to give way.
SWITCH_INTERVAL_S = 0.0002


class EngineClosed(Exception):
    """The engine stopped; nothing can be submitted."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one step produced for one sequence."""

    sequence: Sequence
    token: int | None
    """None where a prompt was scored or the sequence ended without a token."""
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
    """For the next prompt tokens in order; the very first token has none."""
    finish: Finish | None = None
    error: str = ""


Deliver = Callable[[list[Output]], None]


class Engine:
    """Continuous batching over one llama.cpp context."""

    def __init__(
        self, model: Model, options: Options, *, num_threads: int, num_threads_batch: int, deliver: Deliver
    ) -> None:
        self.model = model
        self.num_threads = num_threads
        self.context = Context(model, options, num_threads=num_threads, num_threads_batch=num_threads_batch)
        trained = model.n_ctx_train or self.context.max_length
        self.max_length = min(options.n_ctx_seq or trained, self.context.max_length)
        self.reuses_prefixes = options.prefix_cache and model.can_reuse_prefix
        self.cache, arrangement = self._make_cache(options)
        self.scheduler = Scheduler(
            self.cache,
            arrangement,
            max_running=options.n_seq_max,
            max_batch_tokens=self.context.max_tokens,
            max_rows=self.context.max_outputs,
            max_waiting=options.max_waiting,
        )
        self.residents = Residents(model, self.context, self.scheduler)
        self.max_adapters, self.is_batch_invariant = options.num_adapter_slots, options.batch_invariant
        self.metrics = EngineMetrics(num_cells=self.context.num_cells, adapters=self.residents.num_requests)
        self.failure: str | None = None
        self._is_end = np.zeros(model.n_vocab, dtype=bool)
        self._is_end[model.end_of_generation] = True
        self._deliver = deliver
        self._ids = count()
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._num_submitted = 0
        self._num_added = 0
        """Written by the thread alone; the inbox holds the difference."""
        self._closing = False
        self._has_ended = False
        self._outputs: list[Output] = []
        self._drawing = Drawing(model, self.context)
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)

    def _make_cache(self, options: Options) -> tuple[KVCache | SeparateCaches, Arrangement]:
        """The books of the context's KV cells, and how steps are put together for it."""
        context, model = self.context, self.model
        if options.has_separate_caches:
            caches = SeparateCaches(context.num_sequence_ids, context.max_length, keeps_finished=self.reuses_prefixes)
            return caches, Invariant(caches) if options.batch_invariant else Neighbours(caches)
        max_cached = options.prefix_cache_cells or default_max_cached(
            model.n_params, model.num_attention_heads, context.num_cells
        )
        cache = KVCache(
            context.num_cells,
            context.num_sequence_ids,
            self.max_length,
            max_cached=max_cached if self.reuses_prefixes else 0,
        )
        is_on_cpu = not options.n_gpu_layers or compute_backend() == "CPU"
        return cache, Together(is_tiled=is_on_cpu and options.flash_attn != "off")

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()

    def request(
        self,
        prompt: NDArray[np.int32],
        params: SamplingParams,
        sink: Any,
        *,
        constraint: Constraint | None = None,
        leader: Sequence | None = None,
        adapter: LoadedAdapter | None = None,
    ) -> Sequence:
        """A request, to be queued by `submit`; its outputs are delivered with `sink` on their sequence. Any thread.

        `adapter` answers, None: the base model. `constraint` is this sequence's own from here on. `leader` answers the same
        prompt, which is computed once for both.
        """
        sequence = Sequence.of(next(self._ids), prompt, params, sink, time.monotonic())
        sequence.constraint = constraint
        sequence.adapter = adapter
        if self.model.can_reuse_prefix:
            sequence.leader = leader
        return sequence

    def submit(self, *sequences: Sequence) -> None:
        """Queue all or none, and before a step is made for the first: their company in the batch is not left to luck.

        Any thread. Raises EngineClosed, or QueueFull when the waiting line has no place for all.
        """
        if self._closing or self.failure:
            raise EngineClosed(self._why_closed())
        self.scheduler.check_room(self._num_submitted - self._num_added + len(sequences) - 1)
        with self._wake:
            self._num_submitted += len(sequences)
        if not self._send(lambda: self._add(sequences)):
            raise EngineClosed(self._why_closed())

    def cancel(self, sequence: Sequence, *, is_gone: bool = True) -> None:
        """Free a sequence before the next step; nothing is delivered for it after that step. Any thread.

        `is_gone`: because its client went away, not because its answer is complete.
        """
        self._send(lambda: self._cancel(sequence, is_gone))

    def load_adapter(self, name: str, file: AdapterFile) -> Future[LoadedAdapter]:
        """Load it before the next step. Any thread. The future fails with AdapterError or EngineClosed."""
        loaded: Future[LoadedAdapter] = Future()
        if not self._send(lambda: self.residents.load(name, file, loaded)):
            loaded.set_exception(EngineClosed(self._why_closed()))
        return loaded

    def unload_adapter(self, adapter: LoadedAdapter) -> Future[None]:
        """Free it when the requests that use it have ended; none may be submitted for it any more. Any thread."""
        freed: Future[None] = Future()
        if not self._send(lambda: self.residents.unload(adapter, freed)):
            freed.set_exception(EngineClosed(self._why_closed()))
        return freed

    def close(self) -> None:
        """Stop after the running step; requests that are left fail. Waits for the thread and frees the context."""
        self._closing = True
        self._send(lambda: None)
        self._thread.join()
        self.context.close()
        self.residents.close()

    def wait(self) -> None:
        """Block until the thread ended, for whatever reason."""
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and self.failure is None

    def _why_closed(self) -> str:
        return f"the engine failed: {self.failure}" if self.failure else "the engine is stopping"

    def _send(self, command: Callable[[], None]) -> bool:
        """Hand a command to the thread. False: it has ended, nobody would ever take it."""
        with self._wake:
            if self._has_ended:
                return False
            self._inbox.append(command)
            self._wake.notify()
            return True

    def _add(self, sequences: tuple[Sequence, ...]) -> None:
        self._num_added += len(sequences)
        for sequence in sequences:
            self.scheduler.add(sequence)

    def _cancel(self, sequence: Sequence, is_gone: bool) -> None:
        if self.scheduler.cancel(sequence):
            self.metrics.num_cancelled += is_gone
            forget(sequence)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self.residents.free_unused()
                self._wait_for_work()
                self._empty_inbox()
                self._step()
        except Exception as error:
            log.exception("the engine thread died")
            self.failure = f"{type(error).__name__}: {error}"
        with self._wake:
            self._has_ended = True
        self.residents.end(EngineClosed(self._why_closed()))
        self._fail_everyone(self._why_closed())
        self._flush()

    def _wait_for_work(self) -> None:
        if not self.scheduler.is_idle:
            return
        self._flush()
        self.scheduler.check_integrity()
        self._observe_load()
        with self._wake:
            while not self._inbox:
                self._wake.wait()

    def _empty_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _step(self) -> None:
        """Decide, execute, account."""
        step = self.scheduler.schedule()
        self._apply_effects()
        # As late as can be: whoever takes it wants the interpreter lock, which llama_decode lets go of.
        self._flush()
        if step is None:
            return
        began_s = time.perf_counter()
        if self._decode(step):
            self.scheduler.computed(step)
            logits = self.context.logits() if step.num_rows else None
            self.residents.took(step, time.perf_counter() - began_s)
            self._account(step, logits)
        self._observe_load()

    def _apply_effects(self) -> None:
        for effect in self.cache.effects:
            if isinstance(effect, Remove):
                self.context.remove(effect.sequence_id, effect.start)
            elif isinstance(effect, Copy):
                self.context.copy(effect.source, effect.target, effect.length)
            else:
                self.context.share(effect.source, effect.target, effect.length)
        self.cache.effects.clear()

    def _decode(self, step: Step) -> bool:
        """Run the step. False: llama.cpp found no cells where the books had some, and room was made for the next try."""
        self.residents.apply()
        try:
            self.context.decode(step.tokens, step.positions, step.sequence_ids, step.wants_logits)
        except CacheFull:
            self._make_more_room(step)
            return False
        except (DecodeError, DecodeAborted) as error:
            if isinstance(error, DecodeError) and error.code < -1:
                raise
            for sequence in step.sequences:
                self._fail(sequence, str(error))
            return False
        return True

    def _make_more_room(self, step: Step) -> None:
        log.warning("no KV cells for a step of %d tokens; evicting", len(step.tokens))
        self.metrics.num_cache_full += 1
        if self.cache.num_cached:
            self.cache.clear()
        elif self.scheduler.preempt_youngest() is None:
            for sequence in step.sequences:
                self._fail(sequence, "the request does not fit the KV cache")

    def _account(self, step: Step, logits: Logits | None) -> None:
        now = time.monotonic()
        for chunk in step.chunks:
            if chunk.sequence.params.prompt_logprobs is not None and logits is not None:
                self._score_prompt(chunk, logits)
        drawing = step.drawing
        if drawing:
            assert logits is not None
            tokens, infos = self._drawing.draw(drawing, logits)
            self.metrics.observe_tokens([sequence for sequence, _ in drawing], now)
            for (sequence, _), token, info in zip(drawing, tokens, infos, strict=True):
                sequence.last_token_s = now
                self._accept(sequence, token, info)
                if sequence.constraint is not None and sequence.sequence_id >= 0:
                    self._follow(sequence, sequence.constraint)
        for chunk in step.chunks:
            self.metrics.num_prompt_tokens += chunk.count
            if not chunk.draws and chunk.sequence.num_pending == 0:
                self._finish(chunk.sequence, Finish.LENGTH)

    def _follow(self, sequence: Sequence, constraint: Constraint) -> None:
        """Move the grammar on by the token just drawn: it may end the answer, or leave only one way to go on."""
        constraint.accept(int(sequence.tokens[sequence.num_tokens - 1]))
        # Forced tokens have no log-probabilities: nobody asked the model.
        if sequence.params.logprobs is None and not constraint.is_complete:
            forced = constraint.take_forced(sequence.room)
            self.metrics.num_generated_tokens += len(forced)
            for token in forced:
                self._accept(sequence, token, None)
                if sequence.sequence_id < 0:
                    break
        if sequence.sequence_id < 0:
            return
        if constraint.failure:
            self._fail(sequence, f"the schema or the tools became too complex to follow: {constraint.failure}")
        elif constraint.is_complete:
            self._finish(sequence, Finish.STOP)

    def _accept(self, sequence: Sequence, token: int, info: TokenLogprobs | None) -> None:
        if sequence.adjuster is not None:
            sequence.adjuster.accept(token)
        params = sequence.params
        is_end = token in params.stop_token_ids or (bool(self._is_end[token]) and not params.ignore_eos)
        finish = self.scheduler.append(sequence, token, is_end=is_end)
        self._outputs.append(Output(sequence, token, info, finish=finish))
        if finish is not None:
            forget(sequence)

    def _score_prompt(self, chunk: Chunk, logits: Logits) -> None:
        """Log-probabilities of the prompt tokens that this chunk's rows predict: row of position i is about token i + 1."""
        sequence = chunk.sequence
        scores: list[TokenLogprobs | None] = [] if sequence.num_scored else [None]
        # After a preemption the prompt is computed again, but handed out once.
        begin = max(sequence.num_scored, 1, chunk.start + 1)
        end = min(chunk.start + 1 + chunk.num_rows, sequence.num_prompt)
        if begin < end:
            row = chunk.first_row + begin - chunk.start - 1
            rows = logits[row : row + end - begin]
            scores += scored(rows, sequence.tokens[begin:end], sequence.params.prompt_logprobs or 0)
        if scores:
            sequence.num_scored += len(scores)
            self._outputs.append(Output(sequence, None, prompt_logprobs=tuple(scores)))

    def _finish(self, sequence: Sequence, reason: Finish) -> None:
        """End a running sequence without another token."""
        self._outputs.append(Output(sequence, None, finish=self.scheduler.finish(sequence, reason)))
        forget(sequence)

    def _fail(self, sequence: Sequence, message: str) -> None:
        self.scheduler.finish(sequence, Finish.ERROR)
        self._outputs.append(Output(sequence, None, finish=Finish.ERROR, error=message))
        self.metrics.num_failed += 1
        forget(sequence)

    def _fail_everyone(self, message: str) -> None:
        self._empty_inbox()
        for sequence in self.scheduler.everyone:
            self._outputs.append(Output(sequence, None, finish=Finish.ERROR, error=message))

    def _flush(self) -> None:
        if self._outputs:
            outputs, self._outputs = self._outputs, []
            self._deliver(outputs)

    def _observe_load(self) -> None:
        metrics = self.metrics
        metrics.num_running = len(self.scheduler.running)
        metrics.num_waiting = self.scheduler.num_waiting
        metrics.num_cells_used = self.cache.num_used
        metrics.num_cells_cached = self.cache.num_cached
        metrics.num_preempted = self.scheduler.num_preempted
        metrics.num_adapter_switches = self.residents.num_switches
