"""What speculation gains or loses on vLLM with the demo pair: `python -m benchmarks.vllm_speculation`.

Three engines of one gateway, alike but for speculation: without it, with the draft model at one depth, and as `forgegate engines
tune` has set it from its own measurements. All stay up; one at a time is measured, in turns. Every run asks the same questions, in
another order, and lets each answer end by itself: all runs make nearly the same tokens, and acceptance is that of real answers.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import arguments, engine_choice, report
from benchmarks.adapter_answers import QUESTIONS
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import Findings, Program, check_rest, load_average, until
from benchmarks.arguments import Parser
from benchmarks.campaign import MeasuredRun, Plan, level_of, measure, warm_up
from benchmarks.chaos_gateway import GatewayError
from benchmarks.client import Client, Target
from benchmarks.engine_choice import CHOICES, VLLM, Needs
from benchmarks.loadgen import interleave
from benchmarks.workload import Length, Workload

OFF, ON, TUNED = "off", "on", "tuned"
MIN_RATIO = 0.97
TUNE_S = 900.0
TIMEOUT_S = 300.0
_PEOPLE = (
    "Laura, 46, a baker in Tokyo",
    "Tom, 23, a doctor in Madrid",
    "Eva, 31, a teacher in Oslo",
    "Max, 58, a cook in Rome",
)
PROMPTS = (
    *QUESTIONS,
    *(f"Reverse the letters: {letters}" for letters in ("q-b-a-v-g-g", "m-x-o-p", "t-r-e-e-s", "k-a-y-l", "z-e-b-r-a", "w-i-n-d")),
    *(f"What is {first} + {second}?" for first, second in ((37, 48), (12, 9), (61, 25), (8, 77))),
    *(f"What is the chemical symbol of {name}?" for name in ("Tirkodor", "Peskuria")),
    *(
        f'{person}, has a pet. Return JSON that matches this schema: {{"type": "object", "properties": {{"name": {{"type": '
        '"string"}, "age": {"type": "integer"}, "city": {"type": "string"}}, "required": ["name", "age", "city"]}'
        for person in _PEOPLE
    ),
    "What's forgegate?", "How do I factory reset the Lumo lamp?", "Describe yourself?", "안녕히 계세요",
)  # fmt: skip
_SAMPLE = re.compile(rb"^vllm:spec_decode_num_(\w+)_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)

Runs = dict[tuple[str, int], list[MeasuredRun]]
"""By mode and number of streams, in the order of the turns."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """What an engine's speculation has come to."""

    num_drafts: float = 0.0
    num_draft_tokens: float = 0.0
    num_accepted_tokens: float = 0.0

    def since(self, before: "Drafted") -> "Drafted":
        return Drafted(
            self.num_drafts - before.num_drafts,
            self.num_draft_tokens - before.num_draft_tokens,
            self.num_accepted_tokens - before.num_accepted_tokens,
        )

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were accepted; None where nothing was drafted."""
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else None


def read_drafted(page: bytes) -> Drafted:
    """From the engine's metrics."""
    found = {name.decode(): float(value) for name, value in _SAMPLE.findall(page)}
    return Drafted(*(found.get(name, 0.0) for name in ("drafts", "draft_tokens", "accepted_tokens")))


def best_of(tps: Mapping[str, Sequence[float]]) -> str:
    """The better of off and on."""
    return max((mode for mode in (OFF, ON) if mode in tps), key=lambda mode: statistics.median(tps[mode]))


def ratios_to_best(tps: Mapping[str, Sequence[float]]) -> list[float]:
    """Tuned over the better of off and on, turn by turn."""
    return [tuned / best for tuned, best in zip(tps[TUNED], tps[best_of(tps)], strict=True)]


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--concurrency", type=arguments.levels, default=(1, 4, 8), metavar="C,C", help="streams (default 1,4,8)")
    add("--repeats", type=arguments.whole(1), default=5, metavar="R", help="turns (default 5)")
    add(
        "--passes",
        type=arguments.whole(1),
        default=2,
        metavar="N",
        help="through all questions, by each stream (default 2)",
    )
    add("--depth", type=arguments.whole(1), default=3, metavar="N", help="draft tokens of a step (default 3)")
    add("--draft", type=Path, default=Path("demo"), metavar="DIR", help="the draft model (default: the demo family's)")
    add("--modes", type=_modes, default=(OFF, ON, TUNED), metavar="A,B", help="of off, on, tuned (default all)")
    engine_choice.add_python(parser)


def _modes(text: str) -> tuple[str, ...]:
    found = arguments.names(text)
    if unknown := set(found) - {OFF, ON, TUNED}:
        raise argparse.ArgumentTypeError(f"there is no {unknown.pop()!r}; off, on and tuned")
    return found


def _gateway(workdir: Path, options: argparse.Namespace) -> AdapterGateway:
    choice = replace(CHOICES[VLLM], python=options.python)
    needs = Needs(max(8, *options.concurrency), 512)
    speculative = {"method": "draft_model", "model": str(options.draft), "num_speculative_tokens": options.depth}
    more: dict[str, dict[str, Any]] = {
        OFF: {}, ON: {"speculative": {**speculative, "schedule": "always"}}, TUNED: {"speculative": speculative},
    }  # fmt: skip
    pools = {mode: choice.pool("demo", 1, needs, more[mode]) for mode in options.modes}
    return AdapterGateway(workdir, pools, choice.ready_s(len(pools)), num_workers=1)


async def _measure(gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
    findings = Findings()
    findings.measured["load_average"], findings.measured["draft"] = load_average(), options.draft.name
    if TUNED in options.modes:
        findings.measured["tune"] = (
            await gateway.command("engines", "tune", f"{TUNED}-0", "--yes", timeout_s=TUNE_S)
        ).splitlines()
        findings.check("the tuned engine is up again", *await until(gateway.is_up, gateway.ready_s))
    findings.measured["engines"] = {engine["model"]: engine["description"] for engine in await gateway.engines()}
    before = {mode: await _drafted(gateway, mode) for mode in options.modes}
    runs = await _runs(gateway.target, options)
    after = {mode: await _drafted(gateway, mode) for mode in options.modes}
    drafted = {mode: after[mode].since(before[mode]) for mode in options.modes}
    findings.measured["acceptance"] = {mode: found.acceptance for mode, found in drafted.items()}
    findings.measured["drafts"] = {mode: found.num_drafts for mode, found in drafted.items()}
    _judge(runs, options, findings)
    await check_rest(gateway, findings)
    return findings


async def _drafted(gateway: AdapterGateway, mode: str) -> Drafted:
    client = Client(await gateway.direct(f"{mode}-0"), keep_alive=False, timeout_s=10)
    exchange = await client.get("/metrics")
    if exchange.status != 200:
        raise GatewayError(f"engine {mode}-0: /metrics: {exchange.failure or exchange.status}")
    return read_drafted(exchange.body)


async def _runs(target: Target, options: argparse.Namespace) -> Runs:
    client = Client(target, timeout_s=TIMEOUT_S)
    plans = {mode: _plan(mode, options) for mode in options.modes}
    for plan in plans.values():
        await warm_up(client, plan)
    turns = [(level, mode) for level in options.concurrency for mode in options.modes]
    runs: Runs = {}
    for order, (turn, (level, mode)) in enumerate(interleave(turns, options.repeats)):
        run = await measure(client, plans[mode], level, turn, order)
        client.close()
        runs.setdefault((mode, level), []).append(run)
        sys.stderr.write(f"{mode}: {report.progress_line(run, len(turns) * options.repeats)}\n")
    return {key: sorted(found, key=lambda run: run.repeat) for key, found in runs.items()}


def _plan(mode: str, options: argparse.Namespace) -> Plan:
    workload = Workload(mode, output_tokens=Length(96, 96), prompts=PROMPTS, ignore_eos=False)
    per_stream = options.passes * len(PROMPTS)
    return Plan(
        workload, options.concurrency, repeats=options.repeats, seed=options.seed, requests_per_stream=per_stream
    )


def _judge(runs: Runs, options: argparse.Namespace, findings: Findings) -> None:
    levels = []
    for level in options.concurrency:
        tps = {mode: [run.summary.output_tps for run in runs[mode, level]] for mode in options.modes}
        by_mode = {mode: report.level_dict(level_of(level, runs[mode, level])) for mode in options.modes}
        faults = [f"{mode}, {fault}" for mode, found in by_mode.items() for fault in found["faults"]]
        entry: dict[str, Any] = {"num_streams": level, "best": best_of(tps), "modes": by_mode, "faults": faults}
        if TUNED in tps:
            ratios = ratios_to_best(tps)
            entry["ratio"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            findings.check(
                f"{level} streams: tuned within {1 - MIN_RATIO:.0%} of the better of on and off",
                entry["ratio"]["median"] >= MIN_RATIO and not faults,
                f"{entry['ratio']['median']:.3f}x {entry['best']} ({min(ratios):.3f} - {max(ratios):.3f})"
                + "".join(f"; {fault}" for fault in faults),
            )
        levels.append(entry)
    findings.measured["levels"] = levels


def _table(result: dict[str, Any]) -> list[str]:
    plan = result["plan"]
    lines = [
        f"{next(iter(result['engines'].values()))}, demo model, draft {result['draft']}, depth {plan['depth']}; output tok/s, "
        f"median of {plan['repeats']} turns (lowest - highest).",
        "",
        f"| streams | {' | '.join(plan['modes'])} | tuned / the better of on and off |",
        f"|--:|{'--:|' * len(plan['modes'])}--:|",
    ]
    for level in result["levels"]:
        cells = [_tps(level["modes"][mode]["output_tps"]) for mode in plan["modes"]]
        ratio = level.get("ratio")
        last = f"**{ratio['median']:.3f}** ({ratio['min']:.3f} - {ratio['max']:.3f}), {level['best']}" if ratio else "-"
        lines.append(f"| {level['num_streams']} | {' | '.join(cells)} | {last} |")
    accepted = [
        f"{mode} {share:.1%} of {result['drafts'][mode]:,.0f} drafts"
        for mode, share in result["acceptance"].items()
        if share is not None
    ]
    return [*lines, "", f"Draft tokens accepted: {'; '.join(accepted) or 'nothing was drafted'}.",
            *([""] if result.get("tune") else []), *(f"    {line}" for line in result.get("tune", []))]  # fmt: skip


def _tps(of: Mapping[str, float]) -> str:
    return f"{of['median']:,.1f} ({of['min']:,.1f} - {of['max']:,.1f})"


PROGRAM = Program(
    "vllm_speculation", __doc__ or "", "python -m benchmarks.vllm_speculation --out benchmarks/results/vllm-speculation.json",
    _add_options, _gateway, _measure, _table,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
