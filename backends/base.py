"""What a backend is: how one kind of engine is checked, prepared, launched, addressed and read. Never a user's bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.process import Launcher
    from backends.restart import RestartPolicy
    from backends.status import Timing

LOOPBACK = "127.0.0.1"
ENDPOINTS = ("chat", "completions", "tokenize", "embeddings", "responses", "messages")
"""Capabilities that are endpoints; others name features."""
LITERAL_SPECIAL_TEXT = "literal_special_text"
"""A feature: a special token's text in a message is text, not that token."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What the configuration says about the replicas of one kind that serve one model."""

    kind: str
    served_name: str
    """The name clients ask for."""
    model: str | None = None
    """A path, `demo`, or for `remote` the name under which the other side knows it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    replicas: int = 1
    """Engines of this pool, all alike."""
    start_timeout_s: float = 600.0
    base_url: str | None = None
    api_key: str = field(default="", repr=False)
    capabilities: tuple[str, ...] = ()
    """Endpoints that a remote answers; engines of our own know theirs."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a backend may keep and look for things."""

    models_dir: Path
    """Derived model files (GGUFs), digests of files."""
    envs_dir: Path
    """One environment per engine, `envs/<engine>/bin/python`."""

    @property
    def tools_dir(self) -> Path:
        """Programs of others that are fetched at first use."""
        return self.envs_dir.parent / "tools"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One child to start: its arguments, what is added to the environment, where it runs."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine answers; `path_prefix` stands before `/v1/...`."""

    host: str
    port: int
    tls: bool = False
    path_prefix: str = ""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path_prefix}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which weights an engine serves, known once they are prepared."""

    digest: str = ""
    """`sha256:<hex>`; empty where it cannot be known (remote)."""
    is_source: bool = False
    """Whether the digest names the source weights, so that other quantisations of them have the same one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a ready engine says about itself."""

    description: str
    """For people, for example `llama.cpp on CPU, 2 threads`."""
    context_length: int | None = None
    model: str = ""
    """The name under which the engine knows the model."""
    capabilities: tuple[str, ...] = ()
    """What it says it answers; empty where it does not say."""
    refused_options: tuple[str, ...] = ()
    """Fields of requests that it answers with 400 as it is configured (`min_p` beside speculation)."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine says it is."""

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    """Share of KV cells in use, 0 to 1."""
    num_preemptions: int = 0
    """Since the engine's start, like all counts below."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Of the prompt tokens: taken from the prefix cache."""
    num_generated_tokens: int = 0
    num_drafts: int = 0
    """Steps of speculation; each proposes some draft tokens, of which some are accepted."""
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    adapters_running: tuple[str, ...] = ()
    """Adapters with requests now, where the engine names them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer to a probe."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


Tell = Callable[[str], None]
"""Takes one line about work that goes on, for the user. Called on the event loop, where there is one."""


def untold(text: str) -> None:
    """Nobody hears it."""


class Fetch(Protocol):
    """GET a path of one engine; raises ProbeFailed when there is no HTTP answer."""

    async def __call__(self, path: str) -> Reply: ...


class Call(Protocol):
    """POST a JSON body to a path of one engine; raises ProbeFailed when there is no HTTP answer within `timeout_s`."""

    async def __call__(self, path: str, body: bytes, timeout_s: float) -> Reply: ...


@dataclass(frozen=True, slots=True)
class HeldAdapter:
    """An adapter that takes one of an engine's slots."""

    num_running: int = 0
    """Its requests; 0 where the engine does not say."""
    is_leaving: bool = False
    """It takes no new requests, and goes with its last one unless the unloading is withdrawn."""


class AdapterCalls(Protocol):
    """What one kind of engine does with LoRA adapters. Stateless; every method raises ProbeFailed when the engine gives no answer."""

    file_name: str
    """What such an engine loads, in a version's directory; the directory itself where empty."""

    async def load(self, call: Call, name: str, path: Path) -> None:
        """Load the adapter at `path` under `name`. Loading what is loaded already is fine, and takes back what is leaving.

        Raises AdapterRefused, NoSlot.
        """
        ...

    async def unload(self, call: Call, name: str, timeout_s: float) -> None:
        """Free it, once the requests that use it have ended. What is not there is fine.

        Raises AdapterRefused when they do not end in time: then, or cancelled before, the adapter stays and serves again, at the
        latest when the engine has noticed.
        """
        ...

    async def resident(self, fetch: Fetch) -> Mapping[str, HeldAdapter]:
        """What takes a slot, by name."""
        ...

    async def score(self, call: Call, model: str, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each text but its first, by `model`: an adapter's name, or the base's.

        Raises AdapterRefused.
        """
        ...


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a start failed, read off the engine's output."""

    reason: str
    """One or two sentences for the user: what it was, and what mends it."""
    is_final: bool
    """Whether another try would end the same way."""


class SleepCalls(Protocol):
    """How an engine gives its memory back and keeps its process. Raises ProbeFailed when the engine gives no answer."""

    levels: tuple[int, ...]
    """1: weights go to RAM, 2: weights are dropped and read again. Empty where it cannot sleep as configured."""

    async def sleep(self, call: Call, level: int) -> None:
        """Returns once the memory is given back. Raises EngineRefused."""
        ...

    async def wake(self, call: Call, level: int) -> None:
        """Returns once it can serve again; `level` as it was put to sleep. It holds no adapters then. Raises EngineRefused."""
        ...


class Backend(Protocol):
    """One pool's backend. Methods are safe to call for several replicas at once."""

    kind: str
    title: str
    """For people: `llama.cpp`, `remote`."""
    ready_path: str
    """Answers 200 once the engine can serve."""
    capabilities: tuple[str, ...]
    """What such an engine can answer at best; what the one at hand answers is in its facts."""
    timing: Timing
    policy: RestartPolicy
    adapters: AdapterCalls | None
    """None where adapters cannot be served."""
    num_adapter_slots: int
    """Adapters that one replica holds at the same time."""
    sleeps: SleepCalls | None
    """None where such an engine cannot sleep."""
    starts_alone: bool
    """Whether no other such engine of this machine may start beside it: it measures the memory that is free."""

    def check(self, tell: Tell = untold) -> str:
        """What would be started, in one line, without starting it. Raises BackendError. May block for a second; `tell` hears why longer."""
        ...

    def plan(self, taken: Mapping[str, int]) -> Plan | None:
        """Which options it picks for the memory that is free, less what is `taken` by pools that start beside it, in bytes by device.

        None where nothing is started here. It holds for as long as this object lives, so that a restart changes nothing. May block for
        seconds. Raises BackendError, NoRoom among them.
        """
        ...

    async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
        """Make what the engine loads (at first use this may take minutes). Raises BackendError."""
        ...

    def launch(self, port: int) -> LaunchSpec | None:
        """The child to start on `port`, after `prepare`; None where there is nothing to start. Raises BackendError."""
        ...

    def address(self, port: int) -> Address:
        """Where a replica launched on `port` answers."""
        ...

    def secret_for(self, launch_secret: str) -> str:
        """The bearer token to send: this launch's secret, or a remote's own key."""
        ...

    def refusal(self, reply: Reply) -> str:
        """Why waiting for readiness is pointless (for example a refused key); empty if the engine may still come up."""
        ...

    async def inspect(self, fetch: Fetch) -> Facts:
        """Ask a ready engine about itself. Raises ProbeFailed."""
        ...

    async def load(self, fetch: Fetch) -> Load | None:
        """How busy it is now; None where the engine does not say. Raises ProbeFailed."""
        ...

    def progress(self, line: str) -> str:
        """What a line of its output says of the start that goes on (`loading weights, 3 of 4 files`); empty where nothing."""
        ...

    def explain(self, lines: Sequence[str]) -> StartFailure | None:
        """Why it ended before it was ready, from its last lines of output; None where they do not tell."""
        ...


class BackendDefaults:
    """What holds of most backends; those that can do more say so."""

    adapters: AdapterCalls | None = None
    num_adapter_slots = 0
    sleeps: SleepCalls | None = None
    starts_alone = False

    def progress(self, line: str) -> str:
        return ""

    def explain(self, lines: Sequence[str]) -> StartFailure | None:
        return None


def parse_metrics(text: str) -> dict[str, float]:
    """The samples of a Prometheus text page summed over their labels, without histograms' buckets."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        value = rest.rpartition("}")[2].split() if "{" in line else rest.split()
        if not value or line.startswith("#") or name.endswith("_bucket"):
            continue
        try:
            totals[name] = totals.get(name, 0.0) + float(value[0])
        except ValueError:
            continue
    return totals
