"""Whose step is next. Pure: no clock, no llama.cpp; durations are told.

All sequences of one step share one adapter, and another adapter than in the step before costs a rebuilt graph: more than a
whole step of a small model, next to nothing beside one of a large. So the sequences of one adapter (or of the base model: a
*group*) compute several steps in a row, their *turn*, before another group's begins.

    round     every group that has work gets one turn; those where a request waits for its first token go first
    turn      as many decode steps as make the changes cost SWITCH_SHARE of the time, the same number for each group: so
              every sequence advances as fast as every other, whatever the size of its group; a step with prompt
              chunks counts as the decode steps that it takes the time of
    cut short where a request of the next group waits for its first token: SHARE_FOR_NEWCOMERS of the time instead

Bounds, with G groups, changes of s seconds and steps of at most c seconds (tests/backends/llamacpp/test_adapter_turns.py):
- between two turns of a group that has work there are at most 2 (G - 1) turns of others, G - 1 where nobody is new;
- no turn is longer than MAX_RUN decode steps and one more step, nor, without MAX_RUN, a round longer than
  G s / SWITCH_SHARE and one step of each group;
- changes take at most SWITCH_SHARE of the time (SHARE_FOR_NEWCOMERS while requests arrive), those apart that are made
  because a group has no work left, and MAX_RUN apart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from statistics import median

Group = Hashable

SWITCH_SHARE = 0.1
SHARE_FOR_NEWCOMERS = 0.25
MAX_RUN = 64
"""Decode steps of one turn, whatever a change costs."""
_FIRST_GUESS_S = 0.0015
"""What a change costs the demo model on two cores."""
_NUM_SAMPLES = 15
_FEW_SAMPLES = 3
_PROBE_EVERY = 31
"""Turns after which one is long enough to measure a change, if turns are single steps; odd, so that it is not always the same group's."""
_WEIGHT = 0.2
"""Of a new duration in the average."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A group that could compute a step now."""

    group: Group
    newcomer: int | None = None
    """The number of its oldest request that has no token yet; None: it has none."""


@dataclass(slots=True)
class StepCosts:
    """What a change of adapter and each group's decode step take, from the durations of the steps."""

    _samples: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_SAMPLES))
    _decode_s: dict[Group, float] = field(default_factory=dict)
    _after_change: tuple[int, float] = (0, 0.0)
    """Tokens and seconds of the step before, where a change came before it."""

    @property
    def switch_s(self) -> float:
        """Seconds that a change adds to the step after it."""
        return median(self._samples) if self._samples else _FIRST_GUESS_S

    @property
    def num_samples(self) -> int:
        return len(self._samples)

    def is_known(self, group: Group) -> bool:
        """Whether a decode step of it was measured."""
        return group in self._decode_s

    def decode_s(self, group: Group) -> float:
        """Seconds of a decode step of a group; where it had none yet, the average of the others'."""
        known = self._decode_s
        if group in known:
            return known[group]
        return sum(known.values()) / len(known) if known else self.switch_s

    def observe(
        self, group: Group, num_tokens: int, duration_s: float, *, is_decoding: bool, is_after_change: bool
    ) -> None:
        """One step of `num_tokens`; `is_decoding`: it had no prompt chunks."""
        if not is_decoding:
            self._after_change = (0, 0.0)
            return
        if is_after_change:
            self._after_change = (num_tokens, duration_s)
            return
        before, before_s = self._after_change
        if before == num_tokens:
            # Two steps alike, but for the change before the first.
            self._samples.append(max(before_s - duration_s, 0.0))
        self._after_change = (0, 0.0)
        average = self._decode_s.get(group, duration_s)
        self._decode_s[group] = average + _WEIGHT * (duration_s - average)

    def forget(self, group: Group) -> None:
        self._decode_s.pop(group, None)


def run_length(demands: Sequence[Demand], costs: StepCosts, share: float) -> int:
    """Decode steps in a row for each of `demands`, so that a change before each run takes at most `share` of a round's time."""
    round_s = sum(costs.decode_s(demand.group) for demand in demands)
    wanted = (1 / share - 1) * len(demands) * costs.switch_s
    return max(1, min(MAX_RUN, math.ceil(wanted / round_s - 1e-9) if round_s else MAX_RUN))


class Turns:
    """Which group computes the next step."""

    def __init__(self) -> None:
        self.costs = StepCosts()
        self.current: Group = None
        """The group of the last step; None is the base model, with which every engine begins."""
        self._num_run = 0.0
        """Decode steps of this turn, or what took as long."""
        self._num_turns = 0
        self._has_changed = False
        self._served: set[Group] = set()
        """In this round."""
        self._last_turn: dict[Group, int] = {}

    def choose(self, demands: Sequence[Demand]) -> Group:
        """The group of the next step, of one or more that have work."""
        others = [demand for demand in demands if demand.group != self.current]
        if not others:
            return self.current
        upcoming = self._next(others)
        if len(others) < len(demands) and self._num_run < self._limit(demands, upcoming):
            return self.current
        self._begin(upcoming.group, others)
        return self.current

    def ran(self, num_tokens: int, duration_s: float, *, is_decoding: bool) -> None:
        """The current group computed a step."""
        costs = self.costs
        costs.observe(self.current, num_tokens, duration_s, is_decoding=is_decoding, is_after_change=self._has_changed)
        self._has_changed = False
        in_decode_steps = duration_s / max(costs.decode_s(self.current), 1e-9)
        self._num_run += 1.0 if is_decoding else max(1.0, in_decode_steps)

    def forget(self, group: Group) -> None:
        """A group is gone for good; the context has been set to the base model where it was the current one."""
        self.costs.forget(group)
        self._served.discard(group)
        self._last_turn.pop(group, None)
        if self.current == group:
            self._begin(None, [])

    def _limit(self, demands: Sequence[Demand], upcoming: Demand) -> int:
        share = SWITCH_SHARE if upcoming.newcomer is None else SHARE_FOR_NEWCOMERS
        # A guess for a group that has only single steps would never be mended: they all come after a change.
        is_known = self.costs.num_samples >= _FEW_SAMPLES and self.costs.is_known(self.current)
        is_probe = not is_known or self._num_turns % _PROBE_EVERY == 0
        return max(run_length(demands, self.costs, share), 2 if is_probe else 1)

    def _next(self, others: Sequence[Demand]) -> Demand:
        """Of the groups that had no turn in this round, else of all: newcomers' first, then the one that waits longest."""
        unserved = [demand for demand in others if demand.group not in self._served] or others

        def order(demand: Demand) -> tuple[bool, int, int]:
            is_old = demand.newcomer is None
            return is_old, demand.newcomer or 0, self._last_turn.get(demand.group, -1)

        return min(unserved, key=order)

    def _begin(self, group: Group, others: Sequence[Demand]) -> None:
        if self._served.issuperset(demand.group for demand in others):
            self._served.clear()
        self._num_turns += 1
        self._served.add(group)
        self._last_turn[group] = self._num_turns
        self.current = group
        self._num_run = 0.0
        self._has_changed = True
