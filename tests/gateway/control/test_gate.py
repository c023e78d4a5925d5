from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway import errors
from gateway.control import aliases, verdicts
from gateway.control.aliases import Rules
from gateway.control.desired import Change, Desired, Version
from gateway.control.gate import Move
from gateway.snapshot import Share
from tests.gateway.control.verdict_documents import A, B, C, document, encoded

DIGEST = "sha256:" + "ba" * 32
ALL = Desired({name: Version(name, name[-1] * 64, "demo", DIGEST, 8, 10, "ann", 1.0) for name in (A, B, C)})


def judged(desired: Desired, *documents: dict[str, Any]) -> Desired:
    """With these verdicts, which came one after another."""
    found = dict(desired.verdicts)
    for told in documents:
        verdict, _ = verdicts.read(encoded(told), float(len(found)), "x")
        found[verdict.digest] = verdict
    return replace(desired, verdicts=found)


def digest(told: dict[str, Any]) -> str:
    return verdicts.read(encoded(told), 0.0, "x")[0].digest


def ask(desired: Desired, *shares: str | Share, gate: Any = "require", **options: str) -> Change:
    wanted = tuple(Share(share) if isinstance(share, str) else share for share in shares)
    change = aliases.point(desired, Move("support", wanted, "ann", **options), Rules(gate, ["demo"]), 5.0)
    assert change is not None
    return change


def moved(desired: Desired, *shares: str | Share, gate: Any = "require", **options: str) -> Desired:
    return aliases.apply(desired, ask(desired, *shares, gate=gate, **options))


LIVE = moved(ALL, A, gate="off")
"""The alias serves A."""


def test_a_new_alias_needs_a_verdict_against_the_base() -> None:
    told = document(A)
    change = ask(judged(ALL, told), A)
    assert (change.kind, change.gate, change.verdict, change.warning) == ("flip", "go", digest(told), "")
    with pytest.raises(errors.Conflict, match=f"{A} has no verdict, and adapters.gate is `require`"):
        ask(ALL, A)
    with pytest.raises(errors.Conflict, match=f"against {B}, and the alias is new, so the base is what counts"):
        ask(judged(ALL, document(A, B)), A)


def test_a_flip_needs_a_go_against_just_what_is_live() -> None:
    told = document(B, A)
    change = ask(judged(LIVE, told), B)
    assert (change.gate, change.verdict) == ("go", digest(told))
    for other, words in (
        (document(B), f"holds it against the base, and support serves {A} now"),
        (document(B, C), f"holds it against {C}, and support serves {A} now"),
        (document(B, A, base="demo@000000000000"), "was given on the base demo@000000000000, and this version's is demo@babababababa"),
        (document(B, A, outcome="NO-GO"), r"says NO-GO \(arithmetic is not kept\)"),
        (document(B, A, outcome="INCONCLUSIVE"), "says INCONCLUSIVE"),
        (document(C, A), f"{B} has no verdict, and adapters.gate"),
    ):  # fmt: skip
        with pytest.raises(errors.Conflict, match=words) as caught:
            ask(judged(LIVE, other), B)
        assert f"`forgegate gate --alias support --candidate {B} --suite SUITE`" in caught.value.message
        assert f"`forgegate adapters alias support {B} --force REASON`" in caught.value.message


def test_the_newest_go_that_fits_is_found_among_all() -> None:
    first, second = document(B, A), document(B, A, who="bob")
    desired = judged(LIVE, document(B), first, second, document(C, A), document(B, C))
    assert ask(desired, B).verdict == digest(second)


def test_a_newer_verdict_that_speaks_against_it_is_told() -> None:
    go, no_go = document(B, A), document(B, A, outcome="NO-GO")
    change = ask(judged(LIVE, go, no_go), B)
    assert (change.gate, change.verdict) == ("go", digest(go))
    assert "says NO-GO" in change.warning
    assert ask(judged(LIVE, no_go, go), B).warning == ""


def test_warn_moves_and_marks() -> None:
    assert (ask(LIVE, B, gate="warn").gate, ask(LIVE, B, gate="warn").warning) == ("ungated", "")
    assert ask(judged(LIVE, document(B, A)), B, gate="warn").gate == "go"
    no_go = document(B, A, outcome="NO-GO")
    change = ask(judged(LIVE, no_go), B, gate="warn")
    assert (change.gate, change.verdict) == ("ungated", digest(no_go))
    assert "says NO-GO (arithmetic is not kept)" in change.warning
    assert "holds it against the base" in ask(judged(LIVE, document(B)), B, gate="warn").warning


def test_off_looks_for_nothing_but_a_verdict_that_is_named_counts() -> None:
    desired = judged(LIVE, document(B, A), document(C, A, outcome="NO-GO"))
    assert (ask(desired, B, gate="off").gate, ask(desired, B, gate="off").verdict) == ("", "")
    go, no_go = desired.verdicts
    assert ask(desired, B, gate="off", verdict=go).gate == "go"
    with pytest.raises(errors.Conflict, match="says NO-GO"):
        ask(desired, C, gate="off", verdict=no_go)


@pytest.mark.parametrize("gate", ["off", "warn", "require"])
def test_a_verdict_that_is_named_must_be_one_that_allows_just_this(gate: Any) -> None:
    told, other = document(B, A), document(B, C)
    desired = judged(LIVE, told, other)
    whole = digest(told)
    for name in (whole, whole.removeprefix("sha256:"), whole[: len("sha256:") + 12], whole[7:13]):
        assert ask(desired, B, gate=gate, verdict=name).verdict == whole
    for name in ("sha256:" + "0" * 64, whole[7:12], "x"):
        with pytest.raises(errors.NotFound, match="forgegate adapters verdicts"):
            ask(desired, B, gate=gate, verdict=name)
    with pytest.raises(errors.Conflict, match=f"holds it against {C}"):
        ask(desired, B, gate=gate, verdict=digest(other))
    with pytest.raises(errors.Conflict, match=f"is of {B}, which support would not begin to serve"):
        ask(desired, C, gate=gate, verdict=whole)
    assert ask(desired, B, gate=gate, verdict=digest(other), force="demo day").gate == "forced"


@pytest.mark.parametrize("gate", ["warn", "require"])
def test_a_reason_overrules_and_is_recorded_with_what_it_overruled(gate: Any) -> None:
    no_go = document(B, A, outcome="NO-GO")
    change = ask(judged(LIVE, no_go), B, gate=gate, force="demo day")
    assert (change.kind, change.gate, change.reason, change.verdict) == ("force", "forced", "demo day", digest(no_go))
    go = ask(judged(LIVE, document(B, A)), B, gate=gate, force="demo day")
    assert (go.kind, go.gate, go.reason) == ("flip", "go", "demo day")  # nothing had to be forced


# Canaries -------------------------------------------------------------------------------------------------------------


def test_one_verdict_carries_a_canary_to_its_flip_and_one_rollback_undoes_all() -> None:
    told = document(B, A)
    desired = judged(LIVE, told)
    for shares in ((Share(A, 90), Share(B, 10)), (Share(A, 50), Share(B, 50)), (Share(B),)):
        change = ask(desired, *shares)
        assert (change.gate, change.verdict) == ("go", digest(told))
        desired = aliases.apply(desired, change)
        assert (desired.gate(A), desired.gate(B)) == ("", "go")  # what was live keeps its own mark
        assert desired.aliases["support"].previous == (Share(A),)
    back = aliases.apply(desired, aliases.rollback(desired, "support", "ann", 9.0))
    assert (back.aliases["support"].shares, back.aliases["support"].gate) == ((Share(A),), "")
    again = aliases.rollback(back, "support", "ann", 10.0)
    assert (again.shares, again.gate) == ((Share(B),), "go")


def test_a_canary_does_not_open_the_door_to_another_candidate() -> None:
    desired = moved(judged(LIVE, document(B, A), document(C, A)), Share(A, 9), Share(B, 1))
    with pytest.raises(errors.Conflict, match=f"holds it against {A}, and support serves {A} 90%, {B} 10% now"):
        ask(desired, C)
    with pytest.raises(errors.Conflict, match=f"{C} has no verdict that fits"):
        ask(desired, Share(A, 8), Share(B, 1), Share(C, 1))


def test_a_canary_that_is_called_off_keeps_the_mark_of_what_stays() -> None:
    desired = moved(judged(ALL, document(A), document(B, A)), A)
    desired = moved(desired, Share(A, 9), Share(B, 1))
    change = ask(desired, A)
    assert (change.kind, change.gate) == ("flip", "go")
    forced = moved(moved(LIVE, B, force="x"), Share(B, 9), A)  # A was served before: no verdict is needed
    assert forced.aliases["support"].gate == "ungated"
    change = ask(forced, B)
    assert (change.kind, change.gate) == ("flip", "forced")  # the mark of what stays; this move needed no force


def test_a_verdict_against_a_split_holds_for_that_split() -> None:
    split = moved(LIVE, Share(A, 1), Share(B, 1), gate="warn")
    steady = replace(split.aliases["support"], previous=(Share(C),))  # long ago something else was live
    desired = replace(split, aliases={"support": steady})
    assert ask(judged(desired, document(C, A, B)), C).gate == "go"
    uneven = document(C, A, B) | {"live": [{"adapter": A, "weight": 9}, {"adapter": B, "weight": 1}]}
    with pytest.raises(errors.Conflict, match=r"90%.* and support serves .* 50%"):
        ask(judged(replace(desired, versions=ALL.versions), uneven), C)


def test_every_version_that_enters_needs_its_own() -> None:
    both = (Share(B, 5), Share(C, 5))
    first, second = document(B, A), document(C, A)
    change = ask(judged(LIVE, first, second), *both)
    assert change.verdict == f"{digest(first)}, {digest(second)}"
    with pytest.raises(errors.Conflict, match=f"{C} has no verdict"):
        ask(judged(LIVE, first), *both)


def test_what_it_has_served_may_come_back_without_a_verdict() -> None:
    desired = moved(judged(LIVE, document(B, A)), B)
    change = ask(desired, A)
    assert (change.kind, change.gate) == ("flip", "ungated")
    assert aliases.rollback(desired, "support", "ann", 1.0).shares == (Share(A),)
    stale = judged(desired, document(A, C))
    assert ask(stale, A).gate == "ungated"
