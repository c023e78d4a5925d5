"""More adapters than fit: `python -m benchmarks.adapter_churn`.

It starts `forgegate serve` with one llama.cpp engine that holds a few adapters at a time, publishes many (the demo model's three
signing adapters under many names: each name and digest is a version of its own), and asks for them with Zipf's frequencies
(s = 1): some clients one request after the other, others at random times whatever the gateway does. All must be answered,
each by the version that was asked for; the hit rate is held against an ideal LRU of the same size that is given the same
requests in the same order and loads in no time; nobody may be passed over; memory may not grow.

A request hits when it causes no load: its adapter is there, or on its way for somebody who asked before.
"""

import argparse
import asyncio
import bisect
import itertools
import random
import statistics
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import adapter_answers, arguments, metrics
from benchmarks.adapter_answers import QUESTIONS, Reply, fault_in
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import Findings, Program, check_rest, load_average, publish_all
from benchmarks.arguments import Parser
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Client
from benchmarks.engine_choice import CHOICES, LLAMACPP, Needs

TIMEOUT_S = 120.0
MIN_HIT_RATIO = 0.95
MAX_GROWTH = 1.05
"""Memory in the last third of the run over that in the second; the first one fills caches."""
MAX_SHOWN = 20
SAMPLE_S = 0.5


class Zipf:
    """Draws numbers below `num`, in a shuffled order of frequency: the k-th most frequent has weight 1 / k."""

    def __init__(self, num: int, dice: random.Random) -> None:
        self._bounds = list(itertools.accumulate(1 / rank for rank in range(1, num + 1)))
        self._order = dice.sample(range(num), num)

    def draw(self, dice: random.Random) -> int:
        """One number."""
        at = bisect.bisect(self._bounds, dice.random() * self._bounds[-1])
        return self._order[min(at, len(self._order) - 1)]


@dataclass(slots=True)
class Memory:
    """Resident bytes over the run, by process."""

    samples: dict[str, list[int]] = field(default_factory=dict)

    def thirds(self) -> dict[str, list[int]]:
        """The median of each third."""
        found = {}
        for name, values in self.samples.items():
            size = max(1, len(values) // 3)
            found[name] = [int(statistics.median(part)) for part in (values[:size], values[size:-size], values[-size:])]
        return found


def ideal_hits(arrivals: Iterable[str], resident: Sequence[str], num_slots: int) -> int:
    """Of an LRU that holds `resident` at the beginning, the most recently used last, and loads at once."""
    held = OrderedDict.fromkeys(resident)
    num_hits = 0
    for name in arrivals:
        num_hits += name in held
        held[name] = None
        held.move_to_end(name)
        if len(held) > num_slots:
            held.popitem(last=False)
    return num_hits


def began_load(replies: Sequence[Reply]) -> list[bool]:
    """Of each reply, by time of sending: whether it waited while nobody who came before waited for the same adapter."""
    waiting_until: dict[str, float] = {}
    found = []
    for reply in replies:
        sent_s = reply.record.sent_s or 0.0
        is_first = reply.wait_ms is not None and sent_s >= waiting_until.get(reply.model, 0.0)
        if reply.wait_ms is not None:
            end_s = sent_s + reply.wait_ms / 1e3
            waiting_until[reply.model] = max(end_s, waiting_until.get(reply.model, 0.0))
        found.append(is_first)
    return found


def most_overtaken(loaders: Sequence[Reply]) -> int:
    """How many requests that came later and needed a load were served before the one to which that happened most."""
    begun = [reply.record.first_byte_s or float("inf") for reply in loaders]  # in the order of sending
    return max((sum(other < mine for other in begun[at + 1 :]) for at, mine in enumerate(begun)), default=0)


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--seconds", type=arguments.number(1.0), default=180.0, metavar="S", help="of traffic (default 180)")
    add("--names", type=arguments.whole(2), default=50, metavar="N", help="adapters (default 50)")
    add("--slots", type=arguments.whole(1), default=4, metavar="N", help="adapters that fit (default 4)")
    add("--clients", type=arguments.whole(1), default=2, metavar="N", help="that ask one by one (default 2)")
    add("--rate", type=arguments.number(0.0), default=0.5, metavar="R", help="further requests a second (default 0.5)")


def _gateway(workdir: Path, options: argparse.Namespace) -> AdapterGateway:
    needs = Needs(num_streams=16, num_tokens=256, num_adapters=options.slots)
    return AdapterGateway(workdir, {"demo": CHOICES[LLAMACPP].pool("demo", 1, needs)})


async def _measure(gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
    findings = Findings()
    findings.measured["load_average"] = load_average()
    client = Client(gateway.target, keep_alive=False, timeout_s=TIMEOUT_S)
    names = [f"churn-{number:02}" for number in range(options.names)]
    start_s = client.clock()
    manners = await publish_all(gateway, options.adapters, names)
    findings.measured["publish_s"] = round(client.clock() - start_s, 1)
    resident = {name.partition("@")[0] for held in (await gateway.residents()).values() for name in held}
    memory = Memory()
    watch = asyncio.create_task(_watch(gateway, memory))
    replies = await _traffic(client, names, options)
    watch.cancel()
    await check_rest(gateway, findings)
    replies.sort(key=lambda reply: reply.record.sent_s or 0.0)
    _judge_answers(replies, manners, findings)
    _judge_hits(replies, [name for name in names if name in resident], options, findings)
    _judge_waits(replies, options, findings)
    _judge_memory(memory, findings)
    client.close()
    return findings


async def _traffic(client: Client, names: Sequence[str], options: argparse.Namespace) -> list[Reply]:
    """Both kinds of clients, until the time is over and the last request has ended."""
    zipf = Zipf(len(names), random.Random(f"{options.seed}/order"))
    end_s = client.clock() + options.seconds
    replies: list[Reply] = []

    async def one(dice: random.Random) -> None:
        replies.append(await adapter_answers.ask(client, names[zipf.draw(dice)], dice.randrange(len(QUESTIONS))))

    async def closed(dice: random.Random) -> None:
        while client.clock() < end_s:
            await one(dice)

    async def opened(dice: random.Random) -> None:
        due_s = client.clock()
        async with asyncio.TaskGroup() as group:
            while options.rate and (due_s := due_s + dice.expovariate(options.rate)) < end_s:
                await asyncio.sleep(max(0.0, due_s - client.clock()))
                group.create_task(one(random.Random(f"{options.seed}/open/{due_s - end_s}")))

    dices = [random.Random(f"{options.seed}/{number}") for number in range(options.clients + 1)]
    await asyncio.gather(opened(dices[0]), *map(closed, dices[1:]))
    return replies


async def _watch(gateway: AdapterGateway, memory: Memory) -> None:
    """Memory of control, each worker and the engine."""
    pids = {"control": gateway.child.pid}
    pids |= {f"{victim.role} {victim.name}": victim.pid for victim in await gateway.victims()}
    while True:
        for name, pid in pids.items():
            memory.samples.setdefault(name, []).append(gateway.memory_bytes(pid))
        await asyncio.sleep(SAMPLE_S)


def _judge_answers(replies: Sequence[Reply], manners: Mapping[str, str], findings: Findings) -> None:
    faults = Counter(found for reply in replies if (found := _fault(reply, manners)))
    num_right = len(replies) - faults.total()
    findings.check(
        "all are answered, each by the version it asked for", not faults, f"{num_right:,} of {len(replies):,}"
    )
    findings.measured |= {"num_requests": len(replies), "faults": dict(faults.most_common(MAX_SHOWN))}


def _fault(reply: Reply, manners: Mapping[str, str]) -> str:
    if reply.ending is not Ending.ANSWERED:
        return f"{reply.ending.value}: {reply.detail}"
    if reply.version.partition("@")[0] != reply.model:
        return f"{reply.model} was answered by {reply.version!r}"
    return fault_in(reply.text, manners[reply.version], reply.record.finish_reason == "stop")


def _judge_hits(
    replies: Sequence[Reply], resident: Sequence[str], options: argparse.Namespace, findings: Findings
) -> None:
    num = max(1, len(replies))
    ideal = ideal_hits((reply.model for reply in replies), resident, options.slots) / num
    hits = 1 - sum(began_load(replies)) / num
    unhindered = sum(reply.wait_ms is None for reply in replies) / num
    ratio = hits / ideal if ideal else 1.0
    findings.check(
        f"hit rate at least {MIN_HIT_RATIO} x an ideal LRU's", ratio >= MIN_HIT_RATIO,
        f"{hits:.1%} against {ideal:.1%}: {ratio:.2f} x; without any wait {unhindered:.1%}",
    )  # fmt: skip
    findings.measured |= {"hit_rate": hits, "ideal_hit_rate": ideal, "hit_ratio": ratio, "unhindered_rate": unhindered}


def _judge_waits(replies: Sequence[Reply], options: argparse.Namespace, findings: Findings) -> None:
    began = began_load(replies)
    num_overtakes = most_overtaken([reply for reply, is_first in zip(replies, began, strict=True) if is_first])
    waits = [reply.wait_ms / 1e3 for reply in replies if reply.wait_ms is not None]
    longest_s = max(waits, default=0.0)
    num_askers = options.clients + max(1, round(options.rate))
    found = f"overtaken {num_overtakes} times at most, longest wait {longest_s:.2f} s"
    findings.check(
        "no starvation: nobody is overtaken by more loads than there are clients", num_overtakes <= num_askers, found
    )
    cold, warm = (
        metrics.distribution(
            reply.ttft_s for reply in replies if reply.ttft_s is not None and (reply.wait_ms is None) == is_warm
        )
        for is_warm in (False, True)
    )
    findings.measured |= {
        "cold_ttft_s": asdict(cold) if cold else None,
        "warm_ttft_s": asdict(warm) if warm else None,
        "wait_s": asdict(wait) if (wait := metrics.distribution(waits)) else None,
        "most_overtaken": num_overtakes,
    }


def _judge_memory(memory: Memory, findings: Findings) -> None:
    thirds = memory.thirds()
    growth = {name: last / middle for name, (_, middle, last) in thirds.items() if middle}
    worst = max(growth, key=lambda name: growth[name])
    findings.check(
        f"memory grows by at most {MAX_GROWTH - 1:.0%} from the second third to the last", growth[worst] <= MAX_GROWTH,
        f"most of all {worst}: {growth[worst] - 1:+.1%}",
    )  # fmt: skip
    findings.measured["memory_bytes"] = thirds


def _table(result: dict[str, Any]) -> list[str]:
    plan = result["plan"]
    memory = [
        f"| {name} | {' | '.join(f'{value / 2**20:.1f}' for value in thirds)} |"
        for name, thirds in result["memory_bytes"].items()
    ]
    return [
        f"{plan['names']} adapters, places for {plan['slots']}, Zipf s = 1, {plan['clients']} clients and {plan['rate']:g} further "
        f"requests a second for {plan['seconds']:.0f} s: {result['num_requests']:,} requests.",
        "",
        "| ttft, ms | requests | p50 | p99 | max |",
        "|---|--:|--:|--:|--:|",
        _times("adapter there", result["warm_ttft_s"]),
        _times("adapter loaded first", result["cold_ttft_s"]),
        _times("of which waited for it", result["wait_s"]),
        "",
        "| hit rate | |",
        "|---|--:|",
        f"| ideal LRU, same requests | {result['ideal_hit_rate']:.1%} |",
        f"| requests that caused no load | {result['hit_rate']:.1%} |",
        f"| requests that did not wait | {result['unhindered_rate']:.1%} |",
        "",
        "| memory, MiB, median of each third | 1 | 2 | 3 |",
        "|---|--:|--:|--:|",
        *memory,
        "",
        f"Publishing all {plan['names']} took {result['publish_s']:.0f} s.",
        *(f"- {num} x {text}" for text, num in result["faults"].items()),
    ]


def _times(name: str, of: Mapping[str, Any] | None) -> str:
    if of is None:
        return f"| {name} | 0 | - | - | - |"
    p50, p99, most = ("-" if of[key] is None else f"{of[key] * 1e3:,.0f}" for key in ("p50", "p99", "max"))
    return f"| {name} | {of['num']:,} | {p50} | {p99} | {most} |"


PROGRAM = Program(
    "adapter_churn", __doc__ or "", "python -m benchmarks.adapter_churn --out benchmarks/results/adapter-churn.json",
    _add_options, _gateway, _measure, _table,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
