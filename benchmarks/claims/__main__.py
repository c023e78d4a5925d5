"""What is claimed of each way to serve faster, held against runs of its own: `python -m benchmarks.claims --only NAME --out FILE.json`.

A section starts its configurations together, keeps them up side by side and measures one at a time, in turns; what it says is a ratio
with its interval over the turns, and whether the claim held, did not, or was not shown. Sections are kept in the result file as they
are done; called again, the program goes on with what is left, and with the same --workdir at the turn that a section had reached.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import arguments, eventloop, gpu_memory, parts_program, report
from benchmarks.adapter_program import Findings, load_average, workdir
from benchmarks.arguments import Parser
from benchmarks.chaos_gateway import can_run
from benchmarks.claims import page
from benchmarks.claims.models import DEMO
from benchmarks.claims.sections import SECTIONS, Section
from benchmarks.claims.setting import CPU, GPU, TINY, Setting
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.engine_choice import CHOICES, LLAMACPP, VLLM
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
    return ended(lambda: _run(_parser().parse_args(words), words), {ValueError: EXIT_USAGE})


def _parser() -> Parser:
    names = "\n".join(f"  {section.name:<12} {section.title}" for section in SECTIONS)
    parser = Parser(prog="python -m benchmarks.claims", description=f"{__doc__}\nsections:\n{names}", epilog=_EXAMPLE)
    add = parser.add_argument
    add("--only", type=arguments.names, metavar="A,B", help="these sections (default: all that --engine can show)")
    parts_program.add_options(parser, "for a section", 540.0)
    add("--engine", choices=tuple(CHOICES), default=LLAMACPP, help="kind (default llamacpp)")
    add("--model", default=DEMO, metavar="DIR", help="folder of safetensors (default: the demo model)")
    add("--draft", default=DEMO, metavar="DIR", help="draft of section synthetic (default: the demo family's)")
    add("--python", type=Path, metavar="PATH", help="interpreter that runs the engines (default: forgegate finds it)")
    add("--torch-python", metavar="PATH", help="one with torch and transformers (default: --python, else this one)")
    add("--repeats", type=arguments.whole(MIN_PAIRS), default=5, metavar="R", help="turns (default 5, at least 3)")
    add("--concurrency", type=arguments.levels, metavar="C,C", help="streams of speculation, lora and gateway")
    add("--seed", type=arguments.whole(0), default=1, help="of prompts and lengths (default 1)")
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
    late = f"it did not end within {budget_s:g} s; called again with the same --workdir it goes on"
    kept = eventloop.run(parts_program.measure(parts, section.name, _within(setting, section, budget_s), late))
    for found in kept["judgements"] if kept else ():
        say(f"    {found['verdict']}: {found['claim']['says']}; {found['case']}: {found['ratio']}")


async def _within(setting: Setting, section: Section, budget_s: float) -> Findings:
    load = load_average()
    return Findings(measured={"load_average": load, **await asyncio.wait_for(section.measure(setting), budget_s)})


def _document(options: argparse.Namespace, words: Sequence[str], found: Mapping[str, Any]) -> dict[str, Any]:
    gpu = gpu_memory.gpu() if options.gpu else None
    plan = parts_program.shown(options) | {"model": Path(options.model).name, "draft": Path(options.draft).name}
    plan.pop("torch_python", None)
    return parts_program.document("claims", words, plan, _VERSIONS, gpu, found)


if __name__ == "__main__":
    sys.exit(main())
