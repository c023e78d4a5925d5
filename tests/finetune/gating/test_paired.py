"""What pairs, and what is refused."""

from __future__ import annotations

import math

import pytest

from finetune.gating.errors import GateUnusable
from finetune.gating.paired import Paired


def test_clusters_are_summed_in_the_order_in_which_they_come() -> None:
    scores = Paired("facts", ("b", "a", "b", "a", "a"), (1, 1, 0.5, 0, 0), (0, 1, 1, 1, 0.25))
    totals = scores.totals()
    assert totals.differences.tolist() == [-0.5, 1.25]
    assert totals.sizes.tolist() == [2, 3]
    assert (scores.num_items, scores.num_clusters) == (5, 2)
    assert scores.difference == pytest.approx(15)


def test_where_clusters_are_all_that_there_are_each_item_stands_for_itself() -> None:
    totals = Paired("facts", ("a", "a", "b"), (1, 1, 0), (0, 1, 1), is_closed=True).totals()
    assert totals.differences.tolist() == [-1, 0, 1]
    assert totals.sizes.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("clusters", "live", "candidate", "words"),
    [
        (("a", "b"), (1.0,), (1.0,), "2 clusters, 1 scores of what is live and 1 of the candidate do not pair"),
        (("a",), (1.0,), (1.0, 0.0), "1 clusters, 1 scores of what is live and 2 of the candidate do not pair"),
        ((), (), (), "facts has no items"),
        (("a", "b"), (1.0, 1.5), (1.0, 0.0), "facts: item 1 has score 1.5 by what is live: scores lie in 0 to 1"),
        (("a", "b"), (1.0, 0.0), (math.nan, 0.0), "facts: item 0 has score nan by the candidate"),
        (("a",), (1.0,), (-0.1,), "facts: item 0 has score -0.1 by the candidate"),
    ],
)
def test_what_does_not_pair_is_named(clusters, live, candidate, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(GateUnusable, match=words):
        Paired("facts", clusters, live, candidate)
