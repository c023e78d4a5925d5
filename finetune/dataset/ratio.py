"""How many general rows go with domain rows. Standard library only: a plan counts with it, too."""

from __future__ import annotations


def num_general_of(num_domain: int, ratio: float) -> int:
    """How many general rows make them `ratio` of the whole."""
    return round(num_domain * ratio / (1 - ratio))
