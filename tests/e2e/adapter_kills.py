"""Kill the gateway at random moments of commands on adapters, again and again in one home: python -m tests.e2e.adapter_kills --kills 50

After every kill the next gateway is started at once. The state that it finds is the one before the command, or one that the
command makes durable; a publication makes two: the version as a candidate, then the alias. A command that was answered is not
undone. Commands are drawn from the seed and the state, those first whose kind was killed least; where in a command a kill lands is
up to the machine.
"""

from __future__ import annotations

import argparse
import queue
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from backends.errors import AdminError
from benchmarks import arguments, report
from tests.e2e.adapter_stage import Gateway, Shares, Stage, State

ADAPTERS = ("host", "pilot", "tiger")
NAMES = ("support", "sales")
CANDIDATE_NAMES = (*NAMES, "next")
NUM_SLOTS = 3
MAX_PINNED = 1
"""What a split serves, and a pinned version, fit side by side."""
KINDS = ("publish", "candidate", "flip", "split", "rollback", "pin", "unpin", "unload", "remove")
FOUND = ("old", "candidate", "new", "same")
START = "the first start"
NONE: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Command:
    """`states`: what it makes durable, in order; the last is what was asked for."""

    kind: str
    words: str
    states: tuple[State, ...]
    run: Callable[[Gateway], object]


@dataclass(frozen=True, slots=True)
class Kill:
    number: int
    kind: str
    words: str
    after_s: float
    """Since the command was sent."""
    is_answered: bool
    """The answer was whole although the kill fell before it was seen."""
    found: str
    """`old`, `new`, `candidate` (of a publication: the version is there, the alias has not moved), `same`: old and new are one."""
    restart_s: float

    def __str__(self) -> str:
        answered = ", answered" if self.is_answered else ""
        when = f"killed after {self.after_s * 1000:.1f} ms{answered}"
        return f"{self.number:3d}  {self.words}: {when}: {self.found}; up again after {self.restart_s:.1f} s"


class Commands:
    """Draws what may be asked for in a state."""

    def __init__(self, chance: random.Random, digests: dict[str, str]) -> None:
        self._chance = chance
        self._digests = digests

    def draw(self, state: State, kinds: Sequence[str] = KINDS, num_killed: Mapping[str, int] = NONE) -> Command:
        """One of the possible kinds that was killed least."""
        for kind in sorted(self._chance.sample(kinds, len(kinds)), key=lambda kind: num_killed.get(kind, 0)):
            if command := getattr(self, f"_{kind}")(state):
                assert isinstance(command, Command)
                return command
        raise AssertionError(f"none of {kinds} can be asked for in {state}")

    def _publish(self, state: State, is_candidate_only: bool = False) -> Command:
        name = self._chance.choice(CANDIDATE_NAMES if is_candidate_only else NAMES)
        adapter = self._adapter(state)
        version = f"{name}@{self._digests[adapter][:12]}"
        added = state.added(version, self._digests[adapter])
        moved = added.moved(name, "flip", ((version, 1),))
        kind, states = ("candidate", (added,)) if is_candidate_only else ("publish", (added, moved))
        return Command(
            kind, f"{kind} {adapter} as {name}", states,
            lambda gateway: gateway.publish(adapter, name, is_candidate_only),
        )  # fmt: skip

    def _candidate(self, state: State) -> Command:
        return self._publish(state, is_candidate_only=True)

    def _flip(self, state: State) -> Command | None:
        return self._point("flip", state, 1)

    def _split(self, state: State) -> Command | None:
        return self._point("split", state, 2)

    def _point(self, kind: str, state: State, num: int) -> Command | None:
        if len(state.versions) < num:
            return None
        alias = self._chance.choice(NAMES)
        shares = tuple((name, self._chance.randint(1, 9)) for name in self._chance.sample(sorted(state.versions), num))
        return Command(
            kind, f"{kind} {alias} to {_words(shares)}", (state.moved(alias, kind, shares),),
            lambda gateway: gateway.admin_api.point(alias, dict(shares)),
        )  # fmt: skip

    def _rollback(self, state: State) -> Command | None:
        aliases = [alias for alias, shares in state.previous.items() if shares]
        if not aliases:
            return None
        alias = self._chance.choice(aliases)
        return Command(
            "rollback", f"rollback {alias}", (state.moved(alias, "rollback", state.previous[alias]),),
            lambda gateway: gateway.admin_api.rollback(alias),
        )  # fmt: skip

    def _pin(self, state: State) -> Command | None:
        names = sorted(state.versions) if len(state.pinned) < MAX_PINNED else []
        return self._change("pin", names, lambda name: state.with_pins(*state.pinned, name))

    def _unpin(self, state: State) -> Command | None:
        return self._change("unpin", sorted(state.pinned), lambda name: state.with_pins(*state.pinned - {name}))

    def _unload(self, state: State) -> Command | None:
        return self._change("unload", sorted({*state.versions} - state.pinned), lambda _: state)

    def _change(self, kind: str, names: Sequence[str], after: Callable[[str], State]) -> Command | None:
        if not names:
            return None
        name = self._chance.choice(names)
        return Command(
            kind, f"{kind} {name}", (after(name),), lambda gateway: gateway.admin_api.change_adapter(name, kind)
        )

    def _remove(self, state: State) -> Command | None:
        names = sorted({*state.versions} - state.used)
        if not names:
            return None
        name = self._chance.choice(names)
        return Command(
            "remove", f"remove {name}", (state.removed(name),), lambda gateway: gateway.admin_api.remove_adapter(name)
        )

    def _adapter(self, state: State) -> str:
        """Rather one that is not on the disk."""
        absent = [adapter for adapter in ADAPTERS if self._digests[adapter] not in state.versions.values()]
        return self._chance.choice(absent if absent and self._chance.random() < 0.7 else ADAPTERS)


class Campaign:
    """`num_whole` counts the commands that no kill befell."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.num_whole: Counter[str] = Counter()
        self._stage = Stage(folder, NUM_SLOTS)
        self._chance = random.Random(seed)
        self._commands = Commands(self._chance, self._stage.digests)
        self._state = State()
        self._seconds: dict[str, list[float]] = {}
        """That commands of a kind took when nobody was killed."""
        self._num_killed: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1)
        self.doing = START

    def run(self, num_kills: int) -> Iterator[Kill]:
        """AssertionError at the first violation, AdminError where a command is refused that ought to work."""
        gateway = self._begin()
        try:
            for number in range(1, num_kills + 1):
                command, after_s, answer = self._kill_inside(gateway)
                gateway.__exit__()
                gateway, restart_s = self._restart()
                found = self._judge(gateway, command, is_answered=answer is None)
                yield Kill(number, command.kind, command.words, after_s, answer is None, found, restart_s)
                self._whole(gateway, self._commands.draw(self._state))
        finally:
            gateway.__exit__()
            self._thread.shutdown()

    def _begin(self) -> Gateway:
        """A first gateway, in which every kind of command has worked once."""
        gateway, _ = self._restart()
        self.doing = "first publications"
        for adapter in ADAPTERS:
            began_s = time.monotonic()
            event = gateway.publish(adapter, NAMES[0], is_candidate_only=False)
            self._seconds.setdefault("publish", []).append(time.monotonic() - began_s)
            self._stage.digests[adapter] = event["digest"]
            self._state = self._state.added(event["version"], event["digest"])
            self._state = self._state.moved(NAMES[0], "flip", ((event["version"], 1),))
        for kind in KINDS:
            self._whole(gateway, self._commands.draw(self._state, [kind]))
        assert self._stage.examined(gateway) == self._state
        return gateway

    def _restart(self) -> tuple[Gateway, float]:
        began_s = time.monotonic()
        gateway = self._stage.start()
        try:
            gateway.wait_ready()
        except BaseException:
            gateway.__exit__()
            raise
        return gateway, time.monotonic() - began_s

    def _kill_inside(self, gateway: Gateway) -> tuple[Command, float, BaseException | None]:
        """A command in which control was killed, when, and what its client saw; those that were done sooner count as whole."""
        while True:
            command = self._commands.draw(self._state, KINDS, self._num_killed)
            self.doing = command.words
            limit_s = self._chance.uniform(0.0, self._chance.choice(self._seconds[command.kind]))
            began_s = time.monotonic()
            running = self._thread.submit(command.run, gateway)
            with suppress(TimeoutError):
                running.result(limit_s)
                self._account(gateway, command, time.monotonic() - began_s)
                continue
            gateway.signal(signal.SIGKILL)
            after_s = time.monotonic() - began_s
            gateway.wait()
            self._num_killed[command.kind] += 1
            return command, after_s, _cut(running)

    def _judge(self, gateway: Gateway, command: Command, is_answered: bool) -> str:
        """What was found, in a word; it is the state from now on."""
        self.doing = f"start after the kill in {command.words!r}"
        found, before = self._stage.examined(gateway), self._state
        allowed = command.states[-1:] if is_answered else (before, *command.states)
        assert found in allowed, _difference(found, before, command)
        self._state = found
        if before == command.states[-1]:
            return "same"
        return "new" if found == command.states[-1] else "old" if found == before else "candidate"

    def _whole(self, gateway: Gateway, command: Command) -> None:
        self.doing = command.words
        began_s = time.monotonic()
        command.run(gateway)
        self._account(gateway, command, time.monotonic() - began_s)

    def _account(self, gateway: Gateway, command: Command, seconds: float) -> None:
        """A command that went through."""
        self.num_whole[command.kind] += 1
        self._seconds.setdefault(command.kind, []).append(seconds)
        found, before, self._state = gateway.state(), self._state, command.states[-1]
        assert found == self._state, _difference(found, before, command)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    if options.out is not None and options.out.suffix != ".json":
        return _refuse(f"--out {options.out}: must end in .json", 2)
    folder = Path(tempfile.mkdtemp(prefix="forgegate-kills-"))
    campaign, kills = Campaign(folder, options.seed), list[Kill]()
    try:
        for kill in campaign.run(options.kills):
            kills.append(kill)
            print(kill, flush=True)
    except KeyboardInterrupt:
        return _refuse("stopped", 130)
    except (AssertionError, AdminError, httpx.HTTPError, queue.Empty) as exc:
        if campaign.doing == START:
            return _refuse(f"the gateway cannot be started: {exc}", 3)
        print(f"VIOLATED after {len(kills)} kills, {campaign.doing}: {exc or type(exc).__name__}\nkept: {folder}")
        return 1
    shutil.rmtree(folder)
    result = _document(kills, campaign, options, words)
    table = _markdown(result)
    if options.out is not None:
        report.write(options.out, report.dump(result))
        report.write(options.out.with_suffix(".md"), table.encode())
    print(f"\n{table}", end="")
    return 0


def _refuse(reason: str, code: int) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return code


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m tests.e2e.adapter_kills", description=__doc__)
    add = parser.add_argument
    add("--kills", type=arguments.whole(1), default=50, metavar="N", help="default 50")
    add("--seed", type=arguments.whole(0), default=1, help="of the commands and the moments (default 1)")
    add("--out", type=Path, metavar="FILE.json", help="result; the table goes to FILE.md")
    return parser


def _cut(running: Future[object]) -> BaseException | None:
    """What a killed command ended with; None for an answer. AdminError where it was refused."""
    error = running.exception()
    if error is not None and not (isinstance(error, AdminError) and error.status == 0):
        raise error
    return error


def _words(shares: Shares) -> str:
    return ", ".join(f"{name}={weight}" for name, weight in shares)


def _difference(found: State, before: State, command: Command) -> str:
    """Field by field where it is not what was asked for."""
    wanted = command.states[-1]
    return "\n".join(
        f"  {name}: found {getattr(found, name)}\n    before {getattr(before, name)}\n    asked for {getattr(wanted, name)}"
        for name in State.__dataclass_fields__
        if getattr(found, name) != getattr(wanted, name)
    )


def _document(
    kills: Sequence[Kill], campaign: Campaign, options: argparse.Namespace, words: Sequence[str]
) -> dict[str, Any]:
    return report.document(
        "adapter-kills", ["python", "-m", "tests.e2e.adapter_kills", *words], seed=options.seed, num_violations=0,
        num_kills=len(kills), num_whole=dict(campaign.num_whole), kills=[asdict(kill) for kill in kills],
    )  # fmt: skip


def _markdown(result: dict[str, Any]) -> str:
    """By kind of command."""
    kills, whole = result["kills"], result["num_whole"]
    rows = [_row(kind, [kill for kill in kills if kill["kind"] == kind], whole.get(kind, 0)) for kind in KINDS]
    rows.append(_row("all", kills, sum(whole.values())))
    restarts = sorted(kill["restart_s"] for kill in kills)
    machine = result["environment"]
    return "\n".join([
        f"{len(kills)} kills of control inside commands on adapters, {result['num_violations']} violations.", "",
        f"| command | killed after ms, median / max | kills | {' | '.join(FOUND)} | answered | not killed |",
        "|---|--:|" + "--:|" * (len(FOUND) + 3), *rows, "",
        f"Ready again after {restarts[len(restarts) // 2]:.1f} s (median), {restarts[-1]:.1f} s at most, each start at once after "
        "the kill. Found `old`: the state before the command; `new`: what it asked for; `candidate`: the published version is "
        "there, its alias has not moved; `same`: old and new are one. Answered: the answer was whole when the kill came.", "",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores; forgegate {machine['versions'].get('forgegate', '')}; "
        f"seed {result['seed']}.", "",
    ])  # fmt: skip


def _row(kind: str, kills: Sequence[dict[str, Any]], num_whole: int) -> str:
    after_ms = sorted(kill["after_s"] * 1000 for kill in kills)
    moments = f"{after_ms[len(after_ms) // 2]:.1f} / {after_ms[-1]:.1f}" if kills else ""
    found = Counter(kill["found"] for kill in kills)
    num_answered = sum(kill["is_answered"] for kill in kills)
    numbers = (len(kills), *(found[word] for word in FOUND), num_answered, num_whole)
    return f"| {kind} | {moments} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the gateway is stopped then, too
    sys.exit(main())
