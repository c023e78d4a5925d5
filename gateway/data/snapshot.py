"""A snapshot, indexed once when it arrives so that no request has to search or encode anything twice."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import AdapterNotReady, ModelNotFound, NoEngineReady, NotFound
from gateway.routing import split
from gateway.snapshot import Adapter, Alias, Engine, Model, Snapshot

ADMIN = "(admin)"
"""Stands where a key's name would, for who presents the admin token."""

ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/tokenize": "tokenize",
    "/detokenize": "tokenize",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
}
"""Relayed paths, and the capability that a model must name to be asked there (`backends.base.ENDPOINTS`)."""


_NOT_CALLED = frozenset(("ready", "failed"))
_GIVEN_UP = frozenset(("failed", "stopped", "asleep"))
"""States that an engine does not leave by itself."""


class Address(NamedTuple):
    """Where connections go; the pool's key. A restarted engine has another port, hence another pool entry."""

    host: str
    port: int
    is_tls: bool


class EngineRoute:
    """What the data path needs of one engine as a replica of one model or adapter, encoded for the wire."""

    __slots__ = ("address", "answer_headers", "engine", "request_prefix", "request_suffix", "served_name")

    def __init__(self, engine: Engine, resolved: str, served_name: str) -> None:
        self.engine = engine
        self.served_name = served_name
        """What the engine calls it; empty where any name will do."""
        self.address = Address(engine.host, engine.port, engine.tls)
        self.request_prefix = b"POST " + engine.path_prefix.rstrip("/").encode()
        """Goes before the request's target."""
        self.request_suffix = b" HTTP/1.1\r\nhost: %b\r\n" % _host(engine).encode()
        """Goes after it, followed by more header lines."""
        if engine.secret:
            self.request_suffix += b"authorization: Bearer %b\r\n" % header_value(engine.secret)
        self.answer_headers = b"x-forgegate-engine: %b\r\nx-forgegate-model: %b\r\nx-forgegate-queue-ms: " % (
            header_value(engine.id),
            header_value(resolved),
        )
        """Header lines of the client's answer; the milliseconds follow."""


class ModelRoute:
    """A base model, or a version of an adapter on it, and the replicas that answer for it."""

    __slots__ = ("adapter", "model", "only", "paths", "ready", "resolved", "routes", "unproven")

    def __init__(self, model: Model, adapter: Adapter | None = None) -> None:
        self.model = model
        self.adapter = adapter
        self.resolved = model.resolved if adapter is None else adapter.name
        self.ready = tuple(engine for engine in model.engines if engine.state == "ready" and _holds(engine, adapter))
        self.paths = frozenset(path for path, capability in ENDPOINTS.items() if capability in model.capabilities)
        """Where it may be asked."""
        self.routes = {
            engine.id: EngineRoute(engine, self.resolved, engine.model if adapter is None else adapter.name)
            for engine in self.ready
        }
        self.only = self.routes[self.ready[0].id] if len(self.ready) == 1 else None
        """The one ready replica, where there is no choice."""
        self.unproven = {
            engine.id: EngineRoute(engine, self.resolved, self.resolved)
            for engine in (model.engines if adapter is not None and adapter.unproven else ())
            if engine.state == "ready" and adapter is not None and engine.id in adapter.unproven
        }
        """Replicas where the adapter is being recognised: nothing of their answers may be read before they are among `routes`."""

    def not_served(self, name: str, path: str) -> NotFound:
        """Return the answer for a path at which the model, asked for by `name`, is not served."""
        has = ", ".join(sorted(self.paths)) or "nothing that clients could ask for"
        return NotFound(f"the model {name!r} does not serve {path} (it serves: {has})", param="model")

    def not_ready(self) -> NoEngineReady:
        """Return the answer for a model none of whose replicas takes requests, with each one's state and reason."""
        states = "; ".join(f"{engine.id}: {engine.detail or engine.state}" for engine in self.model.engines)
        awaited = [engine for engine in self.model.engines if _may_come(engine)] or self.model.engines
        retry_after_s = min((engine.retry_after_s for engine in awaited), default=5)
        message = f"no engine of model {self.model.name!r} is ready ({states or 'it has none'})"
        return NoEngineReady(message, param="model", retry_after_s=max(1, retry_after_s))

    @property
    def has_ready_engine(self) -> bool:
        """Whether an engine of the model takes requests, whichever adapters it holds."""
        return any(engine.state == "ready" for engine in self.model.engines)

    @property
    def on_call(self) -> tuple[Engine, ...]:
        """Engines of the model that are on their way because somebody asked, or start when somebody does."""
        return tuple(engine for engine in self._startable if not engine.is_paused)

    @property
    def can_start(self) -> bool:
        """Whether requests start an engine of the model, now or after a pause."""
        return bool(self._startable)

    @property
    def _startable(self) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.model.engines if _is_startable(engine))

    @property
    def failed_starts(self) -> dict[str, int]:
        """By engine: how many of its starts, for anybody's request, failed for a reason that is known."""
        return {engine.id: engine.num_failed_starts for engine in self.model.engines}

    @property
    def is_coming(self) -> bool:
        """Whether an engine of the model that starts on demand is starting."""
        return any(engine.is_on_demand and engine.state == "starting" for engine in self.model.engines)

    @property
    def is_given_up(self) -> bool:
        """Whether no engine of the model is up, and none will be unless somebody sees to it."""
        return not self.on_call and all(engine.state in _GIVEN_UP for engine in self.model.engines)

    def hopeless(self) -> NoEngineReady | None:
        """Return why a request that finds no ready replica need not wait for one; None where it may."""
        if not self.on_call and (self.adapter is None or not self.has_ready_engine):
            return self.not_ready()
        return self.refusal()

    def refusal(self) -> AdapterNotReady | None:
        """Return why no engine will hold the adapter; None while one may."""
        adapter = self.adapter
        if adapter is None or not adapter.refusal:
            return None
        message = f"the adapter {adapter.name} is not served: {adapter.refusal}"
        return AdapterNotReady(message, param="model", retry_after_s=adapter.retry_after_s)


class AliasRoute:
    """An alias and the versions that answer for it."""

    __slots__ = ("_by_name", "alias", "base", "only", "shares")

    def __init__(self, alias: Alias, base: ModelRoute, versions: dict[str, ModelRoute]) -> None:
        self.alias = alias
        self.base = base
        self.shares = tuple(share for share in alias.shares if share.adapter in versions and share.weight > 0)
        self._by_name = {share.adapter: versions[share.adapter] for share in self.shares}
        self.only = self._by_name[self.shares[0].adapter] if len(self._by_name) == 1 else None
        """The one version, where the traffic is not split."""

    def pick(self, key: bytes) -> ModelRoute:
        """Return the version for the user or session `key`."""
        return self.only or self._by_name[split.pick(self.shares, key).adapter]


class Index:
    """The newest snapshot, by name."""

    __slots__ = ("adapters", "admin_digest", "aliases", "key_digests", "measured", "models", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.models = {model.name: ModelRoute(model) for model in snapshot.models}
        self.adapters = {
            adapter.name: ModelRoute(self.models[adapter.model].model, adapter)
            for adapter in snapshot.adapters
            if adapter.model in self.models
        }
        self.aliases = {
            alias.name: route
            for alias in snapshot.aliases
            if alias.model in self.models
            and (route := AliasRoute(alias, self.models[alias.model], self.adapters)).shares
        }
        self.measured = {measured.name: measured for measured in snapshot.measured}
        self.admin_digest = bytes.fromhex(snapshot.admin_sha256)
        """Empty where nobody is admin here."""
        keys = [(bytes.fromhex(key.sha256), key.name) for key in snapshot.keys]
        if keys and self.admin_digest:
            keys.append((self.admin_digest, ADMIN))
        self.key_digests = tuple(keys)

    def no_such_model(self, name: str) -> ModelNotFound:
        """Return the answer for a name that is unknown, or that the asker may not know of."""
        known = ", ".join(sorted({*self.models, *self.aliases})) or "none"
        return ModelNotFound(f"the model {name!r} does not exist; there are: {known}", param="model")

    def retry_after_s(self, adapter: str) -> int:
        """Return what a client whose adapter did not come should wait before it asks again."""
        route = self.adapters.get(adapter)
        return 1 if route is None or route.adapter is None else route.adapter.retry_after_s

    def unready_reasons(self) -> list[str]:
        """Return why models cannot be served, one sentence for each; none where all have an engine, ready or started by a request."""
        if not self.models:
            return ["no model is configured"]
        return [route.not_ready().message for route in self.models.values() if not route.ready and not route.can_start]


def _is_startable(engine: Engine) -> bool:
    return engine.is_on_demand and engine.state not in _NOT_CALLED


def _may_come(engine: Engine) -> bool:
    """Whether it is on its way, or requests start it: what the others say of when to ask again says nothing."""
    return engine.state not in _GIVEN_UP or _is_startable(engine)


def _holds(engine: Engine, adapter: Adapter | None) -> bool:
    return adapter is None or engine.id in adapter.engines


def header_value(text: str) -> bytes:
    """Return `text` as a header value in UTF-8; control characters, which would end the line, become `?`."""
    return "".join("?" if ord(char) < 0x20 or char == "\x7f" else char for char in text).encode()


def _host(engine: Engine) -> str:
    host = f"[{engine.host}]" if ":" in engine.host else engine.host
    return host if engine.port == (443 if engine.tls else 80) else f"{host}:{engine.port}"
