"""The owner of versions and aliases in memory, with its contract, and one engine on which every proof comes to `verdict`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from backends.adapter.manifest import Manifest
from gateway import errors
from gateway.control.desired import AliasState, Change, EngineProof, Kind, ProofReport, Shares, Verdict, VersionState
from gateway.snapshot import Share


class FakeAdapters:
    def __init__(self, verdict: str = "proven") -> None:
        self.verdict = verdict
        self.calls: list[str] = []
        self.busy: set[str] = set()
        """Versions whose requests do not end."""
        self._versions: dict[str, VersionState] = {}
        self._aliases: dict[str, AliasState] = {}
        self._history: dict[str, list[Change]] = {}

    def versions(self) -> tuple[VersionState, ...]:
        return tuple(self._versions.values())

    def aliases(self) -> tuple[AliasState, ...]:
        return tuple(self._aliases.values())

    def history(self, alias: str) -> tuple[Change, ...]:
        return tuple(reversed(self._history.get(alias, ())))

    def verdicts(self, candidate: str = "") -> tuple[Verdict, ...]:
        return ()

    async def add(self, manifest: Manifest, name: str, model: str, who: str) -> str:
        version = f"{name}@{manifest.short}"
        self.calls.append(f"add {version}")
        state = VersionState(
            version, manifest.digest, model, "candidate", "", "", False, manifest.rank, manifest.size_bytes, time.time(),
            who, (),
        )  # fmt: skip
        self._versions.setdefault(version, state)
        return version

    async def prove(self, version: str) -> ProofReport:
        self.calls.append(f"prove {version}")
        detail = "it changes nothing" if self.verdict == "failed" else ""
        engines = (EngineProof("demo-0", self.verdict != "failed", self.verdict, detail),)
        self._versions[version] = replace(self._versions[version], proof=self.verdict, engines=engines)
        return ProofReport(version, self.verdict, engines)

    async def point(
        self, alias: str, shares: Sequence[Share], who: str, reason: str = "", force: str = "", verdict: str = ""
    ) -> Change:
        return self._move(alias, "flip" if len(shares) == 1 else "split", tuple(shares), who, force or reason)

    async def rollback(self, alias: str, who: str) -> Change:
        if not self._aliases[alias].previous:
            raise errors.Conflict(f"{alias} has served nothing else")
        return self._move(alias, "rollback", self._aliases[alias].previous, who, "")

    async def drop(self, alias: str, who: str) -> Change:
        change = self._move(alias, "drop", (), who, "")
        del self._aliases[alias]
        return change

    async def pin(self, version: str) -> None:
        self._versions[version] = replace(self._versions[version], is_pinned=True)

    async def unpin(self, version: str) -> None:
        self._versions[version] = replace(self._versions[version], is_pinned=False)

    async def unload(self, version: str) -> None:
        self.calls.append(f"unload {version}")
        if self._versions[version].is_pinned:
            raise errors.Conflict(f"{version} is pinned: unpin it first")
        if version in self.busy:
            raise errors.Conflict(f"{version} is not freed everywhere: it is still used")
        self._versions[version] = replace(self._versions[version], engines=(), proof="")

    async def remove(self, version: str) -> None:
        if any(share.adapter == version for alias in self._aliases.values() for share in alias.shares):
            raise errors.Conflict(f"{version} is served by an alias")
        del self._versions[version]

    def _move(self, alias: str, kind: Kind, shares: Shares, who: str, reason: str) -> Change:
        self.calls.append(f"{kind} {alias}")
        before = self._aliases[alias].shares if alias in self._aliases else ()
        model = self._versions[(shares or before)[0].adapter].model
        change = Change(alias, model, kind, before, shares, who, reason, time.time(), "ungated")
        for share in shares:
            self._versions[share.adapter] = replace(self._versions[share.adapter], state="live")
        self._aliases[alias] = AliasState(alias, model, shares, "ungated", before)
        self._history.setdefault(alias, []).append(change)
        return change
