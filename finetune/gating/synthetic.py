"""Synthetic pairs of models: scores of one skill by what is live and by the candidate, with a true difference that is known.

Items are right or wrong by either; a share of them is lost (live right, candidate wrong), a share gained. Clusters differ: each has
shares of its own, drawn from a Dirichlet distribution whose mean is the skill's, so that `icc` is the correlation of two items' fates in
one cluster. At 0.95 a cluster is lost as a whole or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.gating.intervals import Array, Sample

Layout = Literal["new", "fixed", "rare", "uneven", "closed"]
GRADES = (0.25, 0.5, 0.75, 1.0)
"""By how much a graded score falls or rises, equally likely."""


@dataclass(frozen=True, slots=True)
class Skill:
    """`live` in [0, 1]; `difference`, candidate - live, in points."""

    live: float
    difference: float
    likeness: float = 0.5
    """Correlation of the two models' scores of an item, as far as the means allow it."""
    layout: Layout = "new"
    """new: more items come in new clusters of `size`; fixed: all come from the same `size` clusters; rare: so too, and each
    cluster may be lost, or gained, as a whole, the others changing by `elsewhere`; uneven: new clusters of one item and
    of 2 * size - 1, and only the large ones lose and gain; closed: `size` clusters are all that there are, one has all the change."""
    size: int = 1
    icc: float = 0.0
    elsewhere: float = 0.0
    """rare: difference in the clusters that are neither lost nor gained as a whole, in points."""
    is_graded: bool = False

    @property
    def shares(self) -> tuple[float, float]:
        """Of items lost and of items gained."""
        mean_grade = sum(GRADES) / len(GRADES) if self.is_graded else 1.0
        after = self.live + self.difference / 100 / mean_grade
        spread = math.sqrt(max(0.0, self.live * (1 - self.live) * after * (1 - after)))
        both = self.live * after + self.likeness * spread
        both = min(max(both, self.live + after - 1, 0.0), self.live, after)
        return self.live - both, after - both


class Stream:
    """Independent samples of a skill that grow look by look."""

    def __init__(self, skill: Skill, num_samples: int, rng: np.random.Generator) -> None:
        self._skill, self._num, self._rng = skill, num_samples, rng
        self._num_items = 0
        self._fates: Array | None = None
        kinds = self._kinds()
        self.sample = Sample(kinds, np.full_like(kinds, self._kind_size), np.zeros_like(kinds))

    def grow(self, num_items: int) -> Sample:
        """With up to `num_items` each, like clusters together where there are fewer kinds than clusters."""
        skill, more = self._skill, num_items - self._num_items
        self._num_items = num_items
        if skill.layout in ("fixed", "rare"):
            return self._grown_fixed(more // skill.size)
        if skill.layout == "uneven":
            return self._grown_uneven(more // skill.size)
        if skill.layout == "closed":
            return self._grown_closed(more)
        return self._grown_new(more // skill.size)

    @property
    def _kind_size(self) -> float:
        return float(self._skill.size if self._skill.layout == "new" else 1)

    def _kinds(self) -> Array:
        """[samples, kinds]: all sums of differences that a cluster can have; none where clusters are kept one by one."""
        skill = self._skill
        if skill.layout in ("fixed", "rare", "uneven"):
            return np.zeros((self._num, 0))
        if skill.is_graded:
            kinds = np.array([*(-grade for grade in GRADES), 0.0, *GRADES])
        else:
            reach = skill.size if skill.layout == "new" else 1
            kinds = np.arange(-reach, reach + 1, dtype=float)
        return np.tile(kinds, (self._num, 1))

    def _grown_new(self, num_clusters: int) -> Sample:
        skill = self._skill
        if skill.is_graded:
            lost, gained = skill.shares
            chances = [lost / len(GRADES)] * len(GRADES) + [1 - lost - gained] + [gained / len(GRADES)] * len(GRADES)
            return self._counted(self._rng.multinomial(num_clusters, chances, self._num))
        if skill.size == 1:
            lost, gained = skill.shares
            return self._counted(self._rng.multinomial(num_clusters, [lost, 1 - lost - gained, gained], self._num))
        sums = self._sums(self._drawn_fates(num_clusters), skill.size) + skill.size
        width = 2 * skill.size + 1
        places = sums + width * np.arange(self._num)[:, None]
        return self._counted(np.bincount(places.ravel(), minlength=width * self._num).reshape(self._num, width))

    def _grown_fixed(self, items_each: int) -> Sample:
        """Every cluster goes on as it began."""
        if self._fates is None:
            is_rare = self._skill.layout == "rare"
            self._fates = self._rare_fates() if is_rare else self._drawn_fates(self._skill.size)
            zeros = np.zeros((self._num, self._skill.size))
            self.sample = Sample(zeros, zeros, zeros + 1)
        sums = self._sums(self._fates, items_each)
        before = self.sample
        self.sample = Sample(before.differences + sums, before.sizes + items_each, before.counts)
        return self.sample

    def _grown_uneven(self, num_clusters: int) -> Sample:
        """Half of the clusters have one item, half 2 * size - 1."""
        skill = self._skill
        large = 2 * skill.size - 1
        is_large = self._rng.random((self._num, num_clusters)) < 0.5
        sums = self._sums(self._drawn_fates(num_clusters, 2 * skill.size / large), large)
        sizes = np.where(is_large, float(large), 1.0)
        parts = (np.where(is_large, sums, 0).astype(float), sizes, np.ones_like(sizes))
        before = (self.sample.differences, self.sample.sizes, self.sample.counts)
        self.sample = Sample(*(np.concatenate(pair, axis=1) for pair in zip(before, parts, strict=True)))
        return self.sample

    def _grown_closed(self, num_items: int) -> Sample:
        """One cluster of all changes, the others do not: every cluster is asked equally often."""
        skill = self._skill
        lost, gained = (share * skill.size for share in skill.shares)
        changed = self._rng.multinomial(num_items // skill.size, [lost, 1 - lost - gained, gained], self._num)
        changed[:, 1] += num_items - num_items // skill.size
        return self._counted(changed)

    def _counted(self, counts: NDArray[np.int64]) -> Sample:
        self.sample = Sample(self.sample.differences, self.sample.sizes, self.sample.counts + counts)
        return self.sample

    def _drawn_fates(self, num_clusters: int, times: float = 1.0) -> Array:
        """[samples, clusters, 3]: the shares of each cluster that are lost, gained and neither."""
        lost, gained = (share * times for share in self._skill.shares)
        means = np.array([lost, gained, 1 - lost - gained])
        shape = (self._num, num_clusters, 3)
        if self._skill.icc == 0:
            return np.broadcast_to(means, shape)
        drawn = self._rng.standard_gamma(means * (1 - self._skill.icc) / self._skill.icc, shape)
        return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True))

    def _rare_fates(self) -> Array:
        """As of `_drawn_fates`, where a cluster is changed as a whole or like the others that are not."""
        skill = self._skill
        more = skill.difference - skill.elsewhere
        chance = more / (100 - skill.elsewhere) if more > 0 else -more / (100 + skill.elsewhere)
        lost, gained = replace(skill, difference=skill.elsewhere).shares
        is_whole = self._rng.random((self._num, skill.size, 1)) < chance
        return np.where(is_whole, [float(more < 0), float(more > 0), 0.0], [lost, gained, 1 - lost - gained])

    def _sums(self, fates: Array, num_items: int) -> NDArray[np.int64]:
        """[samples, clusters]: items gained less items lost."""
        lost = self._rng.binomial(num_items, np.clip(fates[..., 0], 0, 1))
        rest = np.maximum(1 - fates[..., 0], 1e-12)
        gained = self._rng.binomial(num_items - lost, np.clip(fates[..., 1] / rest, 0, 1))
        return np.asarray(gained - lost)
