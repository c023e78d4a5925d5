"""One campaign on a GPU machine: `python -m benchmarks.vllm_gpu --model FOLDER --out FILE.json`.

forgegate launches vLLM, LoRA on, sleep mode on, on the model given; one part after the other is measured. Each part is kept in the
result file as soon as it is done: called again with the same --out, the campaign goes on with what is left, or failed. No part is
begun that may not end within --budget. A second model, the same folder, starts when it is asked for. --tiny tries all of it with a small
model on the CPU, but for what only a GPU has.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import arguments, engine_start, eventloop, gpu_memory, parts_program, report, vllm_gpu_report
from benchmarks.adapter_program import Findings, workdir
from benchmarks.arguments import Parser
from benchmarks.chaos_gateway import GatewayError, can_run
from benchmarks.child import ChildError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.engine_choice import CHOICES, VLLM
from benchmarks.parts import Parts
from benchmarks.vllm_gateway import say
from benchmarks.vllm_gpu_parts import PARTS, Part
from benchmarks.vllm_gpu_setup import ENGINE, MAIN, START_S, Setup, Stage, start

FIRST, LATER = "start", "later_start"
ADMIN_S = 300.0
"""Weights may be hashed, and vLLM asked for its options, before the admin API answers."""
_VERSIONS = ("vllm", "torch", "triton", "transformers", "peft")
_EXAMPLE = """example:
  python -m benchmarks.vllm_gpu --model llama-8b --python python3 --workdir work --out vllm-gpu.json --budget 560

exit codes: 0 all parts are measured and hold, 1 a condition was violated or a part is missing, 2 bad usage, 3 the gateway could not
be started"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _run(_parser().parse_args(words), words),
        {ValueError: EXIT_USAGE, ChildError: EXIT_ENVIRONMENT, GatewayError: EXIT_ENVIRONMENT},
    )


def _parser() -> Parser:
    names = ", ".join(part.name for part in PARTS)
    parser = Parser(prog="python -m benchmarks.vllm_gpu", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="folder with the model's weights, real or random")
    add("--python", metavar="PATH", help="interpreter that has vLLM (default: forgegate finds it)")
    parts_program.add_options(parser, "for this call", 560.0)
    add("--parts", type=arguments.names, metavar="A,B", help=f"only these, again if need be: {names}")
    add("--concurrency", type=arguments.levels, default=(1, 64, 256), metavar="C,C", help="streams (default 1,64,256)")
    add("--repeats", type=arguments.whole(1), default=3, metavar="R", help="turns of the throughput (default 3)")
    add("--streams", type=arguments.whole(1), default=64, metavar="N", help="while the alias flips (default 64)")
    add("--flips", type=arguments.whole(1), default=120, metavar="N", help="of the alias (default 120)")
    add("--seed", type=arguments.whole(0), default=1, help="of prompts and adapters (default 1)")
    add("--tiny", action="store_true", help="on the CPU, with a small model")
    add("--engine", choices=tuple(CHOICES), default=VLLM, help="with --tiny, llamacpp tries the campaign without vLLM")
    return parser


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    begin_s = time.monotonic()
    if options.out.suffix != ".json":
        return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
    if unknown := set(options.parts or ()) - {part.name for part in PARTS}:
        return refuse(f"--parts: there is no {unknown.pop()!r}", EXIT_USAGE)
    if options.engine != VLLM and not options.tiny:
        return refuse("--engine llamacpp is for --tiny", EXIT_USAGE)
    if not (options.model / "config.json").is_file():
        return refuse(f"--model {options.model}: holds no config.json", EXIT_USAGE)
    if not can_run() or (gpu_memory.gpu() is None and not options.tiny):
        return refuse("this needs /proc and a GPU that nvidia-smi shows; --tiny does without the GPU", EXIT_ENVIRONMENT)
    parts = Parts.read(options.out, lambda found: _document(options, words, found))
    wanted = [part for part in PARTS if (part.name in options.parts if options.parts else not parts.is_done(part.name))]
    if wanted:
        with workdir(options.workdir) as folder:
            _measure_all(_setup(options, folder), parts, wanted, begin_s + options.budget)
    return _end(options, parts)


def _setup(options: argparse.Namespace, folder: Path) -> Setup:
    return Setup(
        options.model.resolve(), options.engine, options.python, folder, options.tiny, options.seed, options.concurrency, options.streams,
        options.flips, options.repeats,
    )  # fmt: skip


def _measure_all(setup: Setup, parts: Parts, wanted: Sequence[Part], deadline_s: float) -> None:
    gateway, child = start(setup)
    stage = Stage(setup, gateway)
    try:
        eventloop.run(_campaign(stage, parts, wanted, deadline_s))
    except GatewayError as exc:
        raise GatewayError(f"{exc}\nits log ends:\n{child.tail()}") from exc
    finally:
        child.stop()


async def _campaign(stage: Stage, parts: Parts, wanted: Sequence[Part], deadline_s: float) -> None:
    await _begin(stage, parts)
    for part in wanted:
        left_s = deadline_s - time.monotonic()
        if left_s < part.needs_s and not stage.setup.tiny:
            say(f"{part.name}: not begun, it may take {part.needs_s:.0f} s and {left_s:.0f} are left")
            continue
        await _measure(stage, parts, part, left_s)


async def _begin(stage: Stage, parts: Parts) -> None:
    """The gateway's own start, watched; the first one is kept apart from those that find everything compiled."""
    began_s = time.monotonic()
    await stage.gateway.wait_admin(ADMIN_S)
    found = await engine_start.watch(stage.gateway, ENGINE, MAIN, START_S)
    findings = Findings()
    said = [detail for _, state, detail in found.seen if state == "starting"]
    findings.check(
        "it becomes ready", found.ready_s is not None, f"after {found.ready_s} s" if found.ready_s else found.seen[-1:]
    )
    if stage.setup.engine == VLLM:
        findings.check("its progress is shown", len(said) > 2, said)
    engine = await engine_start.engine_of(stage.gateway, ENGINE)
    findings.measured |= {"engine": engine["description"], "start": found.as_dict()}
    parts.keep(LATER if parts.is_done(FIRST) else FIRST, findings, time.monotonic() - began_s)
    if found.ready_s is None:
        raise GatewayError(f"{ENGINE} did not start: {found.seen[-1][2]}")
    say(f"ready after {found.ready_s} s")
    await stage.gateway.wait_ready()


async def _measure(stage: Stage, parts: Parts, part: Part, left_s: float) -> None:
    work = asyncio.wait_for(part.measure(stage), left_s)
    kept = await parts_program.measure(parts, part.name, work, "it did not end within the budget")
    if kept is None:
        return
    say(f"{part.name}: {'held' if kept['is_met'] else 'VIOLATED'} after {kept['took_s']} s")
    for check in kept["checks"]:
        say(f"    {'yes' if check['is_met'] else 'NO '} {check['name']}: {check['found']}")


def _document(options: argparse.Namespace, words: Sequence[str], found: Mapping[str, Any]) -> dict[str, Any]:
    plan = parts_program.shown(options) | {"python": Path(options.python or "").name, "model": options.model.name}
    return parts_program.document("vllm_gpu", words, plan, _VERSIONS, gpu_memory.gpu(), found)


def _end(options: argparse.Namespace, parts: Parts) -> int:
    table = "\n".join(vllm_gpu_report.markdown(parts.frame(parts.found))) + "\n"
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    missing = [part.name for part in PARTS if not parts.is_done(part.name)]
    if missing:
        say(f"not measured yet: {', '.join(missing)}; the same command goes on")
    return EXIT_DONE if not missing and all(part["is_met"] for part in parts.found.values()) else EXIT_NEGATIVE


if __name__ == "__main__":
    sys.exit(main())
