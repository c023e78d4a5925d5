"""Contestants side by side, measured one at a time in turns, every second turn in reverse; whole turns are kept.

What moves the machine moves all of a turn, so a turn's ratio is the observation. A contest that breaks off goes on, with the same
work folder, at the turn that it had reached.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.claims.claim import Claim, Judgement, judge
from benchmarks.claims.figures import Score, advantage
from benchmarks.loads import ClosedLoad
from benchmarks.vllm_gateway import say


class Contestant(Protocol):
    """Who is measured."""

    @property
    def name(self) -> str:
        """Within its contest."""

    async def warm_up(self) -> None:
        """Before the first turn of a call."""

    async def run(self, load: ClosedLoad, turn: int) -> Score:
        """One run; the same requests for all contestants of a turn."""


@dataclass(slots=True)
class Kept:
    """The turns measured so far: load -> contestant -> turn -> score. `setting` is what they were measured on; turns of another one are
    of no use.
    """

    path: Path
    setting: str
    scores: dict[str, dict[str, list[Score]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, setting: str) -> "Kept":
        """Empty where there is no file, a broken one, or one of another setting."""
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["setting"] != setting:
                return cls(path, setting)
            scores = {load: {name: list(map(Score.read, runs)) for name, runs in by_name.items()}
                      for load, by_name in found["scores"].items()}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, setting)
        return cls(path, setting, scores)

    def num_turns(self, load: str) -> int:
        """Of a load."""
        return min(map(len, self.scores.get(load, {}).values()), default=0)

    def add(self, load: str, turn: Mapping[str, Score]) -> None:
        """One whole turn, written down at once."""
        by_name = self.scores.setdefault(load, {})
        for name, score in turn.items():
            by_name.setdefault(name, []).append(score)
        content = {"setting": self.setting, "scores": {
            key: {name: [score.as_dict() for score in runs] for name, runs in found.items()} for key, found in self.scores.items()
        }}  # fmt: skip
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(content), "utf-8")
        partial.replace(self.path)


async def hold(contestants: Sequence[Contestant], loads: Sequence[ClosedLoad], repeats: int, kept: Kept) -> None:
    """All turns that `kept` does not have yet. Raises WarmUpError."""
    if all(kept.num_turns(load.key) >= repeats for load in loads):
        return
    for contestant in contestants:
        say(f"warming up {contestant.name}")
        await contestant.warm_up()
    for turn in range(repeats):
        for load in loads:
            if kept.num_turns(load.key) <= turn:
                kept.add(load.key, await _turn(contestants, load, turn, repeats))


async def _turn(contestants: Sequence[Contestant], load: ClosedLoad, turn: int, repeats: int) -> dict[str, Score]:
    found = {}
    for contestant in contestants if turn % 2 == 0 else reversed(contestants):
        score = found[contestant.name] = await contestant.run(load, turn)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in score.figures.items())
        say(
            f"[{turn + 1}/{repeats}] {load.label}, {contestant.name}: {figures}{''.join(f'; {fault}' for fault in score.faults)}"
        )
    return found


def judged(
    kept: Kept, load: ClosedLoad, claim: Claim, figure: str, without: str, having: str, case: str = ""
) -> Judgement:
    """One claim at one load, between two contestants."""
    scores = kept.scores[load.key]
    faults = [
        f"{name}, turn {turn + 1}: {fault}"
        for name in (without, having)
        for turn, score in enumerate(scores[name])
        for fault in score.faults
    ]
    ratio = advantage(scores[without], scores[having], figure)
    return judge(claim, case or f"{load.label}: {having} / {without}", figure, ratio, faults)


def medians(kept: Kept) -> dict[str, dict[str, dict[str, float]]]:
    """Load -> contestant -> figure -> median of the turns that have it. For the result file."""
    return {load: {name: _medians(runs) for name, runs in by_name.items()} for load, by_name in kept.scores.items()}


def _medians(runs: Sequence[Score]) -> dict[str, float]:
    names = dict.fromkeys(name for score in runs for name in score.figures)
    return {name: statistics.median(score.figures[name] for score in runs if name in score.figures) for name in names}


def outcome(judgements: Sequence[Judgement], kept: Sequence[Kept], **more: Any) -> dict[str, Any]:
    """What a section puts in the result file."""
    return {
        "judgements": [each.as_dict() for each in judgements],
        "medians": {each.path.stem: medians(each) for each in kept},
        **more,
    }
