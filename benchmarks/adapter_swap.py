"""Adapters are swapped under load while engines are killed: `python -m benchmarks.adapter_swap`.

It starts `forgegate serve` with one model on engines of one kind, publishes the demo model's three signing adapters under one
alias, and keeps a steady number of greedy streams on that alias while it flips among the versions and engines get SIGKILL.
Nothing may fail but what an engine was in the middle of when it was killed: such a stream ends in one error event. Each
answer must be signed, from its first line to its last, by the version that `x-forgegate-model` names, and a request sent
after a flip returned must be answered by what the alias served since. With --one-at-a-time an engine is killed only while all are up.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import adapter_answers, arguments, engine_choice
from benchmarks.adapter_answers import QUESTIONS, Reply, fault_in
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import REST_S, Findings, Program, check_rest, load_average, publish_all, until
from benchmarks.arguments import Parser
from benchmarks.chaos_gateway import GatewayError, Victim
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Client
from benchmarks.engine_choice import CHOICES, Needs

ALIAS = "voice"
TIMEOUT_S = 90.0
"""A request that has not ended by then hangs."""
NEEDS = Needs(num_streams=32, num_tokens=256, num_adapters=4)
NOTICE_S = 2.0
"""After an engine's death its streams must have ended by then."""
MAX_SHOWN = 40


@dataclass(slots=True)
class Kill:
    """Times are seconds of the run's clock."""

    engine: str
    at_s: float
    num_ready: int
    """Engines that served then, itself included."""
    back_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Flip:
    """From the call to its return; `version` is what the alias serves since."""

    version: str
    call_s: float
    return_s: float


@dataclass(slots=True)
class Swap:
    """What happened, and the versions it happened to."""

    manners: Mapping[str, str]
    replies: list[Reply] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    failed_flips: list[str] = field(default_factory=list)

    def violation(self, reply: Reply) -> str:
        """What is wrong with this request's end; empty for nothing."""
        if reply.ending is Ending.ERROR_EVENT:
            if not self.was_killed_under(reply):
                return f"error event although its engine {reply.engine} lived: {reply.detail}"
        elif reply.ending is not Ending.ANSWERED:
            return f"{reply.ending.value}: {reply.detail}"
        manner = self.manners.get(reply.version)
        if manner is None:
            return f"x-forgegate-model names {reply.version!r}"
        if not self.may_serve(reply):
            return f"{reply.version} answered, which the alias had ceased to serve, or did not serve yet"
        return fault_in(reply.text, manner, reply.record.finish_reason == "stop")

    def was_killed_under(self, reply: Reply) -> bool:
        """Whether its engine was killed after it had begun to answer and not long before the stream ended."""
        begun_s, end_s = reply.record.first_byte_s, reply.record.end_s
        return begun_s is not None and any(
            kill.engine == reply.engine and begun_s - NOTICE_S <= kill.at_s <= end_s <= kill.at_s + NOTICE_S
            for kill in self.kills
        )

    def may_serve(self, reply: Reply) -> bool:
        """Whether the alias served this version at some time between the request's sending and its first byte."""
        sent_s, begun_s = reply.record.sent_s, reply.record.first_byte_s
        assert sent_s is not None
        assert begun_s is not None
        following = [*self.flips[1:], None]
        return any(
            flip.version == reply.version and flip.call_s <= begun_s and (after is None or after.return_s >= sent_s)
            for flip, after in zip(self.flips, following, strict=True)
        )


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--seconds", type=arguments.number(1.0), default=60.0, metavar="S", help="under fire (default 60)")
    add("--streams", type=arguments.whole(1), default=50, metavar="N", help="at a time (default 50)")
    add("--flips", type=arguments.whole(1), default=20, metavar="N", help="of the alias (default 20)")
    add("--kills", type=arguments.whole(0), default=5, metavar="N", help="of engines (default 5)")
    add("--engines", type=arguments.whole(1), default=2, metavar="N", help="of the model (default 2)")
    add("--one-at-a-time", action="store_true", help="kill only while all engines are up")
    engine_choice.add_options(parser)


def _gateway(workdir: Path, options: argparse.Namespace) -> AdapterGateway:
    choice = engine_choice.chosen(options)
    pool = choice.pool("demo", options.engines, NEEDS)
    return AdapterGateway(workdir, {"demo": pool}, choice.ready_s(options.engines))


async def _measure(gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
    findings = Findings()
    findings.measured["load_average"] = load_average()
    findings.measured["engines"] = sorted({engine["description"] for engine in await gateway.engines()})
    client = Client(gateway.target, keep_alive=False, timeout_s=TIMEOUT_S)
    swap = Swap(await publish_all(gateway, options.adapters, (ALIAS,) * 3))
    versions = list(swap.manners)
    swap.flips.append(Flip(versions[-1], client.clock(), client.clock()))
    quiet = await adapter_answers.ask_each(client, versions)
    wrong = [fault for reply in quiet if (fault := fault_in(reply.text, swap.manners[reply.model], True))]
    findings.check(
        "before: each version signs each answer", not wrong, f"{len(quiet)} answers; {wrong[:3] or 'none wrong'}"
    )
    start_s = client.clock()
    await _under_fire(gateway, client, swap, options)
    load_s = client.clock() - start_s
    findings.check("afterwards: all engines are back", *await until(gateway.is_up, gateway.ready_s))
    await _check_after(gateway, client, swap, findings)
    await check_rest(gateway, findings)
    findings.measured["num_retries"] = int((await gateway.samples()).get("forgegate_retries_total", 0))
    _judge(swap, quiet, load_s, options, findings)
    client.close()
    return findings


async def _under_fire(gateway: AdapterGateway, client: Client, swap: Swap, options: argparse.Namespace) -> None:
    """Streams, flips and kills side by side; returns when all of them have ended."""
    is_over = asyncio.Event()
    dice = random.Random(options.seed)
    flips, kills = _times(dice, options.flips, options.seconds), _times(dice, options.kills, options.seconds)
    streams = [_stream(client, swap, random.Random(f"{options.seed}/{n}"), is_over) for n in range(options.streams)]
    running = [asyncio.create_task(stream) for stream in streams]
    strikes = asyncio.create_task(_kill_at(gateway, client, swap, kills, options))
    turns = asyncio.create_task(_flip_at(gateway, client, swap, flips, random.Random(f"{options.seed}/flips")))
    await asyncio.gather(strikes, turns, asyncio.sleep(options.seconds))
    is_over.set()
    await asyncio.gather(*running)


def _times(dice: random.Random, num: int, seconds: float) -> list[float]:
    """One at a random time of each of as many equal parts."""
    part_s = seconds / max(1, num)
    return [(number + dice.random()) * part_s for number in range(num)]


async def _stream(client: Client, swap: Swap, dice: random.Random, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        number = dice.randrange(len(QUESTIONS))
        reply = await adapter_answers.ask(client, ALIAS, number)
        swap.replies.append(reply)
        if reply.ending is not Ending.ANSWERED:
            await asyncio.sleep(dice.uniform(0.1, 0.3))


async def _flip_at(
    gateway: AdapterGateway, client: Client, swap: Swap, times: Sequence[float], dice: random.Random
) -> None:
    start_s = client.clock()
    for due_s in times:
        await asyncio.sleep(max(0.0, start_s + due_s - client.clock()))
        version = dice.choice([name for name in swap.manners if name != swap.flips[-1].version])
        call_s = client.clock()
        try:
            await gateway.point(ALIAS, version)
        except GatewayError as exc:
            swap.failed_flips.append(str(exc))
        else:
            swap.flips.append(Flip(version, call_s, client.clock()))


async def _kill_at(
    gateway: AdapterGateway, client: Client, swap: Swap, times: Sequence[float], options: argparse.Namespace
) -> None:
    """An engine at each time, or as soon after that as the one that was drawn is up, or all are."""
    start_s, dice = client.clock(), random.Random(f"{options.seed}/kills")
    num_needed = options.engines if options.one_at_a_time else 1
    returns = []
    for due_s in times:
        await asyncio.sleep(max(0.0, start_s + due_s - client.clock()))
        names = sorted(engine["id"] for engine in await gateway.engines())
        victim, num_ready = await _drawn(gateway, dice.choice(names), num_needed)
        swap.kills.append(kill := Kill(victim.name, client.clock(), num_ready))
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        returns.append(asyncio.create_task(_note_return(gateway, client, victim, kill)))
    await asyncio.gather(*returns)


async def _drawn(gateway: AdapterGateway, name: str, num_needed: int) -> tuple[Victim, int]:
    """The engine of this name once it is up and at least as many are, and how many are. Raises GatewayError."""
    for _ in range(int(gateway.ready_s * 10)):
        engines = [victim for victim in await gateway.victims() if victim.role == "engine"]
        victim = next((victim for victim in engines if victim.name == name), None)
        if victim is not None and len(engines) >= num_needed:
            return victim, len(engines)
        await asyncio.sleep(0.1)
    raise GatewayError(f"engine {name} does not come back")


async def _note_return(gateway: AdapterGateway, client: Client, victim: Victim, kill: Kill) -> None:
    async def is_back() -> bool:
        return any(found.name == victim.name and found.pid != victim.pid for found in await gateway.victims())

    if (await until(is_back, gateway.ready_s))[0]:
        kill.back_after_s = round(client.clock() - kill.at_s, 2)


async def _check_after(gateway: AdapterGateway, client: Client, swap: Swap, findings: Findings) -> None:
    """The fleet is whole again."""
    serving = swap.flips[-1].version

    async def is_resident() -> bool:
        return all(serving in held for held in (await gateway.residents()).values())

    findings.check("afterwards: every engine holds what the alias serves", *await until(is_resident, REST_S))
    last = await adapter_answers.ask_each(client, (ALIAS,))
    num_right = sum(
        reply.version == serving and not fault_in(reply.text, swap.manners[serving], True) for reply in last
    )
    findings.check(
        "afterwards: the alias answers as its version", num_right == len(last), f"{num_right} of {len(last)}"
    )


def _judge(swap: Swap, quiet: Sequence[Reply], load_s: float, options: argparse.Namespace, findings: Findings) -> None:
    replies = swap.replies
    endings = Counter(reply.ending for reply in replies)
    violations = [found for reply in replies if (found := swap.violation(reply))]
    cut = [reply for reply in replies if reply.ending is Ending.ERROR_EVENT]
    expected = {(reply.model, reply.record.index): reply.text for reply in quiet}
    findings.check("all but those cut in mid-stream are answered, each by the version it names", not violations,
                   f"{len(replies):,} requests: {endings[Ending.ANSWERED]:,} answered, {len(cut)} cut, {len(violations)} bad")  # fmt: skip
    findings.check(
        "every flip is made", len(swap.flips) - 1 == options.flips, f"{len(swap.flips) - 1} of {options.flips}"
    )
    findings.check("every kill is made, and every engine returns", len(swap.kills) == options.kills
                   and all(kill.back_after_s is not None for kill in swap.kills), f"{len(swap.kills)} of {options.kills}")  # fmt: skip
    findings.measured |= {
        "load_s": round(load_s, 1),
        "num_requests": len(replies),
        "endings": {ending.value: num for ending, num in endings.items()},
        "num_cut_before_text": sum(not reply.text for reply in cut),
        "num_waited": sum(reply.wait_ms is not None for reply in replies),
        "longest_s": round(max(reply.record.end_s - (reply.record.sent_s or 0) for reply in replies), 2),
        "by_version": dict(Counter(f"{swap.manners.get(r.version, '?')} {r.version}" for r in replies if r.version)),
        "num_as_before": sum(
            reply.ending is Ending.ANSWERED and reply.text == expected.get((reply.version, reply.record.index))
            for reply in replies
        ),
        "flips_s": {"median": round(statistics.median(_spent(swap)), 4), "max": round(max(_spent(swap)), 4)},
        "kills": [asdict(kill) | {"at_s": round(kill.at_s - swap.flips[0].call_s, 2)} for kill in swap.kills],
        "cut_by_kill": [sum(_is_cut_by(reply, kill) for reply in cut) for kill in swap.kills],
        "failed_flips": swap.failed_flips,
        "violations": dict(Counter(violations).most_common(MAX_SHOWN)),
    }


def _spent(swap: Swap) -> list[float]:
    return [flip.return_s - flip.call_s for flip in swap.flips[1:]] or [0.0]


def _is_cut_by(reply: Reply, kill: Kill) -> bool:
    return kill.engine == reply.engine and 0 <= reply.record.end_s - kill.at_s <= NOTICE_S


def _table(result: dict[str, Any]) -> list[str]:
    plan, endings = result["plan"], result["endings"]
    back = [kill["back_after_s"] for kill in result["kills"] if kill["back_after_s"] is not None]
    answered = endings.get(Ending.ANSWERED, 0)
    others = {name: num for name, num in endings.items() if name not in (Ending.ANSWERED, Ending.ERROR_EVENT)}
    versions = "; ".join(f"{name} {num:,}" for name, num in sorted(result["by_version"].items()))
    flips = result["flips_s"]
    kind = CHOICES[plan["engine"]].title
    verdict = "no request failed that its engine was not in the middle of." if result["is_met"] else "**violated**."
    return [
        f"{plan['engines']} {kind} engines, three versions behind one alias, {plan['streams']} concurrent streams for "
        f"{result['load_s']:.0f} s, {plan['flips']} flips, {len(result['kills'])} engines killed: {verdict}",
        "",
        "| what | |",
        "|---|--:|",
        f"| engines | {', '.join(result['engines'])} |",
        f"| requests | {result['num_requests']:,} ({result['num_requests'] / result['load_s']:.0f}/s) |",
        f"| answered | {answered:,} |",
        f"| ended in one error event, their engine killed in mid-stream | {endings.get(Ending.ERROR_EVENT, 0)} |",
        f"| of these, before any text | {result['num_cut_before_text']} |",
        f"| per kill | {', '.join(map(str, result['cut_by_kill'])) or '-'} |",
        f"| other ends | {', '.join(f'{num} {name}' for name, num in others.items()) or 'none'} |",
        f"| answers by version | {versions} |",
        f"| answers the same to the letter as the version's on an idle engine | {result['num_as_before']:,} |",
        f"| sent again, their engine gone before it answered | {result['num_retries']} |",
        f"| waited for an adapter | {result['num_waited']} |",
        f"| longest request | {result['longest_s']:.2f} s |",
        f"| a flip's call, median / max | {flips['median'] * 1e3:.1f} / {flips['max'] * 1e3:.1f} ms |",
        "| a killed engine serves again after, median / max | "
        + (f"{statistics.median(back):.1f} / {max(back):.1f} s |" if back else "- |"),
        *(f"- violation, {num} x: {text}" for text, num in result["violations"].items()),
        *(f"- flip failed: {text}" for text in result["failed_flips"]),
    ]  # fmt: skip


PROGRAM = Program(
    "adapter_swap", __doc__ or "", "python -m benchmarks.adapter_swap --out benchmarks/results/adapter-swap.json",
    _add_options, _gateway, _measure, _table,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
