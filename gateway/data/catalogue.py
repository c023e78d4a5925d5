"""What /v1/models shows: base models, aliases, and versions of adapters; candidates only to the admin. Pure.

base model   id demo                   parent null   root demo@0123456789ab
alias        id support                parent demo   root support@3f2a91c04b7d, null where the traffic is split; shares
version      id support@3f2a91c04b7d   parent demo   root itself; proof, gate, is_candidate, is_resident

All of them have the model's `capabilities`, whether `literal_special_text` is one of those, and the `refused_options` of requests; and
`last_measured`, what the newest benchmark of just this name found, if what it names is still the same: null otherwise.
"""

from __future__ import annotations

from typing import Any

from backends.base import LITERAL_SPECIAL_TEXT
from gateway.data.auth import is_visible
from gateway.data.snapshot import AliasRoute, Index, ModelRoute
from gateway.snapshot import Share


def all_models(index: Index, digest: bytes) -> list[dict[str, Any]]:
    """Return everything that who has this token digest may know of: base models first, then aliases, then versions."""
    routes: list[ModelRoute | AliasRoute] = [*index.models.values(), *index.aliases.values(), *index.adapters.values()]
    return [_describe(index, route) for route in routes if _is_shown(index, route, digest)]


def one_model(index: Index, name: str, digest: bytes) -> dict[str, Any]:
    """Return the model, alias or version `name`. Raises ModelNotFound."""
    route: ModelRoute | AliasRoute | None
    route = index.models.get(name) or index.aliases.get(name) or index.adapters.get(name)
    if route is None or not _is_shown(index, route, digest):
        raise index.no_such_model(name)
    return _describe(index, route)


def _is_shown(index: Index, route: ModelRoute | AliasRoute, digest: bytes) -> bool:
    return isinstance(route, AliasRoute) or is_visible(index, route, digest)


def _describe(index: Index, route: ModelRoute | AliasRoute) -> dict[str, Any]:
    if isinstance(route, AliasRoute):
        return _alias(index, route)
    return _base(index, route) if route.adapter is None else _version(index, route)


def _base(index: Index, route: ModelRoute) -> dict[str, Any]:
    return _entry(index, route, route.model.name, route.model.created, route.model.resolved, None)


def _version(index: Index, route: ModelRoute) -> dict[str, Any]:
    adapter = route.adapter
    assert adapter is not None
    entry = _entry(index, route, adapter.name, adapter.created, adapter.name, adapter.model)
    return entry | {
        "proof": adapter.proof,
        "gate": adapter.gate,
        "is_candidate": adapter.is_candidate,
        "is_resident": bool(route.ready),
    }


def _alias(index: Index, route: AliasRoute) -> dict[str, Any]:
    alias = route.alias
    root = route.only.resolved if route.only is not None else None
    entry = _entry(index, route.base, alias.name, alias.created, root, alias.model)
    return entry | {"shares": [_share(index, share) for share in route.shares]}


def _share(index: Index, share: Share) -> dict[str, Any]:
    adapter = index.adapters[share.adapter].adapter
    assert adapter is not None
    return {"id": share.adapter, "weight": share.weight, "proof": adapter.proof, "gate": adapter.gate}


def _last_measured(index: Index, name: str, root: str | None) -> dict[str, Any] | None:
    found = index.measured.get(name)
    if found is None or found.resolved != root:
        return None
    return {"output_tps": found.output_tps, "load": found.load, "at": found.at, "benchmark": found.benchmark}


def _entry(
    index: Index, route: ModelRoute, name: str, created: int, root: str | None, parent: str | None
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "forgegate",
        "root": root,
        "parent": parent,
        "context_length": route.model.context_length,
        "capabilities": list(route.model.capabilities),
        "literal_special_text": LITERAL_SPECIAL_TEXT in route.model.capabilities,
        "refused_options": list(route.model.refused_options),
        "last_measured": _last_measured(index, name, root),
    }
