"""What is claimed of each way to serve faster, held against runs of its own: `python -m benchmarks.claims --only NAME --out FILE.json`.

A section starts its configurations together, keeps them up side by side and measures one at a time, in turns; what it says is a ratio
with its interval over the turns, and whether the claim held, did not, or was not shown. Sections are kept in the result file as they
are done; called again, the program goes on with what is left, and with the same --workdir at the turn that a section had reached.
"""

import argparse
import asyncio
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import arguments, eventloop, gpu_memory, report
from benchmarks.adapter_program import Findings, load_average, refuse, workdir
from benchmarks.arguments import Parser
from benchmarks.campaign import WarmUpError
from benchmarks.chaos_gateway import GatewayError, can_run
from benchmarks.child import ChildError
from benchmarks.claims import page
from benchmarks.claims.models import DEMO
from benchmarks.claims.sections import SECTIONS, Section
from benchmarks.claims.setting import CPU, GPU, TINY, Setting
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE
from benchmarks.engine_choice import CHOICES, LLAMACPP, VLLM
from benchmarks.environment import version_of
from benchmarks.parts import Parts
from benchmarks.statistics.difference import MIN_PAIRS
from benchmarks.vllm_gateway import say

_VERSIONS = ("vllm", "torch", "transformers", "llama-cpp-python")
_EXAMPLE = """examples:
  python -m benchmarks.claims --only continuous --out claims-cpu-continuous.json
  python -m benchmarks.claims --only speculation --engine vllm --python .venv/bin/python --out claims-cpu-speculation.json
  python -m benchmarks.claims --only synthetic --engine vllm --gpu --model llama-8b --draft llama-1b --synthetic-weights \\
      --python python3 --workdir work --out claims-gpu.json

exit codes: 0 all sections asked for are measured, whatever they say of the claims; 1 one is missing, 2 bad usage, 3 something could
not be started"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # engines are stopped then, too
    try:
        return _run(_parser().parse_args(words), words)
    except SystemExit as exc:
        return int(exc.code or 0)
    except ValueError as exc:
        return refuse(str(exc), EXIT_USAGE)
    except KeyboardInterrupt:
        return refuse("stopped", 130)


def _parser() -> Parser:
    names = "\n".join(f"  {section.name:<12} {section.title}" for section in SECTIONS)
    parser = Parser(prog="python -m benchmarks.claims", description=f"{__doc__}\nsections:\n{names}", epilog=_EXAMPLE)
    add = parser.add_argument
    add("--only", type=arguments.names, metavar="A,B", help="these sections (default: all that --engine can show)")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.json",
        help="result, section by section; the tables go to FILE.md",
    )
    add("--workdir", type=Path, metavar="DIR", help="logs, homes, turns measured so far; the same for every call")
    add("--engine", choices=tuple(CHOICES), default=LLAMACPP, help="kind (default llamacpp)")
    add("--model", default=DEMO, metavar="DIR", help="folder of safetensors (default: the demo model)")
    add("--draft", default=DEMO, metavar="DIR", help="draft of section synthetic (default: the demo family's)")
    add("--python", type=Path, metavar="PATH", help="interpreter that runs the engines (default: forgegate finds it)")
    add("--torch-python", metavar="PATH", help="one with torch and transformers (default: --python, else this one)")
    add("--repeats", type=arguments.whole(MIN_PAIRS), default=5, metavar="R", help="turns (default 5, at least 3)")
    add("--concurrency", type=arguments.levels, metavar="C,C", help="streams of speculation, lora and gateway")
    add("--seed", type=arguments.whole(0), default=1, help="of prompts and lengths (default 1)")
    add("--budget", type=arguments.number(1), default=540.0, metavar="S", help="for a section (default 540)")
    add("--synthetic-weights", action="store_true", help="the weights are random: what is said is not checked")
    add("--gpu", action="store_true", help="the first GPU, and loads of its size")
    add("--tiny", action="store_true", help="the smallest loads, to try the program itself")
    return parser


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    if problem := _problem(options):
        return refuse(problem, EXIT_USAGE)
    if not can_run() or (options.gpu and gpu_memory.gpu() is None):
        return refuse("this needs /proc, and for --gpu a GPU that nvidia-smi shows", EXIT_ENVIRONMENT)
    sections = _chosen(options)
    report.require_writable(options.out)
    parts = Parts.read(options.out, lambda found: _document(options, words, found))
    with workdir(options.workdir) as folder:
        setting = _setting(options, folder)
        for section in sections:
            if not parts.is_done(section.name):
                _measure(setting, section, parts, options.budget)
    table = "\n".join(page.markdown(parts.frame(parts.found))) + "\n"
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    return EXIT_DONE if all(parts.is_done(section.name) for section in sections) else EXIT_NEGATIVE


def _problem(options: argparse.Namespace) -> str:
    known = {section.name: section for section in SECTIONS}
    if options.out.suffix != ".json":
        return f"--out {options.out}: must end in .json"
    for name in options.only or ():
        if name not in known:
            return f"--only: there is no {name!r}; one of {', '.join(known)}"
        if known[name].needs_vllm and options.engine != VLLM:
            return f"--only {name}: needs --engine vllm"
    if options.gpu and options.tiny:
        return "--gpu and --tiny exclude each other"
    for name in ("model", "draft"):
        found = getattr(options, name)
        if found != DEMO and not (Path(found) / "config.json").is_file():
            return f"--{name} {found}: holds no config.json"
    return ""


def _chosen(options: argparse.Namespace) -> list[Section]:
    if options.only:
        return [section for section in SECTIONS if section.name in options.only]
    return [section for section in SECTIONS if options.engine == VLLM or not section.needs_vllm]


def _setting(options: argparse.Namespace, folder: Path) -> Setting:
    scale = TINY if options.tiny else GPU if options.gpu else CPU
    if options.concurrency:
        scale = replace(scale, levels=options.concurrency)
    model, draft = (_absolute(name) for name in (options.model, options.draft))
    torch_python = options.torch_python or str(options.python or sys.executable)
    return Setting(
        model, draft, options.engine, options.python, torch_python, folder, options.gpu, scale, options.seed, options.repeats,
        options.synthetic_weights,
    )  # fmt: skip


def _absolute(model: str) -> str:
    return model if model == DEMO else str(Path(model).resolve())


def _measure(setting: Setting, section: Section, parts: Parts, budget_s: float) -> None:
    """One section, and the boundary of what goes wrong in it: the others are measured nevertheless."""
    say(f"{section.name} ...")
    began_s = time.monotonic()
    findings = Findings()
    findings.measured["load_average"] = load_average()
    try:
        findings.measured |= eventloop.run(_within(setting, section, budget_s))
    except (ChildError, GatewayError, WarmUpError, TimeoutError, OSError) as exc:
        reason = str(exc) or f"it did not end within {budget_s:g} s; called again with the same --workdir it goes on"
        parts.keep_error(section.name, reason, time.monotonic() - began_s)
        say(f"{section.name}: {reason}")
        return
    except Exception as exc:  # noqa: BLE001 - named boundary: time on a GPU machine is short, a fault here must not end it all
        traceback.print_exc()
        parts.keep_error(section.name, f"{type(exc).__name__}: {exc}", time.monotonic() - began_s)
        return
    kept = parts.keep(section.name, findings, time.monotonic() - began_s)
    for found in kept["judgements"]:
        say(f"    {found['verdict']}: {found['claim']['says']}; {found['case']}: {found['ratio']}")


async def _within(setting: Setting, section: Section, budget_s: float) -> dict[str, Any]:
    return await asyncio.wait_for(section.measure(setting), budget_s)


def _document(options: argparse.Namespace, words: Sequence[str], found: Mapping[str, Any]) -> dict[str, Any]:
    gpu = gpu_memory.gpu() if options.gpu else None
    shown = {name: value for name, value in vars(options).items() if not isinstance(value, Path | None)}
    plan = shown | {"model": Path(options.model).name, "draft": Path(options.draft).name}
    plan.pop("torch_python", None)
    return report.document(
        "claims", ["python", "-m", "benchmarks.claims", *words],
        versions={name: version for name in _VERSIONS if (version := version_of(name))},
        gpu=None if gpu is None else {"name": gpu.name, "driver": gpu.driver, "total_bytes": gpu.total_bytes},
        plan=plan, parts=dict(found),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
