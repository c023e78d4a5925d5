from __future__ import annotations

from typing import Any

import pytest

from gateway import errors
from gateway.control import aliases
from gateway.control.aliases import Rules
from gateway.control.desired import MAX_HISTORY, Change, Desired, Version
from gateway.control.gate import Move
from gateway.snapshot import Share

RULES = Rules("warn", ["demo"])


def version(name: str, model: str = "demo") -> Version:
    return Version(name, name[-1] * 64, model, "sha256:b", 8, 10, "ann", 1.0)


DESIRED = Desired({v.name: v for v in (version("s@a"), version("s@b"), version("s@c"), version("x@z", "other"))})


def point(desired: Desired, *names: str, rules: Rules = RULES, force: str = "", at: float = 1.0) -> Desired:
    change = aliases.point(desired, Move("s", tuple(map(Share, names)), "ann", "", force), rules, at)
    assert change is not None
    return aliases.apply(desired, change)


def back(desired: Desired) -> Desired:
    return aliases.apply(desired, aliases.rollback(desired, "s", "bob", 2.0))


def serves(desired: Desired) -> list[str]:
    return [share.adapter for share in desired.aliases["s"].shares]


def test_the_first_flip_makes_the_alias() -> None:
    after = point(DESIRED, "s@a")
    alias = after.aliases["s"]
    assert (alias.model, alias.shares, alias.previous, alias.gate) == ("demo", (Share("s@a"),), (), "ungated")
    assert after.versions["s@a"].has_served
    assert not after.versions["s@b"].has_served
    assert DESIRED.aliases == {}  # the old state is as it was


def test_a_change_says_from_what_to_what_by_whom_when_and_why() -> None:
    after = point(DESIRED, "s@a")
    change = aliases.point(after, Move("s", (Share("s@b", 3), Share("s@a", 1)), "bob", "canary"), RULES, 9.0)
    assert change == Change(
        "s", "demo", "split", (Share("s@a"),), (Share("s@b", 3), Share("s@a", 1)), "bob", "canary", 9.0, "ungated"
    )


def test_rollback_undoes_the_last_change_also_a_split_and_also_a_rollback() -> None:
    after = point(point(DESIRED, "s@a"), "s@a", "s@b")
    assert serves(back(after)) == ["s@a"]
    assert serves(back(back(after))) == ["s@a", "s@b"]
    assert serves(back(point(after, "s@c"))) == ["s@a", "s@b"]


def test_live_and_former_are_what_is_served_and_what_a_rollback_would_serve() -> None:
    after = point(point(DESIRED, "s@a"), "s@b")
    assert (after.live("demo"), after.former("demo"), after.live("other")) == (["s@b"], ["s@a"], [])
    assert (after.users("s@a"), after.users("s@c")) == (["s"], [])
    assert point(after, "s@c").former("demo") == ["s@b"]


def test_what_it_serves_already_is_no_change_but_other_weights_are() -> None:
    after = point(DESIRED, "s@a", "s@b")
    same = Move("s", (Share("s@a"), Share("s@b")), "ann")
    assert aliases.point(after, same, RULES, 2.0) is None
    other = Move("s", (Share("s@a", 2), Share("s@b")), "ann")
    assert aliases.point(after, other, RULES, 2.0) is not None


@pytest.mark.parametrize(
    ("shares", "alias", "error", "words"),
    [
        ((), "s", errors.BadRequest, "at least one"),
        ((Share("s@a"), Share("s@a")), "s", errors.BadRequest, "named once"),
        ((Share("s@a", 0),), "s", errors.BadRequest, "from 1 to 1,000,000"),
        ((Share("s@a", 1_000_001),), "s", errors.BadRequest, "from 1 to 1,000,000"),
        ((Share("s@q"),), "s", errors.NotFound, "no version 's@q'"),
        ((Share("s@a"), Share("x@z")), "s", errors.BadRequest, "different models: demo, other"),
        ((Share("s@a"),), "demo", errors.Conflict, "name of a model"),
        ((Share("s@a"),), "s@a", errors.BadRequest, "letters, digits"),
        ((Share("x@z"),), "t", errors.Conflict, "alias of model demo"),
    ],
)
def test_illegal_moves_say_what_is_wrong(shares: Any, alias: str, error: type[Exception], words: str) -> None:
    desired = point(DESIRED, "s@a")
    desired = Desired(desired.versions, {"t": desired.aliases["s"]}, desired.history)
    with pytest.raises(error, match=words):
        aliases.point(desired, Move(alias, shares, "ann"), RULES, 1.0)


def test_nothing_to_go_back_to_and_no_such_alias() -> None:
    with pytest.raises(errors.Conflict, match="nothing to go back to"):
        aliases.rollback(point(DESIRED, "s@a"), "s", "ann", 1.0)
    for undo in (aliases.rollback, aliases.drop):
        with pytest.raises(errors.NotFound, match="no alias 't'; there are: s"):
            undo(point(DESIRED, "s@a"), "t", "ann", 1.0)


def test_a_dropped_alias_is_gone_and_its_history_stays() -> None:
    after = aliases.apply(point(DESIRED, "s@a"), aliases.drop(point(DESIRED, "s@a"), "s", "ann", 2.0))
    assert after.aliases == {}
    assert [change.kind for change in after.history["s"]] == ["flip", "drop"]
    assert after.versions["s@a"].has_served
    assert point(after, "s@b").aliases["s"].previous == ()


REQUIRE, OFF = Rules("require", ["demo"]), Rules("off", ["demo"])


def test_gate_off_marks_nothing() -> None:
    assert point(DESIRED, "s@a", rules=OFF).aliases["s"].gate == ""


def test_gate_require_needs_a_reason_for_what_the_alias_has_not_served() -> None:
    with pytest.raises(errors.Conflict, match="s@a has no verdict"):
        point(DESIRED, "s@a", rules=REQUIRE)
    forced = point(DESIRED, "s@a", rules=REQUIRE, force="demo day")
    (change,) = forced.history["s"]
    assert (change.kind, change.reason, change.gate) == ("force", "demo day", "forced")
    with pytest.raises(errors.Conflict, match="s@b has no verdict"):
        point(forced, "s@a", "s@b", rules=REQUIRE)


def test_gate_require_lets_an_alias_back_to_what_it_has_served() -> None:
    after = point(point(DESIRED, "s@a"), "s@b")
    assert serves(back(after)) == ["s@a"]
    assert serves(point(after, "s@a", rules=REQUIRE)) == ["s@a"]
    other = Move("t", (Share("s@a"),), "ann")
    with pytest.raises(errors.Conflict, match="no verdict"):  # served, but by another alias
        aliases.point(after, other, REQUIRE, 1.0)


def test_a_rollback_brings_back_the_mark_too() -> None:
    forced = point(DESIRED, "s@a", rules=REQUIRE, force="x")
    after = point(forced, "s@b", rules=RULES)
    assert after.aliases["s"].gate == "ungated"
    assert back(after).aliases["s"].gate == "forced"


def test_the_history_at_hand_is_bounded() -> None:
    after = DESIRED
    for index in range(MAX_HISTORY + 5):
        after = point(after, "s@a" if index % 2 else "s@b", at=float(index))
    assert len(after.history["s"]) == MAX_HISTORY
    assert after.history["s"][-1].at == MAX_HISTORY + 4
