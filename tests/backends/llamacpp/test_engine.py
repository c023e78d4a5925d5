"""The engine thread: its death and its end reach everybody who waits, and nobody can wait for it afterwards."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.llamacpp.options import Options
from backends.llamacpp.sampling import SamplingParams
from backends.llamacpp.scheduler import QueueFull
from backends.llamacpp.sequence import Finish, Sequence

pytestmark = [pytest.mark.engine]

engine_module = pytest.importorskip("backends.llamacpp.engine")
PROMPT = np.arange(300, 340, dtype=np.int32)
LONG = SamplingParams(max_tokens=1500, temperature=0, ignore_eos=True)


class Outputs:
    """What an engine delivered."""

    def __init__(self) -> None:
        self.all: queue.Queue[list[object]] = queue.Queue()

    def ends(self, count: int, timeout_s: float = 20) -> dict[int, tuple[Finish, str]]:
        """Request id -> how it ended, once `count` have."""
        found: dict[int, tuple[Finish, str]] = {}
        deadline = time.monotonic() + timeout_s
        while len(found) < count:
            for output in self.all.get(timeout=max(0.01, deadline - time.monotonic())):
                if output.finish is not None:  # type: ignore[attr-defined]
                    assert output.sequence.request_id not in found, "a request ended twice"  # type: ignore[attr-defined]
                    found[output.sequence.request_id] = (output.finish, output.error)  # type: ignore[attr-defined]
        return found


@pytest.fixture
def outputs() -> Outputs:
    return Outputs()


@pytest.fixture
def engine(demo_gguf: Path, outputs: Outputs) -> Iterator[object]:
    from backends.llamacpp.binding.model import Model

    options = Options(n_ctx=2048, n_seq_max=2, n_batch=64, n_ubatch=64, max_waiting=8)
    model = Model(demo_gguf, options)
    engine = engine_module.Engine(model, options, num_threads=1, num_threads_batch=1, deliver=outputs.all.put)
    engine.start()
    yield engine
    engine.close()
    model.close()


def submit(engine: Any, params: SamplingParams = LONG) -> Sequence:
    sequence: Sequence = engine.request(PROMPT, params, None)
    engine.submit(sequence)
    return sequence


def test_what_is_submitted_together_is_there_before_the_first_step(engine: Any, outputs: Outputs) -> None:
    seen: list[int] = []
    schedule = engine.scheduler.schedule

    def noted() -> object:
        seen.append(len(engine.scheduler.everyone))
        return schedule()

    engine.scheduler.schedule = noted
    short = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    for _ in range(20):
        seen.clear()
        engine.submit(*(engine.request(PROMPT, short, None) for _ in range(6)))
        outputs.ends(6)
        assert seen[0] == 6


def test_all_of_a_group_are_queued_or_none(engine: Any, outputs: Outputs) -> None:
    short = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
    num_places = engine.scheduler.num_places
    with pytest.raises(QueueFull):
        engine.submit(*(engine.request(PROMPT, short, None) for _ in range(num_places + 1)))
    engine.submit(*(engine.request(PROMPT, short, None) for _ in range(num_places)))
    assert {finish for finish, _ in outputs.ends(num_places).values()} == {Finish.LENGTH}


def test_close_ends_what_runs_and_what_waits(engine: object, outputs: Outputs) -> None:
    for _ in range(5):
        submit(engine)
    engine.close()  # type: ignore[attr-defined]
    ends = outputs.ends(5)
    assert {finish for finish, _ in ends.values()} == {Finish.ERROR}
    assert {error for _, error in ends.values()} == {"the engine is stopping"}
    with pytest.raises(engine_module.EngineClosed):
        submit(engine)


def test_cancels_on_their_way_take_no_place_in_the_line(demo_gguf: Path, outputs: Outputs) -> None:
    from backends.llamacpp.binding.model import Model

    options = Options(n_ctx=2048, n_seq_max=2, n_batch=64, n_ubatch=64, max_waiting=3)
    model = Model(demo_gguf, options)
    engine = engine_module.Engine(model, options, num_threads=1, num_threads_batch=1, deliver=outputs.all.put)
    first = submit(engine)
    for _ in range(20):
        engine.cancel(first)
    others = [submit(engine) for _ in range(engine.scheduler.num_places - 1)]
    with pytest.raises(QueueFull):
        submit(engine)
    engine.start()
    for sequence in others:
        engine.cancel(sequence)
    engine.close()
    model.close()


def test_an_aborted_step_fails_its_requests_and_no_others(engine: object, outputs: Outputs) -> None:
    from backends.llamacpp.binding.errors import DecodeAborted

    decode = engine.context.decode  # type: ignore[attr-defined]

    def aborted(*_: object) -> None:
        engine.context.decode = decode  # type: ignore[attr-defined]
        raise DecodeAborted("llama_decode was aborted")

    engine.context.decode = aborted  # type: ignore[attr-defined]
    submit(engine)
    ((finish, error),) = outputs.ends(1).values()
    assert (finish, error) == (Finish.ERROR, "llama_decode was aborted")
    short = submit(engine, SamplingParams(max_tokens=3, temperature=0, ignore_eos=True))
    assert outputs.ends(1)[short.request_id][0] is Finish.LENGTH
    assert engine.is_alive  # type: ignore[attr-defined]


def test_a_death_ends_everybody_with_its_reason(engine: object, outputs: Outputs) -> None:
    from backends.llamacpp.binding.errors import DecodeError

    sequences = [submit(engine) for _ in range(4)]

    def broken(*_: object) -> None:
        raise DecodeError(-3)

    engine.context.decode = broken  # type: ignore[attr-defined]
    ends = outputs.ends(4)
    assert set(ends) == {sequence.request_id for sequence in sequences}
    assert all("llama_decode returned -3" in error for _, error in ends.values())
    engine.wait()  # type: ignore[attr-defined]
    assert not engine.is_alive  # type: ignore[attr-defined]
    with pytest.raises(engine_module.EngineClosed, match="-3"):
        submit(engine)


def test_no_request_is_lost_between_submitting_and_the_end(engine: object, outputs: Outputs) -> None:
    accepted: list[int] = []

    def submit_all() -> None:
        while True:
            try:
                accepted.append(submit(engine, SamplingParams(max_tokens=1)).request_id)
            except QueueFull:
                time.sleep(0.002)
            except engine_module.EngineClosed:
                return

    threads = [threading.Thread(target=submit_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    engine.close()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join(10)
    assert len(accepted) > 10
    assert set(outputs.ends(len(accepted))) == set(accepted)


def test_a_full_cache_preempts_and_every_answer_is_whole(engine: object, outputs: Outputs) -> None:
    """Two requests that do not fit together: one steps back, is computed again, and both are as if alone."""
    answers: dict[int, list[int]] = {}
    lone = submit(engine)
    outputs.ends(1, 60)
    expected = lone.tokens.tolist()
    pair = [submit(engine) for _ in range(2)]
    ends = outputs.ends(2, 90)
    assert {finish for finish, _ in ends.values()} == {Finish.LENGTH}
    assert engine.metrics.num_preempted >= 1  # type: ignore[attr-defined]
    for sequence in pair:
        answers[sequence.request_id] = sequence.tokens.tolist()
        assert sequence.num_generated == 1500
        assert sequence.tokens[:60].tolist() == expected[:60]
