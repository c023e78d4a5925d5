"""When a dead engine is started again, and when it is given up. Pure: the caller brings clock and randomness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Exponential backoff with jitter; a crash loop ends.

    Only early deaths count towards the loop: an engine that served for a while and was then killed is started again however
    often that happens.
    """

    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    max_early_deaths: int | None = 5
    """This many in a row within `window_s`: the engine is given up. None: never."""
    window_s: float = 600.0
    stable_s: float = 5.0
    """Ready for this long: its death is not an early one."""
    retries_starts: bool = True
    """False: a start that failed for a known reason is not tried again unasked, since nobody may want the engine any more."""
    first_pause_s: float = 5.0
    max_pause_s: float = 300.0
    """Then, for so long after it, requests cause no other one: a start may take minutes, and what was wrong may be so for good."""

    def after(self, early: tuple[float, ...], now: float, ready_for_s: float, chance: float) -> Verdict:
        """What follows a death at `now`. `early` holds the times of earlier early deaths, `chance` is uniform in [0, 1)."""
        if ready_for_s >= self.stable_s:
            return Verdict((), self.first_delay_s * (0.5 + chance / 2))
        deaths = (*(at for at in early if now - at <= self.window_s), now)
        if self.max_early_deaths is not None and len(deaths) >= self.max_early_deaths:
            return Verdict(deaths, None)
        delay_s = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(len(deaths) - 1, 30))
        return Verdict(deaths, delay_s * (0.5 + chance / 2))

    def pause_s(self, num_failed: int) -> float:
        """What follows `num_failed` starts in a row that failed for a known reason, the last of them now."""
        return min(self.max_pause_s, self.first_pause_s * 2.0 ** min(num_failed - 1, 30))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay_s` until the next start, None: given up. `early` is what to bring to the next call."""

    early: tuple[float, ...]
    delay_s: float | None
