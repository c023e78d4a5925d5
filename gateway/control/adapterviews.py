"""Versions and aliases as the admin API tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.control.desired import AliasState, Change, Shares, Verdict, VersionState, Watch


class Told(Protocol):
    """The owner of versions and aliases, as far as it tells of them."""

    def versions(self) -> tuple[VersionState, ...]: ...
    def aliases(self) -> tuple[AliasState, ...]: ...
    def history(self, alias: str) -> tuple[Change, ...]:
        """Newest first."""
        ...

    def verdicts(self, candidate: str = "") -> tuple[Verdict, ...]: ...


@dataclass(frozen=True, slots=True)
class EngineProofView:
    engine: str
    is_resident: bool
    proof: str
    """`proven`, `weak`, `indistinguishable`, `unattested` or `failed` since it was loaded there; empty where it was not."""
    detail: str


@dataclass(frozen=True, slots=True)
class VersionView:
    name: str
    digest: str
    model: str
    state: str
    """`candidate`; `live`: an alias serves it; `former`: one has served it."""
    problem: str
    """Why no engine will hold it, and the fix; empty where one may."""
    proof: str
    """Of all engines that hold it the least."""
    gate: str
    is_pinned: bool
    rank: int
    size_bytes: int
    created: float
    """Unix seconds."""
    who: str
    aliases: tuple[str, ...]
    engines: tuple[EngineProofView, ...]


@dataclass(frozen=True, slots=True)
class ShareView:
    adapter: str
    weight: int


@dataclass(frozen=True, slots=True)
class WatchView:
    """When the alias goes back by itself."""

    max_error_share: float
    max_ttft_ratio: float
    min_requests: int
    window_s: float
    who: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class FiguresView:
    """A version's requests by the alias, in the window of its watch, or the newest 300 s."""

    adapter: str
    num_requests: int
    num_errors: int
    """That ended in an engine's failure."""
    ttft_s: float | None
    """Median time to first byte."""


@dataclass(frozen=True, slots=True)
class AliasView:
    name: str
    model: str
    shares: tuple[ShareView, ...]
    gate: str
    previous: tuple[ShareView, ...]
    """What a rollback goes to; empty where it has served nothing else."""
    problem: str
    """Why clients cannot ask for it; empty where they can."""
    watch: WatchView | None


@dataclass(frozen=True, slots=True)
class ChangeView:
    alias: str
    kind: str
    """`flip`, `split`, `rollback`, `auto-rollback` (by the watch), `force` (without a verdict, for a reason) or `drop`."""
    before: tuple[ShareView, ...]
    shares: tuple[ShareView, ...]
    """What it serves since."""
    who: str
    reason: str
    at: float
    """Unix seconds."""
    gate: str
    """`go`, `ungated` or `forced`; empty where there is no gate."""
    verdict: str
    """Digest of the verdict that allowed it, or that it went against; several are set apart by a comma."""
    outcome: str
    """Of that verdict."""
    warning: str
    """What speaks against it; only in the answer to the move itself."""
    replaced_workers: tuple[int, ...]
    """Those that did not take note in time, by column: they are killed, and the requests that they had are cut."""


@dataclass(frozen=True, slots=True)
class AdapterList:
    data: tuple[VersionView, ...]


@dataclass(frozen=True, slots=True)
class AliasList:
    data: tuple[AliasView, ...]


@dataclass(frozen=True, slots=True)
class Found:
    kind: Literal["alias", "version"]
    alias: AliasView | None
    versions: tuple[VersionView, ...]
    history: tuple[ChangeView, ...]
    """Newest first."""
    figures: tuple[FiguresView, ...]
    """Of an alias's versions that had requests by it lately."""


@dataclass(frozen=True, slots=True)
class VersionDone:
    name: str


def version_views(adapters: Told) -> tuple[VersionView, ...]:
    aliases = adapters.aliases()
    return tuple(version_view(version, aliases) for version in adapters.versions())


def version_view(version: VersionState, aliases: Sequence[AliasState]) -> VersionView:
    return VersionView(
        name=version.name,
        digest=version.digest,
        model=version.model,
        state=version.state,
        problem=version.problem,
        proof=version.proof,
        gate=version.gate,
        is_pinned=version.is_pinned,
        rank=version.rank,
        size_bytes=version.size_bytes,
        created=version.created,
        who=version.who,
        aliases=tuple(a.name for a in aliases if any(share.adapter == version.name for share in a.shares)),
        engines=tuple(EngineProofView(e.engine, e.is_resident, e.proof, e.detail) for e in version.engines),
    )


def alias_view(alias: AliasState) -> AliasView:
    return AliasView(
        alias.name, alias.model, _shares(alias.shares), alias.gate, _shares(alias.previous), alias.problem,
        _watch(alias.watch),
    )  # fmt: skip


def change_view(change: Change, verdicts: Sequence[Verdict]) -> ChangeView:
    """`verdicts`: all that are known."""
    return _change_view(change, {verdict.digest: verdict.outcome for verdict in verdicts})


def _change_view(change: Change, outcomes: Mapping[str, str]) -> ChangeView:
    return ChangeView(
        alias=change.alias,
        kind=change.kind,
        before=_shares(change.before),
        shares=_shares(change.shares),
        who=change.who,
        reason=change.reason,
        at=change.at,
        gate=change.gate,
        verdict=change.verdict,
        outcome=", ".join(outcomes.get(digest, "") for digest in change.verdict.split(", ")),
        warning=change.warning,
        replaced_workers=change.replaced_workers,
    )


def found_version(adapters: Told, version: VersionState) -> Found:
    return Found("version", None, (version_view(version, adapters.aliases()),), (), ())


def found_alias(adapters: Told, alias: AliasState, figures: tuple[FiguresView, ...]) -> Found:
    """With all versions that it serves or has served."""
    outcomes: dict[str, str] = {verdict.digest: verdict.outcome for verdict in adapters.verdicts()}
    history = tuple(_change_view(change, outcomes) for change in adapters.history(alias.name))
    served = [alias.shares, *(change.shares for change in adapters.history(alias.name))]
    named = {share.adapter for shares in served for share in shares}
    versions = tuple(view for view in version_views(adapters) if view.name in named)
    return Found("alias", alias_view(alias), versions, history, figures)


def _watch(watch: Watch | None) -> WatchView | None:
    if watch is None:
        return None
    return WatchView(
        watch.max_error_share, watch.max_ttft_ratio, watch.min_requests, watch.window_s, watch.who, watch.at
    )


def _shares(shares: Shares) -> tuple[ShareView, ...]:
    return tuple(ShareView(share.adapter, share.weight) for share in shares)
