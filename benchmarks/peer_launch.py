"""How each server of a comparison is started: the same model file, threads and room for each."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.child import Launch

BINDING = "llama-cpp-python"


class PeerError(RuntimeError):
    """A peer cannot be run here; one line says what is missing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all peers of a comparison share."""

    model: Path
    threads: int
    num_slots: int
    """The highest number of streams."""
    n_ctx_seq: int
    """Room of one request, tokens."""
    workdir: Path
    batch: int = 512
    """Tokens of one step, and of one pass through the graph."""
    prefix_cache: bool = False
    """Whether what a server computed for one prompt may serve a later one."""
    kv_unified: bool = True
    """Whether our engine keeps one KV cache for all requests (its default), or one for each as llama-server does here."""
    temperature: float = 0.0
    """Of the requests to come; 0: greedy."""
    packaged_python: Path | None = None
    llama_server: Path | None = None

    @property
    def n_ctx(self) -> int:
        """Room of all requests together."""
        return self.n_ctx_seq * self.num_slots

    @property
    def served_name(self) -> str:
        """What the model is called, where a server can be told."""
        return self.model.stem


@dataclass(frozen=True, slots=True)
class Peer:
    """One server."""

    name: str
    port: int
    launch: Launch
    version: str
    body: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every request to this server gets: what makes it do the same work as the others."""
    note: str = ""
    """What a reader must know of its settings."""

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"


def peer(name: str, setup: Setup) -> Peer:
    """Raises PeerError."""
    return PEERS[name](setup)


def binding() -> metadata.Distribution:
    """The llama-cpp-python that our engine runs on here: other servers are made from the same release. Raises PeerError."""
    try:
        return metadata.distribution(BINDING)
    except metadata.PackageNotFoundError as exc:
        raise PeerError(
            f"{BINDING} is not installed beside forgegate: our engine needs it, and others are built from its source"
        ) from exc


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _engine_options(setup: Setup) -> dict[str, int | bool]:
    return {
        "n_ctx": setup.n_ctx,
        "n_ctx_seq": setup.n_ctx_seq,
        "n_seq_max": setup.num_slots,
        "n_batch": setup.batch,
        "n_ubatch": setup.batch,
        "n_threads": setup.threads,
        "n_threads_batch": setup.threads,
        "prefix_cache": setup.prefix_cache,
        "kv_unified": setup.kv_unified,
    }


def _forgegate_engine(setup: Setup) -> Peer:
    port = free_port()
    flags = [word for name, value in _engine_options(setup).items() for word in (_flag(name), str(value).lower())]
    argv = (sys.executable, "-m", "backends.llamacpp.server", "--model", str(setup.model))
    place = ("--served-model-name", setup.served_name, "--host", "127.0.0.1", "--port", str(port))
    launch = Launch((*argv, *place, *flags), "/health", {"FORGEGATE_ENGINE_SECRET": ""})
    note = "" if setup.kv_unified else "a KV cache for each stream (kv_unified: false)"
    return Peer("forgegate-engine", port, launch, _forgegate_version(), note=note)


def _forgegate(setup: Setup) -> Peer:
    port = free_port()
    pool = {"engine": "llamacpp", "model": str(setup.model), "options": _engine_options(setup)}
    config = {
        "server": {"host": "127.0.0.1", "port": port, "admin": {"port": free_port()}},
        "models": [{"name": setup.served_name, "pools": [pool]}],
    }
    path = setup.workdir / "forgegate.yaml"
    path.write_text(json.dumps(config), "utf-8")  # JSON is YAML
    argv = (sys.executable, "-m", "gateway.cli", "serve", "--config", str(path))
    launch = Launch(argv, "/health/ready", {"FORGEGATE_HOME": str(setup.workdir / "home")})
    return Peer("forgegate", port, launch, _forgegate_version())


def _openmp() -> dict[str, str]:
    """As our engine has it: with OpenMP's own default a step waits for threads that are not running as soon as anybody
    else wants the cores, ten times as long and more; on an idle machine it is no quicker.
    """
    return {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")}


def _packaged(setup: Setup) -> Peer:
    """llama-cpp-python's server answers one request at a time, so `n_ctx` is the room of one. `interrupt_requests` would
    let a new request cut the running one short; `logits_all` would compute logits that nobody asked for.
    """
    if setup.packaged_python is None:
        raise PeerError("llama-cpp-python needs an interpreter that has llama_cpp.server: --packaged-python")
    port = free_port()
    room = ("--n_ctx", str(setup.n_ctx_seq), "--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads))
    argv = (str(setup.packaged_python), "-m", "llama_cpp.server", "--model", str(setup.model))
    place = ("--model_alias", setup.served_name, "--host", "127.0.0.1", "--port", str(port))
    switches = ("--interrupt_requests", "false", "--logits_all", "false", "--verbose", "false")
    version = _output((str(setup.packaged_python), "-c", "import llama_cpp; print(llama_cpp.__version__)"))
    launch = Launch((*argv, *place, *room, *switches), "/v1/models", _openmp())
    return Peer("llama-cpp-python", port, launch, version)


def _sampling(setup: Setup) -> dict[str, Any]:
    """llama-server filters candidates by default. Greedy answers need the likeliest one only; where tokens are drawn, its
    filters are switched off, as they are in our engine.
    """
    if setup.temperature == 0:
        return {"samplers": ["penalties", "top_k", "temperature"], "top_k": 1}
    return {"top_k": 0, "top_p": 1, "min_p": 0}


def _llama_server(setup: Setup) -> Peer:
    """A cache for each slot instead of one for all (--kv-unified), as it has by default when told the number of slots: a
    step then looks at each stream's own cells only, which is the faster of the two. Flash attention, the types of the
    cache and the way of loading are the same by both servers' defaults.
    """
    if setup.llama_server is None:
        raise PeerError("llama-server needs its binary: --llama-server PATH")
    port = free_port()
    argv = (str(setup.llama_server), "-m", str(setup.model), "-a", setup.served_name, "--host", "127.0.0.1")
    room = ("--port", str(port), "-c", str(setup.n_ctx), "-np", str(setup.num_slots))
    step = ("-t", str(setup.threads), "-tb", str(setup.threads), "-b", str(setup.batch), "-ub", str(setup.batch))
    cache = () if setup.prefix_cache else ("--no-cache-prompt", "--cache-ram", "0")
    launch = Launch((*argv, *room, *step, *cache, "--log-verbosity", "2"), "/health", _openmp())
    note = "a KV cache for each slot (faster here than --kv-unified), its default filters of candidates off"
    return Peer("llama-server", port, launch, _output((str(setup.llama_server), "--version")), _sampling(setup), note)


PEERS: dict[str, Callable[[Setup], Peer]] = {
    "forgegate-engine": _forgegate_engine,
    "llama-cpp-python": _packaged,
    "forgegate": _forgegate,
    "llama-server": _llama_server,
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _output(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        raise PeerError(f"{argv[0]} cannot be run: {exc}") from exc
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    line = next((line for line in lines if "version" in line), lines[-1] if lines else "unknown")
    return line.strip().removeprefix("version: ")


def _forgegate_version() -> str:
    try:
        return metadata.version("forgegate")
    except metadata.PackageNotFoundError:
        return "source tree"
