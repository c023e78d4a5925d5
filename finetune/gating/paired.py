"""Scores of the same items by two models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.gating.errors import GateUnusable


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the clusters, each an independent unit."""

    differences: NDArray[np.float64]
    """[clusters], each the sum of candidate - live over its items."""
    sizes: NDArray[np.float64]
    """[clusters], items of each."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Scores of a task or skill, item by item. Raises GateUnusable for scores that do not pair."""

    name: str
    clusters: tuple[str, ...]
    """Of each item: its fact, its template, or the item itself."""
    live: tuple[float, ...]
    """Score of each item in [0, 1] by what is live now."""
    candidate: tuple[float, ...]
    is_closed: bool = False
    """Whether the clusters are all that there are (a closed table of facts, items drawn from it at random), and no sample of more: then
    only items vary, and each stands for itself."""

    def __post_init__(self) -> None:
        if not len(self.clusters) == len(self.live) == len(self.candidate):
            raise GateUnusable(
                f"{self.name}: {len(self.clusters)} clusters, {len(self.live)} scores of what is live and {len(self.candidate)} of the "
                "candidate do not pair: score the same items with both"
            )
        if not self.live:
            raise GateUnusable(f"{self.name} has no items: nothing can be judged by it")
        for whose, scores in (("what is live", self.live), ("the candidate", self.candidate)):
            for place, score in enumerate(scores):
                if not (math.isfinite(score) and 0 <= score <= 1):
                    raise GateUnusable(f"{self.name}: item {place} has score {score} by {whose}: scores lie in 0 to 1")

    @property
    def num_items(self) -> int:
        return len(self.live)

    @property
    def num_clusters(self) -> int:
        return len(set(self.clusters))

    @property
    def difference(self) -> float:
        """Mean of candidate - live, in points of 100."""
        return 100 * math.fsum(b - a for a, b in zip(self.live, self.candidate, strict=True)) / self.num_items

    def totals(self) -> Totals:
        """In the order in which clusters come first; of items where the clusters are all that there are."""
        differences = np.subtract(self.candidate, self.live, dtype=np.float64)
        if self.is_closed:
            return Totals(differences, np.ones(len(differences)))
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.clusters))}
        of_items = np.array([numbers[name] for name in self.clusters])
        return Totals(np.bincount(of_items, differences).astype(float), np.bincount(of_items).astype(float))
