"""What is live, as the gateway tells it: nothing yet, one version, a split, a candidate beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from backends.errors import AdminError
from finetune.errors import RecipeUnusable
from finetune.live import Live, Share, live_of

OLD, NEW = "support@aaaaaaaaaaaa", "support@bbbbbbbbbbbb"


class Admin:
    def __init__(self, shares: Mapping[str, int], previous: Mapping[str, int] | None = None) -> None:
        told = {"shares": shares, "previous": previous or {}}
        self.alias = {key: [{"adapter": n, "weight": w} for n, w in one.items()] for key, one in told.items()}

    def adapter(self, name: str) -> dict[str, Any]:
        if name != NEW:
            raise AdminError(f"no version {name!r}", 404)
        return {"versions": [{"name": name, "model": "demo"}]}

    def aliases(self) -> list[dict[str, Any]]:
        return [{"name": "support", **self.alias}] if self.alias["shares"] else []


def live(*told: Mapping[str, int]) -> Live:
    return live_of(Admin(*told), "support", NEW)  # type: ignore[arg-type]


def test_nothing_yet_is_the_base() -> None:
    found = live({})
    assert (found, found.models, found.weights) == (Live("support", "demo", ()), ("demo",), (1.0,))
    assert not found.is_just(NEW)


def test_one_version_or_several() -> None:
    assert live({OLD: 1}).models == (OLD,)
    assert live({NEW: 1}, {OLD: 1}).is_just(NEW)
    assert live({OLD: 1, "support@cccccccccccc": 3}).weights == (0.25, 0.75)


def test_a_candidate_beside_it_is_not_what_it_is_held_against() -> None:
    found = live({OLD: 90, NEW: 10}, {OLD: 1})
    assert (found.shares, found.canary) == ((Share(OLD, 1),), NEW)
    assert not found.is_just(OLD)
    # Another one is tried: this one is held against both.
    assert live({OLD: 90, "support@cccccccccccc": 10}, {OLD: 1}).canary == ""


def test_a_version_that_there_is_not() -> None:
    with pytest.raises(RecipeUnusable, match="--candidate-only"):
        live_of(Admin({}), "support", "support@dddddddddddd")  # type: ignore[arg-type]
