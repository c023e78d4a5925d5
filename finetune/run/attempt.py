"""One attempt's training process, or several: each in a session of its own, followed line by line, ended in every case.

with Attempt(argv, log) as attempt:
    for event in attempt.events():
        ...
ended = attempt.ended
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backends.guardian import kill_group
from backends.pythons import child_env
from finetune.errors import TrainError
from finetune.run.ending import Ended
from finetune.run.folder import writing
from finetune.run.oomkills import num_oom_kills

STOP_PATIENCE_S = 600.0
"""For the step that runs and the checkpoint, once it is asked to stop."""
PEER_PATIENCE_S = 20.0
"""Once one of several processes has failed, or the first has ended: what the others wait for does not come."""


class Attempt:
    """Of several processes, a GPU each, the first talks. Their standard inputs are pipes that close when we die, which they watch; what is
    no event goes to `log`."""

    def __init__(
        self, argv: Sequence[str], log: Path, stop_patience_s: float = STOP_PATIENCE_S, num_processes: int = 1
    ) -> None:
        self._argv, self._log_path = argv, log
        self._stop_patience_s = stop_patience_s
        self._num_processes = num_processes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._waiters: list[threading.Thread] = []
        self._timers: list[threading.Timer] = []
        self._is_asked = False
        self._failure: int | None = None

    def __enter__(self) -> Self:
        """Raises TrainError."""
        self._num_kills = num_oom_kills()
        with writing(self._log_path):
            self._log = self._log_path.open("ab", buffering=0)
        try:
            for variables in world(self._num_processes):
                self._start(variables)
        except OSError as exc:
            self._end()
            raise TrainError(f"cannot start {self._argv[0]}: {exc.strerror or exc}") from exc
        return self

    @property
    def pid(self) -> int:
        """Of the one that talks."""
        return self._processes[0].pid

    def events(self) -> Iterator[dict[str, Any]]:
        """Until it ends, and whatever else of its group holds its output."""
        lines = self._processes[0].stdout
        assert lines is not None
        for line in lines:
            event = _event(line)
            if event is not None:
                yield event
            else:
                with suppress(OSError):  # a full disk is told by what matters more
                    self._log.write(line)

    def stop(self) -> None:
        """Ask for a checkpoint and the end; what takes too long is killed."""
        if self._is_asked:
            return
        self._is_asked = True
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        self._kill_in(self._stop_patience_s)

    def kill(self) -> None:
        """At once, with all that was started."""
        self._is_asked = True
        self._kill()

    @property
    def ended(self) -> Ended:
        """How it ended; only once its block has."""
        kills = num_oom_kills()
        return Ended(
            code=self._processes[0].returncode if self._failure is None else self._failure,
            is_asked=self._is_asked,
            num_oom_kills=None if kills is None or self._num_kills is None else kills - self._num_kills,
            last_words=_last_line(self._log_path),
        )

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self._end()

    def _start(self, variables: Mapping[str, str]) -> None:
        """Raises OSError."""
        out = subprocess.PIPE if not self._processes else self._log
        process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=out, stderr=self._log,
            env={**child_env(), "PYTHONUNBUFFERED": "1", **variables}, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        waiter = threading.Thread(target=self._follow_end, args=(process,), name="training process", daemon=True)
        self._waiters.append(waiter)
        waiter.start()

    def _follow_end(self, process: subprocess.Popen[bytes]) -> None:
        """Workers that a killed process leaves behind hold its output open: nobody would see that it is dead."""
        code = process.wait()
        kill_group(process.pid)
        if self._num_processes == 1:
            return
        is_failure = code != 0 and self._failure is None
        if is_failure:
            self._failure = code
        if is_failure or process is self._processes[0]:  # the one that saves what there is to save ends last
            self._kill_in(PEER_PATIENCE_S)

    def _kill_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._kill)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                kill_group(process.pid)

    def _end(self) -> None:
        """When the first has ended, or could not be started, the others are waited for as long as is due."""
        if not self._processes:
            self._log.close()
            return
        if len(self._processes) < self._num_processes:
            self._kill()
        for waiter in self._waiters:
            waiter.join()
        for timer in self._timers:
            timer.cancel()
        streams = [stream for process in self._processes for stream in (process.stdin, process.stdout)]
        for stream in (*streams, self._log):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def world(num_processes: int) -> Iterator[Mapping[str, str]]:
    """What each of several processes is told of the others, as `accelerate launch` does; one is told nothing."""
    if num_processes == 1:
        yield {}
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for rank in range(num_processes):
        number = str(rank)
        yield {
            "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "RANK": number, "LOCAL_RANK": number,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip


def _event(line: bytes) -> dict[str, Any] | None:
    """None for what a library printed."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return None


def _last_line(path: Path) -> str:
    """Of the end of a file that may be long."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
