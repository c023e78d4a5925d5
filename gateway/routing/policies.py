"""The policies by the names that the config knows."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.routing.base import Candidate, Decision, Policy, RandomBelow

TOKENS_PER_REQUEST = 256
"""What one running request weighs beside its tokens: it holds a batch slot even when it asks for few."""


class LeastLoad:
    """The replica with the least work ahead: outstanding tokens plus a constant for each running request.

    Ties are broken at random: several workers decide from the same counters at the same moment, and a fixed order
    would send them all to the first replica.
    """

    def __init__(self, random_below: RandomBelow) -> None:
        self._random_below = random_below

    def choose(self, candidates: Sequence[Candidate]) -> Decision:
        if len(candidates) == 1:
            return Decision(candidates[0].engine, "only ready replica")
        works = [work(candidate) for candidate in candidates]
        least = min(works)
        tied = [candidate for candidate, ahead in zip(candidates, works, strict=True) if ahead == least]
        chosen = tied[0] if len(tied) == 1 else tied[self._random_below(len(tied))]
        why = f"least_load: {chosen.num_running} running, {len(tied)} of {len(candidates)} tied"
        return Decision(chosen.engine, why)


def work(candidate: Candidate) -> int:
    """Return the work ahead of a new request on this replica, in tokens."""
    return candidate.num_running * TOKENS_PER_REQUEST + candidate.num_outstanding_tokens


def build(name: str, random_below: RandomBelow) -> Policy:
    """Return the policy called `name`; raises KeyError for a name that does not exist."""
    return {"least_load": LeastLoad}[name](random_below)
