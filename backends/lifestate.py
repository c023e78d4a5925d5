"""The state of one engine's life and what is done to it and to the child; `backends.lifecycle` decides."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from backends.attempt import Attempt
from backends.base import LOOPBACK, Backend
from backends.errors import BackendError
from backends.inbox import Inbox
from backends.leaving import Leaving
from backends.logring import LogRing
from backends.lookout import Lookout
from backends.pause import Pause
from backends.probe import Prober
from backends.process import Launcher
from backends.restart import RestartPolicy
from backends.startclock import StartClock
from backends.status import Announce, Event, State, Status, Timing
from backends.ties import START, Ties


def free_port() -> int:
    """A TCP port of the loopback interface that is free now; by the time it is used another process may have it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class LifeState:
    """Changed by the one task that runs the life."""

    _leaving: Leaving
    """Set when that begins."""

    def __init__(
        self,
        backend: Backend,
        launcher: Launcher,
        prober: Prober,
        log: LogRing,
        announce: Announce,
        ties: Ties | None = None,
        timing: Timing | None = None,
        policy: RestartPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        pick_port: Callable[[], int] = free_port,
    ) -> None:
        self.status = Status()
        self.log = log
        self.backend = backend
        self._announce = announce
        self._ties = ties or Ties()
        self._timing = timing or backend.timing
        self._policy = policy or backend.policy
        self._clock = clock
        self._chance = chance
        self._pick_port = pick_port
        self._inbox = Inbox()
        self._lookout = Lookout(backend, launcher, prober, self._inbox)
        self._attempt = Attempt(backend, launcher, log)
        self._settled = asyncio.Event()
        self._early_deaths: tuple[float, ...] = ()
        self._num_port_retries = 0
        self._start = StartClock(self._ties.times, clock)
        self._pause = Pause(self._policy, clock)

    def _begin_launch(self) -> None:
        self._attempt.number += 1
        self._attempt.child = None
        self._start.reset(START)
        self._lookout.forget_probe()
        secret = self.backend.secret_for(secrets.token_urlsafe(32))
        self._change(
            address=self.backend.address(self._pick_port()), secret=secret, pid=None, ready_since=None, facts=None,
            num_restarts=self._attempt.number - 1, is_held=False, is_paused=False, sleep_level=0,
        )  # fmt: skip

    async def _spawn(self) -> str:
        """Start the child, if this backend has one; why not, else empty."""
        self._start.begin()
        try:
            child = await self._attempt.spawn(self.status, self._lookout.progressed)
        except BackendError as exc:
            return str(exc)
        if child is not None:
            self._change(pid=child.pid)
            self._lookout.follow(child, self._attempt.number)
        return ""

    async def _end_child(self) -> None:
        await self._attempt.end()
        self._change(pid=None)

    def _change(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]

    async def _enter(self, state: State, detail: str = "") -> None:
        self._change(state=state, detail=detail)
        self._start.tell(detail)
        if state is not State.STARTING:
            self._lookout.forget_admission()
            self._ties.gate.leave()
        if state not in (State.READY, State.BACKOFF):
            is_ahead = state in (State.STARTING, State.STOPPED, State.ASLEEP)
            self._change(retry_after_s=self._start.left_s() if is_ahead else 1.0)
        if self.status.is_paused:
            self._change(retry_after_s=self._pause.left_s)
        await self._announce(self.status)

    async def _tell_start(self, progress: str = "") -> None:
        words = self._start.words(self.backend.title, progress)
        if self._start.is_news(words):
            await self._enter(State.STARTING, words)

    async def _enter_rest(self, state: State) -> None:
        """STOPPED or ASLEEP; while it pauses, time and again: what is left of that, and in the end that it is over."""
        self._change(is_paused=not self.status.is_held and not self._pause.is_over)
        asleep = f"asleep (level {self.status.sleep_level}): " if state is State.ASLEEP else ""
        await self._enter(state, f"{asleep}{self._leaving.rest_words(self.status.is_paused)}")

    @property
    def _retell_s(self) -> float | None:
        """After this, what is left of the pause is to be told anew; None without one."""
        return self._pause.retell_s if self.status.is_paused else None

    async def _next(self, timeout_s: float | None) -> Event | None:
        """None after `timeout_s`."""
        return await self._inbox.next(self._attempt.number, timeout_s)

    def _probe(self) -> None:
        self._lookout.probe(self._attempt.number, self.status, self._timing.probe_timeout_s)
