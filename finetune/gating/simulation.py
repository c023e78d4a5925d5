"""How often the gate errs, over synthetic pairs of models whose true differences are known.

    python -m finetune.gating.simulation --out gate-errors.json [--pairs 5000] [--seed 0] [--only WORDS]

Writes JSON, and Markdown beside it. Every pair goes through the gate's own bounds, levels and looks, many at a time; exit code 1 where more
than 5 % of the pairs of a setting got a GO that they should not have.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.gating.error_page import COMMAND, as_markdown
from finetune.gating.intervals import Sample
from finetune.gating.judging import kept_chance, lost_chance, task_limit
from finetune.gating.looks import LAST, LOOKS
from finetune.gating.settings import LIMITS, Setting, all_settings
from finetune.gating.synthetic import Skill, Stream
from finetune.gating.verdict import levels_of

DEFAULT_PAIRS = 5000
ALLOWED = 0.05
_BATCH = 1000
"""Pairs at a time: what lies in memory together."""
_Z = 1.96
KEPT, OPEN, LOST = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of many pairs."""

    go: NDArray[np.bool_]
    no_go: NDArray[np.bool_]
    num_items: NDArray[np.int64]
    """Asked of either model, over task and skills."""


@dataclass(frozen=True, slots=True)
class Result:
    setting: Setting
    num_pairs: int
    num_go: int
    num_no_go: int
    mean_items: float
    """Of a task or skill."""
    seconds: float

    @property
    def num_false_go(self) -> int:
        return 0 if self.setting.is_go else self.num_go

    @property
    def is_met(self) -> bool:
        return self.num_false_go <= ALLOWED * self.num_pairs


class _Course:
    """One task or skill of many pairs, look by look."""

    def __init__(self, skill: Skill, limit: float, num_pairs: int, rng: np.random.Generator) -> None:
        self._limit = limit
        self._stream = Stream(skill, num_pairs, rng)
        self.states = np.zeros(num_pairs, dtype=np.int8)
        self.num_items = np.zeros(num_pairs, dtype=np.int64)

    def look(self, look: int, is_running: NDArray[np.bool_], lower: float, upper: float) -> None:
        """Pairs that run and are open here get the look's items, and are judged at its levels."""
        sample = self._stream.grow(LOOKS[look])
        asked = np.flatnonzero(is_running & (self.states == OPEN))
        if not len(asked):
            return
        self.num_items[asked] = LOOKS[look]
        some = Sample(sample.differences[asked], sample.sizes[asked], sample.counts[asked])
        states = np.zeros(len(asked), dtype=np.int8)
        states[kept_chance(some, self._limit) < lower] = KEPT
        states[lost_chance(some, self._limit) < upper] = LOST
        self.states[asked] = states


def outcomes(setting: Setting, num_pairs: int, rng: np.random.Generator) -> Outcomes:
    """As `verdict.decide` finds them, called at each look with what it asked for."""
    limit = -LIMITS.drop_of("")
    courses = [_Course(setting.task, task_limit("", setting.rule, LIMITS), num_pairs, rng)]
    courses += [_Course(skill, limit, num_pairs, rng) for skill in setting.general]
    go = np.zeros(num_pairs, dtype=np.bool_)
    no_go = np.zeros(num_pairs, dtype=np.bool_)
    for look in range(LAST + 1):
        levels = levels_of(len(setting.general), LIMITS, look)
        is_running = ~(go | no_go)
        for course in courses:
            course.look(look, is_running, levels.lower, levels.upper)
        states = np.stack([course.states for course in courses])
        no_go |= is_running & (states == LOST).any(axis=0)
        go |= is_running & (states == KEPT).all(axis=0)
    return Outcomes(go, no_go, np.sum([course.num_items for course in courses], axis=0))


def simulate(setting: Setting, num_pairs: int, seed: int) -> Result:
    """The same for the same seed, whichever settings come before."""
    began = time.perf_counter()
    rng = np.random.default_rng([seed, *f"{setting.group}/{setting.name}".encode()])
    parts = [outcomes(setting, min(_BATCH, num_pairs - start), rng) for start in range(0, num_pairs, _BATCH)]
    num_courses = 1 + len(setting.general)
    return Result(
        setting, num_pairs,
        num_go=sum(int(part.go.sum()) for part in parts),
        num_no_go=sum(int(part.no_go.sum()) for part in parts),
        mean_items=sum(float(part.num_items.sum()) for part in parts) / num_pairs / num_courses,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def interval(count: int, total: int) -> tuple[float, float]:
    """95 % of a binomial share: E. B. Wilson, Journal of the American Statistical Association 22 (1927)."""
    share, square = count / total, _Z * _Z / total
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def as_json(results: Sequence[Result], seed: int) -> dict[str, Any]:
    false = [result for result in results if not result.setting.is_go]
    return {
        "pairs": results[0].num_pairs if results else 0,
        "seed": seed,
        "looks": list(LOOKS),
        "confidence": LIMITS.confidence,
        "max_drop": LIMITS.drop_of(""),
        "worst_false_go": max((result.num_false_go / result.num_pairs for result in false), default=0.0),
        "settings_where_go_is_false": len(false),
        "is_met": all(result.is_met for result in results),
        "settings": [_result_json(result) for result in results],
        "seconds": round(sum(result.seconds for result in results), 1),
        "environment": {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()},
    }


def _result_json(result: Result) -> dict[str, Any]:
    total, is_go = result.num_pairs, result.setting.is_go
    rates = {"go": result.num_go, "no_go": result.num_no_go, "inconclusive": total - result.num_go - result.num_no_go}
    return {
        "group": result.setting.group,
        "name": result.setting.name,
        "rule": result.setting.rule,
        "skills": len(result.setting.general),
        "truth": "GO" if is_go else "not GO",
        **{name: count / total for name, count in rates.items()},
        "false_go": None if is_go else result.num_go / total,
        "false_go_interval": None if is_go else list(interval(result.num_go, total)),
        "false_no_go": result.num_no_go / total if is_go else None,
        "power": result.num_go / total if is_go else None,
        "mean_items": round(result.mean_items, 1),
        "seconds": round(result.seconds, 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Error rates of the gate over synthetic pairs of models.", epilog=f"example: {COMMAND}"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON; Markdown is written beside it")
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help=f"of each setting ({DEFAULT_PAIRS:,})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="settings whose group and name contain this")
    args = parser.parse_args(argv)
    if args.pairs < 1 or args.seed < 0:
        parser.error("--pairs is at least 1 and --seed at least 0")
    chosen = [one for one in all_settings() if args.only in f"{one.group}: {one.name}"]
    if not chosen:
        parser.error(f"no setting is called {args.only!r}")
    results = []
    for setting in chosen:
        results.append(result := simulate(setting, args.pairs, args.seed))
        rest = 1 - (result.num_go + result.num_no_go) / args.pairs
        truth = "GO is right" if setting.is_go else "GO is false"
        print(
            f"{setting.group}: {setting.name} ({truth}): GO {result.num_go / args.pairs:.2%}, NO-GO {result.num_no_go / args.pairs:.2%}, "
            f"INCONCLUSIVE {rest:.2%}, {result.mean_items:,.0f} items, {result.seconds:.1f} s{'' if result.is_met else '  TOO MANY'}",
            flush=True,
        )
    content = as_json(results, args.seed)
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(as_markdown(content), encoding="utf-8")
    return 0 if content["is_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
