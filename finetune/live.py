"""What an alias serves at this moment, and what may come after it: as the gateway's admin API tells it, and as verdicts name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.admin_client import AdminClient
from backends.errors import AdminError
from finetune.errors import RecipeUnusable

_UNKNOWN = 404


@dataclass(frozen=True, slots=True)
class Share:
    """A version, and by which weight it is drawn."""

    adapter: str
    weight: int


@dataclass(frozen=True, slots=True)
class Live:
    """`base`: name of the model that the versions are of. `shares` empty: nothing serves the alias, so that clients have the base."""

    alias: str
    base: str
    shares: tuple[Share, ...]
    canary: str = ""
    """A candidate that has a part of the traffic beside `shares`; empty where none has."""

    @property
    def models(self) -> tuple[str, ...]:
        """Whom to ask for what clients get now."""
        return tuple(share.adapter for share in self.shares) or (self.base,)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of `models`; they sum to 1."""
        total = sum(share.weight for share in self.shares)
        return tuple(share.weight / total for share in self.shares) or (1.0,)

    def is_just(self, version: str) -> bool:
        """Whether nothing else is served, so that there is nothing to decide."""
        return not self.canary and [share.adapter for share in self.shares] == [version]

    def beside(self, version: str, percent: int) -> dict[str, int]:
        """Shares in which `version` has so many of a hundred, the others what they had of the rest."""
        total = sum(share.weight for share in self.shares)
        rest = {share.adapter: share.weight * (100 - percent) for share in self.shares}
        return {**rest, version: percent * total}


def live_of(client: AdminClient, alias: str, version: str) -> Live:
    """Of an alias, or of one that is still to be made for `version`. Raises AdminError, RecipeUnusable for no such version."""
    try:
        (found,) = client.adapter(version)["versions"]
    except AdminError as exc:
        if exc.status != _UNKNOWN:
            raise
        raise RecipeUnusable(
            f"{exc}: a candidate is published by `forgegate adapters publish DIR --name {alias} --candidate-only`"
        ) from exc
    known: Mapping[str, Mapping[str, Any]] = {str(one["name"]): one for one in client.aliases()}
    told = known.get(alias, {})
    return _live(
        alias, str(found["model"]), version, _shares(told.get("shares", ())), _shares(told.get("previous", ()))
    )


def _live(alias: str, base: str, version: str, shares: tuple[Share, ...], previous: tuple[Share, ...]) -> Live:
    """A canary is held against what it stands beside: what was served before it came."""
    names, before = ({share.adapter for share in some} for some in (shares, previous))
    if version in names - before and before and before < names:
        return Live(alias, base, previous, canary=version)
    return Live(alias, base, shares)


def _shares(told: Sequence[Mapping[str, Any]]) -> tuple[Share, ...]:
    return tuple(Share(str(one["adapter"]), int(one["weight"])) for one in told)
