"""What a data worker knows: one immutable snapshot that control pushes whole.

    control --Snapshot(version n)--> worker --Ack(n)--> control
            <-- Want(adapter) ------        <-- Uses --
            <-- WantEngine(model) --           <-- Tallies --

A worker decides from the newest snapshot it holds. It asks for two things, each where a request waits for it: an adapter
that no engine holds, and an engine of a model whose engines start on demand. The answer is a snapshot in which there is
one, or in which the adapter or the engines say why there will be none. An admin call that changed the snapshot returns once
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
    """`starting`, `ready`, `draining`, `asleep`, `backoff`, `failed` or `stopped`: only `ready` takes new requests."""
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
    num_failed_starts: int = 0
    """For a reason that is known, and is in `detail` until the next one begins."""
    is_on_demand: bool = False
    """Control starts or wakes it for a `WantEngine`: a request may wait for it unless it has failed. False while it is kept stopped."""
    is_paused: bool = False
    """Control does so only once `retry_after_s` are over, since its last start failed: no request waits for it."""


class Model(msgspec.Struct, frozen=True):
    """A name that clients may ask for, and the replicas that answer it."""

    name: str
    resolved: str
    """`name@digest12`, sent as `x-forgegate-model`; equal to `name` where the digest is unknown (remote)."""
    engines: tuple[Engine, ...]
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    """Endpoints and features, for example `chat`, `completions`, `tokenize`."""
    refused_options: tuple[str, ...] = ()
    """Fields of requests that some engine of the model answers with 400, for example `min_p` beside speculation."""
    created: int = 0
    """Unix seconds."""


class Adapter(msgspec.Struct, frozen=True):
    """One version of an adapter, and the replicas on which it is resident and proven. Only those may answer for it."""

    name: str
    """`support@3f2a91c04b7d`: what engines know it by; never reused for other bytes."""
    model: str
    """The model that it was trained on."""
    engines: tuple[str, ...] = ()
    """Ids of the replicas that hold it, proven since it was loaded there."""
    unproven: tuple[str, ...] = ()
    """Ids of replicas that have loaded it once more, and on which it is not recognised yet. A request may be sent there, but nothing of
    its answer may be read before the replica is one of `engines`; once it is neither here nor there, the request is called back."""
    is_candidate: bool = False
    """No alias serves it or has served it: only the admin token reaches it."""
    proof: str = ""
    """`proven`, `weak`, `unattested`, or empty while nothing has been loaded."""
    gate: str = ""
    """`ungated`, or the verdict that the gate gave."""
    refusal: str = ""
    """Why no engine will hold it, in words for a user: a request for it is answered 503 at once. Empty while one may."""
    retry_after_s: int = 1
    created: int = 0
    """Unix seconds."""


class Share(msgspec.Struct, frozen=True):
    """A version's part of an alias's traffic."""

    adapter: str
    """Name of the version."""
    weight: int = 1
    """Relative to the others' of the alias."""


class Alias(msgspec.Struct, frozen=True):
    """A name that clients ask for, and the versions that answer: one, or a split that is sticky per user or session."""

    name: str
    model: str
    shares: tuple[Share, ...]
    created: int = 0
    """Unix seconds."""


class Measured(msgspec.Struct, frozen=True):
    """What the newest valid benchmark of a name has found, at its best load."""

    name: str
    resolved: str
    """What answered for the name then: `demo@0123456789ab`. Where something else does now, the figure is none of its."""
    output_tps: float
    """Output tokens per second, of all requests together."""
    load: str
    """`32 streams`, `4 requests/s`."""
    at: int
    """Unix seconds."""
    benchmark: str
    """Its id in the admin API."""


class Key(msgspec.Struct, frozen=True):
    """A client API key, as its SHA-256 in hex: the plain key stays with the client."""

    name: str
    sha256: str


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything a worker decides from."""

    version: int
    models: tuple[Model, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    aliases: tuple[Alias, ...] = ()
    measured: tuple[Measured, ...] = ()
    """By name, each once."""
    keys: tuple[Key, ...] = ()
    """Empty: no key is asked for."""
    timeouts: Timeouts = Timeouts()
    max_body_bytes: int = 32 * 1024 * 1024
    adapter_wait_s: float = 60.0
    """How long a request waits for its adapter to be loaded."""
    max_adapter_waiting: int = 256
    """Requests of one worker that may wait so; further ones are answered 503."""
    engine_wait_s: float = 300.0
    """How long a request waits for an engine that starts on demand."""
    max_engine_waiting: int = 256
    """Requests of one worker that may wait so; further ones are answered 503."""
    admin_sha256: str = ""
    """SHA-256 of the admin token in hex; who presents it reaches candidates, and the load and unload calls."""
    admin_url: str = ""
    """Where the admin API answers, for the calls that a worker passes on to it."""


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


class Want(msgspec.Struct, frozen=True, tag="want"):
    """Worker to control: a request waits for this adapter, which no ready replica holds.

    A worker sends it when the first one comes, and again at every snapshot that names no replica for the adapter while any waits.
    Where the newest snapshot says that a replica does hold it, that replica has just denied it (`EngineTrouble` with
    `adapter_absent` came before), or was lost.
    """

    adapter: str


class WantEngine(msgspec.Struct, frozen=True, tag="want_engine"):
    """Worker to control: a request waits for an engine of this model, none of which is ready and one of which starts on demand.

    A worker sends it when the first one comes, and again at every snapshot that names none as starting while any waits. A request
    for an adapter sends `Want` alone: to load it, control starts an engine where it has to.
    """

    model: str


class Uses(msgspec.Struct, frozen=True, tag="uses"):
    """Worker to control: adapters that requests asked for since the last such message, each once, in the order of their last use.

    Sent several times a second, and before every `Want`, so that what is used least recently is known when room is made.
    A request counts when it arrives, also where it has to wait.
    """

    adapters: tuple[str, ...]


class Tally(msgspec.Struct, frozen=True):
    """How requests for an alias fared that one of its versions answered, or should have."""

    alias: str
    version: str
    num_requests: int
    num_errors: int
    """That ended by an engine's fault (`gateway.failures`)."""
    ttfts: dict[int, int]
    """Times to the first byte of the body: how many, by bucket (`gateway.ttft`)."""


class Tallies(msgspec.Struct, frozen=True, tag="tallies"):
    """Worker to control: requests that ended since the last such message. Sent twice a second while any do."""

    rows: tuple[Tally, ...]


ToWorker = Snapshot | Ping | Drain
ToControl = Ready | Ack | Pong | EngineTrouble | Want | WantEngine | Uses | Tallies
