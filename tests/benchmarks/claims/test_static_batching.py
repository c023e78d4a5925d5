"""Static batches: what is padded, what counts, and which size is the best."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from backends.demo import TARGET_DIR
from benchmarks.child import ChildError
from benchmarks.claims.child import TorchChild, torch_child
from benchmarks.claims.contestants import Generated, asked, batches
from benchmarks.claims.figures import OUTPUT_TPS
from benchmarks.claims.setting import TINY
from benchmarks.claims.static_batching import num_useful, padded
from benchmarks.loads import ClosedLoad
from tests.benchmarks.claims.settings import setting


def test_prompts_are_filled_up_on_the_left() -> None:
    assert padded([[5, 6, 7], [8]]) == ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])


def test_only_tokens_up_to_an_answers_own_end_count() -> None:
    assert num_useful([4, 5, 9, 0, 0], 5, [9]) == 3
    assert num_useful([4, 5, 9, 0, 0], 2, [9]) == 2
    assert num_useful([4, 5, 9, 0, 0], 5, []) == 5


def test_batches_keep_the_order_of_requests() -> None:
    requests = setting().workload().requests(5, "seed")
    assert [[request.index for request in batch] for batch in batches(requests, 2)] == [[0, 1], [2, 3], [4]]


def test_the_script_is_asked_for_the_very_requests() -> None:
    requests = setting().workload().requests(3, "seed")
    found = asked(requests)
    assert [len(prompt) for prompt in found["prompts"]] == [TINY.input_tokens] * 3
    assert found["lengths"] == [request.max_tokens for request in requests]


class FakeChild:
    """Useful tokens a second by size; 8 does not fit."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates = rates
        self.sizes: list[int] = []

    async def ask(self, **task: Any) -> dict[str, Any]:
        self.sizes.append(task["batch"])
        rate = self.rates.get(task["batch"])
        return {"out_of_memory": True} if rate is None else {"useful_tokens": rate, "seconds": 1.0}


async def test_the_best_size_is_taken_and_one_that_does_not_fit_is_passed_by() -> None:
    child = FakeChild({2: 10.0, 4: 30.0})
    here = setting()
    contestant = Generated("generate", cast(TorchChild, child), here.plan(here.workload()), (2, 4, 8))
    await contestant.warm_up()
    assert (contestant.best, contestant.tried) == (4, {2: 10.0, 4: 30.0, 8: 0.0})
    score = await contestant.run(ClosedLoad(2, 8), 0)
    assert score.figures == {OUTPUT_TPS: 30.0}
    assert child.sizes[-1] == 4


async def test_where_no_size_fits_the_section_says_so() -> None:
    here = setting()
    contestant = Generated("generate", cast(TorchChild, FakeChild({})), here.plan(here.workload()), (2, 4))
    with pytest.raises(ChildError, match="no batch of 2, 4 fits"):
        await contestant.warm_up()


async def test_an_interpreter_without_the_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="nowhere/python cannot be started"):
        async with torch_child("nowhere/python", "static_batching.py", [], tmp_path / "log"):
            pass


@pytest.mark.torch
@pytest.mark.slow
async def test_useful_tokens_are_those_that_were_asked_for(tmp_path: Path) -> None:
    words = [str(TARGET_DIR), "--device", "cpu"]
    async with torch_child(sys.executable, "static_batching.py", words, tmp_path / "log") as child:
        found = await child.ask(
            do="generate", batch=2, ignore_eos=True, prompts=[[300, 301], [302], [303]], lengths=[3, 6, 4]
        )
        ended = await child.ask(
            do="generate", batch=3, ignore_eos=False, prompts=[[300, 301], [302], [303]], lengths=[3, 6, 4]
        )
    assert (found["useful_tokens"], found["computed_tokens"]) == (13, 2 * 6 + 4)
    assert 0 < ended["useful_tokens"] <= 13


@pytest.mark.torch
@pytest.mark.slow
async def test_who_leaves_in_the_middle_of_a_batch_leaves_no_process(tmp_path: Path) -> None:
    async with torch_child(sys.executable, "static_batching.py", [str(TARGET_DIR)], tmp_path / "log") as child:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                child.ask(do="generate", batch=1, ignore_eos=True, prompts=[[300]], lengths=[2000]), 0.5
            )
    assert child.exit_code == -signal.SIGKILL


@pytest.mark.torch
@pytest.mark.slow
async def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="cannot start"):
        async with torch_child(sys.executable, "static_batching.py", [str(tmp_path / "none")], tmp_path / "log"):
            pass


@pytest.mark.torch
@pytest.mark.slow
async def test_kinds_of_attention_are_timed_at_a_length(tmp_path: Path) -> None:
    words = [str(TARGET_DIR), "--device", "cpu", "--kinds", "eager,sdpa"]
    async with torch_child(sys.executable, "attention_speed.py", words, tmp_path / "log") as child:
        assert (await child.ask(do="kinds"))["kinds"] == ["eager", "sdpa"]
        assert (await child.ask(do="prefill", kind="sdpa", length=64))["seconds"] > 0
