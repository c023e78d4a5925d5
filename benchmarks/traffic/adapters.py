"""Which model or adapter each request asks for: popularity, cold ones, and popularity that moves."""

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.traffic.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class AdapterMix:
    """Request by request, a model's name by weight.

    `base_share` of the requests ask for the base model. Of the rest, `cold_share` ask for the adapter that was asked
    longest ago (in the beginning: the last of the list), which is likely not loaded; the others are drawn by weight.
    Every `churn_every` requests, 0 for never, the weights are dealt out anew, so that others become popular.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    base_share: float = 0.0
    cold_share: float = 0.0
    churn_every: int = 0

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.weights) or len(set(self.names)) < len(self.names):
            raise WorkloadError("an adapter mix needs one weight for each of its names, and each name once")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise WorkloadError("weights of adapters must not be negative, and one must be above 0")
        if not (0 <= self.base_share <= 1 and 0 <= self.cold_share <= 1):
            raise WorkloadError("shares of base model and cold adapters must be between 0 and 1")
        if self.churn_every < 0:
            raise WorkloadError("the number of requests between changes of popularity must not be negative")

    @classmethod
    def zipf(cls, names: Sequence[str], exponent: float, **more: float) -> "AdapterMix":
        """Popularity by rank, in the order of the names: weight 1 / rank ** exponent; 0 makes all alike."""
        weights = tuple(rank**-exponent for rank in range(1, len(names) + 1))
        return cls(tuple(names), weights, **more)  # type: ignore[arg-type]  # mypy does not tell one keyword from another

    def draws(self, num: int, rng: random.Random) -> list[str | None]:
        """One name for each of `num` requests; None is the base model."""
        popular = list(self.weights)
        oldest_first = OrderedDict.fromkeys(reversed(self.names))
        drawn: list[str | None] = []
        for index in range(num):
            if self.churn_every and index and index % self.churn_every == 0:
                rng.shuffle(popular)
            name = self._draw(popular, next(iter(oldest_first)), rng)
            if name is not None:
                oldest_first.move_to_end(name)
            drawn.append(name)
        return drawn

    def _draw(self, weights: Sequence[float], coldest: str, rng: random.Random) -> str | None:
        is_base, is_cold = rng.random() < self.base_share, rng.random() < self.cold_share
        popular = rng.choices(self.names, weights)[0]  # drawn always, so that shares do not shift what follows
        if is_base:
            return None
        return coldest if is_cold else popular

    def as_dict(self) -> dict[str, object]:
        """For result files."""
        total = sum(self.weights)
        return {
            "weights": {name: weight / total for name, weight in zip(self.names, self.weights, strict=True)},
            "base_share": self.base_share,
            "cold_share": self.cold_share,
            "churn_every": self.churn_every,
        }


def parse_adapters(text: str) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Names and, where written, weights: `a,b,c` or `a=3,b=1`; raises WorkloadError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    pairs = [word.partition("=") for word in words]
    names = tuple(name.strip() for name, _, _ in pairs)
    has_weights = [bool(equals) for _, equals, _ in pairs]
    if not names or not all(names) or len(set(has_weights)) != 1:
        raise WorkloadError(f"{text!r} names no adapters: write a,b,c or, with weights for all, a=3,b=1")
    if not has_weights[0]:
        return names, None
    try:
        return names, tuple(float(weight) for _, _, weight in pairs)
    except ValueError as exc:
        raise WorkloadError(f"{text!r}: a weight is no number") from exc
