"""How long a change of version takes while streams run: from the flip's call to the first text of the new version's answer.

Streams ask the alias without pause. Each round asks it once, flips it to the other version, which is loaded, and asks again.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import adapter_answers, metrics
from benchmarks.adapter_answers import QUESTIONS, Reply
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import Findings
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Client

TIMEOUT_S = 120.0
STREAM_TOKENS, PROBE_TOKENS = 128, 4
NUM_ROUNDS_BEFORE = 3
"""That are not counted."""
SETTLE_S = 3.0


@dataclass(slots=True)
class Flips:
    """Seconds of each round."""

    warm: list[float] = field(default_factory=list)
    """A request to the alias, to its first text."""
    call: list[float] = field(default_factory=list)
    """The flip's call alone."""
    flip: list[float] = field(default_factory=list)
    """From the call to the first text of the answer to a request that is sent when it returns."""


async def measure(
    gateway: AdapterGateway, alias: str, versions: Sequence[str], num_streams: int, num_flips: int
) -> Findings:
    """`versions`: two that every engine holds. Raises GatewayError."""
    client = Client(gateway.target, timeout_s=TIMEOUT_S)
    is_over = asyncio.Event()
    await gateway.point(alias, versions[0])
    replies: list[Reply] = []
    streams = [asyncio.create_task(_stream(client, alias, number, replies, is_over)) for number in range(num_streams)]
    try:
        await asyncio.sleep(SETTLE_S)
        flips, faults = await _flip(gateway, client, alias, versions, num_flips)
    finally:
        is_over.set()
        await asyncio.gather(*streams)
        client.close()
    findings = Findings()
    bad = [f"{reply.ending.value}: {reply.detail}" for reply in replies if reply.ending is not Ending.ANSWERED]
    bad += [f"{reply.version or 'nobody'} answered" for reply in replies if reply.version not in versions]
    findings.check(
        "every stream is answered, by a version", not bad, f"{len(replies)} requests; {bad[:3] or 'none wrong'}"
    )
    findings.check(
        "each request after a flip is answered by the new version", not faults, f"{num_flips} flips; {faults[:3] or 'none wrong'}"
    )  # fmt: skip
    findings.measured |= {
        "num_streams": num_streams,
        "num_requests": len(replies),
        "times_s": {name: asdict(found) for name, of in asdict(flips).items() if (found := metrics.distribution(of))},
        "slowest_s": {name: [round(value, 4) for value in sorted(of)[-5:]] for name, of in asdict(flips).items()},
    }
    return findings


async def _flip(
    gateway: AdapterGateway, client: Client, alias: str, versions: Sequence[str], num_flips: int
) -> tuple[Flips, list[str]]:
    flips, faults = Flips(), []
    turns = itertools.cycle((*versions[1:], versions[0]))
    for number in range(NUM_ROUNDS_BEFORE + num_flips):
        if number == NUM_ROUNDS_BEFORE:
            flips = Flips()
        before = await _probe(client, alias, 2 * number)
        version, start_s = next(turns), client.clock()
        await gateway.point(alias, version)
        call_s = client.clock() - start_s
        after = await _probe(client, alias, 2 * number + 1)
        if before.ttft_s is None or after.ttft_s is None:
            faults.append(f"{before.detail} {after.detail}".strip() or "an answer without text")
            continue
        if after.version != version:
            faults.append(f"{after.version or 'nobody'} answered, not {version}")
        flips.warm.append(before.ttft_s)
        flips.call.append(call_s)
        flips.flip.append(call_s + after.ttft_s)
    return flips, faults


async def _probe(client: Client, alias: str, number: int) -> Reply:
    return await adapter_answers.ask(client, alias, number % len(QUESTIONS), PROBE_TOKENS, f"probe {number}. ")


async def _stream(client: Client, alias: str, stream: int, replies: list[Reply], is_over: asyncio.Event) -> None:
    for number in itertools.count():
        if is_over.is_set():
            return
        question = (stream + number) % len(QUESTIONS)
        reply = await adapter_answers.ask(client, alias, question, STREAM_TOKENS, f"stream {stream}, {number}. ")
        replies.append(reply)
        if reply.ending is not Ending.ANSWERED:
            await asyncio.sleep(0.1)


def table(found: Mapping[str, Any]) -> list[str]:
    """Markdown, of what `measure` measured."""
    words = {
        "warm": "a request to the alias, to its first text",
        "call": "the flip's call",
        "flip": "flip, from the call to the new version's first text",
    }
    lines = [f"| ms, {found['num_streams']} streams running | p50 | p90 | p99 | max |", "|---|--:|--:|--:|--:|"]
    for name, text in words.items():
        times = found["times_s"].get(name, {})
        cells = ("-" if times.get(key) is None else f"{times[key] * 1e3:,.1f}" for key in ("p50", "p90", "p99", "max"))
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return lines
