"""Random moves, verdicts and rollbacks under `require`: what an alias comes to serve it may serve, by rules that are written anew here."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway import errors
from gateway.control import aliases, verdicts
from gateway.control.aliases import Rules
from gateway.control.desired import Alias, Change, Desired, Version
from gateway.control.gate import Move
from gateway.snapshot import Share
from tests.gateway.control.verdict_documents import BASE, document, encoded

NAMES = tuple(f"support@{digit * 12}" for digit in "abcd")
RULES = Rules("require", ["demo"])
EMPTY = Desired(
    {name: Version(name, name[-1] * 64, "demo", "sha256:" + "ba" * 32, 8, 10, "ann", 1.0) for name in NAMES}
)


def allows(desired: Desired, digest: str, name: str, alias: Alias | None) -> bool:
    """Whether the verdict is a GO for just this version in just this place."""
    verdict = desired.verdicts[digest]
    if (verdict.outcome, verdict.candidate, verdict.base) != ("GO", name, BASE):
        return False
    against = {share.adapter for share in verdict.live}
    now = {share.adapter for share in alias.shares} if alias else set()
    return against == now or (bool(against) and now == against | {name})


def random_move(dice: random.Random) -> Move:
    shares = tuple(Share(name, dice.choice((1, 9))) for name in dice.sample(NAMES, dice.choice((1, 1, 1, 2, 2, 3))))
    return Move("support", shares, "ann", force="a reason" if dice.random() < 0.1 else "")


def with_verdict(desired: Desired, dice: random.Random) -> Desired:
    candidate = dice.choice(NAMES)
    live = dice.sample([name for name in NAMES if name != candidate], dice.choice((0, 1, 1, 1, 2)))
    outcome, base = dice.choice(("GO", "GO", "NO-GO")), dice.choice((BASE, BASE, BASE, "demo@000000000000"))
    verdict, _ = verdicts.read(encoded(document(candidate, *live, outcome=outcome, base=base)), 1.0, "x")
    return replace(desired, verdicts={**desired.verdicts, verdict.digest: verdict})


def check(desired: Desired, change: Change, alias: Alias | None) -> None:
    served = alias.served if alias else frozenset()
    digests = change.verdict.split(", ") if change.verdict else []
    for name in {share.adapter for share in change.shares} - served:
        assert change.gate == "forced" or any(allows(desired, digest, name, alias) for digest in digests), change
    assert (change.kind == "force") <= (change.gate == "forced" and change.reason == "a reason")


@pytest.mark.parametrize("seed", range(8))
def test_nothing_enters_without_a_go_or_a_reason(seed: int) -> None:
    dice, desired = random.Random(seed), EMPTY
    done = {"moved": 0, "refused": 0, "go": 0, "forced": 0}
    for step in range(600):
        if dice.random() < 0.3:
            desired = with_verdict(desired, dice)
        if dice.random() < 0.02 and "support" in desired.aliases:
            desired = replace(aliases.apply(desired, aliases.drop(desired, "support", "ann", step)), verdicts={})
        alias = desired.aliases.get("support")
        try:
            if dice.random() < 0.15:
                change: Change | None = aliases.rollback(desired, "support", "bob", step)
                assert change is not None
                assert alias is not None
                assert {share.adapter for share in change.shares} <= alias.served
            else:
                change = aliases.point(desired, random_move(dice), RULES, step)
        except (errors.Conflict, errors.NotFound):
            done["refused"] += 1
            continue
        if change is None:
            continue
        check(desired, change, alias)
        desired = aliases.apply(desired, change)
        done["moved"] += 1
        done["go"] += bool(change.verdict and change.gate == "go")
        done["forced"] += change.gate == "forced"
    assert min(done.values()) > 5, done
