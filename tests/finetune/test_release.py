"""From a verdict to an alias: what moves it, what does not, and a canary that is taken away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune import candidacy
from finetune import release as releasing
from finetune.errors import RecipeUnusable
from finetune.evaluation.result import PAGE
from finetune.gating.document import digest
from finetune.jsonchild import silent
from finetune.live import Live, Share, live_of
from finetune.release import VERDICT, Canary, CanaryFailed, GateNegative, Plan, Release, Released
from finetune.running import Gateway
from tests.finetune.verdicts import NEW, OLD, Models, suite, written

GATEWAY = Gateway("http://gateway", "http://admin", "token")


class FakeAdmin:
    """An alias and its verdicts, with the gateway's rules as far as they matter here."""

    def __init__(self, *shares: tuple[str, int]) -> None:
        self.shares = dict(shares)
        self.previous: dict[str, int] = {}
        self.posted: list[Mapping[str, Any]] = []
        self.moves: list[tuple[dict[str, int], str, str]] = []
        self.retreats_after: int | None = None
        """So many looks at the alias later its watch rolls a canary back."""

    def adapter(self, name: str) -> dict[str, Any]:
        if name == "support":
            return {"history": [{"kind": "auto-rollback", "who": "watch", "reason": "3 % errors"}]}
        return {"versions": [{"name": name, "model": "demo"}]}

    def aliases(self) -> list[dict[str, Any]]:
        if self.retreats_after is not None and len(self.shares) > 1:
            self.retreats_after -= 1
            if self.retreats_after < 0:
                self.shares, self.previous = self.previous, self.shares
        if not self.shares:
            return []
        told = {"shares": self.shares, "previous": self.previous}
        views = {key: [{"adapter": n, "weight": w} for n, w in one.items()] for key, one in told.items()}
        return [{"name": "support", "gate": "go", **views}]

    def engines(self) -> list[dict[str, Any]]:
        return []

    def add_verdict(self, document: Mapping[str, Any]) -> str:
        self.posted.append(document)
        return digest(document)

    def point(self, alias: str, shares: Mapping[str, int], who: str, force: str, verdict: str) -> dict[str, Any]:
        is_canary = set(self.previous) < set(self.shares) and self.previous
        self.previous = self.previous if is_canary else self.shares
        self.shares = dict(shares)
        self.moves.append((dict(shares), force, verdict))
        return {"gate": "go" if verdict else "forced"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """The new one is better at the task."""
    made = Models({OLD: {"tickets": 0.2}, "demo": {"tickets": 0.0}})
    monkeypatch.setattr(candidacy, "evaluate", made.evaluate)
    monkeypatch.setattr(releasing, "write_all", written)  # tables and pages show what these models do not have
    return made


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(suite(), tmp_path / "evaluation", remedies=lambda: iter(["  1. replay"]))


def release(admin: FakeAdmin, plan: Plan, clock: Clock | None = None) -> Released:
    clock = clock or Clock()
    made = Release(admin, GATEWAY, plan, "me@here", silent, clock, clock.sleep)  # type: ignore[arg-type]
    return made.go(live_of(admin, "support", NEW), NEW)  # type: ignore[arg-type]


def test_go_moves_the_alias_with_its_verdict(models: Models, plan: Plan) -> None:
    admin = FakeAdmin((OLD, 1))
    done = release(admin, plan)
    assert (done.gate, done.document) == ("go", admin.posted[0])
    assert admin.moves == [({NEW: 1}, "", digest(admin.posted[0]))]
    assert plan.folder is not None
    assert json.loads((plan.folder / VERDICT).read_bytes()) == admin.posted[0]
    assert json.loads((plan.folder / PAGE).read_bytes()) == admin.posted[0], "the page tells it, too"


def test_no_go_leaves_it_and_says_what_helps(models: Models, plan: Plan) -> None:
    models.shares = {**models.shares, NEW: {"facts": 0.6}}
    admin = FakeAdmin((OLD, 1))
    with pytest.raises(GateNegative) as caught:
        release(admin, plan)
    assert caught.value.exit_code == 1
    said = str(caught.value)
    assert "  1. replay" in said
    assert f"{NEW} stays a candidate, no alias was moved" in said
    assert f"forgegate adapters alias support {NEW} --force REASON" in said
    assert (admin.moves, [one["outcome"] for one in admin.posted]) == ([], ["NO-GO"])
    assert caught.value.as_json()["judged"]["outcome"] == "NO-GO"


def test_nobody_can_tell_is_no_go_either(models: Models, plan: Plan) -> None:
    models.shares = {**models.shares, NEW: {"facts": 0.971}}
    admin = FakeAdmin((OLD, 1))
    with pytest.raises(GateNegative, match="INCONCLUSIVE"):
        release(admin, replace(plan, max_items=500))
    assert admin.moves == []


def test_a_reason_moves_it_all_the_same(models: Models, plan: Plan) -> None:
    models.shares = {**models.shares, NEW: {"facts": 0.6}}
    admin = FakeAdmin((OLD, 1))
    done = release(admin, replace(plan, force="the old one lies"))
    assert admin.moves == [({NEW: 1}, "the old one lies", "")]
    assert (done.gate, [one["outcome"] for one in admin.posted]) == ("forced", ["NO-GO"])


def test_a_reason_is_not_used_where_none_is_needed(models: Models, plan: Plan) -> None:
    admin = FakeAdmin((OLD, 1))
    assert release(admin, replace(plan, force="in any case")).gate == "go"
    assert admin.moves == [({NEW: 1}, "", digest(admin.posted[0]))]


def test_what_is_served_already_is_not_asked_again(models: Models, plan: Plan) -> None:
    admin = FakeAdmin((NEW, 1))
    assert release(admin, plan) == Released("go")
    assert (models.asked, admin.moves) == ([], [])


def test_a_canary_has_its_part_for_a_while_then_all(models: Models, plan: Plan) -> None:
    admin, clock = FakeAdmin((OLD, 2)), Clock()
    release(admin, replace(plan, canary=Canary(10, 60.0)), clock)
    verdict = digest(admin.posted[0])
    assert admin.moves == [({OLD: 180, NEW: 20}, "", verdict), ({NEW: 1}, "", verdict)]
    assert clock.now_s == 60.0
    assert admin.previous == {OLD: 2}


def test_a_canary_that_is_rolled_back_is_not_let_in(models: Models, plan: Plan) -> None:
    admin = FakeAdmin((OLD, 1))
    admin.retreats_after = 5
    with pytest.raises(CanaryFailed, match=r"auto-rollback by watch: 3 % errors"):
        release(admin, replace(plan, canary=Canary(10, 60.0)))
    assert [shares for shares, _, _ in admin.moves] == [{OLD: 90, NEW: 10}]


def test_stopped_as_a_canary_it_goes_on(models: Models, plan: Plan) -> None:
    admin = FakeAdmin((OLD, 90), (NEW, 10))
    admin.previous = {OLD: 1}
    release(admin, replace(plan, canary=Canary(10, 60.0)))
    assert models.asked[0][0] == (OLD, NEW), "it is held against what was live before it came"
    assert admin.posted[0]["live"] == [{"adapter": OLD, "weight": 1}]
    assert [shares for shares, _, _ in admin.moves] == [{NEW: 1}]


def test_the_first_version_has_nothing_to_stand_beside(models: Models, plan: Plan) -> None:
    admin = FakeAdmin()
    done = release(admin, replace(plan, canary=Canary(10, 60.0)))
    assert done.notes == ("no canary: support served nothing that it could stand beside",)
    assert models.asked[0][0] == ("demo", NEW)
    assert [shares for shares, _, _ in admin.moves] == [{NEW: 1}]


def test_without_a_suite_nothing_is_decided(models: Models, plan: Plan) -> None:
    with pytest.raises(RecipeUnusable, match="a suite is needed"):
        release(FakeAdmin((OLD, 1)), replace(plan, suite=None))


def test_shares_beside_a_canary_keep_their_ratio() -> None:
    live = Live("support", "demo", (Share(OLD, 3), Share("support@cccccccccccc", 1)))
    assert live.beside(NEW, 20) == {OLD: 240, "support@cccccccccccc": 80, NEW: 80}
    assert live.weights == (0.75, 0.25)
    assert Live("support", "demo", ()).models == ("demo",)
