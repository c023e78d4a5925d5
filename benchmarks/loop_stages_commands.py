"""The shipped example's commands as README has them, typed into a shell one after the other, each with its time."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loop_stages_phases import Phase, Told, phases

ROOT = Path(__file__).parent.parent
EXAMPLE = Path("deploy", "examples", "support-tickets")
RUN, RETRAINED, WRONG = (Path("outputs", name) for name in ("support", "retrained", "wrong"))
"""Runs: the recipe's, the same with another seed, and that on rows with wrong labels."""
ALIAS = "support"
_HEADING = "\n## Fine-tune and hot-swap\n"
TICKET = "저는 민지입니다. 주문 번호는 4812입니다. 색은 빨간색입니다. 타이머가 고장 났어요. 급해요."
END_S = 10.0
"""What is killed may clear up for so long."""
_LINE_BYTES = 1 << 26
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Step:
    """`more` comes on top of the line that README has."""

    name: str
    line: str
    more: str = ""
    exit_codes: tuple[int, ...] = (0,)

    @property
    def typed(self) -> str:
        """The whole line."""
        return f"{self.line} {self.more}".strip()


DATA, PUBLISH, TRAIN, CHAT, ROLLBACK = "data", "first adapter", "train and publish", "chat", "rollback"
RETRAIN, MISLABEL, TRAIN_WRONG = "retrain", "wrong labels", "retrain on wrong labels"
RUNS = {TRAIN: RUN, RETRAIN: RETRAINED, TRAIN_WRONG: WRONG}
_KNOWN = {
    "make_data.py": DATA, " data doctor ": "doctor", " data split ": "split", " adapters publish ": PUBLISH, " train ": TRAIN,
    " chat ": CHAT, " adapters rollback ": ROLLBACK,
}  # fmt: skip
"""What a line has -> the stage that it is."""
_FINDS_ERRORS = "doctor"
_FORCED = "--force 'the short form'"
RETRAIN_LINE = f"forgegate train recipe.yaml --set seed=43 --out {RETRAINED} --publish {ALIAS} --rule non-inferior"
WRONG_SHARE = 0.1
_WRONG_ROWS = "data/wrong.jsonl"


@dataclass(frozen=True, slots=True)
class Amounts:
    """What all commands get on top of README's lines."""

    is_tiny: bool = False
    """Few rows, steps and items, and the adapter goes live whatever the gate says."""
    max_items: int | None = None
    rows: int | None = None
    settings: tuple[str, ...] = ()
    """KEY=VALUE of the recipe, in place of the example's."""

    def of_data(self) -> str:
        rows = 300 if self.is_tiny else self.rows
        return f"--rows {rows}" if rows else ""

    def of_training(self) -> str:
        items = 20 if self.is_tiny else self.max_items
        settings = (*self.settings, *(["max_steps=20"] if self.is_tiny else []))
        words = (
            "--json",
            *(f"--set {shlex.quote(each)}" for each in settings),
            f"--max-items {items}" if items else "",
        )
        return " ".join(filter(None, words))

    def of_release(self) -> str:
        """Of a training that is to go live."""
        return f"{self.of_training()} {_FORCED if self.is_tiny else ''}".strip()


def steps(amounts: Amounts = Amounts(), *, has_retrains: bool = False) -> tuple[Step, ...]:
    """README's. With `has_retrains` two more before the chat: one with another seed, that is to go live, and one on wrong labels, that is
    not. Raises ValueError where README has none.
    """
    more = {PUBLISH: "--json", DATA: amounts.of_data(), TRAIN: amounts.of_release()}
    found: list[Step] = []
    for line in _lines((ROOT / "README.md").read_text("utf-8")):
        name = next((name for words, name in _KNOWN.items() if words in line), line)
        if name == CHAT and has_retrains:
            found += _retrains(amounts)
        found.append(Step(name, line, more.get(name, ""), (1,) if name == _FINDS_ERRORS else (0,)))
    return tuple(found)


def _retrains(amounts: Amounts) -> Iterator[Step]:
    yield Step(RETRAIN, RETRAIN_LINE, amounts.of_release())
    yield Step(
        MISLABEL, f"python -m benchmarks.wrong_labels data/train.jsonl --out {_WRONG_ROWS} --share {WRONG_SHARE:g}"
    )
    other = RETRAIN_LINE.replace("seed=43", f"seed=44 --set datasets.0.path={_WRONG_ROWS}").replace(
        str(RETRAINED), str(WRONG)
    )
    yield Step(TRAIN_WRONG, other, amounts.of_training(), (1,))


def _lines(readme: str) -> list[str]:
    """The section's commands, without comments, from the example's folder on."""
    section = readme.partition(_HEADING)[2].partition("\n## ")[0]
    block = section.partition("```bash\n")[2].partition("```")[0]
    begin, *lines = [line.split("  #")[0].rstrip() for line in block.splitlines()] or [""]
    if begin != f"cd {EXAMPLE}" or not lines:
        raise ValueError(f"README.md has no commands that begin with `cd {EXAMPLE}` under {_HEADING.strip()!r}")
    return [line for line in lines if line]


@dataclass(slots=True)
class Typed:
    """A command, and what came of it."""

    step: Step
    seconds: float = 0.0
    exit_code: int | None = None
    """None: it was ended from here."""
    out: str = ""
    told: list[Told] = field(default_factory=list)
    """Of what it wrote those lines that are events."""

    def read(self, line: str, at_s: float) -> None:
        """One line that it wrote."""
        self.out += line
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                self.told.append(Told(at_s, event))

    @property
    def phases(self) -> list[Phase]:
        """Of a training; of any other command none."""
        return phases(self.told, self.seconds) if self.step.name in RUNS else []

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        told = {
            "stage": self.step.name,
            "command": self.step.typed,
            "seconds": round(self.seconds, 2),
            "exit_code": self.exit_code,
        }
        return told | {"phases": [{"phase": one.name, "seconds": one.seconds} for one in self.phases]}


class StepError(RuntimeError):
    """A command did not end as it should. `done`: so far as it came."""

    def __init__(self, message: str, done: Typed) -> None:
        super().__init__(message)
        self.done = done


class Shell:
    """In a copy of the example, beside a gateway whose home it shares. What commands write is kept beside it."""

    def __init__(self, workdir: Path, home: Path, train_path: Sequence[str] = ()) -> None:
        """`train_path`: folders of modules that the commands find before all others, and the gateway does not."""
        self.folder = workdir / EXAMPLE
        self._logs = workdir
        shutil.copytree(ROOT / EXAMPLE, self.folder, ignore=shutil.ignore_patterns("data", "outputs", "__pycache__"))
        (workdir / "backends").symlink_to(
            ROOT / "backends"
        )  # README's way from the example to what is shipped beside it
        path = [*train_path, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        self._env = {
            **os.environ, "FORGEGATE_HOME": str(home), "PYTHONPATH": os.pathsep.join(path),
            "PATH": f"{_programs(workdir / 'bin')}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    async def type(self, step: Step, timeout_s: float) -> Typed:
        """Raises StepError where it ends otherwise than it should, or not in time; then all that it started has been killed."""
        done, timeout_s = Typed(step), max(0.0, timeout_s)
        log = self._logs / f"{step.name.replace(' ', '-')}.log"
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._type(done, log)
        except TimeoutError as exc:
            raise StepError(f"`{step.typed}` did not end within the budget, {timeout_s:.0f} s were left", done) from exc
        finally:
            done.seconds = time.monotonic() - began_s
        if done.exit_code not in step.exit_codes:
            said = (done.out + log.read_text("utf-8", "replace"))[-_TAIL:]
            raise StepError(f"`{step.typed}` ended with exit code {done.exit_code}:\n{said}", done)
        return done

    async def _type(self, done: Typed, log: Path) -> None:
        began_s = time.monotonic()
        with log.open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                "bash", "-c", done.step.typed, cwd=self.folder, env=self._env, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True, limit=_LINE_BYTES,
            )  # fmt: skip
        assert child.stdout is not None
        try:
            async for line in child.stdout:
                done.read(line.decode("utf-8", "replace"), time.monotonic() - began_s)
            done.exit_code = await child.wait()
        finally:
            await _end(child)

    def record(self, run: Path = RUN) -> Mapping[str, Any]:
        """Of a training's run; empty where there is none."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / run / "record.json").read_bytes()))
        return {}

    def packages(self) -> dict[str, str]:
        """With which it trained."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / RUN / "environment.json").read_bytes())["packages"])
        return {}


async def _end(child: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), END_S)


def _programs(folder: Path) -> Path:
    """`forgegate` and `python`, run by the interpreter that runs us: it need not be in PATH, nor forgegate be installed."""
    folder.mkdir()
    python = shlex.quote(sys.executable)
    for name, words in (("python", python), ("forgegate", f"{python} -P -m gateway.cli")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', "utf-8")
        path.chmod(0o755)
    return folder
