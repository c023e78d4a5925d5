"""What continuous batching and PagedAttention are judged by: turns that can go either way, on one engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.claims import batching, page
from benchmarks.claims.batching import CONTINUOUS, GENERATE, PAGED, RESERVED, ROUNDS
from benchmarks.claims.contest import Kept
from benchmarks.claims.figures import AT_ONCE, OUTPUT_TPS, Score
from benchmarks.loads import ClosedLoad
from tests.benchmarks.claims.settings import setting

LOAD = ClosedLoad(8, 48)


def kept(figure: str, **rates: float) -> Kept:
    """Three turns of each."""
    noise = (1.0, 1.01, 0.99)
    scores = {
        name: [Score({figure: rate * factor}) for factor in noise[turn:] + noise[:turn]]
        for turn, (name, rate) in enumerate(rates.items())
    }
    return Kept(Path("turns.json"), "here", {LOAD.key: scores})


def test_continuous_batching_is_judged_on_its_own_engine() -> None:
    turns = kept(OUTPUT_TPS, **{CONTINUOUS: 100.0, ROUNDS: 80.0, GENERATE: 10.0})
    found = batching.of_continuous(turns, LOAD)
    (only,) = found["judgements"]
    assert only["case"] == "8 streams: continuous / static, same engine"
    assert only["verdict"] == "not held", "ten times another engine's speed shows nothing of batching"


def test_another_engine_is_told_beside_it_without_a_verdict() -> None:
    turns = kept(OUTPUT_TPS, **{CONTINUOUS: 100.0, ROUNDS: 40.0, GENERATE: 10.0})
    found = batching.of_continuous(turns, LOAD)
    assert found["beside"][GENERATE]["estimate"] == pytest.approx(10, rel=0.01)
    (line,) = page.beside(found)
    assert line.startswith("Beside it: 10x (")
    assert line.endswith("of transformers generate's output tok/s, which is another engine: no claim is judged by it.")


def test_paged_attention_is_judged_by_its_throughput_alone() -> None:
    turns = kept(AT_ONCE, **{PAGED: 16.0, RESERVED: 4.0})
    for name, rate in ((PAGED, 90.0), (RESERVED, 100.0)):
        turns.scores[LOAD.key][name] = [Score({**score.figures, OUTPUT_TPS: rate * factor}) for score, factor in
                                        zip(turns.scores[LOAD.key][name], (1.0, 1.01, 0.99), strict=True)]  # fmt: skip
    (only,) = batching.of_paged(turns, LOAD)
    assert (only.figure, only.verdict) == (OUTPUT_TPS, "not held")


def test_how_many_fit_at_once_is_computed() -> None:
    found = batching.reservation(setting())
    assert found["at_once_ratio"] == pytest.approx(found["paged_at_once"] / found["reserved_at_once"])
