"""Models that the configuration names as a hub does: found on this disk, or pulled, before engines are made of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from backends.hub.access import Access
from backends.hub.choice import SAFETENSORS
from backends.hub.client import HubClient
from backends.hub.errors import HubError, NoChoice, NotPulled, Unreachable
from backends.hub.hfcache import cache_folder, find_cached
from backends.hub.manifest import Manifest
from backends.hub.names import HubName, looks_like_hub_name, parse_name
from backends.hub.pull import Refusal, ask, refuse_early
from backends.hub.pulled import find_pulled
from backends.hub.retry import Backoff
from backends.hub.store import Shelf, Store
from backends.llamacpp.foreign import refusal_by_config
from backends.plan import size_words
from gateway.config import Config, Model, Pool
from gateway.exits import CommandError
from gateway.home import Home
from gateway.origin import Origin
from gateway.pull import OFFLINE, pull_visibly

VLLM = "vllm"
ENGINES = frozenset({"llamacpp", VLLM})
"""Which take a file or folder, and not a hub's name."""


class HubModelFailed(CommandError):
    """A model that is no path, and could not be had from a hub either."""

    def __init__(self, name: HubName, exc: HubError, origin: Origin | None = None) -> None:
        place = origin.at("model") if origin is not None else ""
        super().__init__(f"{place}{name}: no such file or folder here, and not to be had from a hub: {exc}")
        self.exit_code = exc.exit_code


class HubModels:
    """`config` has paths in place of names for all that is here. Until it is closed nobody removes those files."""

    def __init__(self, config: Config, home: Home) -> None:
        self.config = config
        self._store = Store(home.hub)
        self._leases = ExitStack()

    def use_pulled(self, tell: Callable[[str], None]) -> None:
        """What is here is used as it is. Raises HubError."""
        for pool in self._pools():
            if _is_named(pool):
                self._find(pool, tell)
            elif (lease := self._store.lease_of(Path(pool.model or "").expanduser().absolute())) is not None:
                self._leases.callback(lease.close)

    @property
    def missing(self) -> list[HubName]:
        """What is named as a hub does, and not here."""
        return list(dict.fromkeys(_name_of(pool) for pool in self._pools() if _is_named(pool)))

    def pull(self, access: Access, is_json: bool) -> None:
        """What is missing. Raises HubModelFailed."""
        for name in self.missing:
            try:
                self._use(name, *pull_visibly(self._store, name, access, is_json, refusal=self._refusal_of(name)))
            except HubError as exc:
                raise HubModelFailed(name, exc, self._origin_of(name)) from exc

    def preview(self, access: Access) -> list[str]:
        """What a pull would bring; those pools leave `config`. Raises HubModelFailed: the hub has it not, or may not be asked."""
        lines = [self._preview(name, access) for name in self.missing]
        self.config = _changed(self.config, lambda pool: None if _is_named(pool) else pool)
        return lines

    def close(self) -> None:
        self._leases.close()

    def _preview(self, name: HubName, access: Access) -> str:
        try:
            return _preview(name, access, self._refusal_of(name))
        except Unreachable as exc:
            return f"{name} would be pulled from {access.endpoint}; how large it is cannot be told now: {exc}"
        except HubError as exc:
            raise HubModelFailed(name, exc, self._origin_of(name)) from exc

    def _origin_of(self, name: HubName) -> Origin | None:
        """Of the first pool that names it."""
        return next(pool.origin for pool in self._pools() if _names(pool, name))

    def _pools(self) -> list[Pool]:
        return [pool for model in self.config.models for pool in model.pools if pool.engine in ENGINES]

    def _refusal_of(self, name: HubName) -> Refusal | None:
        """Weights that llama.cpp cannot read are not fetched for it."""
        if any(pool.engine != VLLM and _names(pool, name) for pool in self._pools()):
            return lambda config: refusal_by_config(Path(name.repo), config)
        return None

    def _find(self, pool: Pool, tell: Callable[[str], None]) -> None:
        name = _name_of(pool)
        found = find_pulled(self._store, name)
        if found is None and pool.engine == VLLM and (folder := find_cached(name, cache_folder())) is not None:
            self._put(name, str(folder), VLLM)
            tell(f"{name.repo}: taken from the Hugging Face cache (commit {folder.name[:12]}); no hub is asked")
        if found is not None and self._use(name, *found):
            held = found[1]
            when = f"commit {held.commit[:12]}, pulled {held.pulled_at[:10]}"
            tell(f"{name}: {held.name} is on this disk ({when}); no hub is asked")

    def _use(self, name: HubName, shelf: Shelf, held: Manifest) -> bool:
        """False where its files are being removed at this moment."""
        lease = shelf.lease(held)
        if lease is None:
            return False
        self._leases.callback(lease.close)
        self._put(name, str(shelf.entry_of(held)))
        return True

    def _put(self, name: HubName, path: str, engine: str = "") -> None:
        """In place of the name, for pools of `engine` or of all."""
        self.config = _changed(
            self.config,
            lambda pool: replace(pool, model=path) if _names(pool, name) and engine in ("", pool.engine) else pool,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _preview(name: HubName, access: Access, refusal: Refusal | None) -> str:
    """Raises HubError."""
    if access.is_offline:
        raise NotPulled(OFFLINE)
    with HubClient(access, backoff=Backoff(max_failures=1)) as client:
        offer = ask(client, name)
        refuse_early(client, name, offer, refusal)
    choice = offer.choice
    files = "1 file" if len(choice.files) == 1 else f"{len(choice.files)} files"
    return f"{name} would be pulled from {access.endpoint}: {choice.label}, {files}, {size_words(choice.num_bytes)}"


def _is_named(pool: Pool) -> bool:
    return pool.engine in ENGINES and pool.model is not None and looks_like_hub_name(pool.model)


def _names(pool: Pool, name: HubName) -> bool:
    return _is_named(pool) and _name_of(pool) == name


def _name_of(pool: Pool) -> HubName:
    """vLLM is given safetensors, also of a repository that holds GGUFs beside them. Raises NoChoice."""
    name = parse_name(str(pool.model))
    if pool.engine != VLLM:
        return name
    if name.label.casefold() not in ("", SAFETENSORS):
        raise NoChoice(
            f"{name}: a GGUF is for engine llamacpp; for vLLM write {name.repo}, which means its safetensors model"
        )
    return replace(name, label=SAFETENSORS)


def _changed(config: Config, change: Callable[[Pool], Pool | None]) -> Config:
    """Every pool as `change` makes it; None: without it."""

    def changed(model: Model) -> Model:
        pools = [made for pool in model.pools if (made := change(pool)) is not None]
        return replace(model, pools=tuple(pools))

    return replace(config, models=tuple(map(changed, config.models)))
