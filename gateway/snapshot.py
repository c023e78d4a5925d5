"""What a data worker knows: one immutable snapshot that control pushes whole.

    control --Snapshot(version n)--> worker --Ack(n)--> control

A worker never asks; it decides from the newest snapshot it holds. An admin call that changed the snapshot returns once
every worker has acknowledged it. The messages are msgspec structs, encoded as JSON, tagged by `type`, and framed by
`gateway.channel`.
"""

from __future__ import annotations

import msgspec


class Timeouts(msgspec.Struct, frozen=True):
    """How long the data path waits, in seconds; each bounds one phase of a request, none replaces another."""

    connect_s: float = 2.0
    """From dialling an engine until the connection is open."""
    first_byte_s: float = 300.0
    """From the request sent until the first byte of the answer's body (queueing and prefill included)."""
    idle_s: float = 60.0
    """Between two pieces of a started answer."""
    total_s: float = 3600.0
    """From the request's arrival until its last byte."""


class Engine(msgspec.Struct, frozen=True):
    """One replica that may answer: where it is and whether it takes traffic."""

    id: str
    """Unique and stable over restarts, for example `demo-0`."""
    slot: int
    """Row of this engine in the shared counters."""
    kind: str
    """`llamacpp`, `vllm` or `remote`."""
    state: str
    """`starting`, `ready`, `draining`, `backoff`, `failed` or `stopped`: only `ready` takes new requests."""
    host: str
    port: int
    tls: bool = False
    path_prefix: str = ""
    """Put before `/v1/...`; empty for engines that we launch."""
    secret: str = ""
    """Bearer token of this launch (or the remote's API key)."""
    model: str = ""
    """The name under which the engine itself knows the model; the `model` field is rewritten to it when it differs."""
    detail: str = ""
    """Why it is not ready, in words fit for a user; empty when it is."""
    retry_after_s: int = 1
    """What a refused client should wait before it tries again."""


class Model(msgspec.Struct, frozen=True):
    """A name that clients may ask for, and the replicas that answer it."""

    name: str
    resolved: str
    """`name@digest12`, sent as `x-forgegate-model`; equal to `name` where the digest is unknown (remote)."""
    engines: tuple[Engine, ...]
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    """Endpoints and features, for example `chat`, `completions`, `tokenize`."""
    created: int = 0
    """Unix seconds."""


class Key(msgspec.Struct, frozen=True):
    """A client API key, as its SHA-256 in hex: the plain key stays with the client."""

    name: str
    sha256: str


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything a worker decides from."""

    version: int
    models: tuple[Model, ...] = ()
    keys: tuple[Key, ...] = ()
    """Empty: no key is asked for."""
    timeouts: Timeouts = Timeouts()
    max_body_bytes: int = 32 * 1024 * 1024


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Control to worker: say that you listen."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Control to worker: stop accepting, finish what runs within `grace_s` seconds, then exit 0."""

    grace_s: float


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Worker to control: what a stopped or stuck one cannot say."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Worker to control: started, waiting for its first snapshot; it takes connections once it has acknowledged that."""

    pid: int


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """Worker to control: from now on every new request is decided from this version."""

    version: int


class EngineTrouble(msgspec.Struct, frozen=True, tag="trouble"):
    """Worker to control: this engine refused or broke a connection; probe it now rather than at the next tick."""

    engine_id: str
    reason: str


ToWorker = Snapshot | Ping | Drain
ToControl = Ready | Ack | Pong | EngineTrouble
