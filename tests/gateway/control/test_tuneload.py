from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.base import Load, Reply
from backends.errors import ProbeFailed
from backends.vllm.options import Options
from gateway.control.tuneload import LONG_S, MeasureFailed, Subject, Workload, measure
from tests.gateway.control.speculating_engine import Speculating


class Engine:
    """Answers each round of requests after the next of `rounds`, in seconds of its own clock."""

    def __init__(self, folder: Path, rounds: list[float], num_streams: int, answer: Reply | None = None) -> None:
        self.now = 0.0
        self.prompts: list[str] = []
        self.bodies: list[dict[str, object]] = []
        self._rounds = rounds
        self._num_streams = num_streams
        self._answer = answer
        self.subject = Subject(Speculating(Options(), folder), "demo", self.call, self.fetch)

    async def call(self, path: str, body: bytes, timeout_s: float) -> Reply:
        assert path == "/v1/completions"
        self.bodies.append(json.loads(body))
        self.prompts.append(str(self.bodies[-1]["prompt"]))
        if len(self.prompts) % self._num_streams == 0:
            self.now += self._rounds[len(self.prompts) // self._num_streams - 1]
        if self._answer is not None:
            return self._answer
        return Reply(200, json.dumps({"usage": {"completion_tokens": self.bodies[-1]["max_tokens"]}}).encode())

    async def fetch(self, path: str) -> Reply:
        num = len(self.prompts)
        return Reply(200, f"vllm:spec_decode_num_accepted_tokens_total {num * 60}\n".encode())


async def test_the_fastest_round_counts_and_the_first_is_not_held_against_the_machine(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [9.0, 2.0, 2.5, 4.0], 3)
    rate = await measure(engine.subject, Workload(("a", "b"), 100), 3, lambda: engine.now)
    assert rate.tokens_per_s == 150
    assert rate.tokens_per_step == 2.5
    assert rate.spread == 0.5
    assert engine.prompts == ["a", "b", "a"] * 4
    assert engine.bodies[0] == {
        "model": "demo", "prompt": "a", "max_tokens": 100, "temperature": 0, "ignore_eos": True,
    }  # fmt: skip


async def test_long_rounds_are_few(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [LONG_S, LONG_S], 1)
    rate = await measure(engine.subject, Workload(num_tokens=100), 1, lambda: engine.now)
    assert rate.tokens_per_s == 100 / LONG_S
    assert len(engine.prompts) == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(400, b'{"error": {"message": "too long"}}'), "it answers 400 to what it is measured with: too long"),
        (Reply(404, b'{"message": "no such model"}'), "no such model"),
        (Reply(500, b"<html>"), "<html>"),
        (Reply(200, b"{}"), "does not say how many tokens"),
        (Reply(200, b"no json"), "does not say how many tokens"),
    ],
)
async def test_an_engine_that_does_not_do_it_is_told_in_its_own_words(
    tmp_path: Path, reply: Reply, reason: str
) -> None:
    engine = Engine(tmp_path, [1.0], 1, reply)
    with pytest.raises(MeasureFailed, match=reason):
        await measure(engine.subject, Workload(), 1, lambda: engine.now)


async def test_of_many_failures_one_is_told(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [1.0] * 4, 4)

    async def gone(path: str, body: bytes, timeout_s: float) -> Reply:
        raise ProbeFailed("connection refused")

    engine.subject._call = gone
    with pytest.raises(ProbeFailed, match="connection refused"):
        await measure(engine.subject, Workload(), 4, lambda: engine.now)


async def test_an_engine_without_counts_cannot_be_measured(tmp_path: Path) -> None:
    engine = Engine(tmp_path, [1.0], 1)

    async def silent(fetch: object) -> Load | None:
        return None

    engine.subject._backend.load = silent  # type: ignore[method-assign]
    with pytest.raises(MeasureFailed, match="does not say how many draft tokens"):
        await measure(engine.subject, Workload(), 1, lambda: engine.now)
