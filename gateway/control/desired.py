"""What should be: versions, aliases, pins, as the store keeps them; and what is told of them. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.snapshot import Share

Kind = Literal["flip", "split", "rollback", "auto-rollback", "force", "drop"]
"""`force`: a flip or split for which there is no verdict, by a reason; `auto-rollback`: by the alias's watch."""
Outcome = Literal["GO", "NO-GO", "INCONCLUSIVE"]
Choice = Literal["candidate", "live", "tie"]
Role = Literal["candidate", "live", "former"]
Shares = tuple[Share, ...]
MAX_HISTORY = 1000
"""Changes of an alias that are kept at hand, the newest; the store keeps all."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an adapter."""

    name: str
    """`support@3f2a91c04b7d`."""
    digest: str
    """64 hex digits: its directory in the store of adapters."""
    model: str
    base_digest: str
    """`sha256:<hex>` of the weights that it was trained on."""
    rank: int
    size_bytes: int
    who: str
    created: float
    """Unix seconds."""
    is_pinned: bool = False
    has_served: bool = False
    """By some alias, once."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """That an evaluation found `candidate` fit, or not, to take the place of `live`; its document is in the store."""

    digest: str
    """`sha256:<hex>` of the document."""
    candidate: str
    live: Shares
    """What it was held against; empty: the base."""
    base: str
    """Resolved: `demo@<12 hex>`."""
    suite: str
    """`sha256:<hex>` of what decided the scores."""
    rule: str
    outcome: Outcome
    reasons: tuple[str, ...]
    who: str
    at: float
    """Unix seconds, when it was taken in."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Which of two answers somebody preferred, without knowing whose they were."""

    session: str
    candidate: str
    live: str
    prompt_digest: str
    choice: Choice
    who: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Watch:
    """When an alias goes back by itself: what its newest version does worse than this."""

    max_error_share: float
    """Of its requests those that end in an engine's failure, 0 to 1."""
    max_ttft_ratio: float
    """Its median time to first byte, over that of what was served before; infinite: latency does not matter."""
    min_requests: int
    """With fewer nothing is decided."""
    window_s: float
    who: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that clients ask for, and what serves it."""

    name: str
    model: str
    shares: Shares
    gate: str
    created: float
    """Unix seconds."""
    previous: Shares = ()
    """What a rollback goes to; empty where it has served nothing else."""
    previous_gate: str = ""
    served: frozenset[str] = frozenset()
    """All versions that it serves or has served."""
    watch: Watch | None = None

    @property
    def is_canary(self) -> bool:
        """Whether it serves a candidate beside all that it served before."""
        before = {share.adapter for share in self.previous}
        return bool(before) and before < {share.adapter for share in self.shares}

    @property
    def live(self) -> Shares:
        """What it serves; of a canary, what it served before the candidate came."""
        return self.previous if self.is_canary else self.shares


@dataclass(frozen=True, slots=True)
class Change:
    """One move of an alias, as it is recorded."""

    alias: str
    model: str
    kind: Kind
    before: Shares
    shares: Shares
    """What it serves since; empty for `drop`."""
    who: str
    reason: str
    at: float
    """Unix seconds."""
    gate: str
    """`go`: by a verdict; `ungated`: without one; `forced`: without one, for a reason; empty where there is no gate."""
    verdict: str = ""
    """Digest of the verdict that allowed it, or that was overruled; several, one for each version, are set apart by a comma."""
    warning: str = ""
    """What speaks against it all the same. Not recorded."""
    replaced_workers: tuple[int, ...] = ()
    """Those that did not take note in time, by column. Not recorded."""


@dataclass(frozen=True, slots=True)
class Desired:
    """All of it, by name; histories oldest first."""

    versions: Mapping[str, Version] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    history: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """By digest, oldest first."""

    def live(self, model: str) -> list[str]:
        """Versions that an alias of the model serves, by the aliases' order."""
        return _unique(share for alias in self._of(model) for share in alias.shares)

    def former(self, model: str) -> list[str]:
        """Versions that an alias of the model would roll back to, and none serves."""
        live = set(self.live(model))
        return [name for name in _unique(s for alias in self._of(model) for s in alias.previous) if name not in live]

    def pinned(self, model: str) -> list[str]:
        return [version.name for version in self.versions.values() if version.is_pinned and version.model == model]

    def users(self, version: str) -> list[str]:
        """Aliases that serve it or would roll back to it."""
        return [
            alias.name
            for alias in self.aliases.values()
            if any(share.adapter == version for share in (*alias.shares, *alias.previous))
        ]

    def role(self, version: Version) -> Role:
        if any(share.adapter == version.name for alias in self.aliases.values() for share in alias.shares):
            return "live"
        return "former" if version.has_served else "candidate"

    def gate(self, version: str) -> str:
        """Of the aliases that serve it; beside a candidate, what was live keeps its own."""
        found = (
            alias.previous_gate if alias.is_canary and version in _unique(alias.previous) else alias.gate
            for alias in self.aliases.values()
            if version in _unique(alias.shares)
        )
        return next(filter(None, found), "")

    def _of(self, model: str) -> list[Alias]:
        return [alias for alias in self.aliases.values() if alias.model == model]


@dataclass(frozen=True, slots=True)
class EngineProof:
    """A version on one engine."""

    engine: str
    is_resident: bool
    proof: str
    """`proven`, `weak`, `indistinguishable`, `unattested` or `failed`, since it was loaded there."""
    detail: str
    """Why, in words for a user, and whose word the reference is; empty where it is proven by one of this gateway's own."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """A version as people see it."""

    name: str
    digest: str
    model: str
    state: Role
    proof: str
    """Of all engines that hold it the least; empty where none does."""
    gate: str
    is_pinned: bool
    rank: int
    size_bytes: int
    created: float
    who: str
    engines: tuple[EngineProof, ...]
    problem: str = ""
    """Why no engine will hold it, and the fix; empty where one may."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """An alias as people see it."""

    name: str
    model: str
    shares: Shares
    gate: str
    previous: Shares
    problem: str = ""
    """Why clients cannot ask for it; empty where they can."""
    watch: Watch | None = None


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What the proofs of a version came to."""

    version: str
    proof: str
    """Over all engines the least; `failed` where one failed."""
    engines: tuple[EngineProof, ...]


def _unique(shares: Iterable[Share]) -> list[str]:
    return list(dict.fromkeys(share.adapter for share in shares))
