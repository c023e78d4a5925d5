"""Whether speculation pays under the traffic that there is, and what to do where it does not.

How much a step costs is known from a measurement (`forgegate engines tune`); how much of what is proposed gets accepted depends on what
clients ask, and is seen in each engine's counts. Both together say where speculation loses, and are remembered for its next start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from backends.base import Backend, Load
from backends.status import Status
from backends.vllm.measured import Record, Seen
from backends.vllm.speculation import Setting, advice, choose, is_beyond, setting_words, tokens_per_step
from backends.vllm.tuned import Tuned
from gateway.control.fleet import Member

DECAY = 0.95
"""Of what was seen, from one look to the next: half of it is gone after some 27 s."""
MIN_TOKENS = 500.0
"""Fewer say nothing yet."""
PATIENCE = 5
"""Looks in a row at which it loses, before anybody is told: a burst is no reason to change anything."""
KEEP_EVERY = 150
"""Looks from one note of what is accepted to the next, five minutes."""


@runtime_checkable
class Speculates(Protocol):
    """A backend whose speculation can be set from measurement."""

    speculation: Tuned


def speculation_of(backend: Backend) -> Tuned | None:
    """None where such an engine does not speculate, or is not told to."""
    if isinstance(backend, Speculates) and backend.speculation.is_configured:
        return backend.speculation
    return None


@dataclass(slots=True)
class _Engine:
    """What was seen of one launch."""

    setting: Setting
    record: Record | None
    last: Load | None = None
    num_generated: float = 0.0
    num_accepted: float = 0.0
    batch: float = 0.0
    """Sum of batch sizes, each as often as tokens were generated at it."""
    num_wrong: int = 0
    """Looks in a row at which there was something to say."""
    num_looks: int = 0

    def see(self, load: Load) -> bool:
        """Whether there is enough to say something."""
        last, self.last = self.last, load
        if last is None or load.num_drafts <= last.num_drafts:
            return False
        depths = {self.setting.depth_at(max(1, seen.num_running)) for seen in (last, load)}
        if len(depths) > 1:
            return False  # part of the time at another depth
        num_generated = load.num_generated_tokens - last.num_generated_tokens
        self.num_generated = self.num_generated * DECAY + num_generated
        self.num_accepted = self.num_accepted * DECAY + load.num_accepted_tokens - last.num_accepted_tokens
        self.batch = self.batch * DECAY + max(1.0, (last.num_running + load.num_running) / 2) * num_generated
        self.num_looks += 1
        return self.num_generated >= MIN_TOKENS

    @property
    def tokens_per_step(self) -> float:
        return tokens_per_step(self.num_generated, self.num_accepted)

    @property
    def num_streams(self) -> int:
        return round(self.batch / self.num_generated)


class Advisor:
    """`tell` is told what people should see: the engine, and one sentence."""

    def __init__(
        self,
        backend_of: Callable[[str], Backend],
        tell: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend_of = backend_of
        self._tell = tell
        self._clock = clock
        self._engines: dict[str, _Engine] = {}

    async def before_traffic(self, engine_id: str, status: Status) -> None:
        """A launch is up: what it was started with, it has until its end."""
        tuned = speculation_of(self._backend_of(engine_id))
        if tuned is None:
            return
        self._engines[engine_id] = _Engine(tuned.setting, tuned.record)
        if tuned.record is not None and tuned.is_open:
            self._tell(engine_id, f"speculation as measured here: {_choice(tuned.setting, tuned.record)}")
        elif said := self.advice(engine_id):
            self._tell(engine_id, said)

    def hear(self, member: Member, load: Load) -> None:
        """An engine's newest counts."""
        engine = self._engines.get(member.id)
        if engine is None or engine.record is None or not engine.see(load):
            return
        is_wrong = bool(_loss(engine, engine.record)) or _is_unknown(engine, engine.record)
        engine.num_wrong = engine.num_wrong + 1 if is_wrong else 0
        is_news = engine.num_wrong == PATIENCE
        if is_news or engine.num_looks % KEEP_EVERY == 0:
            self._keep(member.id, engine)
        if is_news:
            self._tell(member.id, self.advice(member.id))

    def advice(self, engine_id: str) -> str:
        """What its user should change, in one sentence; empty where nothing."""
        engine, tuned = self._engines.get(engine_id), speculation_of(self._backend_of(engine_id))
        if engine is None or tuned is None:
            return ""
        if tuned.record is None:
            measure = f"speculation is not measured here: forgegate engines tune {engine_id}"
            return measure if tuned.is_open else ""
        if engine.num_wrong >= PATIENCE:
            return _complaint(engine_id, engine, tuned, tuned.record)
        if tuned.is_open and tuned.record.setting != engine.setting:
            words = setting_words(tuned.record.setting)
            return f"as measured it would speculate otherwise ({words}): forgegate engines restart {engine_id}"
        return ""

    def _keep(self, engine_id: str, engine: _Engine) -> None:
        """For its next start."""
        tuned = speculation_of(self._backend_of(engine_id))
        if tuned is None or tuned.record is None or engine.record is None or tuned.record.at != engine.record.at:
            return  # measured anew since this launch: that is what counts
        depth = engine.setting.depth_at(engine.num_streams)
        if depth not in tuned.record.measured.on:
            return
        record = replace(tuned.record, seen=Seen(depth, round(engine.tokens_per_step, 3), self._clock()))
        with suppress(OSError):  # a full disk: seen again
            tuned.keep(record)


def _choice(setting: Setting, record: Record) -> str:
    """With why, where the measurement alone would choose otherwise."""
    alone, seen = choose(record.measured), record.seen
    if seen is None or setting == alone:
        return setting_words(setting)
    return (
        f"{setting_words(setting)}; clients' texts gave {seen.tokens_per_step:.2f} tokens a step at depth {seen.depth}, "
        f"else it would be {setting_words(alone)}; that is forgotten a day after it was seen"
    )


def _is_unknown(engine: _Engine, record: Record) -> bool:
    return engine.setting.depth_at(engine.num_streams) > 0 and is_beyond(record.measured, engine.num_streams)


def _loss(engine: _Engine, record: Record) -> str:
    return advice(record.measured, engine.setting, engine.num_streams, engine.tokens_per_step)


def _complaint(engine_id: str, engine: _Engine, tuned: Tuned, record: Record) -> str:
    if _is_unknown(engine, record):
        sizes = ",".join(map(str, sorted({*record.measured.off, engine.num_streams})))
        again = f"forgegate engines tune {engine_id} --streams {sizes}"
        return f"speculation is not measured at {engine.num_streams} streams: {again}"
    return f"{_loss(engine, record)}; {_remedy(engine_id, engine, tuned, record)}"


def _remedy(engine_id: str, engine: _Engine, tuned: Tuned, record: Record) -> str:
    if not tuned.is_open:
        return "let `schedule: measured` choose the depth, or leave `speculative` out"
    better = record.setting
    if better != engine.setting:
        return (
            f"its next start takes this into account ({setting_words(better)}): forgegate engines restart {engine_id}"
        )
    if tuned.why_fixed:
        return f"{tuned.why_fixed}: leave `speculative` out, or send such load to a pool without it"
    return "it wins more at other sizes; a pool without `speculative` would serve such load better"
