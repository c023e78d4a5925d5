"""One launch of an engine with one setting: what it carried and how it answered, or why there is nothing to tell."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from benchmarks.optimize.quality import Quality
from benchmarks.optimize.settings import Setting


class StartError(RuntimeError):
    """An engine did not start; the message is the reason, as forgegate tells it."""


class DiedError(RuntimeError):
    """An engine that was ready went away under load."""


class Outcome(StrEnum):
    """How a trial ended."""

    MEASURED = "measured"
    REFUSED = "refused"
    """By the engine's schema; nothing was started."""
    NO_START = "did not start"
    DIED = "died"
    WORSE = "worse answers"


@dataclass(frozen=True, slots=True)
class Probe:
    """One load. Rates per second, times in seconds."""

    load: float
    goodput: float
    """Requests answered within the SLO."""
    output_tps: float
    tps_per_user: float | None
    num_requests: int
    num_failed: int
    missed: Mapping[str, tuple[int, int]]
    """By objective: how many of how many requests missed it, failed ones included."""
    latencies_s: Mapping[str, float | None]
    """`ttft_p50`, `ttft_p99`, `tpot_p50`, `tpot_p99`; None beyond what the samples can tell."""
    duration_s: float
    why_not: str = ""
    """Why this load does not count as carried; empty where it does."""

    @property
    def is_carried(self) -> bool:
        """True when the SLO was held and the figures may be believed."""
        return not self.why_not


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of a setting after one launch."""

    stage: str
    setting: Setting
    effort: int
    outcome: Outcome
    reason: str = ""
    start_s: float = 0.0
    took_s: float = 0.0
    """In all, the start included."""
    probes: tuple[Probe, ...] = ()
    quality: Quality | None = None

    @property
    def is_measured(self) -> bool:
        return self.outcome is Outcome.MEASURED

    @property
    def best(self) -> Probe | None:
        """The load with the most requests answered within the SLO; None where none was carried."""
        carried = [probe for probe in self.probes if probe.is_carried]
        return max(carried, key=lambda probe: probe.goodput, default=None)

    @property
    def score(self) -> float:
        """Goodput at the best load; 0 where none was carried or nothing was measured."""
        return self.best.goodput if self.is_measured and self.best else 0.0

    @property
    def words(self) -> str:
        """How it ended, for people."""
        if not self.is_measured:
            return f"{self.outcome.value}: {self.reason}"
        if self.best is None:
            lowest = min(self.probes, key=lambda probe: probe.load, default=None)
            return f"no load carried: {lowest.why_not if lowest else 'none was measured'}"
        return f"{self.best.goodput:,.2f} req/s within the SLO at load {self.best.load:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `trial_of` reads it."""
        return {**asdict(self), "setting": self.setting.options, "outcome": self.outcome.value}


def trial_of(found: Mapping[str, Any]) -> Trial:
    """Reads what `as_dict` wrote."""
    quality = found["quality"]
    return Trial(**{
        **found,
        "setting": Setting.of(found["setting"]),
        "outcome": Outcome(found["outcome"]),
        "probes": tuple(map(probe_of, found["probes"])),
        "quality": quality and Quality(**quality),
    })  # fmt: skip


def probe_of(found: Mapping[str, Any]) -> Probe:
    """Reads a probe that was written as a dictionary."""
    missed = {name: (num, of) for name, (num, of) in found["missed"].items()}
    return Probe(**{**found, "missed": missed})


class Engine(Protocol):
    """One that is ready. Every call raises DiedError when it is gone."""

    @property
    def start_s(self) -> float:
        """How long its start took."""

    async def probe(self, load: float, effort: int, seed: int) -> Probe:
        """Measure one load; the same seed sends the same requests."""

    async def answer(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Greedy."""

    async def score(self, texts: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
        """The log-probability of every token but the first, by text. None where the engine refuses."""


class Launches(Protocol):
    """Starts engines, one at a time, and ends what it started."""

    def launch(self, options: Mapping[str, Any]) -> AbstractAsyncContextManager[Engine]:
        """Raises StartError."""
