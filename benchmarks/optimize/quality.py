"""Whether a setting answers as the defaults do, so that a faster but worse one stays out.

The defaults' greedy answers to fixed prompts are the reference. A setting scores those texts, prompt and answer, token by token:
deterministic but for rounding, and alike for both, so that a small loss shows (a cruder KV cache, weights or kernel). It must be shown
not to lose more than the margin, in nats a token: the lower end of the change's 95 % interval over texts lies above it. Scoring is
prefill; that decoding works too (speculation) is seen by the setting's own answers, which may part from the reference at a close
choice, but not all of them at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.statistics import bootstrap
from benchmarks.traffic.prompts import demo_prompts

MARGIN = 0.02
"""Nats a token: 2 % of perplexity."""
LEAST_AGREEMENT = 0.5
"""Share of the answers' text, from their beginning on, that must be the reference's."""
LEAST_UNSCORED = 0.9
"""The same where the engine does not score: then the answers are all there is."""
NUM_PROMPTS = 24
ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Reference:
    """What the defaults said."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    logprobs: tuple[tuple[float, ...], ...] | None
    """Of each prompt with its answer; None where the engine does not score."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What is scored."""
        return tuple(prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True))


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one setting."""

    agreement: float
    change: float | None = None
    """Mean change of log-probability, nats a token; below 0 is worse. None where it was not scored."""
    low: float | None = None
    high: float | None = None
    why_not: str = ""
    """Why the setting is out; empty where it is not."""


def prompts_of(num: int = NUM_PROMPTS) -> tuple[str, ...]:
    """Short questions in English and Korean, the same every time."""
    return tuple(str(chat[-1]["content"]) for chat in demo_prompts()[:num])


def judge(
    reference: Reference,
    answers: Sequence[str],
    logprobs: Sequence[Sequence[float]] | None,
    margin: float = MARGIN,
) -> Quality:
    """Hold a setting's answers and scores against the reference."""
    agreement = agreement_of(reference.answers, answers)
    if reference.logprobs is None:
        return Quality(agreement, why_not=_unlike(agreement, LEAST_UNSCORED))
    if logprobs is None:
        return Quality(
            agreement, why_not="it does not score texts, which the defaults do: how well it answers cannot be told"
        )
    if [len(one) for one in logprobs] != [len(one) for one in reference.logprobs]:
        return Quality(agreement, why_not="it reads the same texts as other tokens than the defaults do")
    change, low, high = change_of(reference.logprobs, logprobs)
    why_not = _unlike(agreement, LEAST_AGREEMENT)
    if not low > -margin:
        why_not = f"it may lose {-low:.3f} nats a token on the defaults' answers, {-change:.3f} on average (margin {margin:g})"
    return Quality(agreement, change, low, high, why_not)


def change_of(old: Sequence[Sequence[float]], new: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean change of log-probability in nats a token with its 95 % interval, over texts: by the ratio of the surprises, which is positive
    whichever way it goes. An end that is open is infinite.
    """
    before, after = ([-math.fsum(text) for text in one] for one in (old, new))
    ratio = bootstrap.ratio([after], [before])
    surprise = math.fsum(before) / sum(map(len, old))
    low, high = (math.inf if end is None else end for end in (ratio.high, ratio.low))
    return surprise * (1 - ratio.estimate), surprise * (1 - low), surprise * (1 - high)


def agreement_of(reference: Sequence[str], answers: Sequence[str]) -> float:
    """Mean share of each answer, from its beginning, that both have."""
    shares = [_common(ours, theirs) for ours, theirs in zip(answers, reference, strict=True)]
    return sum(shares) / len(shares)


def _common(a: str, b: str) -> float:
    longest = max(len(a), len(b))
    same = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return same / longest if longest else 1.0


def _unlike(agreement: float, least: float) -> str:
    if agreement >= least:
        return ""
    return f"its greedy answers share {agreement:.0%} of their text with the defaults' (at least {least:.0%})"
