"""What is told of versions and aliases: to people, and to workers in their snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway import snapshot as wire
from gateway.control import proving
from gateway.control.desired import AliasState, Desired, EngineProof, Version, VersionState
from gateway.control.residents import Residents


class Telling:
    """Looks at what should be (`desired`) and what is resident. `models`: those that are served here."""

    def __init__(self, desired: Callable[[], Desired], residents: Residents, models: Collection[str]) -> None:
        self._desired = desired
        self._residents = residents
        self._models = models

    def versions(self) -> tuple[VersionState, ...]:
        return tuple(map(self._state, self._desired().versions.values()))

    def aliases(self) -> tuple[AliasState, ...]:
        return tuple(
            AliasState(
                alias.name, alias.model, alias.shares, alias.gate, alias.previous, self._problem(alias.name), alias.watch
            )
            for alias in self._desired().aliases.values()
        )  # fmt: skip

    def snapshot(self) -> tuple[tuple[wire.Adapter, ...], tuple[wire.Alias, ...]]:
        """What workers are told."""
        served = [alias for alias in self._desired().aliases.values() if not self._problem(alias.name)]
        return (
            tuple(map(self._told, self._desired().versions.values())),
            tuple(wire.Alias(alias.name, alias.model, alias.shares, int(alias.created)) for alias in served),
        )

    def _proofs(self, version: Version) -> tuple[EngineProof, ...]:
        return tuple(proof for loads in self._residents.of_model(version.model) for proof in loads.proofs(version.name))

    def _state(self, version: Version) -> VersionState:
        desired, proofs = self._desired(), self._proofs(version)
        return VersionState(
            name=version.name, digest=version.digest, model=version.model, state=desired.role(version),
            proof=proving.least([proof.proof for proof in proofs if proof.is_resident] or [proof.proof for proof in proofs]),
            gate=desired.gate(version.name), is_pinned=version.is_pinned, rank=version.rank, size_bytes=version.size_bytes,
            created=version.created, who=version.who, engines=proofs, problem=self._residents.refusal(version)[0],
        )  # fmt: skip

    def _told(self, version: Version) -> wire.Adapter:
        held = [proof for proof in self._proofs(version) if proof.is_resident]
        reason, retry_after_s = self._residents.refusal(version) if not held else ("", 1)
        unproven = [item.engine_id for item in self._residents.of_model(version.model) if version.name in item.unproven]
        return wire.Adapter(
            name=version.name, model=version.model, engines=tuple(proof.engine for proof in held), unproven=tuple(unproven),
            is_candidate=not version.has_served, proof=proving.least([proof.proof for proof in held]),
            gate=self._desired().gate(version.name), refusal=reason, retry_after_s=retry_after_s, created=int(version.created),
        )  # fmt: skip

    def _problem(self, alias: str) -> str:
        if alias in self._models:
            return f"a model is called {alias}, too, and answers for it: rename one of them"
        model = self._desired().aliases[alias].model
        return "" if model in self._models else f"its model {model} is not served here"
