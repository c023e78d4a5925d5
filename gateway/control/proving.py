"""Proof on one launch of an engine: its scores by the base and by a version, held against the version's reference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from backends.adapter.golden import Golden
from backends.adapter.proof import Verdict, judge, looks
from backends.adapter.proof_case import ProofError

Score = Callable[[str, Sequence[Sequence[int]]], Awaitable[list[list[float]]]]
"""By which model (an adapter's name, or the base's), which texts. Raises BackendError."""
FAILED, UNATTESTED = "failed", "unattested"
ORDER = (FAILED, UNATTESTED, "weak", "indistinguishable", "proven")
"""From the least that can be said of a version to the most."""
MAX_TEXTS = 2048
"""Base scores that are kept for a launch: the probe set's, and some hundred versions' own texts."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found when a version was loaded."""

    state: str
    """One of ORDER."""
    detail: str = ""


def least(states: Sequence[str]) -> str:
    """Empty for none."""
    return min(states, key=ORDER.index, default="")


class Bench:
    """One launch of an engine. The base's scores are asked for once."""

    def __init__(self, score: Score, base: str) -> None:
        self._score = score
        self._base = base
        self._base_scores: dict[tuple[int, ...], list[float]] = {}

    async def prove(self, name: str, golden: Golden | None, siblings: Mapping[str, Golden]) -> Proof:
        """Raises BackendError where the engine gives no scores."""
        if golden is None:
            return Proof(UNATTESTED, "it has no reference: nothing says what it should answer")
        served: list[list[float]] = []
        verdict: Verdict | None = None
        try:
            for num_texts in looks(golden):
                prompts = golden.prompts[:num_texts]
                base = await self._base_of(prompts)
                served += await self._score(name, prompts[len(served) :])
                verdict = await asyncio.to_thread(judge, golden, base, served, siblings)
                if verdict.is_final:
                    break
        except ProofError as exc:
            return Proof(FAILED, str(exc))
        assert verdict is not None  # there is at least one look
        return Proof(verdict.state, verdict.reason)

    async def _base_of(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        keys = [tuple(prompt) for prompt in prompts]
        if len(self._base_scores) > MAX_TEXTS:
            self._base_scores.clear()
        if new := [key for key in dict.fromkeys(keys) if key not in self._base_scores]:
            self._base_scores.update(zip(new, await self._score(self._base, new), strict=True))
        return [self._base_scores[key] for key in keys]
