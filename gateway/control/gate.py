"""What an alias needs to serve what it did not serve before: a verdict, or a reason. Pure.

    live     what the alias serves now; beside a candidate that gets a part of the traffic, what it served before that
    entering what a move brings beside that
    fits     a verdict is of just this version, held against just what is live, on this version's base

    require  each version that the alias has never served: a GO that fits, else refused
    warn     moves, and is marked; what fits and is no GO is told
    off      no verdict is looked for

A verdict that is named must fit and be GO under all of them. A reason (`force`) overrules all of it, and is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway import errors
from gateway.control.desired import Alias, Shares, Verdict, Version
from gateway.control.verdicts import base_of, ratios

Gate = Literal["off", "warn", "require"]
GO, UNGATED, FORCED = "go", "ungated", "forced"
MIN_DIGITS = 6
"""Of a verdict's digest, enough to be meant."""
SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Move:
    """What somebody asks for. `reason` is recorded; `force` is a reason that also overrules the gate; `verdict` is a digest."""

    alias: str
    shares: Shares
    who: str
    reason: str = ""
    force: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the gate decides from."""

    versions: Mapping[str, Version]
    verdicts: Mapping[str, Verdict]
    """By digest, oldest first."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """How a move is marked, and by which verdicts."""

    gate: str
    verdict: str = ""
    warning: str = ""
    is_forced: bool = False
    """This move is; a mark may also stay from an earlier one."""


def judge(alias: Alias | None, move: Move, known: Known, mode: Gate) -> Ruling:
    """Raises BadRequest, NotFound, Conflict."""
    if mode == "off" and not move.verdict:
        return Ruling("")
    names = _names(move.shares)
    live = _names(alias.live) if alias else []
    entering = [name for name in names if name not in live]
    named = _named(move.verdict, known.verdicts) if move.verdict else None
    if named is not None and named.candidate not in entering:
        raise errors.Conflict(
            f"verdict {short(named.digest)} is of {named.candidate}, which {move.alias} would not begin to serve by this",
            param="verdict",
        )
    if not entering:
        assert alias is not None
        return Ruling(alias.previous_gate if set(names) <= set(_names(alias.previous)) else alias.gate)
    return _rule([_case(name, alias, known, named) for name in entering], alias, move, mode)


def short(digest: str) -> str:
    """As people read it: `sha256:1f2e...`, by digits that name it still."""
    return digest[: len("sha256:") + SHOWN_DIGITS]


@dataclass(frozen=True, slots=True)
class _Case:
    """One version that enters."""

    name: str
    go: Verdict | None
    other: Verdict | None
    """That fits as well, is newer, and is no GO."""
    problem: str
    """Of the verdict that was named, or the newest there is: why it allows nothing."""
    is_named: bool


def _case(name: str, alias: Alias | None, known: Known, named: Verdict | None) -> _Case:
    version = known.versions[name]
    mine = [named] if named and named.candidate == name else _newest(name, known.verdicts.values())
    fitting = [verdict for verdict in mine if not _misfit(verdict, version, alias)]
    go = next((verdict for verdict in fitting if verdict.outcome == "GO"), None)
    other = fitting[0] if fitting and fitting[0].outcome != "GO" else None
    problem = ""
    if go is None:
        problem = _says(other) if other else _misfit(mine[0], version, alias) if mine else ""
    return _Case(name, go, other, problem, named is not None and named.candidate == name)


def _rule(cases: list[_Case], alias: Alias | None, move: Move, mode: Gate) -> Ruling:
    missing = [case for case in cases if case.go is None]
    digests = ", ".join(verdict.digest for case in cases if (verdict := case.go or case.other))
    if not missing:
        return Ruling(GO, digests, "; ".join(_says(case.other) for case in cases if case.other))
    if move.force:
        return Ruling(FORCED, digests, is_forced=True)
    served = alias.served if alias else frozenset()
    for case in missing:
        if case.is_named or (mode == "require" and case.name not in served):
            raise errors.Conflict(_refusal(case, alias, move), param="verdict" if case.is_named else "force")
    return Ruling(UNGATED, digests, "; ".join(case.problem for case in missing if case.problem))


def _refusal(case: _Case, alias: Alias | None, move: Move) -> str:
    if not case.problem:
        found = f"{case.name} has no verdict, and adapters.gate is `require`"
    elif case.other:
        found = f"{case.name}: {case.problem}"
    else:
        found = f"{case.name} has no verdict that fits: {case.problem}"
    return (
        f"{found}. `forgegate gate --alias {move.alias} --candidate {case.name} --suite SUITE` judges it against what is live; against "
        f"the gate, for a reason that is recorded: `forgegate adapters alias {move.alias} {case.name} --force REASON`"
    )


def _misfit(verdict: Verdict, version: Version, alias: Alias | None) -> str:
    """What differs from what the verdict is of; empty where it fits."""
    base = base_of(version.model, version.base_digest)
    if verdict.base != base:
        return f"verdict {short(verdict.digest)} was given on the base {verdict.base}, and this version's is {base}"
    if _was_live(verdict, alias):
        return ""
    now = f"{alias.name} serves {words(alias.shares)} now" if alias else "the alias is new, so the base is what counts"
    return f"verdict {short(verdict.digest)} holds it against {words(verdict.live)}, and {now}"


def _was_live(verdict: Verdict, alias: Alias | None) -> bool:
    if alias is None:
        return not verdict.live
    if ratios(verdict.live) == ratios(alias.shares):
        return True
    return bool(verdict.live) and set(_names(alias.shares)) == {*_names(verdict.live), verdict.candidate}


def _says(verdict: Verdict) -> str:
    reasons = f" ({verdict.reasons[0]})" if verdict.reasons else ""
    return f"verdict {short(verdict.digest)} says {verdict.outcome}{reasons}"


def _named(text: str, verdicts: Mapping[str, Verdict]) -> Verdict:
    digits = text.removeprefix("sha256:")
    meant = [digest for digest in verdicts if digest.removeprefix("sha256:").startswith(digits)]
    if len(digits) < MIN_DIGITS or not meant:
        raise errors.NotFound(f"no verdict {text!r}; see `forgegate adapters verdicts`", param="verdict")
    if len(meant) > 1:
        raise errors.BadRequest(f"verdict {text!r} may be any of: {', '.join(meant[:10])}", param="verdict")
    return verdicts[meant[0]]


def _newest(candidate: str, verdicts: Iterable[Verdict]) -> list[Verdict]:
    """First the newest."""
    return [verdict for verdict in verdicts if verdict.candidate == candidate][::-1]


def words(shares: Shares) -> str:
    """What is served, in words."""
    if not shares:
        return "the base"
    if len(shares) == 1:
        return shares[0].adapter
    total = sum(share.weight for share in shares)
    return ", ".join(f"{share.adapter} {share.weight / total:.0%}" for share in shares)


def _names(shares: Shares) -> list[str]:
    return [share.adapter for share in shares]
