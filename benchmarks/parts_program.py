"""What programs share whose parts are kept one by one (`benchmarks.parts`): options, a part's boundary, the result around the parts."""

import argparse
import time
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import arguments, report
from benchmarks.adapter_program import Findings
from benchmarks.arguments import Parser
from benchmarks.campaign import WarmUpError
from benchmarks.chaos_gateway import GatewayError
from benchmarks.child import ChildError
from benchmarks.environment import version_of
from benchmarks.gpu_memory import Gpu
from benchmarks.parts import Parts
from benchmarks.vllm_gateway import say


def add_options(parser: Parser, budget: str, budget_s: float) -> None:
    """Where everything is kept, and how long it may take; `budget` says what of."""
    add = parser.add_argument
    add(
        "--out", type=Path, required=True, metavar="FILE.json", help="result, kept part by part; the tables go to FILE.md"
    )  # fmt: skip
    add("--workdir", type=Path, metavar="DIR", help="homes, logs and what is measured so far; the same for every call")
    add("--budget", type=arguments.number(1), default=budget_s, metavar="S", help=f"{budget} (default {budget_s:g})")


async def measure(parts: Parts, name: str, work: Awaitable[Findings], late: str) -> dict[str, Any] | None:
    """Keep and return what `work` finds; None where it went wrong, which is kept too: the others are measured nevertheless.

    `late`: what is said of a TimeoutError.
    """
    say(f"{name} ...")
    began_s = time.monotonic()
    try:
        findings = await work
    except (ChildError, GatewayError, WarmUpError, TimeoutError, OSError) as exc:
        reason = str(exc) or late
    except Exception as exc:  # noqa: BLE001 - named boundary: time on a GPU machine is short, a fault here must not end it all
        traceback.print_exc()
        reason = f"{type(exc).__name__}: {exc}"
    else:
        return parts.keep(name, findings, time.monotonic() - began_s)
    parts.keep_error(name, reason, time.monotonic() - began_s)
    say(f"{name}: {reason}")
    return None


def document(
    name: str, words: Sequence[str], plan: Mapping[str, Any], versions: Sequence[str], gpu: Gpu | None, found: Mapping[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """The result file's content. `name` is the program's; `versions`: of these distributions, where they are installed."""
    return report.document(
        name.replace("_", "-"), ["python", "-m", f"benchmarks.{name}", *words],
        versions={each: version for each in versions if (version := version_of(each))},
        gpu=None if gpu is None else {"name": gpu.name, "driver": gpu.driver, "total_bytes": gpu.total_bytes},
        plan=dict(plan), parts=dict(found),
    )  # fmt: skip


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """Options without paths, which say nothing on another machine."""
    return {name: value for name, value in vars(options).items() if not isinstance(value, Path | None)}
