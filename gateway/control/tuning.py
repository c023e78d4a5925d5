"""Measures where speculation pays on one engine: `forgegate engines tune`.

The engine is drained and stopped. In its place one after the other is started that differs in its speculation only and takes no
traffic; each is measured at every number of streams. What came out is remembered, and the engine starts again: with it, or, if
the measurement was broken off anywhere, as it was.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from backends.errors import BackendError
from backends.lifecycle import EngineLife
from backends.process import Launcher
from backends.status import Drain, State
from backends.vllm.measured import Record
from backends.vllm.speculation import OFF, Measurement, Rate, Setting, setting_words, vary
from backends.vllm.tuned import Tuned
from gateway import errors
from gateway.control.advice import speculation_of
from gateway.control.fleet import Fleet
from gateway.control.publish import Event, error_event
from gateway.control.trial import Trials
from gateway.control.tuneload import MeasureFailed, Workload, measure
from gateway.control.tuneview import tuned_event

STREAMS = (1, 2, 4, 8)
MAX_STREAMS = 256
MAX_SIZES = 16
STARTED = "it was started meanwhile by another command"
Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure."""

    engine_id: str
    streams: tuple[int, ...] = ()
    """Empty: 1, 2, 4 and 8, where it takes so many."""
    depths: tuple[int, ...] = ()
    """Empty: the configured one, half of it, and 1."""
    workload: Workload = field(default_factory=Workload)
    passes: int = 1
    """How often everything is started and measured; the best counts."""
    is_forced: bool = False
    """Also where no other engine serves the model meanwhile."""


class TuneFailed(errors.GatewayError):
    """An engine did not start, or not do what it is measured with."""

    status = 503
    code = "tune_failed"


class Tuning:
    """One measurement at a time."""

    def __init__(
        self,
        fleet: Fleet,
        lives: Mapping[str, EngineLife],
        launcher: Launcher,
        trials: Trials,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._lives = lives
        self._launcher = launcher
        self._trials = trials
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def begin(self, order: Order, tell: Tell) -> asyncio.Task[None]:
        """Tells of its progress, and at last of one `tuned` or `error`. Cancelled, it puts the engine back.

        Raises NotFound, BadRequest, Conflict.
        """
        order, tuned = self._checked(order)
        if self._task is not None and not self._task.done():
            raise errors.Conflict("an engine is being measured already; two at a time would measure each other")
        self._task = asyncio.create_task(self._run(order, tuned, tell), name=f"tune {order.engine_id}")
        return self._task

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _checked(self, order: Order) -> tuple[Order, Tuned]:
        """With its depths."""
        if order.engine_id not in self._lives:
            raise errors.NotFound(f"no engine {order.engine_id!r}; there are: {', '.join(self._lives)}")
        tuned = speculation_of(self._lives[order.engine_id].backend)
        if tuned is None:
            raise errors.BadRequest(f"{order.engine_id} does not speculate: give its pool `options: speculative` first")
        if not tuned.max_depth:
            raise errors.BadRequest(
                f"{order.engine_id}: how deep to try? Give `speculative.num_speculative_tokens` first"
            )
        if not order.is_forced:
            self._check_others(order.engine_id)
        max_streams = min(MAX_STREAMS, tuned.max_num_seqs or MAX_STREAMS)
        streams, depths = tuple(sorted(set(order.streams))), tuple(sorted(set(order.depths)))
        _check_numbers("streams", streams, max_streams)
        _check_numbers("depths", depths, tuned.max_depth)
        streams = streams or tuple(num for num in STREAMS if num <= max_streams)
        return replace(order, streams=streams, depths=depths or default_depths(tuned.max_depth)), tuned

    def _check_others(self, engine_id: str) -> None:
        model = self._fleet.members[engine_id].model
        others = [member for member in self._fleet.of_model(model) if member.id != engine_id]
        if not any(member.status.state is State.READY for member in others):
            raise errors.Conflict(
                f"no other engine of {model} is ready: while {engine_id} is measured, which takes some minutes, nobody would serve it; "
                "force it (--yes) if that may be"
            )

    async def _run(self, order: Order, tuned: Tuned, tell: Tell) -> None:
        """The job's boundary: it ends in exactly one event, whatever happens."""
        error: errors.GatewayError = TuneFailed(f"{order.engine_id}: broken off; it starts again as it was")
        done: Event | None = None
        try:
            done = await self._tune(order, tuned, tell)
        except (BackendError, OSError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            error = TuneFailed(f"{order.engine_id}: {reason}; it starts again as it was")
        except Exception:  # noqa: BLE001 - named boundary: logged, and told as what it is
            traceback.print_exc()
            error = errors.InternalError("internal error; the traceback is in the log of `forgegate serve`")
        finally:
            tell(done if done is not None else error_event(error))

    async def _tune(self, order: Order, tuned: Tuned, tell: Tell) -> Event:
        before, backend = tuned.setting, self._lives[order.engine_id].backend

        def say(text: str) -> None:
            tell({"event": "progress", "text": text})

        async with self._out_of_traffic(order.engine_id, say):
            await backend.prepare(self._launcher, say)  # what it is has to be known, also of one that never ran
            assert tuned.subject is not None
            measured = await self._measure(order, tuned, say)
            self._check_stopped(order.engine_id)
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
            record = Record(tuned.subject, measured, at)
            tuned.keep(record)
        say("it starts again")
        state = await self._back(order.engine_id)
        return tuned_event(order.engine_id, record, before, tuned, str(state))

    async def _back(self, engine_id: str) -> State:
        """Until it takes traffic again, or does not start: it failed, was not let in, or a command stopped it."""
        member = self._fleet.members[engine_id]
        at_rest = member.status
        while member.status is at_rest or member.status.state not in (State.READY, State.FAILED, State.STOPPED):
            await self._fleet.next_report(engine_id)
        return member.status.state

    @asynccontextmanager
    async def _out_of_traffic(self, engine_id: str, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Stopped, once its requests have ended; afterwards it starts, whatever happened."""
        life = self._lives[engine_id]
        say("waiting for its running requests to end")
        try:
            life.drain(Drain("its speculation is being measured", is_command=True))
            await self._stopped(engine_id, life)
            yield
        finally:
            life.start()

    async def _stopped(self, engine_id: str, life: EngineLife) -> None:
        """Raises MeasureFailed where somebody wants it to run."""
        is_draining = False
        while life.status.state is not State.STOPPED:
            await self._fleet.next_report(engine_id)
            if is_draining and life.status.state is State.READY:
                raise MeasureFailed(STARTED)
            is_draining = is_draining or life.status.state is State.DRAINING

    def _check_stopped(self, engine_id: str) -> None:
        """Beside another engine a measurement is worth nothing. Raises MeasureFailed."""
        if self._lives[engine_id].status.state is not State.STOPPED:
            raise MeasureFailed(STARTED)

    async def _measure(self, order: Order, tuned: Tuned, say: Callable[[str], None]) -> Measurement:
        measured = Measurement({}, {})
        for number in range(1, order.passes + 1):
            round_of = f", pass {number} of {order.passes}" if order.passes > 1 else ""
            for setting in (OFF, *(Setting(depth) for depth in order.depths)):
                rates = await self._rates(order, tuned, setting, lambda text: say(text + round_of))  # noqa: B023
                measured = with_rates(measured, setting, rates)
        varied = vary(measured)
        if varied.schedule and not tuned.why_fixed:
            for _ in range(order.passes):
                measured = with_rates(measured, varied, await self._rates(order, tuned, varied, say))
        return measured

    async def _rates(self, order: Order, tuned: Tuned, setting: Setting, say: Callable[[str], None]) -> dict[int, Rate]:
        words = f"speculation {setting_words(setting)}" if setting == OFF else setting_words(setting)
        self._check_stopped(order.engine_id)
        rates: dict[int, Rate] = {}
        async with self._trials.engine(
            order.engine_id, tuned.engine(setting), lambda text: say(f"{words}: {text}")
        ) as engine:
            for num_streams in order.streams:
                rates[num_streams] = rate = await measure(engine, order.workload, num_streams)
                say(f"{words}: {rate.tokens_per_s:,.0f} tok/s at {num_streams}")
        return rates


def default_depths(max_depth: int) -> tuple[int, ...]:
    """The deepest, half of it, and 1: each costs a start."""
    return tuple(sorted({1, max(1, max_depth // 2), max_depth}))


def with_rates(measured: Measurement, setting: Setting, rates: Mapping[int, Rate]) -> Measurement:
    """With what a trial found; of two equal trials the better rates."""
    if setting.schedule:
        known = measured.varied_rates if measured.varied == setting else {}
        return replace(measured, varied=setting, varied_rates=_better(known, rates))
    if setting == OFF:
        return replace(measured, off=_better(measured.off, rates))
    return replace(measured, on={**measured.on, setting.depth: _better(measured.on.get(setting.depth, {}), rates)})


def _better(known: Mapping[int, Rate], new: Mapping[int, Rate]) -> dict[int, Rate]:
    return {num: max(rate, known.get(num, rate), key=lambda rate: rate.tokens_per_s) for num, rate in new.items()}


def _check_numbers(name: str, numbers: tuple[int, ...], largest: int) -> None:
    if len(numbers) > MAX_SIZES or not all(1 <= number <= largest for number in numbers):
        given = ", ".join(map(str, numbers))
        raise errors.BadRequest(f"{name}: at most {MAX_SIZES} numbers from 1 to {largest}, got {given}", param=name)
