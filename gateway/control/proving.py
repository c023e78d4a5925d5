"""Proof on one launch of an engine: its scores by the base and by a version, held against the version's reference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from backends.adapter import attested
from backends.adapter.golden import Golden
from backends.adapter.proof import Verdict, judge, looks
from backends.adapter.proof_case import ProofError
from backends.adapter.recognition import Likeness, likeness

Score = Callable[[str, Sequence[Sequence[int]]], Awaitable[list[list[float]]]]
"""By which model (an adapter's name, or the base's), which texts. Raises BackendError."""
Siblings = Callable[[], Awaitable[Mapping[str, Golden]]]
"""References of what would most likely be served by mistake; asked for where a proof needs them."""
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


@dataclass(frozen=True, slots=True)
class _Known:
    """A version that was proven in this launch, and what it is recognised by."""

    reference: tuple[str, str]
    proof: Proof
    likeness: Likeness


class Bench:
    """One launch of an engine. The base's scores are asked for once; what was proven is recognised when it is loaded again."""

    def __init__(self, score: Score, base: str) -> None:
        self._score = score
        self._base = base
        self._base_scores: dict[tuple[int, ...], list[float]] = {}
        self._known: dict[str, _Known] = {}

    def knows(self, name: str, golden: Golden | None) -> bool:
        """Whether it was proven against this reference: recognising it takes the scores of one text."""
        known = self._known.get(name)
        return known is not None and golden is not None and known.reference == _reference(golden)

    async def prove(self, name: str, golden: Golden | None, siblings: Siblings) -> Proof:
        """Raises BackendError where the engine gives no scores."""
        if golden is None:
            return Proof(UNATTESTED, "it has no reference: nothing says what it should answer")
        known = self._known.pop(name, None)
        if known is None or known.reference != _reference(golden) or not await self._is_recognised(name, known):
            return await self._prove(name, golden, await siblings())
        self._known[name] = known
        return known.proof

    async def _is_recognised(self, name: str, known: _Known) -> bool:
        return known.likeness.fits((await self._score(name, [known.likeness.prompt]))[0])

    async def _prove(self, name: str, golden: Golden, siblings: Mapping[str, Golden]) -> Proof:
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
        proof = Proof(verdict.state, _detail(verdict, golden))
        if proof.state != FAILED and (found := likeness(prompts, base, served)) is not None:
            self._known[name] = _Known(_reference(golden), proof, found)
        return proof

    async def _base_of(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        keys = [tuple(prompt) for prompt in prompts]
        if len(self._base_scores) > MAX_TEXTS:
            self._base_scores.clear()
        if new := [key for key in dict.fromkeys(keys) if key not in self._base_scores]:
            self._base_scores.update(zip(new, await self._score(self._base, new), strict=True))
        return [self._base_scores[key] for key in keys]


def _detail(verdict: Verdict, golden: Golden) -> str:
    """Why it is no better, and whose word it stands on."""
    return "; ".join(part for part in (verdict.reason, attested.WORDS if golden.attested_by else "") if part)


def _reference(golden: Golden) -> tuple[str, str]:
    return golden.adapter_digest, golden.probe_id
