"""A snapshot, indexed once when it arrives so that no request has to search or encode anything twice."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import NoEngineReady
from gateway.snapshot import Engine, Model, Snapshot

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


class Address(NamedTuple):
    """Where connections go; the pool's key. A restarted engine has another port, hence another pool entry."""

    host: str
    port: int
    is_tls: bool


class EngineRoute:
    """What the data path needs of one engine as a replica of one model, encoded for the wire."""

    __slots__ = ("address", "answer_headers", "engine", "request_prefix", "request_suffix")

    def __init__(self, engine: Engine, resolved: str) -> None:
        self.engine = engine
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
    """One model and its replicas."""

    __slots__ = ("model", "only", "paths", "ready", "routes")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.ready = tuple(engine for engine in model.engines if engine.state == "ready")
        self.paths = frozenset(path for path, capability in ENDPOINTS.items() if capability in model.capabilities)
        """Where it may be asked."""
        self.routes = {engine.id: EngineRoute(engine, model.resolved) for engine in self.ready}
        self.only = self.routes[self.ready[0].id] if len(self.ready) == 1 else None
        """The one ready replica, where there is no choice."""

    def not_ready(self) -> NoEngineReady:
        """Return the answer for a model none of whose replicas takes requests, with each one's state and reason."""
        states = "; ".join(f"{engine.id}: {engine.detail or engine.state}" for engine in self.model.engines)
        retry_after_s = min((engine.retry_after_s for engine in self.model.engines), default=5)
        message = f"no engine of model {self.model.name!r} is ready ({states or 'it has none'})"
        return NoEngineReady(message, param="model", retry_after_s=max(1, retry_after_s))


class Index:
    """The newest snapshot, by name."""

    __slots__ = ("key_digests", "models", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.models = {model.name: ModelRoute(model) for model in self.snapshot.models}
        self.key_digests = tuple((bytes.fromhex(key.sha256), key.name) for key in self.snapshot.keys)

    def unready_reasons(self) -> list[str]:
        """Return why nothing can be served; empty as soon as one model has a ready engine."""
        if not self.models:
            return ["no model is configured"]
        if any(route.ready for route in self.models.values()):
            return []
        return [route.not_ready().message for route in self.models.values()]


def header_value(text: str) -> bytes:
    """Return `text` as a header value in UTF-8; control characters, which would end the line, become `?`."""
    return "".join("?" if ord(char) < 0x20 or char == "\x7f" else char for char in text).encode()


def _host(engine: Engine) -> str:
    host = f"[{engine.host}]" if ":" in engine.host else engine.host
    return host if engine.port == (443 if engine.tls else 80) else f"{host}:{engine.port}"
