"""Proofs of sound and of broken adapters on quantised bases, in llama.cpp, against the references of transformers and PEFT.

    python -m tests.backends.adapter.campaign [--launches 10] [--seed 1] [--work DIR] [--out DIR]

Each launch draws how the engine works (threads, micro-batch, texts in a batch, attention kernel). Each load in it draws the adapter,
which texts of the probe set are scored and in which order, and whether the proof knows the other adapters. The proof goes from look
to look as the gateway's does. Writes adapter-proof.md and adapter-proof.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from backends.adapter.golden import Golden
from backends.adapter.probe import ProbeSet, probe_id
from backends.adapter.probe_demo import demo_probe
from backends.adapter.proof import Verdict, judge, looks
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import SIGNATURES
from backends.llamacpp.convert import ensure_gguf
from tests.backends.adapter.campaign_report import write_report
from tests.backends.adapter.scoring import FTYPES, Scorer, Setting, quantise
from tests.backends.adapter.versions import Version, Workshop

HEALTHY, FAINT = "sound", "faint, sound"
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Load:
    """One load of `version` that the engine carries out in its own way; `truth` is what a verdict should name."""

    case: str
    version: Version
    gguf: Path | None
    scale: float = 1.0
    truth: str = ""


@dataclass(slots=True)
class Tally:
    """Of one case on one base."""

    states: dict[str, int] = field(default_factory=dict)
    num_named: int = 0
    """Failures whose reason names what was done."""
    num_tokens: list[int] = field(default_factory=list)
    """Scored until the verdict."""
    judge_ms: list[float] = field(default_factory=list)
    weak_against: dict[str, int] = field(default_factory=dict)
    projections: list[float] = field(default_factory=list)

    def add(self, verdict: Verdict, truth: str, spent_ms: float) -> None:
        self.states[verdict.state] = self.states.get(verdict.state, 0) + 1
        self.num_named += verdict.state == "failed" and bool(truth) and truth in verdict.reason
        self.num_tokens.append(verdict.num_tokens)
        self.judge_ms.append(spent_ms)
        self.projections.append(verdict.projection)
        for name in verdict.weak_against + verdict.indistinguishable_from:
            self.weak_against[name] = self.weak_against.get(name, 0) + 1

    @property
    def num_loads(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Zoo:
    """`signing`, strangers to each other; `relatives`, each near to one of them; `faint`, whose effect is small."""

    workshop: Workshop
    signing: tuple[Version, ...]
    relatives: tuple[Version, ...]
    faint: tuple[Version, ...]

    @property
    def all(self) -> tuple[Version, ...]:
        return self.signing + self.relatives


def make_zoo(folder: Path, probe: ProbeSet) -> Zoo:
    shop = Workshop(folder, probe)
    signing = tuple(shop.signing(name) for name in SIGNATURES)
    noisy = tuple(shop.relative(name, noise=0.3, seed=1) for name in SIGNATURES)
    softer = tuple(shop.relative(name, noise=0.1, factor=0.7, seed=2) for name in SIGNATURES)
    faint = (shop.relative("tiger", factor=0.05),)
    return Zoo(shop, signing, noisy + softer, faint)


def draw_setting(draw: Random) -> Setting:
    n_ubatch = draw.choice((32, 64, 128, 256, 512))
    return Setting(
        n_batch=512, n_ubatch=n_ubatch, num_threads=draw.choice((1, 2)), num_sequences=draw.choice((1, 2, 4, 8)),
        is_flash=draw.random() < 0.5, seed=draw.randrange(1 << 30),
    )  # fmt: skip


def draw_texts(golden: Golden, draw: Random) -> list[int]:
    """Places of the texts that are scored: all of the shared ones, or three quarters at least, in any order, then the adapter's own."""
    count = golden.num_shared if draw.random() < 0.5 else draw.randint(3 * golden.num_shared // 4, golden.num_shared)
    shared = draw.sample(range(golden.num_shared), count)
    return [*shared, *range(golden.num_shared, len(golden.texts))]


def narrowed(golden: Golden, places: Sequence[int]) -> Golden:
    """The golden of a probe set that has these texts in this order; own texts of another adapter are left out."""
    places = [place for place in places if place < len(golden.texts)]
    ends = [0]
    for text in golden.texts:
        ends.append(ends[-1] + text.num_scored)

    def row(values: Sequence[float]) -> list[float]:
        return [value for place in places for value in values[ends[place] : ends[place + 1]]]

    texts = tuple(golden.texts[place] for place in places)
    num_shared = sum(place < golden.num_shared for place in places)
    return replace(
        golden, texts=texts, num_shared=num_shared, probe_id=probe_id(texts[:num_shared]), base=row(golden.base),
        adapter=row(golden.adapter), decoys={name: row(values) for name, values in golden.decoys.items()},
    )  # fmt: skip


class Campaign:
    """All launches of one base."""

    def __init__(self, gguf: Path, zoo: Zoo, draw: Random) -> None:
        self._gguf, self._zoo, self._draw = gguf, zoo, draw
        self._base_scores: dict[tuple[int, ...], list[float]] = {}
        self.tallies: dict[str, Tally] = {}

    def run(self, num_launches: int, loads_per_case: int, num_healthy: int) -> Mapping[str, Tally]:
        with Scorer(self._gguf) as scorer:
            for _ in range(num_launches):
                self._base_scores = {}
                scorer.use(draw_setting(self._draw))
                for load in self._loads(loads_per_case, num_healthy):
                    self._prove(scorer, load)
        return self.tallies

    def _loads(self, each: int, num_healthy: int) -> Iterator[Load]:
        pick, zoo = self._draw.choice, self._zoo
        for _ in range(num_healthy):
            version = pick(zoo.all)
            yield Load(HEALTHY, version, version.gguf)
        for number in range(each):
            version = pick(zoo.all)
            stranger, other = self._draw.sample(zoo.signing, 2)
            place = self._draw.randrange(len(zoo.signing))
            layer = version.layers[(number + self._draw.randrange(8)) % len(version.layers)]
            yield Load("not applied", version, None, truth="base model")
            yield Load("wrong adapter", stranger, other.gguf, truth=other.name)
            for relative in zoo.relatives[place : place + 1]:
                yield Load("wrong adapter, a relative", zoo.signing[place], relative.gguf, truth=relative.name)
            yield Load("scale x0.5", version, version.gguf, 0.5, "scale x0.5")
            yield Load("scale x2", version, version.gguf, 2.0, "scale x2")
            yield Load(
                "one layer zeroed", version, zoo.workshop.without_layer(version, layer), truth=f"layer {layer} missing"
            )
            yield Load("q/k not permuted", version, zoo.workshop.unpermuted(version), truth="q/k not permuted")
        for version in zoo.faint:
            layer = pick(version.layers)
            yield Load(FAINT, version, version.gguf)
            yield Load("faint, not applied", version, None, truth="base model")
            yield Load("faint, scale x2", version, version.gguf, 2.0, "scale x2")
            yield Load(
                "faint, one layer zeroed",
                version,
                zoo.workshop.without_layer(version, layer),
                truth=f"layer {layer} missing",
            )

    def _prove(self, scorer: Scorer, load: Load) -> None:
        places = draw_texts(load.version.golden, self._draw)
        golden = narrowed(load.version.golden, places)
        known: dict[str, Golden] = {}
        if self._draw.random() < 0.5:
            known = {other.name: narrowed(other.golden, places) for other in self._zoo.all if other is not load.version}
        adapter = scorer.load(load.gguf) if load.gguf else None
        scorer.setting = replace(scorer.setting, seed=self._draw.randrange(1 << 30))
        served: list[list[float]] = []
        for num_texts in looks(golden):
            prompts = golden.prompts[:num_texts]
            served += scorer.score(prompts[len(served) :], adapter, load.scale)
            base = self._base(scorer, prompts)
            began = time.perf_counter()
            verdict = judge(golden, base, served, known)
            spent_ms = 1000 * (time.perf_counter() - began)
            if verdict.is_final:
                break
        if adapter:
            scorer.free(adapter)
        case = f"{load.case}, others known" if known and load.case.startswith("wrong") else load.case
        self.tallies.setdefault(case, Tally()).add(verdict, load.truth, spent_ms)

    def _base(self, scorer: Scorer, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The base's scores, computed once per launch."""
        missing = [text for text in prompts if tuple(text) not in self._base_scores]
        self._base_scores.update(zip(map(tuple, missing), scorer.score(missing), strict=True))
        return [self._base_scores[tuple(text)] for text in prompts]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run on one base; what is needed lies in `work`."""

    work: Path
    level: str
    seed: int
    num_launches: int
    loads_per_case: int = 5
    num_healthy: int = 20


def run_level(plan: Plan) -> Mapping[str, Tally]:
    began = time.monotonic()
    zoo = make_zoo(plan.work, demo_probe(source_digest(TARGET_DIR), TARGET_DIR))
    draw = Random(f"{plan.seed} {plan.level}")
    found = Campaign(plan.work / f"{plan.level}.gguf", zoo, draw).run(
        plan.num_launches, plan.loads_per_case, plan.num_healthy
    )
    say(plan.level, found, time.monotonic() - began)
    return found


def prepare(work: Path, levels: Sequence[str]) -> None:
    """Adapters with their references and broken forms, and the bases."""
    zoo = make_zoo(work, demo_probe(source_digest(TARGET_DIR), TARGET_DIR))
    for version in zoo.all + zoo.faint:
        zoo.workshop.unpermuted(version)
        for layer in version.layers:
            zoo.workshop.without_layer(version, layer)
    source = ensure_gguf(TARGET_DIR, work)
    for level in levels:
        made = quantise(source, work / f"{level}.gguf", level)
        if made == source:
            shutil.copyfile(source, work / f"{level}.gguf")


def run_all(
    work: Path, num_launches: int, seed: int, jobs: int, levels: Sequence[str] = tuple(FTYPES)
) -> dict[str, Mapping[str, Tally]]:
    prepare(work, levels)
    plans = [Plan(work, level, seed, num_launches) for level in levels]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return dict(zip(levels, pool.map(run_level, plans), strict=True))


def say(level: str, tallies: Mapping[str, Tally], elapsed_s: float) -> None:
    print(f"{level}: {elapsed_s:.0f} s", flush=True)
    for case, tally in sorted(tallies.items()):
        tokens = statistics.median(tally.num_tokens)
        print(
            f"  {case}: {tally.states}, named {tally.num_named}, tokens {tokens:.0f}, weak against {tally.weak_against}",
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--launches", type=int, default=10, help="for each base; a launch has 20 sound loads and 5 of each fault"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="bases at a time")
    parser.add_argument("--work", type=Path, help="where adapters and references are kept between runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run_all(args.work or Path(folder), args.launches, args.seed, args.jobs)
    write_report(
        args.out, found, {"launches": args.launches, "seed": args.seed, "elapsed_s": round(time.monotonic() - began)}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
