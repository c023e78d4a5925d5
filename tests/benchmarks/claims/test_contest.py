"""Turns: who is measured when, what is kept, and where a contest goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.claims.claim import Claim, Verdict
from benchmarks.claims.contest import Kept, hold, judged, medians
from benchmarks.claims.figures import OUTPUT_TPS, Score
from benchmarks.loads import ClosedLoad

LOAD, MORE = ClosedLoad(2, 8), ClosedLoad(4, 16)
TWICE = Claim("somebody", "twice as fast", 2)


@dataclass
class Fake:
    """Says how fast it was, turn by turn."""

    name: str
    rates: list[float]
    calls: list[tuple[str, str, int]]
    faults: tuple[str, ...] = ()
    warmed: int = field(default=0)

    async def warm_up(self) -> None:
        self.warmed += 1

    async def run(self, load: ClosedLoad, turn: int) -> Score:
        self.calls.append((self.name, load.key, turn))
        return Score({OUTPUT_TPS: self.rates[turn]}, self.faults)


def pair(calls: list[tuple[str, str, int]]) -> list[Fake]:
    return [Fake("plain", [10.0, 11.0, 9.0], calls), Fake("fast", [25.0, 27.0, 22.0], calls)]


async def test_every_second_turn_is_in_reverse(tmp_path: Path) -> None:
    calls: list[tuple[str, str, int]] = []
    await hold(pair(calls), [LOAD, MORE], 2, Kept(tmp_path / "turns.json", "here"))
    assert [(name, load) for name, load, turn in calls if turn == 0] == [
        ("plain", "2"), ("fast", "2"), ("plain", "4"), ("fast", "4"),
    ]  # fmt: skip
    assert [name for name, _, turn in calls if turn == 1] == ["fast", "plain", "fast", "plain"]


async def test_a_contest_goes_on_at_the_turn_it_had_reached(tmp_path: Path) -> None:
    path = tmp_path / "turns.json"
    await hold(pair([]), [LOAD], 1, Kept.read(path, "here"))
    calls: list[tuple[str, str, int]] = []
    kept = Kept.read(path, "here")
    await hold(pair(calls), [LOAD], 3, kept)
    assert sorted({turn for _, _, turn in calls}) == [1, 2]
    assert [score.figures[OUTPUT_TPS] for score in kept.scores["2"]["fast"]] == [25.0, 27.0, 22.0]


async def test_a_contest_that_is_done_starts_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "turns.json", "here")
    await hold(pair([]), [LOAD], 3, kept)
    again = pair([])
    await hold(again, [LOAD], 3, kept)
    assert [fake.warmed for fake in again] == [0, 0]


async def test_turns_of_another_setting_are_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "turns.json"
    await hold(pair([]), [LOAD], 1, Kept.read(path, "here"))
    assert Kept.read(path, "there").num_turns("2") == 0
    path.write_text("{broken")
    assert Kept.read(path, "here").num_turns("2") == 0


async def test_the_claim_is_held_against_the_turns_ratios(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "turns.json", "here")
    await hold(pair([]), [LOAD], 3, kept)
    found = judged(kept, LOAD, TWICE, OUTPUT_TPS, "plain", "fast")
    assert found.verdict is Verdict.HELD
    assert found.ratio is not None
    assert found.ratio.estimate == pytest.approx((2.5 * 27 / 11 * 22 / 9) ** (1 / 3))
    assert found.case == "2 streams: fast / plain"
    assert medians(kept) == {"2": {"plain": {OUTPUT_TPS: 10.0}, "fast": {OUTPUT_TPS: 25.0}}}


async def test_a_fault_of_either_side_is_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "turns.json", "here")
    plain, fast = pair([])
    plain.faults = ("2 requests failed",)
    await hold([plain, fast], [LOAD], 3, kept)
    found = judged(kept, LOAD, TWICE, OUTPUT_TPS, "plain", "fast")
    assert found.verdict is Verdict.NOT_SHOWN
    assert found.faults[0] == "plain, turn 1: 2 requests failed"
