"""How well the doctor sees, and how fast: python -m tests.finetune.dataset.campaign [--rows 100000] [--seeds 3]

Faults of every kind are planted by fresh seeds, which are printed; for each kind, how many were found, and how many clean rows were
taken for faulty.
With --rows it reports rows a second and the peak of the process's memory on one large set.
"""

from __future__ import annotations

import argparse
import json
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from finetune.dataset.doctor import Examination, Options, examine
from finetune.dataset.spool import Spool
from tests.finetune.dataset import faults, sets
from tests.finetune.dataset.tickets import Record, chat, distinct

MAX_FALSE_ALARMS = 0.02


@dataclass(slots=True)
class Score:
    planted: int = 0
    missed: list[str] = field(default_factory=list)
    clean: int = 0
    false_alarms: int = 0


@dataclass(slots=True)
class Planting:
    """Lines of a set; `groups` has, by kind, the row numbers of each fault."""

    lines: list[str] = field(default_factory=list)
    groups: dict[str, list[set[int]]] = field(default_factory=dict)
    clean: set[int] = field(default_factory=set)

    def write(self, path: Path) -> Path:
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8", errors="surrogatepass")
        return path


def plant(
    rng: Random, records: Iterator[Record], num_rows: int, plants: dict[str, faults.Plant], share: float = 0.01
) -> Planting:
    """`num_rows` rows of which `share` have a fault of each kind, in random order; further rows of a group lie anywhere after."""
    each = max(5, round(share * num_rows))
    kinds: list[str | None] = [kind for kind in plants for _ in range(each)]
    kinds += [None] * max(0, num_rows - len(kinds))
    rng.shuffle(kinds)
    order: list[tuple[float, Record | str, tuple[str, int] | None]] = []
    for place, (kind, record) in enumerate(zip(kinds, records, strict=False)):
        planted = faults.Planted([record], []) if kind is None else plants[kind](rng, record)
        for index, each_record in enumerate(planted.records):
            position = place if index == 0 else rng.uniform(place, len(kinds))
            order.append((position, each_record, (kind, place) if kind and index in planted.faulty else None))
    order.sort(key=lambda entry: entry[0])
    return _numbered(order)


def _numbered(order: Sequence[tuple[float, Record | str, tuple[str, int] | None]]) -> Planting:
    planting = Planting()
    by_fault: dict[tuple[str, int], set[int]] = {}
    for number, (_, record, fault) in enumerate(order, 1):
        is_raw = isinstance(record, str) and record.startswith("{")
        planting.lines.append(str(record) if is_raw else json.dumps(record, ensure_ascii=False))
        if fault is None:
            planting.clean.add(number)
        else:
            by_fault.setdefault(fault, set()).add(number)
    for (kind, _), rows in by_fault.items():
        planting.groups.setdefault(kind, []).append(rows)
    return planting


def score(planting: Planting, found: Examination, kinds: Sequence[str]) -> dict[str, Score]:
    """Of these kinds; a fault is found where one row of its group is named."""
    scores = {}
    for kind in kinds:
        rows = set(found.findings[kind].rows)
        groups = planting.groups.get(kind, [])
        missed = [planting.lines[min(group) - 1][:300] for group in groups if not group & rows]
        scores[kind] = Score(len(groups), missed, len(planting.clean), len(rows & planting.clean))
    return scores


def run(rng: Random, folder: Path, num_rows: int = 2000) -> dict[str, Score]:
    """One seed: every kind there is."""
    scores = _examined(plant(rng, distinct(rng, num_rows), num_rows, faults.ROWS), folder, Options(), list(faults.ROWS))
    chats = {"role_order": faults.role_order, "empty_mask": faults.empty_mask, "truncated": faults.truncated}
    scores |= _examined(
        plant(rng, distinct(rng, num_rows // 2, chat), num_rows // 2, chats),
        folder,
        Options(max_length=1024),
        list(chats),
    )
    completions = (
        {"prompt": r["instruction"], "completion": f"{r['output']}<|im_end|>"} for r in distinct(rng, num_rows // 2)
    )
    scores |= _examined(
        plant(rng, completions, num_rows // 2, {"eos_missing": faults.eos_missing}), folder, Options(), ["eos_missing"]
    )
    scores["leakage"] = _leakage(rng, folder, num_rows)
    return scores | _of_sets(rng, folder)


def _examined(planting: Planting, folder: Path, options: Options, kinds: Sequence[str]) -> dict[str, Score]:
    with Spool() as spool:
        return score(planting, examine([planting.write(folder / "set.jsonl")], spool, options), kinds)


def _leakage(rng: Random, folder: Path, num_rows: int) -> Score:
    """Every tenth evaluation question is in the training set, half of them changed a little."""
    rows = list(distinct(rng, num_rows + num_rows // 10))
    train, held_out = rows[:num_rows], rows[num_rows:]
    leaked = rng.sample(range(num_rows), max(5, num_rows // 100))
    for place in leaked:
        changed = faults.near_duplicate(rng, train[place]).records[1]
        held_out.append(rng.choice((train[place], changed)))  # type: ignore[arg-type]
    rng.shuffle(held_out)
    planting = Planting([json.dumps(row, ensure_ascii=False) for row in train])
    planting.groups["leakage"] = [{place + 1} for place in leaked]
    planting.clean = set(range(1, num_rows + 1)) - {place + 1 for place in leaked}
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held_out), encoding="utf-8")
    return _examined(planting, folder, Options(eval_paths=(path,)), ["leakage"])["leakage"]


def _of_sets(rng: Random, folder: Path) -> dict[str, Score]:
    """Whole sets: each faulty one must be found, and none of the clean ones, which all of these checks see."""
    scores = {kind: Score() for kind in sets.FAULTY}
    for kind, makers in sets.FAULTY.items():
        for maker in makers:
            scores[kind].planted += 1
            scores[kind].missed += [] if _said(rng, folder, maker)[kind] else [f"a set made by {maker.__name__}"]
    for maker in sets.CLEAN:
        for kind, said in _said(rng, folder, maker).items():
            scores[kind].clean += 1
            scores[kind].false_alarms += bool(said)
    return scores


def _said(rng: Random, folder: Path, maker: sets.MakeSet) -> dict[str, str]:
    """Of one set, by the kinds that sets have."""
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in maker(rng)), encoding="utf-8")
    with Spool() as spool:
        found = examine([path], spool, Options()).findings
    return {kind: found[kind].of_set for kind in sets.FAULTY}


def table(scores: dict[str, Score]) -> str:
    lines = [f"{'kind':<16}{'planted':>8}{'found':>8}{'recall':>9}{'clean':>8}{'false':>7}{'share':>8}"]
    for kind, each in scores.items():
        found = each.planted - len(each.missed)
        shares = f"{found / max(1, each.planted):>9.1%}{each.clean:>8}{each.false_alarms:>7}{each.false_alarms / max(1, each.clean):>8.2%}"
        lines.append(f"{kind:<16}{each.planted:>8}{found:>8}{shares}")
    return "\n".join(lines)


def is_passed(scores: dict[str, Score]) -> bool:
    return all(not each.missed and each.false_alarms <= MAX_FALSE_ALARMS * each.clean for each in scores.values())


def large(num_rows: int, seed: int, folder: Path) -> str:
    """Rows a second, and the peak of memory."""
    rng = Random(seed)
    planting = plant(rng, distinct(rng, num_rows), num_rows, faults.ROWS, 0.002)
    path = planting.write(folder / "large.jsonl")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_cpu = time.monotonic(), time.process_time()
    with Spool() as spool:
        found = examine([path], spool, Options())
    wall, cpu = time.monotonic() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_lines = len(planting.lines)
    speed = f"{num_lines / wall:,.0f} rows/s ({num_lines / cpu:,.0f} per second of CPU), {path.stat().st_size / 1e6:.0f} MB file"
    memory = f"peak {peak / 1024:,.0f} MB, of which {before / 1024:,.0f} MB are the generator's"
    return f"{table(score(planting, found, list(faults.ROWS)))}\n{num_lines:,} rows: {speed}; {memory}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant faults by fresh seeds and see what the doctor finds.")
    parser.add_argument("--rows", type=int, help="also examine one set of so many rows, for speed and memory")
    parser.add_argument("--seeds", type=int, default=3, help="fresh seeds (default 3)")
    parser.add_argument("--seed", type=int, help="one given seed instead")
    args = parser.parse_args()
    passed = True
    with tempfile.TemporaryDirectory() as name:
        for seed in [args.seed] if args.seed is not None else [secrets.randbelow(10**9) for _ in range(args.seeds)]:
            scores = run(Random(seed), Path(name))
            passed &= is_passed(scores)
            print(f"seed {seed}\n{table(scores)}")
            for kind, each in scores.items():
                print("".join(f"  missed {kind}: {line}\n" for line in each.missed), end="")
            sys.stdout.flush()
        if args.rows:
            print(large(args.rows, secrets.randbelow(10**9), Path(name)))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
