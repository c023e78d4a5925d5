"""The command line of `forgegate optimize`, and what it stands for."""

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks import arguments, report
from benchmarks.arguments import Parser
from benchmarks.campaign import Plan
from benchmarks.commands.workload_options import add_workload_options, workload_of
from benchmarks.engine_choice import CHOICES, LLAMACPP
from benchmarks.environment import num_cores
from benchmarks.optimize import lists
from benchmarks.optimize.launches import Served
from benchmarks.optimize.levels import Axis, Concurrency, Rate
from benchmarks.optimize.quality import MARGIN
from benchmarks.optimize.runner import Task
from benchmarks.optimize.schemas import problems_of
from benchmarks.optimize.search import Strategy
from benchmarks.optimize.settings import Space, check_apart, parse_fixed, parse_over
from benchmarks.optimize.verify import MAX_PAIRS
from benchmarks.statistics.difference import MIN_PAIRS
from benchmarks.statistics.slo import Slo, SloError, parse_slo
from benchmarks.workload import Endpoint, WorkloadError

EXAMPLE = """examples:
  forgegate optimize --model demo --slo "ttft_p99<500ms,tpot_p99<30ms" --budget 20m
  forgegate optimize --model Qwen/Qwen3-0.6B --engine vllm --slo interactive --budget 2h --prompts prompts.txt \\
      --over max_num_seqs=default,16,64,256 --over speculative=off,ngram --set max_model_len=4096

lists: --over NAME=VALUE,VALUE once for each option, or "NAME=V|V,NAME=V|V" for several at once. Values are JSON (16, true, {...}) or
words; `default` leaves the option to the engine, speculative knows off, ngram, and draft with --draft.

Ctrl-C ends what was started and keeps what was measured; the same command goes on, with a larger --budget too.

exit codes: 0 done, 1 no recommendation, 2 bad usage, 3 the environment cannot do it"""

_GPU = Path("/dev/nvidiactl")
_BUDGET = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a search needs."""

    task: Task
    served: Served
    name: str
    """Of the model in the block."""
    work: Path
    notes: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """What makes two searches the same one; the budget may differ."""
        prompts = self.served.workload.prompts
        return {
            **self.described().pop("workload"),
            "engine": self.served.kind,
            "model": self.served.model,
            "slo": str(self.task.slo),
            "load": self.task.axis.name,
            "highest load": self.task.axis.highest,
            "search": self.task.strategy.value,
            "seed": self.task.seed,
            "requests": self.served.num_requests,
            "quality margin": self.task.margin,
            "over": [str(dimension) for dimension in self.task.space.dimensions],
            "set": dict(self.task.space.fixed),
            "prompts": hashlib.sha256(orjson.dumps(prompts)).hexdigest() if prompts else None,
        }

    def described(self) -> dict[str, Any]:
        """For the result."""
        workload = report.plan_dict(Plan(self.served.workload, (1,)))["workload"]
        return {"engine": self.served.kind, "model": Path(self.served.model).name, "workload": workload}


def parser() -> Parser:
    """Of the whole command."""
    parser = Parser(
        prog="forgegate optimize", epilog=EXAMPLE,
        description="Find engine settings that answer more requests within an SLO than the defaults do, by measuring them here.",
    )  # fmt: skip
    _add_what(parser.add_argument)
    _add_how(parser.add_argument)
    add_workload_options(parser)
    parser.set_defaults(ignore_eos=None)
    return parser


def _add_what(add: Any) -> None:
    add("--model", required=True, help="as in forgegate.yaml: demo, a file, a folder, or ORG/NAME of a hub")
    add("--engine", choices=tuple(CHOICES), default=LLAMACPP, help=f"kind (default {LLAMACPP})")
    add("--slo", required=True, metavar="SLO", help='"ttft_p99<500ms,tpot_p99<30ms", interactive, or conversational')
    add("--budget", required=True, type=budget, metavar="TIME", help="for all of it: 20m, 90s, 1h30m")
    add(
        "--over",
        action="append",
        default=[],
        metavar="NAME=V,V",
        help="options and values to try (default: a list for the engine)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=V",
        help="options that all settings have, the defaults included",
    )
    add("--draft", metavar="MODEL", help="a draft model for speculation (vLLM): a folder, or demo")
    add("--python", type=Path, metavar="PATH", help="interpreter that runs the engines (default: forgegate finds it)")


def _add_how(add: Any) -> None:
    add("--search", choices=[each.value for each in Strategy], default=Strategy.HALVING.value, help="(default halving)")
    add(
        "--load",
        choices=("concurrency", "rate"),
        default="concurrency",
        help="what is raised until the SLO breaks (default concurrency)",
    )
    add(
        "--max-load",
        type=arguments.number(1),
        metavar="N",
        help="streams or requests/s at most (default 256 streams, 1024/s)",
    )
    add(
        "--requests",
        type=arguments.whole(1),
        default=8,
        metavar="N",
        help="at least, of the shortest measurement (default 8)",
    )
    add(
        "--pairs", type=int, choices=range(MIN_PAIRS, MAX_PAIRS + 1), default=MIN_PAIRS, metavar="N",
        help=f"of launches that verify the best setting, at least; more where time is left (default {MIN_PAIRS})",
    )  # fmt: skip
    add(
        "--quality-margin",
        type=arguments.number(0),
        default=MARGIN,
        metavar="X",
        help=f"nats a token that may be lost (default {MARGIN:g})",
    )
    add("--start-timeout", type=arguments.number(1), default=600.0, metavar="S", help="of an engine (default 600)")
    add("--timeout", type=arguments.number(0.01), default=600.0, metavar="S", help="of a request (default 600)")
    add("--seed", type=arguments.whole(0), default=0, help="of the order of settings and of prompts (default 0)")
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="what is measured, the result, and logs (default ./forgegate-optimize-MODEL)",
    )
    add("--json", action="store_true", help="print JSON instead of text")


def wanted(options: argparse.Namespace) -> Wanted:
    """Raises SettingError, SloError, WorkloadError."""
    kind, words = options.engine, lists.words_of(options.engine, options.draft)
    if options.draft is not None and not words:
        raise WorkloadError("--draft goes with --engine vllm: llama.cpp engines do not speculate")

    def problems(found: Any) -> list[str]:
        return problems_of(kind, found)

    fixed = parse_fixed(options.set, words, problems)
    given = parse_over(options.over, words, problems)
    usual = lists.usual(kind, num_cores(), _GPU.exists(), options.draft)
    dimensions = given or tuple(each for each in usual if each.name not in fixed)
    check_apart(dimensions, fixed)
    slo, axis = _slo(options.slo), _axis(options)
    task = Task(
        Space(dimensions, fixed), slo, axis, options.budget, problems, Strategy(options.search), options.seed, options.pairs,
        options.quality_margin,
    )  # fmt: skip
    options.ignore_eos = options.prompts is None if options.ignore_eos is None else options.ignore_eos
    workload = workload_of(options, "candidate")
    if workload.endpoint is Endpoint.EMBEDDINGS:
        raise WorkloadError(
            "embeddings have no tokens to come in time: optimize needs the chat or completions endpoint"
        )
    served = Served(
        kind,
        _model(options.model),
        workload,
        slo,
        axis,
        options.requests,
        options.start_timeout,
        options.timeout,
        options.python,
    )
    name = _NOT_IN_A_NAME.sub(
        "-", Path(options.model).stem if _is_path(options.model) else options.model.rpartition("/")[2]
    )
    return Wanted(
        task,
        served,
        name,
        options.work or Path(f"forgegate-optimize-{name}"),
        tuple(_notes(dimensions, workload.prompts)),
    )


def budget(text: str) -> float:
    """`20m`, `90s`, `1h30m` in seconds."""
    found = _BUDGET.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 20m, 90s or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if not (total_s := 3600 * hours + 60 * minutes + seconds):
        raise argparse.ArgumentTypeError(f"{text!r} allows no time at all")
    return float(total_s)


def _slo(text: str) -> Slo:
    slo = parse_slo(text)
    if any(objective.percentile is None for objective in slo.objectives):
        raise SloError(f"--slo {text}: without percentiles no load can break it: write ttft_p99<500ms")
    return slo


def _axis(options: argparse.Namespace) -> Axis:
    if options.load == "rate":
        return Rate(options.max_load) if options.max_load else Rate()
    if options.max_load and options.max_load != int(options.max_load):
        raise WorkloadError(f"--max-load {options.max_load:g}: a whole number of streams")
    return Concurrency(int(options.max_load)) if options.max_load else Concurrency()


def _model(text: str) -> str:
    return str(Path(text).expanduser().absolute()) if _is_path(text) else text


def _is_path(text: str) -> bool:
    return text != "demo" and Path(text).expanduser().exists()


def _notes(dimensions: Sequence[Any], prompts: Sequence[Any]) -> list[str]:
    names = {dimension.name for dimension in dimensions}
    notes = []
    if "speculative" in names and not prompts:
        notes.append("generated prompts are not what drafts are made for: give --prompts to judge speculation")
    if names & {"prefix_cache", "enable_prefix_caching"} and not prompts:
        notes.append("generated prompts share no prefix, so that a prefix cache can only lose here")
    return notes
