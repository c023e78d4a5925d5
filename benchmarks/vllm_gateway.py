"""What the gateway costs in front of vLLM: `python -m benchmarks.vllm_gateway`.

It starts `forgegate serve` with one engine, LoRA on, and drives it by way of the gateway and directly, in turns: output tokens a
second at each number of streams. Then a version that the engine does not hold is asked for, against the engine's own load call and
a warm request. The engine is reached directly with the secret of its launch, which only its own user can read.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import arguments, cold_adapters, engine_choice, over_direct
from benchmarks.adapter_fleet import AdapterGateway
from benchmarks.adapter_program import Findings, Program, check_rest, load_average
from benchmarks.arguments import Parser
from benchmarks.campaign import Plan
from benchmarks.engine_choice import VLLM, Needs
from benchmarks.workload import Endpoint, Length, PromptForm, Workload

ENGINE = "demo-0"


def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--concurrency", type=arguments.levels, default=(1, 8), metavar="C,C", help="streams (default 1,8)")
    add("--repeats", type=arguments.whole(1), default=7, metavar="R", help="turns (default 7)")
    add(
        "--requests-per-stream",
        type=arguments.whole(1),
        default=12,
        metavar="N",
        help="of a run, 8 at least (default 12)",
    )
    add("--input-tokens", type=arguments.length, default="64", metavar="N", help="prompt length (default 64)")
    add("--output-tokens", type=arguments.length, default="64", metavar="N", help="answer length (default 64)")
    add(
        "--rounds",
        type=arguments.whole(1),
        default=5,
        metavar="N",
        help="of cold requests, for each adapter (default 5)",
    )
    engine_choice.add_options(parser, VLLM)


def _gateway(workdir: Path, options: argparse.Namespace) -> AdapterGateway:
    choice = engine_choice.chosen(options)
    # A chat request brings its template along, and answers of the adapters' proof have room of their own.
    needs = Needs(max(options.concurrency), options.input_tokens.high + options.output_tokens.high + 384, 4)
    return AdapterGateway(workdir, {"demo": choice.pool("demo", 1, needs)}, choice.ready_s(1), num_workers=1)


async def _measure(gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
    findings = Findings()
    findings.measured["load_average"] = load_average()
    findings.measured["engine"] = (await gateway.engines())[0]["description"]
    await _throughput(gateway, options, findings)
    await _cold(gateway, options, findings)
    await check_rest(gateway, findings)
    return findings


async def _throughput(gateway: AdapterGateway, options: argparse.Namespace, findings: Findings) -> None:
    plan = Plan(
        workload(gateway.model, options.input_tokens, options.output_tokens), options.concurrency,
        repeats=options.repeats, seed=options.seed, requests_per_stream=options.requests_per_stream,
    )  # fmt: skip
    targets = {over_direct.GATEWAY: gateway.target, over_direct.DIRECT: await gateway.direct(ENGINE)}
    levels = await over_direct.compare(targets, plan, say)
    check_throughput(levels, findings)
    findings.measured["levels"] = [over_direct.as_dict(level) for level in levels]


async def _cold(gateway: AdapterGateway, options: argparse.Namespace, findings: Findings) -> None:
    findings.measured["cold"] = {}
    for manner in ("host", "tiger"):
        event = await gateway.publish(options.adapters / manner, manner)
        times = await cold_adapters.measure(gateway, ENGINE, cold_adapters.stored(gateway, event), options.rounds)
        found = cold_adapters.as_dict(times) | {"proof": event["proof"]}
        findings.measured["cold"][manner] = found
        ratio = found["ratio"]
        findings.check(
            f"{manner}: cold ttft at most {cold_adapters.MAX_RATIO:g}x the engine's own load call and a warm ttft",
            ratio["median"] <= cold_adapters.MAX_RATIO,
            f"{ratio['median']:.2f}x ({ratio['min']:.2f} - {ratio['max']:.2f}), version {event['proof']}",
        )


def workload(model: str, input_tokens: Length, output_tokens: Length) -> Workload:
    """Prompts of exactly so many tokens."""
    return Workload(
        model=model, endpoint=Endpoint.COMPLETIONS, input_tokens=input_tokens, output_tokens=output_tokens,
        prompt_form=PromptForm.IDS, vocab_size=4000,
    )  # fmt: skip


def check_throughput(levels: list[over_direct.Compared], findings: Findings) -> None:
    """One condition for each number of streams."""
    for level in levels:
        ratio, faults = level.ratio, level.faults
        findings.check(
            f"{level.num_streams} streams: output tok/s at least {over_direct.MIN_RATIO:g}x direct",
            ratio.is_met and not faults,
            f"{ratio.median:.3f}x ({ratio.min:.3f} - {ratio.max:.3f})" + "".join(f"; {fault}" for fault in faults),
        )


def say(line: str) -> None:
    """To whoever waits."""
    sys.stderr.write(f"{line}\n")


def _table(result: dict[str, Any]) -> list[str]:
    plan = result["plan"]
    lines = [
        f"{result['engine']}, LoRA on; {plan['input_tokens']} tokens in, {plan['output_tokens']} out.",
        "",
        *over_direct.table(result["levels"]),
    ]
    for manner, found in result["cold"].items():
        lines += ["", *cold_adapters.table(f"adapter `{manner}`, {found['proof']}", found)]
    return lines


PROGRAM = Program(
    "vllm_gateway", __doc__ or "", "python -m benchmarks.vllm_gateway --out benchmarks/results/vllm-gateway.json",
    _add_options, _gateway, _measure, _table,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
