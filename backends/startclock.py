"""How far a start is: in words, and in the seconds that are left if it takes as long as the last time."""

from __future__ import annotations

from collections.abc import Callable

from backends.ties import START, Times

TELL_S, RETELL_S = 1.0, 5.0
"""Between two words about a start: where there is news, and where only the time that is left has changed."""


class StartClock:
    def __init__(self, times: Times, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._what = START
        self._began: float | None = None
        self._told = ("", 0.0)

    def reset(self, what: str) -> None:
        """A start (START, WAKE) is ahead: what comes before the child does anything is not counted."""
        self._what, self._began = what, None

    def begin(self) -> None:
        self._began = self._clock()

    def end(self) -> None:
        """It went well."""
        if self._began is not None:
            self._times.note(self._what, self._clock() - self._began)

    @property
    def has_begun(self) -> bool:
        return self._began is not None

    def left_s(self) -> float:
        """1 where nothing is known, or it takes longer than the last time."""
        past_s = self._clock() - self._began if self._began is not None else 0.0
        return max(1.0, (self._times.last(self._what) or 0.0) - past_s)

    def words(self, title: str, progress: str = "") -> str:
        """`vLLM is starting: loading weights, 1 of 4 files; the last start took 48 s`."""
        doing, noun = ("is starting", "start") if self._what == START else ("is waking up", "waking")
        last_s = self._times.last(self._what)
        lasted = f"; the last {noun} took {last_s:.0f} s" if last_s is not None else ""
        return f"{title} {doing}{f': {progress}' if progress else ''}{lasted}"

    def is_news(self, words: str) -> bool:
        """Whether these should be told now; they count as told then."""
        told, at = self._told
        if self._clock() - at < (TELL_S if words != told else RETELL_S):
            return False
        self.tell(words)
        return True

    def tell(self, words: str) -> None:
        """These are told now."""
        self._told = (words, self._clock())
