"""How far two ways to get the same answers agree. Pure.

Two answers agree as far as their tokens are equal. The first token that differs is a mismatch; what follows it answers
another text and is not compared. A mismatch is excused where the first way's margin (its token over the next best one)
was within epsilon, that is, within what rounding alone does to a margin:

    epsilon = min(0.1, 4 x the 99.9th percentile of the margin's change over other prompts)

The margin's change at a position is how much it differs between both ways; at a mismatch, where the two tokens changed
places, it is the sum of both margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.invariance_record import Answer, InvarianceError, Prompt, first_difference
from benchmarks.metrics import percentile

EPSILON_FACTOR, EPSILON_QUANTILE, MAX_EPSILON = 4.0, 0.999, 0.1


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first token of an answer that differs; margins in nats."""

    prompt: int
    skill: str
    position: int
    token: str
    other_token: str
    margin: float
    other_margin: float
    is_beyond_end: bool
    """Past the place where the model would have ended, had it been let."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One way against the first one ("alone") over `num_prompts` prompts."""

    name: str
    num_prompts: int
    min_share: float
    """Of the prompts, so many must be answered wholly identically."""
    epsilon: float
    change_p50: float
    change_p999: float
    change_max: float
    """Of the margins over the other prompts, from which epsilon comes."""
    mismatches: tuple[Mismatch, ...]

    @property
    def num_identical(self) -> int:
        """Prompts whose answers are wholly identical."""
        return self.num_prompts - len(self.mismatches)

    @property
    def share(self) -> float:
        """Of wholly identical answers."""
        return self.num_identical / self.num_prompts

    @property
    def num_identical_to_end(self) -> int:
        """Prompts whose answers are identical as far as the model would have gone by itself."""
        return self.num_prompts - sum(not mismatch.is_beyond_end for mismatch in self.mismatches)

    @property
    def above(self) -> tuple[Mismatch, ...]:
        """Mismatches that rounding does not explain."""
        return tuple(mismatch for mismatch in self.mismatches if mismatch.margin > self.epsilon)

    @property
    def faults(self) -> list[str]:
        """What was missed, one line each."""
        found = []
        if self.share < self.min_share:
            found.append(f"{self.name}: {self.share:.1%} wholly identical, {self.min_share:.0%} are wanted")
        if self.above:
            found.append(f"{self.name}: differences at a margin above epsilon ({self.epsilon:.4f}): {len(self.above)}")
        return found


def compare(
    name: str, prompts: Sequence[Prompt], alone: Sequence[Answer], other: Sequence[Answer], num: int, min_share: float
) -> Comparison:
    """Compare the answers to the first `num` prompts; those to the rest give epsilon. Raises InvarianceError without a rest."""
    ordered = sorted(
        change for one, its in zip(alone[num:], other[num:], strict=True) for change in margin_changes(one, its)
    )
    if not ordered:
        raise InvarianceError("epsilon needs other prompts than those compared")
    found = [mismatch_of(prompt, alone[at], other[at]) for at, prompt in enumerate(prompts[:num])]
    return Comparison(
        name,
        num,
        min_share,
        epsilon_of(ordered),
        percentile(ordered, 0.5),
        percentile(ordered, EPSILON_QUANTILE),
        ordered[-1],
        tuple(mismatch for mismatch in found if mismatch is not None),
    )


def epsilon_of(changes: Sequence[float]) -> float:
    """The margin within which rounding may decide; `changes` ascending, nats."""
    return min(MAX_EPSILON, EPSILON_FACTOR * percentile(changes, EPSILON_QUANTILE))


def margin_changes(one: Answer, other: Answer) -> list[float]:
    """Of every token up to the first that differs, and of that one."""
    end = first_difference(one, other)
    pairs = zip(one.margins[:end], other.margins[:end], strict=True)
    changes = [abs(margin - its) for margin, its in pairs]
    return changes if end is None else [*changes, one.margins[end] + other.margins[end]]


def mismatch_of(prompt: Prompt, one: Answer, other: Answer) -> Mismatch | None:
    """None where the answers are wholly identical."""
    at = first_difference(one, other)
    if at is None:
        return None
    margins = one.margins[at], other.margins[at]
    return Mismatch(prompt.index, prompt.skill, at, one.tokens[at], other.tokens[at], *margins, at >= one.end)
