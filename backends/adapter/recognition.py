"""Whether a version that is loaded again answers as it did when it was proven, by one text's scores. Pure, stdlib only.

A proof holds an engine's answers against a reference from elsewhere and needs many tokens, because quantisation and batching move
them. Within one launch the same bytes give the same scores but for batching: there the beginning of one text, the one on which the
adapter makes the greatest difference, tells whether it is what was proven. Whoever is not recognised is proven anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 0.05
"""Of the difference that the adapter makes: what a score may move. Half the scale moves it by 0.5, another adapter by 1 or more."""
MAX_TOKENS = 8
"""Of a text are asked for: requests wait for them, and each takes a third of a millisecond on two cores of a CPU."""
MIN_DIFFERENCE = 0.1
"""Nats for a token, on average: an adapter that makes less is not told from the noise by one text."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What to ask for, and what was answered; scores are log-probabilities of each token but the first."""

    prompt: Sequence[int]
    served: Sequence[float]
    difference: float
    """Sum over the tokens of how far the adapter moved them from the base."""

    def fits(self, scores: Sequence[float]) -> bool:
        """Whether these are the same but for noise. False, too, where one is no number."""
        moved = sum(abs(now - then) for now, then in zip(scores, self.served, strict=True))
        return moved <= TOLERANCE * self.difference


def likeness(
    prompts: Sequence[Sequence[int]], base: Sequence[Sequence[float]], served: Sequence[Sequence[float]]
) -> Likeness | None:
    """Of the text on whose beginning the adapter makes the greatest difference for a token, whole ones where no beginning will do; None
    where that is too small."""
    begun = [row[:MAX_TOKENS] for row in prompts]
    before, after = ([row[: MAX_TOKENS - 1] for row in rows] for rows in (base, served))
    return _likeness(begun, before, after) or _likeness(prompts, base, served)


def _likeness(
    prompts: Sequence[Sequence[int]], base: Sequence[Sequence[float]], served: Sequence[Sequence[float]]
) -> Likeness | None:
    differences = [_difference(before, after) for before, after in zip(base, served, strict=True)]
    each = [difference / len(scores) if scores else 0.0 for difference, scores in zip(differences, served, strict=True)]
    best = max(range(len(each)), key=each.__getitem__, default=None)
    if best is None or not each[best] >= MIN_DIFFERENCE:
        return None
    return Likeness(prompts[best], served[best], differences[best])


def _difference(base: Sequence[float], served: Sequence[float]) -> float:
    return sum(abs(after - before) for before, after in zip(base, served, strict=True))
