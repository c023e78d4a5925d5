"""Which texts go into which batch."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from backends.llamacpp.embedding_scheduler import LONG_ID, EmbeddingJob, EmbeddingScheduler, EmbeddingStep


def job(*lengths: int, first: int = 0) -> EmbeddingJob:
    texts = [np.arange(first + 100 * n, first + 100 * n + length, dtype=np.int32) for n, length in enumerate(lengths)]
    return EmbeddingJob(texts, None, 0.0)


def scheduler(**changes: int) -> EmbeddingScheduler:
    sizes = {"max_tokens": 32, "fill_tokens": 16, "max_texts": 8, "num_cells": 0, "max_running": 4}
    return EmbeddingScheduler(**(sizes | changes))


def lengths(step: EmbeddingStep | None) -> list[int]:
    assert step is not None
    return [piece.length for piece in step.pieces]


def run(line: EmbeddingScheduler) -> list[EmbeddingStep]:
    steps = []
    while (step := line.schedule()) is not None:
        steps.append(step)
        line.computed(step)
    return steps


def test_short_texts_of_all_requests_share_a_batch_by_turns() -> None:
    line, many, one = scheduler(), job(4, 4, 4, 4, 4), job(4)
    line.add(many)
    line.add(one)
    step = line.schedule()
    assert step is not None
    assert [(piece.job is many, piece.text) for piece in step.pieces] == [
        (True, 0),
        (False, 0),
        (True, 1),
        (True, 2),
    ]
    assert line.computed(step) == [one]
    assert [len(step.pieces) for step in run(line)] == [2]
    assert many.num_done == 5
    assert line.is_idle


def test_arrays_hold_the_tokens_their_positions_and_their_texts() -> None:
    line = scheduler()
    line.add(job(2, 3))
    step = line.schedule()
    assert step is not None
    tokens, positions, ids = step.arrays()
    assert tokens.tolist() == [0, 1, 100, 101, 102]
    assert positions.tolist() == [0, 1, 0, 1, 2]
    assert ids.tolist() == [1, 1, 2, 2, 2]
    assert {array.dtype for array in (tokens, positions, ids)} == {np.dtype(np.int32)}


def test_a_text_longer_than_a_batch_is_filled_goes_alone() -> None:
    line = scheduler()
    line.add(job(20, 4))
    line.add(job(4))
    assert [lengths(step) for step in run(line)] == [[20], [4, 4]]


def test_a_batch_has_at_most_so_many_texts() -> None:
    line = scheduler(max_texts=3)
    line.add(job(*[1] * 7))
    assert [lengths(step) for step in run(line)] == [[1] * 3, [1] * 3, [1]]


def test_a_very_long_text_is_computed_in_pieces_between_which_others_get_on() -> None:
    line = scheduler(max_tokens=16, num_cells=64)
    line.add(job(40))
    first = line.schedule()
    assert first is not None
    assert [(p.sequence_id, p.start, p.length, p.ends) for p in first.pieces] == [(LONG_ID, 0, 16, False)]
    assert not first.continues
    assert not line.computed(first)
    assert line.num_cells_held == 16
    line.add(job(4))
    steps = run(line)
    assert [lengths(step) for step in steps] == [[16], [4, 8]]
    assert all(step.continues for step in steps)
    assert line.num_cells_held == 0


def test_one_very_long_text_at_a_time() -> None:
    line = scheduler(max_tokens=16, num_cells=64)
    line.add(job(30))
    line.add(job(30))
    for step in run(line):
        assert [piece.sequence_id for piece in step.pieces] == [LONG_ID]


def test_a_cancelled_long_text_leaves_its_cells() -> None:
    line, long, short = scheduler(max_tokens=16, num_cells=64), job(40), job(4)
    line.add(long)
    line.add(short)
    step = line.schedule()
    assert step is not None
    line.computed(step)
    assert line.remove(long)
    assert not line.remove(long)
    (step,) = run(line)
    assert not step.continues
    assert lengths(step) == [4]


def test_requests_beyond_the_running_ones_wait_in_order() -> None:
    line, jobs = scheduler(max_running=2), [job(16), job(16), job(16)]
    for item in jobs:
        line.add(item)
    step = line.schedule()
    assert step is not None
    assert (len(line.running), line.num_waiting) == (2, 1)
    assert line.computed(step) == jobs[:1]
    assert [step.pieces[0].job for step in run(line)] == jobs[1:]


@pytest.mark.parametrize("seed", range(60))
def test_any_traffic_is_computed_once_within_all_bounds(seed: int) -> None:
    """Random lengths, arrivals and cancellations: every text in order and exactly once, no bound broken, nobody starves."""
    rng = random.Random(seed)
    num_cells = rng.choice([0, 40, 64])
    line = scheduler(num_cells=num_cells, fill_tokens=rng.choice([8, 32]), max_texts=rng.choice([1, 3, 8]))
    longest = num_cells or line.max_tokens
    computed: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    waited: dict[int, int] = {}
    jobs: list[EmbeddingJob] = []
    cancelled: list[EmbeddingJob] = []
    for _ in range(400):
        if len(jobs) < 30 and rng.random() < 0.4:
            jobs.append(job(*[rng.choice([1, 3, 8, rng.randint(1, longest)]) for _ in range(rng.randint(1, 6))]))
            line.add(jobs[-1])
        if jobs and rng.random() < 0.05:
            gone = rng.choice(jobs)
            if line.remove(gone):
                cancelled.append(gone)
        held = line.num_cells_held
        step = line.schedule()
        if step is None:
            assert line.is_idle
            continue
        assert step.continues == (held > 0)
        assert step.num_tokens <= (line.max_tokens if len(step.pieces) == 1 else line.fill_tokens)
        assert held + step.num_tokens <= longest
        assert len(step.pieces) <= line.max_texts
        assert len({piece.sequence_id for piece in step.pieces}) == len(step.pieces)
        assert all(0 <= piece.sequence_id <= line.max_texts for piece in step.pieces)
        for piece in step.pieces:
            assert piece.start == computed[id(piece.job)][piece.text]
            computed[id(piece.job)][piece.text] += piece.length
            assert piece.ends == (computed[id(piece.job)][piece.text] == len(piece.job.texts[piece.text]))
        taken = {id(piece.job) for piece in step.pieces}
        waited = {id(item): 0 if id(item) in taken else waited.get(id(item), 0) + 1 for item in line.running}
        assert max(waited.values()) < 60
        line.computed(step)
    run(line)
    for item in jobs:
        if item not in cancelled:
            assert item.num_done == len(item.texts)
    assert line.is_idle
    assert line.num_cells_held == 0
