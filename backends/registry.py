"""Backends by name, each imported when it is first asked for: choosing one costs nothing until then."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from backends.base import Backend, Places, PoolSpec
from backends.errors import BadSpec

Factory = Callable[[PoolSpec, Places], Backend]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of engine: where its code is and which keys its pools have besides `engine` and `replicas`."""

    module: str
    factory: str
    keys: frozenset[str]
    required: frozenset[str]


KINDS: dict[str, Kind] = {
    "llamacpp": Kind(
        "backends.llamacpp.launch",
        "LlamaCpp",
        frozenset({"model", "options", "python", "start_timeout_s"}),
        frozenset({"model"}),
    ),
    "vllm": Kind(
        "backends.vllm.launch",
        "Vllm",
        frozenset({"model", "options", "python", "start_timeout_s"}),
        frozenset({"model"}),
    ),
    "remote": Kind(
        "backends.remote",
        "Remote",
        frozenset({"model", "base_url", "api_key", "capabilities"}),
        frozenset({"base_url"}),
    ),
}


def kind_of(name: str) -> Kind:
    """Raises BadSpec listing the known kinds."""
    if name in KINDS:
        return KINDS[name]
    close = difflib.get_close_matches(name, KINDS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise BadSpec([f"unknown engine {name!r}{hint}; known: {', '.join(KINDS)}"])


def build(spec: PoolSpec, places: Places) -> Backend:
    """The backend of a pool. Raises BadSpec: unknown kind, bad options."""
    kind = kind_of(spec.kind)
    factory: Factory = getattr(import_module(kind.module), kind.factory)
    return factory(spec, places)


def option_problems(kind: str, options: dict[str, object]) -> list[str]:
    """What is wrong with a pool's engine options, one sentence each. Raises BadSpec for an unknown kind."""
    check: Callable[[dict[str, object]], list[str]] = getattr(
        import_module(kind_of(kind).module), "option_problems", lambda _: []
    )
    return check(options)
