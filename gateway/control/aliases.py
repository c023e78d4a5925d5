"""How an alias may move, and what it is afterwards. Pure.

flip      to one version            split     over several, by weight
rollback  to what it served before the last change; once more goes back again
force     a flip or split without a verdict, for a reason that is recorded
drop      the name goes, its versions stay

A candidate beside what is live (a canary), its growing part, and the flip to it in the end are one change to a rollback: it goes back to
what was live before all of them. What a flip or split needs is the gate's business (`gateway.control.gate`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from gateway import errors
from gateway.config import NAME
from gateway.control.desired import MAX_HISTORY, Alias, Change, Desired, Kind, Shares
from gateway.control.gate import Gate, Known, Move, judge

MAX_WEIGHT = 1_000_000
WATCH = "watch"
"""Who makes an automatic rollback."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every move."""

    gate: Gate = "warn"
    models: Collection[str] = ()
    """Their names are taken."""


def point(desired: Desired, move: Move, rules: Rules, at: float) -> Change | None:
    """A flip or split; None where the alias serves just that already. Raises BadRequest, NotFound, Conflict."""
    model = _model(desired, move, rules)
    alias = desired.aliases.get(move.alias)
    if alias is not None and alias.shares == move.shares:
        return None
    if alias is not None and alias.model != model:
        raise errors.Conflict(
            f"{alias.name} is an alias of model {alias.model}, these versions are of {model}: choose another name"
        )
    ruling = judge(alias, move, Known(desired.versions, desired.verdicts), rules.gate)
    kind: Kind = "force" if ruling.is_forced else "flip" if len(move.shares) == 1 else "split"
    before = alias.shares if alias else ()
    return Change(
        move.alias, model, kind, before, move.shares, move.who, move.force or move.reason, at, ruling.gate, ruling.verdict,
        ruling.warning,
    )  # fmt: skip


def rollback(desired: Desired, name: str, who: str, at: float) -> Change:
    """No verdict is needed: it has served that before. Raises NotFound, Conflict."""
    alias = known(desired, name)
    if not alias.previous:
        raise errors.Conflict(f"{name} has served nothing else, so there is nothing to go back to")
    return Change(name, alias.model, "rollback", alias.shares, alias.previous, who, "", at, alias.previous_gate)


def retreat(desired: Desired, name: str, judged: Shares, reason: str, at: float) -> Change:
    """A rollback by the alias's watch, of what it found bad (`judged`). Raises NotFound, Conflict where that is not served any more."""
    alias = known(desired, name)
    if alias.shares != judged or alias.watch is None:
        raise errors.Conflict(f"{name} was moved, or is not watched any more")
    return replace(rollback(desired, name, WATCH, at), kind="auto-rollback", reason=reason)


def drop(desired: Desired, name: str, who: str, at: float) -> Change:
    """Raises NotFound."""
    alias = known(desired, name)
    return Change(name, alias.model, "drop", alias.shares, (), who, "", at, alias.gate)


def apply(desired: Desired, change: Change) -> Desired:
    """The state after `change`."""
    aliases = dict(desired.aliases)
    versions = dict(desired.versions)
    if change.kind == "drop":
        del aliases[change.alias]
    else:
        aliases[change.alias] = _moved(aliases.get(change.alias), change)
    for share in change.shares:
        versions[share.adapter] = replace(versions[share.adapter], has_served=True)
    changes = (*desired.history.get(change.alias, ()), change)[-MAX_HISTORY:]
    return replace(desired, versions=versions, aliases=aliases, history={**desired.history, change.alias: changes})


def _moved(alias: Alias | None, change: Change) -> Alias:
    served = frozenset(share.adapter for share in change.shares)
    if alias is None:
        return Alias(change.alias, change.model, change.shares, change.gate, change.at, served=served)
    after = replace(alias, shares=change.shares, gate=change.gate, served=alias.served | served)
    if _goes_on(alias, change):
        return after
    return replace(after, previous=alias.shares, previous_gate=alias.gate)


def _goes_on(alias: Alias, change: Change) -> bool:
    """Whether a candidate that is served beside what is live gets another part, or all."""
    if change.kind not in ("flip", "split", "force") or not alias.is_canary:
        return False
    now, before, then = ({share.adapter for share in some} for some in (alias.shares, alias.previous, change.shares))
    return then <= now and not then <= before


def known(desired: Desired, name: str) -> Alias:
    """Raises NotFound."""
    if name not in desired.aliases:
        known = ", ".join(sorted(desired.aliases)) or "none"
        raise errors.NotFound(f"no alias {name!r}; there are: {known}")
    return desired.aliases[name]


def _model(desired: Desired, move: Move, rules: Rules) -> str:
    """The one of all versions. Raises BadRequest, NotFound, Conflict."""
    if not NAME.fullmatch(move.alias):
        raise errors.BadRequest(
            f"name {move.alias!r}: letters, digits and . _ - / only, beginning with a letter or digit", param="name"
        )
    if move.alias in rules.models:
        raise errors.Conflict(f"{move.alias!r} is the name of a model: choose another for the alias", param="name")
    names = [share.adapter for share in move.shares]
    if not names or len(set(names)) != len(names):
        raise errors.BadRequest("shares: at least one version, each named once", param="shares")
    if any(not 1 <= share.weight <= MAX_WEIGHT for share in move.shares):
        raise errors.BadRequest(f"shares: weights are whole numbers from 1 to {MAX_WEIGHT:,}", param="shares")
    if unknown := [name for name in names if name not in desired.versions]:
        raise errors.NotFound(f"no version {unknown[0]!r}; see `forgegate adapters list`", param="shares")
    models = dict.fromkeys(desired.versions[name].model for name in names)
    if len(models) > 1:
        raise errors.BadRequest(f"shares: versions of different models: {', '.join(models)}", param="shares")
    return next(iter(models))
