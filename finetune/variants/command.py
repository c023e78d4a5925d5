"""`forgegate data vary SEEDS... --model NAME --out OUT`"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.artifacts import atomic_writer
from finetune.dataset.fix import line_of, refuse_inputs
from finetune.dataset.loading import load
from finetune.dataset.progress import Unwatched
from finetune.dataset.sift import ALL, faults
from finetune.dataset.spool import Spool
from finetune.evaluation.asking import Asker
from finetune.running import endpoint
from finetune.variants.journal import Journal
from finetune.variants.making import LANGUAGE, SIMILAR, UNUSABLE, Asks, Budget, Maker, Settings, Sieve, Variant
from finetune.variants.novelty import Pool
from finetune.variants.seeds import Seed, Seeds, seeds_of

DONE = 0
WORDS = {
    UNUSABLE: "not readable, or without an answer",
    LANGUAGE: "in another language than the seeds",
    SIMILAR: "too like a seed or an earlier variant",
}
Tell = Callable[[int, int], None]
"""How many variants are accepted, by how many requests."""


@dataclass(frozen=True, slots=True)
class Varied:
    variants: tuple[Variant, ...]
    num_seeds: int
    num_requests: int
    num_tokens: int
    num_made: int
    left_out: Mapping[str, int]
    """By WORDS, and by the doctor's checks."""

    def as_json(self) -> dict[str, Any]:
        return {
            "seeds": self.num_seeds, "rows": len(self.variants), "made": self.num_made, "requests": self.num_requests,
            "tokens": self.num_tokens, "left_out": dict(self.left_out),
        }  # fmt: skip


def run_vary(args: argparse.Namespace) -> int:
    """Raises DataError, TrainError."""
    refuse_inputs(args.out, args.files)
    seeds, num_others = read_seeds(args.files, args.columns)
    settings = Settings(
        args.model, args.shots, args.each, args.answers, args.temperature, args.max_tokens, args.seed, args.schema
    )  # fmt: skip
    budget = Budget(args.rows, args.requests or args.rows, args.tokens)
    url, key = endpoint(args.url)
    if num_others:
        print(
            f"{num_others:,} rows are no seeds: several exchanges, calls of tools, or a part that is empty",
            file=sys.stderr,
        )

    async def work() -> Varied:
        with Journal(journal_of(args.out), identity(settings, seeds)) as journal:
            async with Asker(url, key, args.at_a_time) as asker:
                return await vary(asker, seeds, settings, budget, journal, args.at_a_time, args.max_similar, _tell)

    found = asyncio.run(work())
    with atomic_writer(args.out) as file:
        file.writelines(line_of(variant.record()) for variant in found.variants)
    print(json.dumps(found.as_json(), ensure_ascii=False) if args.json else "\n".join(_lines(found, args.out, budget)))
    return DONE


def read_seeds(files: Sequence[Path], columns: Mapping[str, str]) -> tuple[Seeds, int]:
    """The seeds, and how many rows are none. Raises DataError."""
    with Spool() as spool:
        _, rows = load(files, spool, columns, Unwatched())
        found, num_others = seeds_of(rows)
    return Seeds(found), num_others


def journal_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.vary")


def identity(settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """What the journal is of."""
    content = json.dumps([asdict(seed) for seed in seeds.all]).encode()
    return {**asdict(settings), "seeds": f"sha256:{hashlib.sha256(content).hexdigest()}"}


async def vary(
    asker: Asks, seeds: Seeds, settings: Settings, budget: Budget, journal: Journal, at_a_time: int, max_similar: float,
    tell: Tell = lambda accepted, requests: None,
) -> Varied:  # fmt: skip
    """As many rows as are wanted, or as the budget gives. Raises EndpointFailed, DataError."""
    sieve = Sieve(seeds, settings, Pool(max_similar))
    for seed in seeds.all:
        sieve.pool.add(seed.question)
    maker = Maker(asker, sieve, journal, budget, at_a_time)
    while True:
        kept, by_doctor = _sound(seeds.all, sieve.accepted)
        num_missing = budget.rows - len(kept)
        if num_missing <= 0 or maker.is_spent:
            break
        await maker.make(len(sieve.accepted) + num_missing, tell)
    return Varied(
        tuple(kept[: budget.rows]), len(seeds.all), maker.num_requests, sieve.num_tokens, sieve.num_made,
        {name: count for name, count in (sieve.left_out + by_doctor).items() if count},
    )  # fmt: skip


def _sound(seeds: Sequence[Seed], variants: Sequence[Variant]) -> tuple[list[Variant], Counter[str]]:
    """Variants that the doctor says nothing of, beside the seeds; and what it says of the others."""
    if not variants:
        return [], Counter()
    with tempfile.TemporaryDirectory(prefix="forgegate-vary-") as folder:
        path = Path(folder) / "rows.jsonl"
        shown = [Variant(seed.system, seed.question, seed.answer, ()) for seed in seeds]
        path.write_bytes(b"".join(line_of(each.record()) for each in (*shown, *variants)))
        reasons = faults([path], ALL)
    numbered = list(enumerate(variants, len(seeds) + 1))
    kept = [variant for number, variant in numbered if number not in reasons]
    return kept, Counter(reasons[number] for number, _ in numbered if number in reasons)


def _tell(num_accepted: int, num_requests: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{num_accepted:,} variants by {num_requests:,} requests", end="", file=sys.stderr, flush=True)


def _lines(found: Varied, out: Path, budget: Budget) -> Iterator[str]:
    yield (
        f"{out}: {len(found.variants):,} rows after {found.num_seeds:,} seeds, of {found.num_made:,} made by {found.num_requests:,} "
        f"requests with {found.num_tokens:,} tokens"
    )
    for name, count in sorted(found.left_out.items(), key=lambda item: -item[1]):
        yield f"  left out {count:,}: {WORDS.get(name, f'{name}, by the doctor')}"
    if not found.num_made:
        yield f"  nothing in the replies could be read; {journal_of(out)} has how they began: try --schema, or a larger model"
    if len(found.variants) < budget.rows:
        yield f"  {budget.rows - len(found.variants):,} fewer than asked for: the budget is spent; with a larger one it goes on from here"
    yield f"next: forgegate data review {out} --out kept.jsonl"
