"""The one thread that owns an embedding context.

    other threads --submit, cancel, close--> inbox --> [ schedule -> compute -> account ] --requests that are done--> deliver

What a batch completed leaves right before the next one is computed, as in `backends.llamacpp.engine`: answers are made on the event
loop while this thread is inside llama.cpp with the GIL released.

A batch that llama.cpp refuses fails the requests in it. Anything worse ends the engine: every request that is left is told so.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from backends.llamacpp.binding.embedding import EmbeddingContext
from backends.llamacpp.binding.errors import CacheFull, DecodeAborted, DecodeError, ModelError
from backends.llamacpp.binding.model import Model, Tokens
from backends.llamacpp.embedding_metrics import EmbeddingMetrics
from backends.llamacpp.embedding_scheduler import LONG_ID, EmbeddingJob, EmbeddingScheduler, EmbeddingStep
from backends.llamacpp.engine import SWITCH_INTERVAL_S, EngineClosed
from backends.llamacpp.options import Options
from backends.llamacpp.scheduler import QueueFull

log = logging.getLogger(__name__)

MAX_TOKENS_PRESENT = 1 << 24
"""Of all requests together, running and waiting; a single one may have more."""


class EmbeddingEngine:
    """Texts of all requests, batched through one pooling llama.cpp context."""

    def __init__(
        self,
        model: Model,
        options: Options,
        *,
        can_be_split: bool,
        fill_tokens: int,
        num_threads: int,
        num_threads_batch: int,
        deliver: Callable[[list[EmbeddingJob]], None],
    ) -> None:
        """`options`: sizes filled in, `pooling` one of mean, cls, last. `can_be_split`: see `purpose`.

        Several texts fill a batch up to `fill_tokens`. Raises ModelError.
        """
        if options.has_separate_caches:
            raise ModelError("kv_unified: false is for models that generate text, not for embeddings")
        self.model = model
        self.num_threads = num_threads
        self.context = EmbeddingContext(
            model,
            options,
            num_sequence_ids=options.n_seq_max + 1,
            num_threads=num_threads,
            num_threads_batch=num_threads_batch,
        )
        num_cells = self.context.num_cells if can_be_split else 0
        longest = max(num_cells, self.context.max_tokens)
        self.max_length = min(options.n_ctx_seq or longest, model.n_ctx_train or longest, longest)
        self.scheduler = EmbeddingScheduler(
            max_tokens=self.context.max_tokens,
            fill_tokens=fill_tokens,
            max_texts=options.n_seq_max,
            num_cells=num_cells,
            max_running=options.n_seq_max,
        )
        self.metrics = EmbeddingMetrics(num_cells=num_cells)
        self.failure: str | None = None
        self._max_present = options.n_seq_max + options.max_waiting
        self._deliver = deliver
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._has_ended = False
        self._ended: list[EmbeddingJob] = []
        # Each is written by one thread: the one that submits, and this engine's.
        self._num_submitted = self._num_tokens_submitted = 0
        self._num_ended = self._num_tokens_ended = 0
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()

    def submit(self, texts: list[Tokens], sink: Any) -> EmbeddingJob:
        """Queue a request of at least one text, none empty or longer than `max_length`; it is delivered once, with `sink`.

        Always from the same thread. Raises EngineClosed, or QueueFull.
        """
        if self._closing or self.failure:
            raise EngineClosed(self._why_closed())
        job = EmbeddingJob(texts, sink, time.monotonic())
        num_present = self._num_submitted - self._num_ended
        num_tokens = self._num_tokens_submitted - self._num_tokens_ended
        if num_present >= self._max_present or (num_present and num_tokens + job.num_tokens > MAX_TOKENS_PRESENT):
            raise QueueFull(max(0, num_present - len(self.scheduler.running)))
        self._num_submitted += 1
        self._num_tokens_submitted += job.num_tokens
        if not self._send(lambda: self.scheduler.add(job)):
            raise EngineClosed(self._why_closed())
        return job

    def cancel(self, job: EmbeddingJob) -> None:
        """Drop a request whose client went away; it is not delivered any more. Any thread."""
        self._send(lambda: self._cancel(job))

    def close(self) -> None:
        """Stop after the running batch; requests that are left fail. Waits for the thread and frees the context."""
        self._closing = True
        self._send(lambda: None)
        self._thread.join()
        self.context.close()

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

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wait_for_work()
                self._empty_inbox()
                self._step()
        except Exception as error:
            log.exception("the engine thread died")
            self.failure = f"{type(error).__name__}: {error}"
        with self._wake:
            self._has_ended = True
        self._empty_inbox()
        for job in self.scheduler.everyone:
            self._fail(job, self._why_closed())
        self._flush()

    def _wait_for_work(self) -> None:
        if not self.scheduler.is_idle:
            return
        self._flush()
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
        # As late as can be: whoever takes it wants the interpreter lock, which llama.cpp lets go of.
        self._flush()
        if step is None:
            return
        self._observe_load()
        if self._compute(step):
            self._account(step)

    def _compute(self, step: EmbeddingStep) -> bool:
        """Run the batch. False: it was refused, and its requests failed."""
        if step.continues:
            self.context.forget(range(LONG_ID + 1, self.context.num_sequence_ids))
        else:
            self.context.forget_all()
        try:
            self.context.compute(*step.arrays())
            for piece in step.pieces:
                if piece.ends:
                    piece.job.vectors[piece.text] = self.context.vector(piece.sequence_id)
        except (CacheFull, DecodeAborted, DecodeError) as error:
            if isinstance(error, DecodeError) and error.code < -1:
                raise
            for job in {id(piece.job): piece.job for piece in step.pieces}.values():
                self._fail(job, str(error))
            return False
        return True

    def _account(self, step: EmbeddingStep) -> None:
        self.metrics.num_prompt_tokens += step.num_tokens
        self.metrics.num_texts += sum(piece.ends for piece in step.pieces)
        self.metrics.num_batches += 1
        now = time.monotonic()
        for job in self.scheduler.computed(step):
            if all(vector is not None and np.isfinite(vector).all() for vector in job.vectors):
                self.metrics.seconds.observe([now - job.arrived_s])
                self._end(job)
            else:
                self._fail(job, "the model computed values that are not finite")

    def _fail(self, job: EmbeddingJob, message: str) -> None:
        job.error = message
        self.scheduler.remove(job)
        self.metrics.num_failed += 1
        self._end(job)

    def _cancel(self, job: EmbeddingJob) -> None:
        if self.scheduler.remove(job):
            self.metrics.num_cancelled += 1
            self._count_end(job)

    def _end(self, job: EmbeddingJob) -> None:
        self._count_end(job)
        self._ended.append(job)

    def _count_end(self, job: EmbeddingJob) -> None:
        self._num_ended += 1
        self._num_tokens_ended += job.num_tokens

    def _flush(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            self._deliver(ended)

    def _observe_load(self) -> None:
        self.metrics.num_running = len(self.scheduler.running)
        self.metrics.num_waiting = self.scheduler.num_waiting
        self.metrics.num_cells_used = self.scheduler.num_cells_held
