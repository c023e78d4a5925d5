"""forgegate.yaml as a frozen tree. Attribute docstrings are its documentation (`forgegate serve --help-config`).

Reading reports every fault of a file at once (`gateway.configfile`); a value that is in this tree has been checked.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from gateway.origin import Origin

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}")
"""Model names: what clients put into `model`. No `:` and no `@`, those separate versions."""
IDLE_S = 600.0


def port(default: int) -> Any:
    return field(default=default, metadata={"min": 0, "max": 65535})


def positive(default: float) -> Any:
    """Also infinite: `.inf` switches a limit off."""
    return field(default=default, metadata={"above": 0})


def counted(default: int, maximum: int) -> Any:
    return field(default=default, metadata={"min": 1, "max": maximum})


@dataclass(frozen=True, slots=True)
class Admin:
    host: str = "127.0.0.1"
    """Address of the admin API. Whoever reaches it and has the token controls the engines."""
    port: int = port(8081)
    """0: any free port."""


@dataclass(frozen=True, slots=True)
class Server:
    host: str = "127.0.0.1"
    """Address that clients connect to; 0.0.0.0 for all interfaces."""
    port: int = port(8080)
    """0: any free port."""
    workers: int = counted(1, 64)
    """Data worker processes that share the port; one core each under load."""
    admin: Admin = field(default_factory=Admin)
    access_log: str = ""
    """File that gets one JSON line per request; `-`: standard output; empty: none."""
    drain_s: float = positive(30.0)
    """How long running requests may go on after the first Ctrl-C (or SIGTERM)."""


@dataclass(frozen=True, slots=True)
class Pool:
    engine: str
    """Kind of engine: llamacpp or vllm (launched here), or remote (any OpenAI-compatible URL)."""
    model: str | None = None
    """llamacpp: `demo`, a GGUF file, a model folder, or ORG/NAME[:QUANT] of a hub (pulled at first use). vllm: no GGUF. remote: a name."""
    replicas: int = counted(1, 64)
    """Engines of this kind to run side by side."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the engine, checked against its own schema (see the engine's options below)."""
    python: str | None = None
    """Interpreter that runs the engine (vllm: or a command that ends in one); else $FORGEGATE_HOME/envs/<engine>, else our own."""
    start_timeout_s: float = positive(600.0)
    """How long the engine may take from its start until it is ready."""
    resident: Literal["always", "on_demand"] = "always"
    """on_demand: started by the first request that needs it, which waits, and stopped when idle or when another needs its memory."""
    idle_timeout_s: float | None = field(default=None, metadata={"above": 0})
    """on_demand: without requests for this long, it leaves (default: 600; .inf: only where its memory is needed)."""
    sleep_level: int = field(default=0, metadata={"min": 0, "max": 2})
    """on_demand: how it leaves. 0: it stops; 1: it sleeps with its weights in RAM; 2: it sleeps without them. For engines that can."""
    base_url: str | None = None
    """remote: http(s)://host[:port][/path]."""
    api_key: str | None = field(default=None, repr=False)
    """remote: sent as bearer token; write it as ${VARIABLE}."""
    capabilities: tuple[str, ...] = ()
    """remote: what it answers, for example [chat, completions, embeddings]; default chat and completions."""
    origin: Origin | None = field(default=None, repr=False, compare=False, metadata={"is_key": False})
    """Where it is written; None: in no file."""

    @property
    def is_on_demand(self) -> bool:
        return self.resident == "on_demand"

    @property
    def idle_s(self) -> float:
        """After which it leaves; infinite: never for that."""
        if not self.is_on_demand:
            return math.inf
        return IDLE_S if self.idle_timeout_s is None else self.idle_timeout_s


@dataclass(frozen=True, slots=True)
class Model:
    name: str = field(metadata={"pattern": NAME})
    """The name clients ask for."""
    pools: tuple[Pool, ...] = field(metadata={"min_length": 1})
    """Who answers; requests go to the least loaded replica of all pools."""


@dataclass(frozen=True, slots=True)
class Routing:
    policy: Literal["least_load"] = "least_load"
    """least_load: the replica with the fewest outstanding tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_body_bytes: int = field(default=32 * 1024 * 1024, metadata={"min": 1024, "max": 1 << 31})
    """Largest request body; above it clients get 413."""
    engine_wait_s: float = positive(300.0)
    """How long a request waits for an engine that starts on demand; also how long such an engine waits for memory that others use."""
    max_engine_waiting: int = counted(256, 1_000_000)
    """Requests of one worker that may wait so; further ones get 503."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float = positive(2.0)
    """From dialling an engine until the connection is open."""
    first_byte_s: float = positive(300.0)
    """From the request sent until the first byte of the answer's body (queueing and prefill included)."""
    idle_s: float = positive(60.0)
    """Between two pieces of a started answer."""
    total_s: float = positive(3600.0)
    """From the request's arrival until its last byte."""


@dataclass(frozen=True, slots=True)
class AdapterRules:
    gate: Literal["off", "warn", "require"] = "warn"
    """What an alias needs to serve a version new to it. require: a GO verdict or a recorded reason (--force); warn marks; off: nothing."""
    roots: tuple[str, ...] = ()
    """Folders of this machine from which `lora_path` may be taken; none: adapters are only taken as uploads."""
    require_attestation: bool = False
    """Whether a version without a reference, which no proof can be held against, is refused."""
    wait_s: float = positive(60.0)
    """How long a request waits for its adapter to be loaded."""
    max_waiting: int = counted(256, 1_000_000)
    """Requests of one worker that may wait so; further ones get 503."""
    max_upload_bytes: int = field(default=4 * 1024 * 1024 * 1024, metadata={"min": 1024 * 1024, "max": 1 << 40})
    """Largest adapter that is taken, packed and unpacked."""


@dataclass(frozen=True, slots=True)
class Conversations:
    file: str = ""
    """Absolute path; gets questions and answers for `forgegate data collect`, readable by its owner only. Empty: nothing is kept."""
    share: float = field(default=0.1, metadata={"min": 0, "max": 1})
    """How many of the requests, by chance: 0.1 is one in ten. With the header `x-forgegate-no-log: 1`, or `store: false`, none is kept."""
    models: tuple[str, ...] = ()
    """Models and aliases whose requests are kept; none: all. Of /v1/chat/completions, /v1/responses and /v1/messages; trials of
    candidates never."""
    max_bytes: int = field(default=256 * 1024 * 1024, metadata={"min": 64 * 1024, "max": 1 << 40})
    """Of the file: then it is renamed to FILE.1, FILE.1 to FILE.2, and so on."""
    keep: int = counted(8, 1000)
    """Renamed files that are kept; the oldest goes."""
    mask: bool = True
    """Whether phone numbers, addresses of mail, cards, accounts, keys and the like are masked before anything is written."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Only the hash is kept: the plain key stays with the client."""

    name: str
    """Shown in logs and metrics."""
    sha256: str = field(repr=False)
    """SHA-256 of the key in hex; or give `key: ${VARIABLE}` instead, which is hashed when the file is read."""


@dataclass(frozen=True, slots=True)
class Config:
    server: Server = field(default_factory=Server)
    models: tuple[Model, ...] = field(default=(), metadata={"min_length": 1})
    keys: tuple[ApiKey, ...] = ()
    """API keys of clients; none: no key is asked for."""
    routing: Routing = field(default_factory=Routing)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    store: str | None = field(default=None, repr=False)
    """Database of versions and aliases, a URL like postgresql+psycopg://user@host/name; default: forgegate.db (SQLite) in the home."""
    adapters: AdapterRules = field(default_factory=AdapterRules)
    conversations: Conversations = field(default_factory=Conversations)


def keys_of(cls: type[Any]) -> dict[str, Field[Any]]:
    """The fields of one of these classes that a file may have, by name."""
    return {item.name: item for item in fields(cls) if item.metadata.get("is_key", True)}


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def single_model(engine: str, model: str, name: str) -> Config:
    """The configuration of `forgegate serve --model ...`, without a file; for `remote`, `model` is its URL."""
    pool = Pool(engine, base_url=model) if engine == "remote" else Pool(engine, model=model)
    return Config(models=(Model(name, (pool,)),))
