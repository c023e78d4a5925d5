"""What the adapter benchmarks share as programs: options, a gateway that is always stopped, result files, exit codes."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import arguments, eventloop, report
from benchmarks.adapter_answers import MANNERS
from benchmarks.adapter_fleet import ADAPTERS_DIR, AdapterGateway
from benchmarks.arguments import Parser
from benchmarks.chaos import Check
from benchmarks.chaos_gateway import GatewayError, can_run
from benchmarks.child import ChildError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse

REST_S = 30.0
_EXIT_CODES = "exit codes: 0 done, 1 a condition was violated, 2 bad usage, 3 the gateway could not be started"


@dataclass(slots=True)
class Findings:
    """What a run has found: `measured` is JSON-able."""

    checks: list[Check] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, is_met: bool, found: object) -> None:
        """Add a condition."""
        self.checks.append(Check(name, is_met, str(found)))


@dataclass(frozen=True, slots=True)
class Program:
    """One benchmark. `gateway` makes what `measure` is run on; `table` is the Markdown before the conditions."""

    name: str
    description: str
    example: str
    add_options: Callable[[Parser], None]
    gateway: Callable[[Path, argparse.Namespace], AdapterGateway]
    measure: Callable[[AdapterGateway, argparse.Namespace], Awaitable[Findings]]
    table: Callable[[dict[str, Any]], list[str]]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """The exit code."""
        words = list(sys.argv[1:] if argv is None else argv)
        return ended(
            lambda: self._run(self._parser().parse_args(words), words),
            {ChildError: EXIT_ENVIRONMENT, GatewayError: EXIT_NEGATIVE},
        )

    def _parser(self) -> Parser:
        epilog = f"example:\n  {self.example}\n\n{_EXIT_CODES}"
        parser = Parser(prog=f"python -m benchmarks.{self.name}", description=self.description, epilog=epilog)
        self.add_options(parser)
        add = parser.add_argument
        add("--seed", type=arguments.whole(0), default=1, help="of everything that is drawn (default 1)")
        add(
            "--adapters", type=Path, default=ADAPTERS_DIR, metavar="DIR",
            help="the demo model's signing adapters (default: this repository's)",
        )  # fmt: skip
        add("--workdir", type=Path, metavar="DIR", help="an empty folder; configuration and logs stay there")
        add("--out", type=Path, metavar="FILE.json", help="result; the tables go to FILE.md")
        return parser

    def _run(self, options: argparse.Namespace, words: Sequence[str]) -> int:
        missing = [name for name in MANNERS if not (options.adapters / name).is_dir()]
        if missing:
            return refuse(f"--adapters {options.adapters}: holds no {missing[0]}", EXIT_USAGE)
        if options.out is not None and options.out.suffix != ".json":
            return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
        if not can_run():
            return refuse("this needs /proc, to see what processes hold", EXIT_ENVIRONMENT)
        with workdir(options.workdir) as folder:
            gateway = self.gateway(folder, options)
            child = gateway.start()
            try:
                findings = eventloop.run(self._measured(gateway, options))
            except GatewayError as exc:
                raise GatewayError(f"{exc}\nits log ends:\n{child.tail()}") from exc
            finally:
                child.stop()
        return self._report(findings, options, words)

    async def _measured(self, gateway: AdapterGateway, options: argparse.Namespace) -> Findings:
        await gateway.wait_ready()
        await until(gateway.is_up, gateway.ready_s)
        return await self.measure(gateway, options)

    def _report(self, findings: Findings, options: argparse.Namespace, words: Sequence[str]) -> int:
        is_met = all(check.is_met for check in findings.checks)
        shown = {name: value for name, value in vars(options).items() if not isinstance(value, Path | None)}
        result = report.document(
            self.name.replace("_", "-"), ["python", "-m", f"benchmarks.{self.name}", *words], plan=shown, is_met=is_met,
            **findings.measured, checks=[asdict(check) for check in findings.checks],
        )  # fmt: skip
        table = "\n".join([*self.table(result), *_last_lines(result)]) + "\n"
        if options.out is not None:
            report.write(options.out, report.dump(result))
            report.write(options.out.with_suffix(".md"), table.encode())
        print(table, end="")
        return EXIT_DONE if is_met else EXIT_NEGATIVE


async def publish_all(gateway: AdapterGateway, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Publish the signing adapters in turn, one under each name; version -> manner. Raises GatewayError."""
    manners: dict[str, str] = {}
    for number, name in enumerate(names):
        manner = MANNERS[number % len(MANNERS)]
        event = await gateway.publish(folder / manner, name)
        manners[event["version"]] = manner
    return manners


async def check_rest(gateway: AdapterGateway, findings: Findings) -> None:
    """With no request left, nobody may still count one, or wait for an adapter."""

    async def is_at_rest() -> bool:
        return (await gateway.load()).is_none

    findings.check("engines are idle, all counters are zero", *await until(is_at_rest, REST_S))


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> tuple[bool, str]:
    """Whether it came true in time, and when."""
    clock = asyncio.get_running_loop().time
    start_s = clock()
    is_true = await condition()
    while not is_true and clock() - start_s < timeout_s:
        await asyncio.sleep(0.1)
        is_true = await condition()
    return is_true, f"{'after' if is_true else 'not within'} {clock() - start_s:.1f} s"


def load_average() -> list[float]:
    """Of this machine now: what else ran beside the measurement."""
    return [round(value, 2) for value in os.getloadavg()]


def _last_lines(result: dict[str, Any]) -> list[str]:
    machine = result["environment"]
    rows = [f"| {c['name']} | {'yes' if c['is_met'] else '**no**'} | {c['found']} |" for c in result["checks"]]
    load = ", ".join(f"{value:g}" for value in result["load_average"])
    return [
        "", "| condition | held | found |", "|---|---|---|", *rows, "",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, load average before the run {load}; "
        f"forgegate {machine['versions'].get('forgegate', '')}; seed {result['plan']['seed']}.",
    ]  # fmt: skip


@contextmanager
def workdir(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, or one that is removed afterwards."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="forgegate-bench-") as made:
        yield Path(made)
