"""The load under which an engine is measured: so many streams, each with one request at a time, all of the same length.

Texts are continued rather than questions answered: generation goes past any end, and a text has none at which it turns into noise.
A machine that others use as well only ever makes a round slower, so of several equal rounds the fastest counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backends.adapter.probe_texts import PASSAGES
from backends.base import Backend, Call, Fetch, Load, Reply
from backends.errors import BackendError
from backends.vllm.speculation import Rate, tokens_per_step

NUM_TOKENS = 128
MAX_ROUNDS = 4
MIN_ROUNDS = 2
"""The first one also warms the engine up at this size."""
LONG_S = 20.0
"""Rounds that took longer together are enough."""
TIMEOUT_S = 600.0


class MeasureFailed(BackendError):
    """An engine does not do what it is measured with; the message is its own reason."""


@dataclass(frozen=True, slots=True)
class Workload:
    prompts: tuple[str, ...] = PASSAGES
    num_tokens: int = NUM_TOKENS
    """That every request generates."""


class Subject:
    """An engine that only we use. `model`: the name under which it knows its model."""

    def __init__(self, backend: Backend, model: str, call: Call, fetch: Fetch) -> None:
        self._backend = backend
        self._model = model
        self._call = call
        self._fetch = fetch

    async def generate(self, prompt: str, num_tokens: int) -> int:
        """Returns how many tokens there were. Raises MeasureFailed, ProbeFailed."""
        body = {
            "model": self._model, "prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True,
        }  # fmt: skip
        reply = await self._call("/v1/completions", json.dumps(body).encode(), TIMEOUT_S)
        if reply.status != 200:
            raise MeasureFailed(f"it answers {reply.status} to what it is measured with: {_reason(reply)}")
        try:
            return int(json.loads(reply.body)["usage"]["completion_tokens"])
        except (ValueError, KeyError, TypeError) as exc:
            raise MeasureFailed("its answer does not say how many tokens it has") from exc

    async def load(self) -> Load:
        """Raises MeasureFailed, ProbeFailed."""
        load = await self._backend.load(self._fetch)
        if load is None:
            raise MeasureFailed("it does not say how many draft tokens it accepts")
        return load


async def measure(
    engine: Subject, workload: Workload, num_streams: int, clock: Callable[[], float] = time.monotonic
) -> Rate:
    """Raises MeasureFailed, ProbeFailed."""
    before = await engine.load()
    began = clock()
    num_tokens, rates = 0, list[float]()
    while len(rates) < MIN_ROUNDS or (len(rates) < MAX_ROUNDS and clock() - began < LONG_S):
        started = clock()
        generated = await _round(engine, workload, num_streams)
        num_tokens += generated
        rates.append(generated / max(clock() - started, 1e-9))
    after = await engine.load()
    best, worst = max(rates), min(rates[1:])
    num_accepted = after.num_accepted_tokens - before.num_accepted_tokens
    return Rate(best, tokens_per_step(num_tokens, num_accepted), 1 - worst / best)


async def _round(engine: Subject, workload: Workload, num_streams: int) -> int:
    prompts = _taken(workload.prompts, num_streams)
    try:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(engine.generate(prompt, workload.num_tokens)) for prompt in prompts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return sum(answer.result() for answer in answers)


def _taken(prompts: Sequence[str], num: int) -> list[str]:
    return [prompts[index % len(prompts)] for index in range(num)]


def _reason(reply: Reply) -> str:
    try:
        content = json.loads(reply.body)
        return str(content["error"]["message"] if "error" in content else content["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]
