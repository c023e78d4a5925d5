"""The rows of numbers that a proof compares: what an engine served, what the reference says, what is left. Pure, stdlib only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import mul, sub

from backends.adapter.golden import Golden
from backends.adapter.proof_estimate import Estimate, ratio_over_texts
from backends.errors import BackendError

Row = Sequence[float]


class ProofError(BackendError):
    """The scores are not those of the golden's texts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One decoy or sibling beside what is served, over the tokens that it is known for. Energies are sums of squares."""

    name: str
    estimate: Estimate | None
    """Its nearness; None where it does not differ from the adapter."""
    left_energy: float
    """Of what it leaves unexplained."""
    served_energy: float
    reference_energy: float
    base_energy: float


@dataclass(frozen=True, slots=True)
class Case:
    """Rows [n] over the scored tokens of the texts at hand; `ends[j]` is where text j ends."""

    adapter: Row
    """By the reference: a."""
    served: Row
    """The served difference s = a' - b'."""
    reference: Row
    """The reference difference d = a - b."""
    residual: Row
    """r = s - d."""
    base_error: Row
    """b' - b."""
    ends: tuple[int, ...]

    @classmethod
    def of(cls, golden: Golden, base: Row, adapted: Row, num_texts: int) -> Case:
        """`base` and `adapted`: the engine's scores of the scored tokens of the first `num_texts` texts."""
        served = list(map(sub, adapted, base))
        reference = list(map(sub, golden.adapter[: len(base)], golden.base))
        residual, base_error = list(map(sub, served, reference)), list(map(sub, base, golden.base))
        ends = tuple(accumulate(text.num_scored for text in golden.texts[:num_texts]))
        return cls(golden.adapter, served, reference, residual, base_error, ends)

    @property
    def num_tokens(self) -> int:
        return self.ends[-1]

    @property
    def projection(self) -> Estimate | None:
        """Of the served difference on the reference's; None where the adapter changes nothing."""
        return _ratio(self.served, self.reference, self.ends)

    @property
    def served_energy(self) -> float:
        return _energy(self.served)

    @property
    def reference_energy(self) -> float:
        return _energy(self.reference)

    @property
    def residual_energy(self) -> float:
        return _energy(self.residual)

    @property
    def base_energy(self) -> float:
        return _energy(self.base_error)

    def mean(self, energy: float) -> float:
        """Root mean square over the tokens."""
        return math.sqrt(energy / self.num_tokens)

    def read(self, name: str, row: Row, num_texts: int) -> Reading:
        """`row`: the reference's scores as a fault leaves them, or by another version, known for the first `num_texts` texts."""
        ends = self.ends[:num_texts]
        size = ends[-1]
        change = list(map(sub, row[:size], self.adapter))
        residual = self.residual[:size]
        return Reading(
            name=name,
            estimate=_ratio(residual, change, ends),
            left_energy=_energy(list(map(sub, residual, change))),
            served_energy=_energy(self.served[:size]),
            reference_energy=_energy(self.reference[:size]),
            base_energy=_energy(self.base_error[:size]),
        )


def read_scores(golden: Golden, base: Sequence[Row], served: Sequence[Row]) -> tuple[list[float], list[float]] | None:
    """What the engine said of the scored tokens by the base and by the adapter, text after text; None where a score is no number.

    Raises ProofError for scores of another shape. `base` may hold more texts than `served`.
    """
    count = len(served)
    if not 0 < count <= min(len(base), len(golden.texts)):
        raise ProofError(
            f"scores of {count} texts by the adapter and of {len(base)} by the base, where the golden file has {len(golden.texts)}"
        )
    rows = _flat(golden, base[:count], "the base"), _flat(golden, served, "the adapter")
    return rows if all(map(math.isfinite, chain(*rows))) else None


def _flat(golden: Golden, rows: Sequence[Row], who: str) -> list[float]:
    flat: list[float] = []
    for number, (text, row) in enumerate(zip(golden.texts, rows, strict=False)):
        if len(row) != len(text.ids) - 1:
            raise ProofError(
                f"text {number} has {len(text.ids)} tokens, {who} gave {len(row)} scores instead of {len(text.ids) - 1}"
            )
        flat += row[text.first - 1 :]
    return flat


def _ratio(found: Row, change: Row, ends: Sequence[int]) -> Estimate | None:
    """<found, f> / <change, f>, f the change tempered."""
    tempered = [value / (1 + abs(value)) for value in change]
    return ratio_over_texts(_sums(found, tempered, ends), _sums(change, tempered, ends))


def _sums(left: Row, right: Row, ends: Sequence[int]) -> list[float]:
    """For each text the sum of the products of its tokens."""
    products = list(map(mul, left, right))
    return [sum(products[begin:end]) for begin, end in zip((0, *ends), ends, strict=False)]


def _energy(row: Row) -> float:
    total: float = sum(map(mul, row, row))
    return total
