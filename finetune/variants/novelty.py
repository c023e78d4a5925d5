"""Whether a question is new: ROUGE-L against everything that is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from finetune.evaluation.overlap import rouge_l, tokens

MAX_SIMILAR = 0.7
"""From here on a question is an old one, as in Self-Instruct."""


@dataclass(slots=True)
class Pool:
    """Questions that are there."""

    max_similar: float = MAX_SIMILAR
    _texts: list[tuple[str, Counter[str]]] = field(default_factory=list)

    def add(self, text: str) -> None:
        self._texts.append((text, Counter(tokens(text))))

    def has_like(self, text: str) -> bool:
        """A common subsequence is no longer than what two texts have in common in any order, which is quick to count."""
        own = Counter(tokens(text))
        return any(
            self._could_be(own, other) and rouge_l(known, text) >= self.max_similar for known, other in self._texts
        )

    def _could_be(self, one: Counter[str], other: Counter[str]) -> bool:
        total = one.total() + other.total()
        return not total or 2 * (one & other).total() / total >= self.max_similar
