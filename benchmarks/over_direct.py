"""The gateway held against the very engine behind it: the same load by way of the gateway and directly, in turns.

Both ways ask for as many tokens, of other prompts, so that no prefix cache answers for the engine. What is compared are the two
runs of one turn, which follow each other; every second turn begins with the other way.
"""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import report
from benchmarks.campaign import MeasuredRun, Plan, level_of, measure, warm_up
from benchmarks.client import Client, Target

GATEWAY, DIRECT = "gateway", "direct"
MIN_RATIO = 0.97
TIMEOUT_S = 300.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Output tokens a second by way of the gateway over those directly, turn by turn."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Ratio":
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    @property
    def is_met(self) -> bool:
        return self.median >= MIN_RATIO


@dataclass(frozen=True, slots=True)
class Compared:
    """One number of streams, `runs` by way in the order of the turns."""

    num_streams: int
    ratio: Ratio
    runs: Mapping[str, tuple[MeasuredRun, ...]]

    @property
    def faults(self) -> list[str]:
        """Why a run's figures may not be believed."""
        return [
            f"{way}, {fault}" for way, runs in self.runs.items() for fault in level_of(self.num_streams, runs).faults
        ]


async def compare(targets: Mapping[str, Target], plan: Plan, say: Say) -> list[Compared]:
    """Both ways, warmed, in turns. `targets`: GATEWAY and DIRECT. Raises WarmUpError."""
    clients = {way: Client(target, timeout_s=TIMEOUT_S) for way, target in targets.items()}
    plans = {way: _plan_of(way, plan) for way in targets}
    for way, client in clients.items():
        await warm_up(client, plans[way])
    runs: dict[int, dict[str, list[MeasuredRun]]] = {level: {way: [] for way in targets} for level in plan.levels}
    order = 0
    for turn in range(plan.repeats):
        for level in plan.levels:
            for way in (GATEWAY, DIRECT) if turn % 2 == 0 else (DIRECT, GATEWAY):
                run = await measure(clients[way], plans[way], level, turn, order)
                clients[way].close()  # servers drop idle connections after different times: each run opens its own
                runs[level][way].append(run)
                order += 1
                say(f"{way}: {report.progress_line(run, plan.repeats * len(plan.levels) * len(targets))}")
    await asyncio.sleep(0)
    return [_compared(level, runs[level]) for level in plan.levels]


def _plan_of(way: str, plan: Plan) -> Plan:
    """Seeds that give the two ways different prompts of the same lengths."""
    return replace(plan, seed=2 * plan.seed + (way == DIRECT))


def _compared(level: int, runs: Mapping[str, Sequence[MeasuredRun]]) -> Compared:
    pairs = zip(runs[GATEWAY], runs[DIRECT], strict=True)
    ratios = [through.summary.output_tps / straight.summary.output_tps for through, straight in pairs]
    return Compared(level, Ratio.of(ratios), {way: tuple(of) for way, of in runs.items()})


def as_dict(compared: Compared) -> dict[str, Any]:
    """For the result file."""
    ratio = compared.ratio
    levels = {way: report.level_dict(level_of(compared.num_streams, runs)) for way, runs in compared.runs.items()}
    return {
        "num_streams": compared.num_streams,
        "ratio": {"median": ratio.median, "min": ratio.min, "max": ratio.max},
        "is_met": ratio.is_met and not compared.faults,
        "faults": compared.faults,
        **levels,
    }


def table(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown, of what `as_dict` made."""
    rows = []
    for level in levels:
        tps = [level[way]["output_tps"]["median"] for way in (GATEWAY, DIRECT)]
        ttft = [level[way]["pooled"]["ttft_s"]["p50"] for way in (GATEWAY, DIRECT)]
        ratio = level["ratio"]
        rows.append(
            f"| {level['num_streams']} | {tps[0]:,.1f} | {tps[1]:,.1f} | **{ratio['median']:.3f}** "
            f"({ratio['min']:.3f} - {ratio['max']:.3f}) | {_ms(ttft[0])} | {_ms(ttft[1])} |"
        )
    return [
        "| streams | gateway, output tok/s | direct | gateway / direct, median of the turns (lowest - highest) "
        "| ttft ms p50, gateway | direct |",
        "|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.1f}"
