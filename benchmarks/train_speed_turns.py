"""One turn: a training process from its start to its last counted update, watched from outside. Each turn is kept as a file of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import gpu_memory, report
from benchmarks.train_speed_plan import PLAIN, PROFILE_AT, Plan, recipe_text

PROFILE = "profile"
"""Of which variant: `profile:NAME` among the turns."""
_ROOT = Path(__file__).resolve().parents[1]
_GRACE_S, _CHECKPOINT_S = 4.0, 30.0


class TurnError(RuntimeError):
    """It came to no figures; the message holds the last lines of its log."""


@dataclass(slots=True)
class Watched:
    """What a training process has told."""

    events: list[dict[str, Any]] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    trained_s: float | None = None
    """When the first update began to be made."""

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def last(self, name: str) -> dict[str, Any]:
        found = self.of(name)
        return found[-1] if found else {}


def run(plan: Plan, name: str, folder: Path, timeout_s: float) -> dict[str, Any]:
    """A turn of `plain` or of a variant. Raises TurnError."""
    folder.mkdir(parents=True, exist_ok=True)
    is_profiled = name.startswith(f"{PROFILE}:")
    variant = name.removeprefix(f"{PROFILE}:")
    argv = _plain_argv(plan, folder, is_profiled) if variant == PLAIN else _own_argv(plan, variant, folder, is_profiled)
    with _memory() as memory:
        watched = watch(argv, folder / "log.txt", plan, timeout_s)
    return {
        "variant": variant, "settings": dict(plan.overrides(variant)), "is_profiled": is_profiled, **figures(watched, plan.warm_up),
        "nvml": memory.as_dict(), "took_s": round(time.monotonic() - watched.began_s, 1),
    }  # fmt: skip


def _plain_argv(plan: Plan, folder: Path, is_profiled: bool) -> list[str]:
    given = {
        "model": plan.model, "data": plan.data, "out": folder / "run", "steps": plan.steps, "batch": plan.batch,
        "accumulation": plan.accumulation, "sequence-len": plan.sequence_len, "rank": plan.rank, "dropout": plan.dropout,
        "seed": plan.seed,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "benchmarks.train_speed_plain", *words, *(["--profile"] if is_profiled else [])]


def _own_argv(plan: Plan, variant: str, folder: Path, is_profiled: bool) -> list[str]:
    """The command itself, as a user gives it."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe_text(plan, variant, is_profiled), "utf-8")
    return [sys.executable, "-m", "finetune.train", str(recipe), "--json", "--out", str(folder / "run")]


def watch(argv: Sequence[str], log: Path, plan: Plan, timeout_s: float) -> Watched:
    """Until it has trained; what it would do afterwards is not waited for. Raises TurnError."""
    watched = Watched()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env=environment() | {PROFILE_AT: str(plan.warm_up)},
        )  # fmt: skip
    timer = threading.Timer(timeout_s, _interrupt, [process])
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            _note(watched, line)
            if watched.of("done"):
                break
    finally:
        timer.cancel()
        _end(process)
    if not watched.of("done"):
        raise TurnError(_why(watched, log, process.returncode))
    return watched


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """What reads its output goes on until it has ended."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_CHECKPOINT_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _note(watched: Watched, line: bytes) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        return
    if not isinstance(event, dict) or "event" not in event:
        return
    watched.events.append(event)
    if watched.trained_s is None and event["event"] == "start":
        watched.trained_s = time.monotonic()


def environment() -> dict[str, str]:
    """In which the modules of this repository are found, and nothing is asked of a hub."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **offline, "PYTHONPATH": path}


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, which lets it end its own children; one that stays is killed."""
    for _ in range(4):
        if process.poll() is not None:
            break
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _why(watched: Watched, log: Path, code: int | None) -> str:
    told = [watched.last(name).get("message") for name in ("refused", "failed", "oom", "guard")]
    words = next(filter(None, told), f"it ended with exit code {code} before its last update")
    return "\n".join([words, *_tail(log), *_tail(log.parent / "run" / "log.txt")])


def _tail(log: Path) -> list[str]:
    return log.read_text("utf-8", "replace").splitlines()[-12:] if log.is_file() else []


def figures(watched: Watched, warm_up: int) -> dict[str, Any]:
    """Of the updates after the first `warm_up`. Raises TurnError where none is left."""
    steps = watched.of("step")[warm_up:]
    if not steps:
        raise TurnError("it made no update that counts")
    tokens, seconds = sum(step["num_tokens"] for step in steps), sum(step["seconds"] for step in steps)
    start, done = watched.last("start"), watched.last("done")
    return {
        "num_updates": len(steps), "num_tokens": tokens, "tok_s": round(tokens / seconds, 1),
        "median_tok_s": round(median(step["num_tokens"] / step["seconds"] for step in steps), 1),
        "ms_per_update": round(1e3 * median(step["seconds"] for step in steps), 1),
        "padding_share": _padding(steps, watched.last("data")), "peak_bytes": done.get("peak_bytes"),
        "attention": start.get("attention"), "dtype": start.get("dtype"), "device": start.get("device"),
        "num_trainable": start.get("num_trainable"), "notes": start.get("notes", []), "losses": [round(step["loss"], 4) for step in steps],
        "seconds": [step["seconds"] for step in steps], "tokens": [step["num_tokens"] for step in steps],
        "load_s": None if watched.trained_s is None else round(watched.trained_s - watched.began_s, 1),
    }  # fmt: skip


def _padding(steps: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> float | None:
    """Of all tokens that were computed: of these updates, or of an epoch where updates do not tell."""
    if "num_padding" in steps[0]:
        real, padding = (sum(step[name] for step in steps) for name in ("num_tokens", "num_padding"))
    elif "num_padding" in data:
        real, padding = data["num_tokens"], data["num_padding"]
    else:
        return None
    return round(float(padding / (real + padding)), 4)


@dataclass(slots=True)
class Memory:
    """Of the first GPU by whoever holds it, as the driver tells it several times a second."""

    used: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, int] | None:
        """None where there is no GPU. What was in use before is not the turn's."""
        if not self.used:
            return None
        return {
            "before_bytes": self.used[0],
            "peak_bytes": max(self.used),
            "own_peak_bytes": max(self.used) - self.used[0],
        }


@contextmanager
def _memory(interval_ms: int = 200) -> Iterator[Memory]:
    memory = Memory()
    if gpu_memory.gpu() is None:
        yield memory
        return
    memory.used.append(gpu_memory.used_bytes())
    process = subprocess.Popen(
        ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0", f"--loop-ms={interval_ms}"),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    reader = threading.Thread(target=_read, args=(process, memory), daemon=True)
    reader.start()
    try:
        yield memory
    finally:
        process.terminate()
        process.wait()
        reader.join(_GRACE_S)


def _read(process: subprocess.Popen[str], memory: Memory) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit():
            memory.used.append(int(line) * gpu_memory.MIB)


def keep(path: Path, turn: Mapping[str, Any]) -> None:
    report.write(path, report.dump(dict(turn)))
