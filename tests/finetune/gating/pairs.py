"""Paired scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.gating.paired import Paired


def paired(name: str, kept: int, lost: int = 0, gained: int = 0, wrong: int = 0, cluster_size: int = 1) -> Paired:
    """Items right by both, by what is live only, by the candidate only, by neither; clusters are filled in that order."""
    live = (1.0,) * (kept + lost) + (0.0,) * (gained + wrong)
    candidate = (1.0,) * kept + (0.0,) * lost + (1.0,) * gained + (0.0,) * wrong
    return Paired(name, tuple(f"c{place // cluster_size}" for place in range(len(live))), live, candidate)


def of_clusters(name: str, differences: Sequence[float], size: int) -> Paired:
    """Clusters of `size` items, live at 0.5, in each of which every item differs by as much."""
    clusters = tuple(f"c{place}" for place in range(len(differences)) for _ in range(size))
    candidate = tuple(0.5 + difference for difference in differences for _ in range(size))
    return Paired(name, clusters, (0.5,) * len(clusters), candidate)
