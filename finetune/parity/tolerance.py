"""How far an engine may lie from a float32 reference, by the format of its weights. Nats, with room above what was measured.

base     root mean square over tokens of what the format does to the base's log-probabilities: of the demo model, which quantisation
         hurts more than larger ones, F16 0.002, Q8_0 0.06, Q6_K 0.13, Q5_K_M 0.17, Q4_K_M 0.32, Q3_K_M 0.46, Q2_K 1.22
answers  the same of held-out answers with the adapter
tie      a token that leads by less may lose: greedy answers part there
"""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Tolerance:
    weights: str
    base: float
    answers: float
    tie: float


TOLERANCES = tuple(
    Tolerance(*row)
    for row in (
        ("F32", 0.01, 0.01, 0.02),
        ("F16", 0.03, 0.03, 0.10),
        ("BF16", 0.10, 0.10, 0.30),
        ("Q8_0", 0.10, 0.10, 0.30),
        ("FP8", 0.20, 0.20, 0.50),
        ("Q6_K", 0.20, 0.20, 0.50),
        ("Q5_K_M", 0.30, 0.30, 0.75),
        ("Q4_K_M", 0.50, 0.50, 1.25),
        ("AWQ", 0.50, 0.50, 1.25),
        ("Q3_K_M", 0.80, 0.80, 2.00),
        ("Q2_K", 1.50, 1.50, 3.00),
    )
)
"""From the finest to the coarsest."""
NAMES = tuple(tolerance.weights for tolerance in TOLERANCES)


def named(weights: str) -> Tolerance:
    """Raises StopIteration for a name that is none of NAMES."""
    return next(tolerance for tolerance in TOLERANCES if tolerance.weights == weights)


def by_base_error(error: float) -> Tolerance | None:
    """The finest format, F32 apart, that explains what an engine's base differs by; None where none does: it is another base."""
    return next((tolerance for tolerance in TOLERANCES[1:] if error <= tolerance.base), None)
