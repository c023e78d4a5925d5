"""Workers and engines of a gateway are killed under load, and every request is held to account: `python -m benchmarks.chaos`.

It starts `forgegate serve` with several workers and llama.cpp engines, lets clients of every API send requests, streamed and whole,
some of which they give up on the way, and kills each worker and each engine in turn, in random order at random times. Every
request must end in exactly one terminal event; a connection without a valid end is allowed only where the worker that held it was
killed. Afterwards everything must answer again, all counters must be zero, and when control is killed nothing may be left running.
Linux only: whose connections a worker holds, and what is left, is read from /proc.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks import arguments, chaos_report, eventloop, report
from benchmarks.arguments import Parser
from benchmarks.chaos_client import Outcome, Traffic
from benchmarks.chaos_gateway import Gateway, GatewayError, Victim, can_run, halt
from benchmarks.chaos_verdict import Ending
from benchmarks.child import ChildError
from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE, ended, refuse
from benchmarks.engine_choice import CHOICES, LLAMACPP, Needs

_EXAMPLE = """example:
  python -m benchmarks.chaos --seconds 120 --out benchmarks/results/chaos.json

exit codes: 0 done, 1 something was violated, 2 bad usage, 3 the gateway could not be started"""

NEEDS = Needs(num_streams=16, num_tokens=256)
RECOVERY_S = 60.0
REST_S = 20.0
LEFT_S = 2.0
"""After this nothing may be left of a gateway whose control was killed."""
MAX_YOUNG = 3
"""So often in a row an engine is killed that has just come back: after five, forgegate gives it up."""
_KILL_EVERY_S = (0.4, 2.0)
_STOPPED_SHARE = 0.15

T = TypeVar("T")


@dataclass(slots=True)
class Kill:
    """One process, killed or stopped."""

    at_s: float
    role: str
    name: str
    signal: str
    num_connections: int
    """Of our clients, that it held."""
    back_after_s: float | None = None
    """Until its successor served; None when it did not before the end."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim about the whole, and whether it held."""

    name: str
    is_met: bool
    found: str


@dataclass(slots=True)
class Campaign:
    """What happened."""

    outcomes: list[Outcome] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    load_s: float = 0.0
    num_counted: int = 0
    """Requests in the gateway's own counters at the end."""

    @property
    def is_met(self) -> bool:
        """Nothing was violated."""
        violated = any(outcome.ending is Ending.VIOLATION for outcome in self.outcomes)
        return not violated and all(check.is_met for check in self.checks)

    def check(self, name: str, is_met: bool, found: object) -> None:
        """Add a claim."""
        self.checks.append(Check(name, is_met, str(found)))


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(
        lambda: _run(_parser().parse_args(words), words), {ChildError: EXIT_ENVIRONMENT, GatewayError: EXIT_ENVIRONMENT}
    )


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.chaos", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--seconds", type=arguments.number(1.0), default=120.0, metavar="S", help="under fire (default 120)")
    add("--workers", type=arguments.whole(1), default=4, metavar="N", help="data workers (default 4)")
    add("--engines", type=arguments.whole(1), default=2, metavar="N", help="llama.cpp engines (default 2)")
    add("--clients", type=arguments.whole(1), default=24, metavar="N", help="requests at a time (default 24)")
    add("--model", default="demo", help="what the engines load (default: the demo model)")
    add("--seed", type=arguments.whole(0), default=1, help="of requests and kills (default 1)")
    add("--workdir", type=Path, metavar="DIR", help="an empty folder; configuration and logs stay there")
    add("--out", type=Path, metavar="FILE.json", help="result; the tables go to FILE.md")
    return parser


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    if not can_run():
        return refuse("this needs /proc, to see whose connections a worker holds", EXIT_ENVIRONMENT)
    if options.out is not None and options.out.suffix != ".json":
        return refuse(f"--out {options.out}: must end in .json", EXIT_USAGE)
    with _workdir(options.workdir) as workdir:
        pool = CHOICES[LLAMACPP].pool(options.model, options.engines, NEEDS)
        gateway = Gateway(workdir, options.workers, {"demo": pool})
        child = gateway.start()
        try:
            campaign = eventloop.run(run_campaign(gateway, options))
        finally:
            child.stop()
    result = chaos_report.document(["python", "-m", "benchmarks.chaos", *words], options, campaign)
    table = chaos_report.markdown(result)
    if options.out is not None:
        report.write(options.out, report.dump(result))
        report.write(options.out.with_suffix(".md"), table.encode())
    print(table, end="")
    return EXIT_DONE if campaign.is_met else EXIT_NEGATIVE


@contextmanager
def _workdir(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="forgegate-chaos-") as made:
        yield Path(made)


async def run_campaign(gateway: Gateway, options: argparse.Namespace) -> Campaign:
    """From the gateway's start to its end. Raises ChildError, GatewayError."""
    campaign = Campaign()
    await gateway.wait_ready()
    await _until(lambda: _all_up(gateway, options), RECOVERY_S)
    traffic = Traffic(gateway.target, gateway.model, options.seed)
    traffic.start(options.clients)
    start_s = _now()
    watch = asyncio.create_task(_watch_counters(gateway, campaign))
    await _fire(gateway, traffic, campaign, options)
    campaign.load_s = _now() - start_s
    await traffic.stop()
    campaign.check("all workers and engines are up again", *await _until(lambda: _all_up(gateway, options), RECOVERY_S))
    watch.cancel()
    last = await traffic.ask_once(2 * options.workers * options.engines)
    answered = sum(outcome.ending is Ending.ANSWERED for outcome in last)
    campaign.check("every request after the last kill is answered", answered == len(last), f"{answered} of {len(last)}")
    campaign.outcomes = [*traffic.outcomes, *last]
    await _check_rest(gateway, campaign, traffic.num_sent)
    await _check_end(gateway, campaign)
    return campaign


async def _fire(gateway: Gateway, traffic: Traffic, campaign: Campaign, options: argparse.Namespace) -> None:
    """Kill each worker and each engine in turn, in an order that is drawn anew each time round."""
    dice = random.Random(options.seed)
    start_s = _now()
    returns: set[asyncio.Task[None]] = set()
    bag: list[tuple[str, str]] = []
    num_young: Counter[str] = Counter()
    while _now() - start_s < options.seconds:
        await asyncio.sleep(dice.uniform(*_KILL_EVERY_S))
        if not bag:
            bag = [*(("worker", str(n)) for n in range(options.workers))]
            bag += [("engine", f"{gateway.model}-{n}") for n in range(options.engines)]
            dice.shuffle(bag)
        victims = {
            (victim.role, victim.name): victim
            for victim in await gateway.victims()
            if not victim.is_young or num_young[victim.name] < MAX_YOUNG
        }
        due = next((place for place in bag if place in victims), None)  # the others are still on their way back
        if due is None:
            continue
        bag.remove(due)
        num_young[due[1]] = num_young[due[1]] + 1 if victims[due].is_young else 0
        must_stop = due[0] == "worker" and dice.random() < _STOPPED_SHARE
        kill = _strike(gateway, traffic, victims[due], must_stop, _now() - start_s)
        campaign.kills.append(kill)
        task = asyncio.create_task(_note_return(gateway, victims[due], kill))
        returns.add(task)
        task.add_done_callback(returns.discard)
    if returns:
        await asyncio.wait(returns, timeout=RECOVERY_S)


def _strike(gateway: Gateway, traffic: Traffic, victim: Victim, must_stop: bool, at_s: float) -> Kill:
    """SIGKILL; or, where it `must_stop`, SIGSTOP, which leaves it to the gateway to notice."""
    num_connections = 0
    if victim.role == "worker" and halt(victim.pid):  # halted, it takes no connection that we would not see
        ports = gateway.client_ports(victim.pid)
        traffic.condemn(ports)
        num_connections = len(ports)
    number = signal.SIGSTOP if must_stop else signal.SIGKILL
    with suppress(ProcessLookupError):  # the gateway was faster
        os.kill(victim.pid, number)
    return Kill(round(at_s, 2), victim.role, victim.name, number.name, num_connections)


async def _note_return(gateway: Gateway, victim: Victim, kill: Kill) -> None:
    start_s = _now()

    async def is_back() -> bool:
        return any(
            (v.role, v.name) == (victim.role, victim.name) and v.pid != victim.pid for v in await gateway.victims()
        )

    if (await _until(is_back, RECOVERY_S))[0]:
        kill.back_after_s = round(_now() - start_s, 2)


async def _watch_counters(gateway: Gateway, campaign: Campaign) -> None:
    """What was counted stays counted, whoever dies."""
    highest = 0.0
    while True:
        now = (await gateway.samples())["requests"]
        if now < highest:
            campaign.check("counters never fall", False, f"{highest:g} requests, then {now:g}")
        highest = max(highest, now)
        await asyncio.sleep(0.5)


async def _all_up(gateway: Gateway, options: argparse.Namespace) -> bool:
    num_expected: int = options.workers + options.engines
    return len(await gateway.victims()) == num_expected


async def _check_rest(gateway: Gateway, campaign: Campaign, num_sent: int) -> None:
    """With no request left, nobody may still count one."""

    async def engines_idle() -> bool:
        loads = [(engine["num_requests"], engine["load"]) for engine in await gateway.engines()]
        return all(
            num == 0 and load and load["num_running"] == load["num_waiting"] == load["kv_usage"] == 0
            for num, load in loads
        )

    async def counters_zero() -> bool:
        samples = await gateway.samples()
        names = ("forgegate_requests_running", "forgegate_outstanding_tokens", "forgegate_connections")
        expected = [0.0, 0.0, 1.0]  # the connection that asks is one
        return [samples[name] for name in names] == expected

    campaign.check("engines are idle, their KV cache is empty", *await _until(engines_idle, REST_S))
    campaign.check(
        "running requests, outstanding tokens and connections are zero", *await _until(counters_zero, REST_S)
    )
    counted = campaign.num_counted = int((await gateway.samples())["requests"])
    campaign.check("no request is counted twice", counted <= num_sent, f"{counted} counted, {num_sent} sent")


async def _check_end(gateway: Gateway, campaign: Campaign) -> None:
    """Control is killed, and everything goes with it."""
    before = len(gateway.processes())
    start_s = _now()
    gateway.kill()

    async def all_gone() -> bool:
        return not gateway.processes()

    is_gone, _ = await _until(all_gone, LEFT_S)
    found = f"{before} processes gone after {_now() - start_s:.2f} s" if is_gone else f"left: {gateway.processes()}"
    campaign.check(f"nothing is left {LEFT_S:g} s after control was killed", is_gone and before > 0, found)


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> tuple[bool, str]:
    """Whether it came true in time, and when."""
    start_s = _now()
    is_true = await condition()
    while not is_true and _now() - start_s < timeout_s:
        await asyncio.sleep(0.1)
        is_true = await condition()
    return is_true, f"{'after' if is_true else 'not within'} {_now() - start_s:.1f} s"


def _now() -> float:
    return asyncio.get_running_loop().time()


if __name__ == "__main__":
    sys.exit(main())
