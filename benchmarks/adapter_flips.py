"""How long a change of version takes: `python -m benchmarks.adapter_flips`.

It starts `forgegate serve` with one model on llama.cpp engines and publishes the demo model's three signing adapters under one
alias. Each round asks the alias once (a warm request), flips it to another version that is loaded and asks again, then rolls it
back and asks again. A change's time is from its call to the first text of the new version's answer; it is held against the
warm requests' time to their first text, in the same run. Every question is new to the engine, so that no prefix is reused.
Before that, adapters that the gateway has never seen are published: the time of each stage, and up to the first text of an answer.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import adapter_answers, arguments, metrics
from benchmarks.adapter_answers import MANNERS, QUESTIONS, Reply, manner_of
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import Findings, Program, check_rest, load_average, publish_all
from benchmarks.arguments import Parser
from benchmarks.chaos_gateway import GatewayError
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Client
from benchmarks.engine_choice import CHOICES, LLAMACPP, Needs

ALIAS = "voice"
TIMEOUT_S = 60.0
MAX_ABOVE_S = 0.05
MAX_TOKENS = 16
"""Enough for every opening line."""
NEEDS = Needs(num_streams=16, num_tokens=256, num_adapters=6)
NUM_ROUNDS_BEFORE = 5
"""That are not counted: the first requests of a process are slower."""


@dataclass(slots=True)
class Timings:
    """Seconds; of a change, from its call to the first text."""

    warm: list[float] = field(default_factory=list)
    flip: list[float] = field(default_factory=list)
    rollback: list[float] = field(default_factory=list)
    flip_call: list[float] = field(default_factory=list)
    rollback_call: list[float] = field(default_factory=list)
    """The call alone."""


@dataclass(slots=True)
class Rounds:
    """Asks, and remembers what was wrong."""

    gateway: AdapterGateway
    client: Client
    manners: Mapping[str, str]
    dice: random.Random
    timings: Timings = field(default_factory=Timings)
    faults: list[str] = field(default_factory=list)
    _num_asked: int = 0

    async def run(self, serving: str) -> None:
        """One round, in which the alias serves `serving` at the beginning and at the end."""
        self.timings.warm.append(await self._first_text_s(serving))
        version = self.dice.choice([name for name in self.manners if name != serving])
        await self._change(
            lambda: self.gateway.point(ALIAS, version), version, self.timings.flip, self.timings.flip_call
        )
        await self._change(
            lambda: self.gateway.rollback(ALIAS), serving, self.timings.rollback, self.timings.rollback_call
        )

    async def _change(
        self, call: Callable[[], Awaitable[object]], version: str, spent: list[float], spent_in_call: list[float]
    ) -> None:
        start_s = self.client.clock()
        await call()
        call_s = self.client.clock() - start_s
        first_s = await self._first_text_s(version)
        spent_in_call.append(call_s)
        spent.append(call_s + first_s)

    async def _first_text_s(self, version: str) -> float:
        """From sending a question to the first text of its answer, which must be this version's."""
        self._num_asked += 1
        start_s = self.client.clock()
        reply = await adapter_answers.ask(
            self.client, ALIAS, self._num_asked % len(QUESTIONS), MAX_TOKENS, f"{self._num_asked}. "
        )
        if fault := _fault(reply, version, self.manners[version]):
            self.faults.append(fault)
        times = reply.record.chunk_times_s
        return (times[0] if times else reply.record.end_s) - start_s


def _fault(reply: Reply, version: str, manner: str) -> str:
    if reply.ending is not Ending.ANSWERED:
        return f"{reply.ending.value}: {reply.detail}"
    if reply.version != version:
        return f"{reply.version or 'nobody'} answered, not {version}"
    found = manner_of(reply.text)
    return "" if found == manner else f"{version} answered as {found or 'the base'}: {reply.text[:60]!r}"


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--flips", type=arguments.whole(1), default=200, metavar="N", help="each rolled back afterwards (default 200)")
    add("--publications", type=arguments.whole(0), default=10, metavar="N", help="of new adapters (default 10)")
    add("--engines", type=arguments.whole(1), default=1, metavar="N", help="llama.cpp engines (default 1)")


def _gateway(workdir: Path, options: argparse.Namespace) -> AdapterGateway:
    pool = CHOICES[LLAMACPP].pool("demo", options.engines, NEEDS)
    return AdapterGateway(workdir, {"demo": pool})


async def _measure(gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
    findings = Findings()
    findings.measured["load_average"] = load_average()
    client = Client(gateway.target, keep_alive=True, timeout_s=TIMEOUT_S)
    await _measure_publications(gateway, client, options, findings)
    manners = await publish_all(gateway, options.adapters, (ALIAS,) * len(MANNERS))
    rounds = Rounds(gateway, client, manners, random.Random(options.seed))
    serving = list(manners)[-1]
    for number in range(NUM_ROUNDS_BEFORE + options.flips):
        if number == NUM_ROUNDS_BEFORE:
            rounds.timings = Timings()
        await rounds.run(serving)
    _judge(rounds, findings)
    await check_rest(gateway, findings)
    client.close()
    return findings


def _judge(rounds: Rounds, findings: Findings) -> None:
    timings, num = rounds.timings, 3 * (len(rounds.timings.warm) + NUM_ROUNDS_BEFORE)
    findings.check("every answer is the version's that the alias served", not rounds.faults,
                   f"{num - len(rounds.faults):,} of {num:,}; {rounds.faults[:3] or 'none wrong'}")  # fmt: skip
    warm = metrics.percentile(sorted(timings.warm), 0.99)
    above = {}
    for name, spent in (("flip", timings.flip), ("rollback", timings.rollback)):
        above[name] = metrics.percentile(sorted(spent), 0.99) - warm
        paired = [late - early for late, early in zip(spent, timings.warm, strict=True)]
        findings.check(
            f"{name}: p99 to the first text at most {MAX_ABOVE_S * 1e3:.0f} ms above a warm request's, pair by pair likewise in the median",
            above[name] <= MAX_ABOVE_S and statistics.median(paired) <= MAX_ABOVE_S,
            f"{above[name] * 1e3:+.1f} ms; pair by pair {statistics.median(paired) * 1e3:+.1f} ms",
        )
    findings.measured |= {
        "times_s": {name: asdict(found) for name, of in asdict(timings).items() if (found := metrics.distribution(of))},
        "p99_above_warm_s": above,
        "slowest": {
            name: [{"round": at, "s": round(of[at], 4)} for at in sorted(range(len(of)), key=lambda at: -of[at])[:5]]
            for name, of in asdict(timings).items()
        },
    }


async def _measure_publications(
    gateway: AdapterGateway, client: Client, options: argparse.Namespace, findings: Findings
) -> None:
    """One after the other, each forgotten before the next: the gateway has never seen its bytes."""
    published = [
        await _publication(gateway, client, options.adapters, number) for number in range(options.publications)
    ]
    findings.measured["publications"] = published
    num_new, num_proven = (
        sum(one["is_new"] for one in published), sum(one["proof"] == "proven" for one in published)
    )  # fmt: skip
    findings.check(
        "every cold publication is new to the gateway, and proven", num_new == num_proven == len(published),
        f"{num_new} new, {num_proven} proven of {len(published)}",
    )  # fmt: skip


async def _publication(gateway: AdapterGateway, client: Client, folder: Path, number: int) -> dict[str, Any]:
    """Publish, ask for it, forget it. Raises GatewayError."""
    name, manner = f"cold-{number}", MANNERS[number % len(MANNERS)]
    start_s = client.clock()
    event = await gateway.publish(folder / manner, name)
    published_s = client.clock() - start_s
    reply = await adapter_answers.ask(client, name, number % len(QUESTIONS), MAX_TOKENS, f"{name}. ")
    if fault := _fault(reply, event["version"], manner):
        raise GatewayError(f"{name}: {fault}")
    await gateway.forget(name, event["version"])
    return {
        "is_new": event["is_new"],
        "proof": event["proof"],
        "seconds": event["seconds"],
        "publish_s": round(published_s, 4),
        "first_text_s": round(reply.record.chunk_times_s[0] - start_s, 4),
    }


def _table(result: dict[str, Any]) -> list[str]:
    plan, times = result["plan"], result["times_s"]
    names = {
        "warm": "a warm request, to its first text",
        "flip": "flip, from the call to the new version's first text",
        "flip_call": "the flip's call alone",
        "rollback": "rollback, from the call to the old version's first text",
        "rollback_call": "the rollback's call alone",
    }
    lines = [
        f"{plan['engines']} llama.cpp engine{'s' * (plan['engines'] > 1)}, three loaded versions behind one alias, "
        f"{plan['flips']} flips and as many rollbacks.",
        "",
        "| ms | p50 | p90 | p99 | max |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, words in names.items():
        cells = (
            "-" if times[name][key] is None else f"{times[name][key] * 1e3:.1f}" for key in ("p50", "p90", "p99", "max")
        )
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return [*lines, *_publication_lines(result["publications"])]


def _publication_lines(publications: list[dict[str, Any]]) -> list[str]:
    if not publications:
        return []
    stages = list(dict.fromkeys(stage for one in publications for stage in one["seconds"]))
    rows = {stage: [one["seconds"].get(stage, 0.0) for one in publications] for stage in stages}
    rows |= {
        "all, as the client sees it": [one["publish_s"] for one in publications],
        "to the first text of an answer": [one["first_text_s"] for one in publications],
    }
    return [
        "", f"| cold publish, {len(publications)} times, s | median | max |", "|---|--:|--:|",
        *(f"| {name} | {statistics.median(values):.3f} | {max(values):.3f} |" for name, values in rows.items()),
    ]  # fmt: skip


PROGRAM = Program(
    "adapter_flips", __doc__ or "", "python -m benchmarks.adapter_flips --out benchmarks/results/adapter-flips.json",
    _add_options, _gateway, _measure, _table,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
