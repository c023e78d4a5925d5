"""The closed loop, whole, on one machine, and how long each of its stages takes: `python -m benchmarks.loop_stages --out FILE.json`.

forgegate serves the demo model on one vLLM and one llama.cpp, both on the GPU where there is one. A few clients stream answers all the
time; meanwhile the commands of README's "Fine-tune and hot-swap" are typed as they stand there: dirty data, doctor, split, a first
adapter, training with export, references, publication, proof on both engines, parity, evaluation, gate and flip, then the rollback.
No request may fail, and after flip and rollback each engine must answer by the version that is live. With --retrains two more trainings
are published by the rule for retrains: one with another seed, which has to go live, and one on labels of which a tenth is wrong, which
must not. The interpreter that runs this trains, too. Linux only: what is left running is read from /proc.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import arguments, engine_start, eventloop, gpu_memory, loop_stages_report, report
from benchmarks.adapter_program import Findings, until, workdir
from benchmarks.arguments import Parser
from benchmarks.chaos_gateway import GatewayError, can_run
from benchmarks.child import ChildError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.environment import version_of
from benchmarks.loop_stages_commands import (
    ALIAS,
    PUBLISH,
    RETRAIN,
    ROLLBACK,
    RUNS,
    TRAIN,
    TRAIN_WRONG,
    Amounts,
    Shell,
    Step,
    StepError,
    steps,
)
from benchmarks.loop_stages_gateway import ENGINES, MODEL, START_S, Clients, LoopGateway, pools, read_ticket
from benchmarks.vllm_gateway import say

GO = "GO"
GONE_S = 10.0
_VERSIONS = ("llama-cpp-python", "torch", "vllm")
_TRAINERS = ("torch", "transformers", "peft", "trl", "bitsandbytes")
_TOLD = ("num_steps", "loss", "eval_loss", "seconds", "peak_bytes")
_COUNTED = ("num_rows", "num_tokens")
_JUDGED = ("outcome", "rule", "candidate", "live", "suite", "task", "general")
_EXAMPLE = """example:
  python -m benchmarks.loop_stages --out loop.json
  python -m benchmarks.loop_stages --out loop.json --vllm-python ~/.forgegate/envs/vllm-cpu/bin/python --tiny

exit codes: 0 done, 1 a condition was violated or it did not come to its end, 2 bad usage, 3 the gateway could not be started"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _run(_parser().parse_args(words), words),
        {ValueError: EXIT_USAGE, ChildError: EXIT_ENVIRONMENT, GatewayError: EXIT_ENVIRONMENT},
    )


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.loop_stages", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE.json", help="result; the tables go to FILE.md")
    add("--workdir", type=Path, metavar="DIR", help="an empty folder; rows, runs and logs stay there")
    add(
        "--vllm-python",
        type=_interpreter,
        metavar="PATH",
        help="interpreter that has vLLM (default: forgegate finds it)",
    )
    add(
        "--vllm-options", type=_options, default={}, metavar="JSON", help="of the vLLM engine, on top of this program's"
    )
    add("--train-path", type=_folders, default=(), metavar="DIR:DIR",
        help="modules that only the commands find, before all others; the engines do not")  # fmt: skip
    add("--clients", type=arguments.whole(1), default=4, metavar="N", help="that stream meanwhile (default 4)")
    add(
        "--max-items",
        type=arguments.whole(1),
        metavar="N",
        help="of each task that the gate asks (default: until it can tell)",
    )
    add("--rows", type=arguments.whole(100), metavar="N", help="clean tickets to begin with (default: as the example)")
    add("--set", type=_setting, action="append", default=[], dest="settings", metavar="KEY=VALUE",
        help="a value of each training's recipe in place of the example's; any number of them")  # fmt: skip
    add("--retrains", action="store_true", help="train with another seed, too, and on wrong labels")
    add("--budget", type=arguments.number(1), default=3600.0, metavar="S", help="for all of it (default 3600)")
    add(
        "--tiny",
        action="store_true",
        help="a short form: few rows, steps and items, the alias moved whatever the gate says",
    )
    return parser


def _interpreter(text: str) -> str:
    """The gateway runs elsewhere, and `python:` may be a name to be found in PATH."""
    path = Path(text).expanduser()
    return str(path.absolute()) if path.is_file() else text


def _options(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")


def _setting(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE")
    return text


def _folders(text: str) -> tuple[str, ...]:
    found = tuple(str(Path(part).absolute()) for part in text.split(":") if part)
    if missing := next((part for part in found if not Path(part).is_dir()), None):
        raise argparse.ArgumentTypeError(f"{missing} is no folder")
    return found


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    deadline_s = time.monotonic() + options.budget
    if options.out.suffix != ".json":
        return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
    if options.workdir is not None and options.workdir.exists() and any(options.workdir.iterdir()):
        return refuse(f"--workdir {options.workdir}: must be empty", EXIT_USAGE)
    for name in ("max_items", "rows"):
        if options.tiny and getattr(options, name) is not None:
            return refuse(f"--{name.replace('_', '-')}: --tiny has its own", EXIT_USAGE)
    if not can_run():
        return refuse("this needs /proc, to see what is left running", EXIT_ENVIRONMENT)
    amounts = Amounts(options.tiny, options.max_items, options.rows, tuple(options.settings))
    todo = steps(amounts, has_retrains=options.retrains)
    gpu = gpu_memory.gpu()
    with workdir(options.workdir) as folder:
        chosen = pools(is_gpu=gpu is not None, vllm_python=options.vllm_python, vllm_options=options.vllm_options)
        gateway = LoopGateway(folder, chosen)
        shell = Shell(folder, gateway.home, options.train_path)
        clients = Clients(gateway.target, options.clients, [MODEL])
        findings = _measured(Loop(gateway, shell, clients, todo, deadline_s, options.tiny))
    return _report(findings, gpu, options, words)


@dataclass(slots=True)
class Loop:
    """One turn, and what was found so far: where it comes to no end, that stays found."""

    gateway: LoopGateway
    shell: Shell
    clients: Clients
    steps: Sequence[Step]
    deadline_s: float
    is_tiny: bool
    findings: Findings = field(default_factory=Findings)
    lives: list[list[str]] = field(default_factory=list)
    """What the alias served, one after the other."""

    async def run(self) -> None:
        """Raises GatewayError, ChildError where no engine starts."""
        began_s, measured = time.monotonic(), self.findings.measured
        left_s = self.deadline_s - began_s
        try:
            async with asyncio.timeout(left_s):
                await self._start()
        except TimeoutError as exc:
            raise GatewayError(f"both engines were not ready within the budget, {left_s:.0f} s") from exc
        measured["start_s"] = round(time.monotonic() - began_s, 2)
        try:
            async with self.clients:
                for step in self.steps:
                    await self._type(step)
        except (StepError, GatewayError) as exc:
            say(str(exc))
            measured["error"] = str(exc)
        measured |= {"total_s": round(time.monotonic() - began_s, 2), "clients": self.clients.as_dict()}
        self._judge()

    async def _start(self) -> None:
        await self.gateway.wait_admin(START_S)
        starts = await asyncio.gather(
            *(engine_start.watch(self.gateway, engine, MODEL, START_S, ask=False) for engine in ENGINES)
        )
        for engine, start in zip(ENGINES, starts, strict=True):
            if start.ready_s is None:
                raise GatewayError(f"{engine} did not start: {start.seen[-1][2]}")
        await self.gateway.wait_ready()
        told = {engine["id"]: engine["description"] for engine in await self.gateway.engines()}
        self.findings.measured["engines"] = [
            {"engine": engine, "description": told[engine], "ready_s": start.ready_s}
            for engine, start in zip(ENGINES, starts, strict=True)
        ]
        say(f"both engines are ready: {[start.ready_s for start in starts]} s")

    async def _type(self, step: Step) -> None:
        """Raises StepError, GatewayError."""
        say(f"{step.typed} ...")
        stages = self.findings.measured.setdefault("stages", [])
        try:
            done = await self.shell.type(step, self.deadline_s - time.monotonic())
        except StepError as exc:
            stages.append(exc.done.as_dict())
            raise
        stages.append(done.as_dict())
        say(f"    {done.seconds:.1f} s {', '.join(f'{one.name} {one.seconds:.1f}' for one in done.phases)}".rstrip())
        if step.name == PUBLISH:
            self.lives.append(await self.gateway.served(ALIAS))
            self.clients.models.append(ALIAS)
        elif step.name in (TRAIN, RETRAIN):
            await self._look_at_new("the flip" if step.name == TRAIN else "the retrain's flip")
        elif step.name == TRAIN_WRONG:
            now = await self.gateway.served(ALIAS)
            self.findings.check("what was trained on wrong labels is not served", now == self.lives[-1], now)
        elif step.name == ROLLBACK:
            await self._look_at_old()

    async def _look_at_new(self, flip: str) -> None:
        before, now = self.lives[-1], await self.gateway.served(ALIAS)
        self.lives.append(now)
        is_new = len(now) == 1 and now != before
        self.findings.check(f"{flip}: the alias serves the new version alone", is_new, f"{before} before, {now} now")
        await self._ask(f"after {flip}", f"{flip}: both engines answer by the new version", now)

    async def _look_at_old(self) -> None:
        before, new, now = self.lives[-2], self.lives[-1], await self.gateway.served(ALIAS)
        self.findings.check("the rollback is back at the version before", now == before != new, now)
        await self._ask("after the rollback", "both engines answer by the version before", before)

    async def _ask(self, when: str, condition: str, versions: Sequence[str]) -> None:
        asked, version = await read_ticket(self.gateway.target), versions[0] if versions else ""
        fault = asked.fault(version)
        self.findings.measured.setdefault("answers", {})[when] = asked.as_dict()
        self.findings.check(condition, not fault, fault or f"{len(asked.replies)} requests, all by {version}")

    def _judge(self) -> None:
        measured, check = self.findings.measured, self.findings.check
        packages = {name: version for name, version in self.shell.packages().items() if name in _TRAINERS}
        trained = [step.name for step in self.steps if step.name in RUNS]
        measured |= {"packages": packages, "trainings": [self._training(name) for name in trained]}
        check("it comes to its end", "error" not in measured, measured.get("error", "all commands"))
        for each in measured["trainings"]:
            self._check_verdict(each["stage"], (each["verdict"] or {}).get("outcome", ""))
        num, failed = self.clients.num_requests, self.clients.failed
        check("no request failed", not failed and num > 0, f"{num} requests; {failed[:3] or 'none failed'}")

    def _training(self, stage: str) -> dict[str, Any]:
        record = self.shell.record(RUNS[stage])
        judged = record.get("published", {}).get("judged") or {}
        verdict = {name: judged[name] for name in _JUDGED} if judged else None
        return {"stage": stage, "run": _told_of(record), "verdict": verdict}

    def _check_verdict(self, stage: str, outcome: str) -> None:
        found = outcome or "there is none"
        if stage == TRAIN_WRONG:
            self.findings.check(f"{stage}: the verdict is not GO", outcome not in ("", GO), found)
        else:
            is_met = outcome == GO or (self.is_tiny and bool(outcome))
            self.findings.check(f"{stage}: the verdict is GO", is_met, found)


def _measured(loop: Loop) -> Findings:
    child = loop.gateway.start()
    try:
        eventloop.run(loop.run())
    except GatewayError as exc:
        raise GatewayError(f"{exc}\nits log ends:\n{child.tail()}") from exc
    finally:
        child.stop()
    is_gone, when = asyncio.run(until(lambda: _is_gone(loop.gateway), GONE_S))
    loop.findings.check("nothing is left running", is_gone, when if is_gone else loop.gateway.processes())
    return loop.findings


async def _is_gone(gateway: LoopGateway) -> bool:
    return not gateway.processes()


def _told_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where it was not trained to the end."""
    result = record.get("result")
    if not result:
        return None
    return {name: record["data"][name] for name in _COUNTED} | {name: result[name] for name in _TOLD}


def _report(findings: Findings, gpu: gpu_memory.Gpu | None, options: argparse.Namespace, words: Sequence[str]) -> int:
    is_met = all(check.is_met for check in findings.checks)
    shown = {
        name: getattr(options, name)
        for name in ("clients", "max_items", "rows", "settings", "budget", "tiny", "vllm_options")
    }
    result = report.document(
        "loop-stages", ["python", "-m", "benchmarks.loop_stages", *words],
        versions={name: version for name in _VERSIONS if (version := version_of(name))},
        gpu=None if gpu is None else {"name": gpu.name, "driver": gpu.driver, "total_bytes": gpu.total_bytes},
        plan=shown, is_met=is_met, **findings.measured, checks=[asdict(check) for check in findings.checks],
    )  # fmt: skip
    table = "\n".join(loop_stages_report.markdown(result)) + "\n"
    report.write(options.out, report.dump(result))
    report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    return EXIT_DONE if is_met else EXIT_NEGATIVE


if __name__ == "__main__":
    sys.exit(main())
