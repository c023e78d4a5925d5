"""The life of one engine: a state machine in one task that owns all of its state; everybody else sends commands.

                    start                200                    stop / restart / drain / sleep
        stopped ----------> starting ----------> ready ----------------------------> draining -> stopped | starting | asleep
         ^ ^  ^              |  |  ^               ^ |                                  |
         | |  '- not let in -'  |  |               | '- death, or too many missed       |
         | |                    |  | delay over    |    probes: backoff                 |
         | |              death |  |               '--- a command, or a request that ---'
         | |                    v  |                    still runs, keeps it
         | '------- stop ----- backoff
         |                      | too many early deaths; or, from any of these, the engine refuses its configuration,
         |                      v or its output says that no other try will end better
         |                    failed --- restart --> starting
         | death, stop        start
        asleep -------------------> starting: it wakes, in the process that it has; not let in, it sleeps on

`starting` has three parts: what is loaded is made, the gate is passed (memory, and its turn), the child becomes ready. A
sleeping engine wakes through the gate, too. In `draining` nobody sends it new requests, and the running ones end first; then
it falls asleep, or its child is told to end. Only a drain that makes way for others, or for idleness, gives up where requests
run on; a drain by command takes its place. A request that waits starts what is stopped or asleep, but not what was stopped by
a drain by command, or has failed, nor, for a while, what rests since its start failed or it was not let in. An engine that
cannot fall asleep is stopped. An engine without a child (remote) lives the same life: it never dies, it only stops answering.
"""

from __future__ import annotations

from backends.base import Facts, Identity
from backends.errors import BackendError, ProbeFailed
from backends.leaving import Leaving, Phase
from backends.lifestate import LifeState
from backends.process import REFUSED, exit_words
from backends.status import (
    Admitted,
    Drain,
    Event,
    Exited,
    Prepared,
    Preparing,
    Probed,
    ProbeNow,
    Progressed,
    Refused,
    Restart,
    Start,
    State,
    Stop,
    Turned,
)  # fmt: skip
from backends.ties import START, WAKE

MAX_PORT_RETRIES = 5
DRAIN_LOOK_S = 0.05
LAST_S = 1.0
"""For the child to end where its requests used up the grace."""


class EngineLife(LifeState):
    """One engine, supervised. `run` is the task; the other public methods send it commands."""

    # Commands ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start unless it runs; wake it if it sleeps."""
        self._inbox.put(Start())

    def want(self) -> None:
        """A request waits for it: start or wake it, unless that takes a command."""
        self._inbox.put(Start(is_wanted=True))

    def restart(self) -> None:
        """Drain and start anew; a failed or waiting engine starts at once."""
        self._inbox.put(Restart())

    def stop(self, grace_s: float | None = None) -> None:
        """Drain and stay stopped; a second call with a smaller grace hurries the first."""
        self._inbox.put(Stop(self._timing.stop_grace_s if grace_s is None else grace_s, is_last=False))

    def drain(self, drain: Drain) -> None:
        """Sleep or stop once no request runs. One that is not ready can only stop."""
        self._inbox.put(drain)

    def close(self, grace_s: float | None = None) -> None:
        """Stop and end `run`."""
        self._inbox.put(Stop(self._timing.stop_grace_s if grace_s is None else grace_s, is_last=True))

    def probe_now(self) -> None:
        """Somebody had trouble with this engine: look now rather than at the next tick."""
        self._inbox.put(ProbeNow())

    async def settled(self) -> None:
        """Until the first start came to an end, good or bad."""
        await self._settled.wait()

    # The task ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        self._leaving = Leaving(self._stopped, "", "", 0.0)
        phase: Phase | None = self._rest
        try:
            while phase is not None:
                phase = await phase()
        finally:
            if self._attempt.child is not None:
                self._attempt.child.kill()
            self._lookout.close()
            self._ties.gate.leave()
            self._settled.set()

    async def _stopped(self) -> Phase | None:
        self._start.reset(START)
        self._change(pid=None, is_held=self._leaving.is_held)
        await self._enter_rest(State.STOPPED)
        self._settled.set()
        return await self._rest()

    async def _failed(self) -> Phase | None:
        self._settled.set()
        return await self._rest()

    async def _rest(self) -> Phase | None:
        """Nothing runs: only commands matter, and requests that may start it."""
        while True:
            match await self._next(self._retell_s):
                case None:
                    await self._enter_rest(self.status.state)
                case Start(is_wanted=True) if not self.status.may_be_wanted:
                    continue
                case Start() | Restart():
                    self._early_deaths, self._num_port_retries = (), 0
                    return self._starting
                case Stop(is_last=True):
                    return None
                case Stop() as stop if self.status.state is State.FAILED:
                    return self._drain_for(stop)
                case Drain(is_command=True, level=0) as drain:
                    return self._make_way(drain)
                case _:
                    continue

    async def _starting(self) -> Phase | None:
        self._begin_launch()
        await self._enter(State.STARTING, self._start.words(self.backend.title))
        self._lookout.prepare(self._attempt.number)
        while True:
            match await self._next(None):
                case Preparing(text=text):
                    self.log.add(f"(control) {text}")
                    await self._enter(State.STARTING, text)
                case Prepared(outcome=BackendError() as error):
                    return await self._give_up(str(error))
                case Prepared(outcome=Identity() as identity):
                    self._change(identity=identity)
                    if problem := self._ties.refuse(identity):
                        return await self._give_up(problem)
                    self._lookout.admit(self._attempt.number, self._ties.gate)
                case Admitted(problem=""):
                    problem = await self._spawn()
                    return await self._give_up(problem) if problem else self._loading
                case Admitted(problem=problem):
                    self._fail_start(problem)
                    return self._stopped
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase

    async def _loading(self) -> Phase | None:
        """Its child runs, or is awake again, and answers soon."""
        timeout_s, last, progress = self._timing.start_timeout_s, "it was not asked", ""
        deadline = self._clock() + timeout_s
        while True:
            match await self._next(self._timing.start_poll_s):
                case Progressed(text=text):
                    progress = text
                case Exited(code=code):
                    return await self._after_exit(code)
                case Probed(outcome=Facts() as facts):
                    self._change(facts=facts)
                    self._start.end()
                    return self._ready
                case Probed(outcome=Refused(reason=reason)):
                    return await self._give_up(reason)
                case Probed(outcome=ProbeFailed() as error):
                    last = str(error)
                case None if self._clock() >= deadline:
                    return await self._after_failed_start(f"not ready within {timeout_s:g} s: {last}")
                case None:
                    self._probe()
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase
            await self._tell_start(progress)

    async def _ready(self) -> Phase | None:
        self._num_port_retries = 0
        self._pause.forget()
        self._change(ready_since=self.status.ready_since or self._clock(), sleep_level=0, is_held=False)
        await self._enter(State.READY)
        self._settled.set()
        num_missed, interval_s = 0, self._timing.probe_interval_s
        while True:
            match await self._next(interval_s):
                case Exited(code=code):
                    return await self._after_exit(code)
                case Probed(outcome=ProbeFailed() as error):
                    num_missed += 1
                    if num_missed >= self._timing.max_missed_probes:
                        return await self._after_death(f"answered none of {num_missed} health probes: {error}")
                case Probed(outcome=Refused(reason=reason)):
                    return await self._give_up(reason)
                case Probed():
                    num_missed = 0
                case ProbeNow() | None:
                    self._probe()
                case Drain() as drain:
                    return self._make_way(drain)
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase

    async def _draining(self) -> Phase | None:
        await self._enter(State.DRAINING, self._leaving.doing)  # from here on, no worker sends it requests
        deadline = self._clock() + self._leaving.patience_s
        while self._ties.num_running() > 0 and (left_s := deadline - self._clock()) > 0:
            match await self._next(min(left_s, DRAIN_LOOK_S)):
                case Exited():
                    return self._after_drain()
                case Start(is_wanted=False) if self._leaving.after == self._stopped:
                    return self._ready
                case Drain(is_command=True) as drain if self._can_turn_to(drain):
                    return self._make_way(drain)
                case Stop() | Restart() as command:
                    self._commanded(command)
                    deadline = min(deadline, self._clock() + self._leaving.patience_s)
                case _:
                    continue
        leaving = self._leaving
        if leaving.is_yielding and self._ties.num_running() > 0:
            return self._ready
        if leaving.level:
            return self._falling_asleep
        left_s = max(deadline - self._clock(), min(LAST_S, leaving.patience_s))
        return await self._end_within(left_s if leaving.grace_s is None else leaving.grace_s)

    async def _end_within(self, grace_s: float) -> Phase | None:
        """The child is told to end, and killed where it does not."""
        child = self._attempt.child
        if child is None:
            return self._after_drain()
        child.terminate()
        deadline = self._clock() + grace_s
        while True:
            match await self._next(max(0.0, deadline - self._clock())):
                case Exited():
                    return self._after_drain()
                case Stop() as stop:
                    self._drain_for(stop)
                    deadline = min(deadline, self._clock() + stop.grace_s)
                case Start(is_wanted=True) if self._leaving.is_held or self.status.is_paused:
                    continue
                case Start() | Restart() if self._leaving.after == self._stopped:
                    self._leaving.after, self._leaving.is_held = self._starting, False
                case Drain(is_command=True, level=0) as drain if self._can_turn_to(drain):
                    self._make_way(drain)
                case None:
                    child.kill()
                    deadline = self._clock() + 1.0
                case _:
                    continue

    async def _falling_asleep(self) -> Phase | None:
        leaving = self._leaving
        await self._enter(State.DRAINING, f"{self.backend.title} falls asleep (level {leaving.level})")
        self._lookout.sleep(self._attempt.number, self.status, leaving.level, self._timing.sleep_timeout_s)
        while True:
            match await self._next(None):
                case Exited():
                    return self._after_drain()
                case Turned(error=None):
                    self._change(sleep_level=leaving.level, ready_since=None)
                    return self._waking if leaving.after == self._starting else self._asleep
                case Turned(error=error):
                    leaving.done = f"it was to sleep, and was stopped instead: {error}"
                    self.log.add(f"(control) {leaving.done}")
                    return await self._end_within(self._timing.stop_grace_s)
                case Start():
                    leaving.after = self._starting
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase

    async def _asleep(self) -> Phase | None:
        self._start.reset(WAKE)
        await self._enter_rest(State.ASLEEP)
        while True:
            match await self._next(self._retell_s):
                case None:
                    await self._enter_rest(State.ASLEEP)
                case Exited(code=code):
                    await self._end_child()
                    return self._rest_for(f"the engine ended while it slept: {exit_words(code)}")
                case Start(is_wanted=True) if not self.status.may_be_wanted:
                    continue
                case Start():
                    return self._waking
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase

    async def _waking(self) -> Phase | None:
        self._start.reset(WAKE)
        self._change(is_paused=False)
        await self._enter(State.STARTING, self._start.words(self.backend.title))
        self._lookout.admit(self._attempt.number, self._ties.gate)
        while True:
            match await self._next(self._timing.start_poll_s):
                case Preparing(text=text):
                    await self._enter(State.STARTING, text)
                case Admitted(problem=""):
                    self._start.begin()
                    self._lookout.wake(self._attempt.number, self.status, self._timing.start_timeout_s)
                case Admitted(problem=problem):
                    self._fail_start(problem)
                    return self._asleep
                case Turned(error=None):
                    return self._loading
                case Turned(error=error):
                    return await self._after_death(f"the engine did not wake up: {error}")
                case Exited(code=code):
                    return await self._after_exit(code)
                case None if self._start.has_begun:
                    await self._tell_start()
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase

    async def _backoff(self) -> Phase | None:
        deadline = self._clock() + self.status.retry_after_s
        while (left_s := deadline - self._clock()) > 0:
            match await self._next(left_s):
                case Start(is_wanted=False) | Restart():
                    break
                case event:
                    if (phase := self._commanded(event)) is not None:
                        return phase
        return self._starting

    def _commanded(self, event: Event | None) -> Phase | None:
        """What commands lead to wherever they mean the same."""
        match event:
            case Restart():
                return self._drain_to(self._starting, self._timing.stop_grace_s)
            case Stop() as stop:
                return self._drain_for(stop)
            case Drain(level=0) as drain:
                return self._make_way(drain)
            case _:
                return None

    # Effects, each done by the task itself ----------------------------------------------------------------------------

    async def _after_exit(self, code: int) -> Phase:
        if self.status.facts is None and (failure := await self._attempt.explain()) is not None:
            return await (self._give_up if failure.is_final else self._after_failed_start)(failure.reason)
        error = self._attempt.error_line()
        if code != REFUSED:
            return await self._after_death(f"the engine ended: {exit_words(code)}{f' ({error})' if error else ''}")
        if self._attempt.is_port_taken(code) and self._num_port_retries < MAX_PORT_RETRIES:
            self._num_port_retries += 1
            return self._starting
        return await self._give_up(error or "the engine refuses its configuration")

    async def _after_failed_start(self, reason: str) -> Phase:
        """It may go better another time: by itself soon, or when somebody asks once it has paused."""
        if self._policy.retries_starts:
            self._note_failed_start()
            return await self._after_death(reason)
        await self._end_child()
        self.log.add(f"(control) {reason}")
        self._fail_start(reason)
        return self._stopped

    def _fail_start(self, reason: str) -> None:
        """It is to rest for this reason, and requests start it once it has paused."""
        self._note_failed_start()
        self._pause.begin()
        self._leaving = Leaving(self._stopped, "", reason, 0.0, is_failed_start=True)

    def _note_failed_start(self) -> None:
        self._change(num_failed_starts=self.status.num_failed_starts + 1)

    async def _after_death(self, reason: str) -> Phase:
        await self._end_child()
        self.log.add(f"(control) {reason}")
        now = self._clock()
        ready_for_s = now - self.status.ready_since if self.status.ready_since is not None else 0.0
        verdict = self._policy.after(self._early_deaths, now, ready_for_s, self._chance())
        self._early_deaths = verdict.early
        if verdict.delay_s is None:
            return await self._give_up(f"{len(verdict.early)} starts in a row failed; the last: {reason}")
        self._change(retry_after_s=verdict.delay_s)
        await self._enter(State.BACKOFF, f"{reason}; next try in {verdict.delay_s:.1f} s")
        self._settled.set()
        return self._backoff

    async def _give_up(self, reason: str) -> Phase:
        await self._end_child()
        self.log.add(f"(control) given up: {reason}")
        await self._enter(State.FAILED, reason)
        return self._failed

    def _after_drain(self) -> Phase:
        """The child is gone, as it should."""
        self._attempt.child = None
        return self._leaving.after

    def _rest_for(self, reason: str) -> Phase:
        """No command: the next request may start it."""
        self._leaving = Leaving(self._stopped, "", reason, 0.0)
        return self._stopped

    def _drain_for(self, stop: Stop) -> Phase:
        grace_s = min(stop.grace_s, self._timing.stop_grace_s)
        return self._drain_to(self._closed if stop.is_last else self._stopped, grace_s)

    def _drain_to(self, after: Phase, grace_s: float) -> Phase:
        self._leaving = Leaving(after, f"{self.backend.title} is being stopped", "stopped by command", grace_s)
        return self._draining

    def _make_way(self, drain: Drain) -> Phase:
        self._leaving = Leaving(
            self._stopped, f"it takes no new requests: {drain.why}", drain.why, drain.patience_s, self._timing.stop_grace_s,
            drain.level, not drain.is_command, drain.is_command and not drain.level,
        )  # fmt: skip
        return self._draining

    def _can_turn_to(self, drain: Drain) -> bool:
        """Whether an engine that leaves for something else may do so by this command."""
        return self._leaving.after != self._closed and (not drain.level or self.status.ready_since is not None)

    async def _closed(self) -> Phase | None:
        self._change(pid=None)
        await self._enter(State.STOPPED, "stopped by command")
        return None
