"""How each server of a comparison is started: the same model file, threads and room for each."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Launch


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

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"


def peer(name: str, setup: Setup) -> Peer:
    """Raises PeerError."""
    return PEERS[name](setup)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _engine_options(setup: Setup) -> dict[str, int]:
    return {
        "n_ctx": setup.n_ctx,
        "n_ctx_seq": setup.n_ctx_seq,
        "n_seq_max": setup.num_slots,
        "n_threads": setup.threads,
        "n_threads_batch": setup.threads,
    }


def _forgegate_engine(setup: Setup) -> Peer:
    port = free_port()
    flags = [word for name, value in _engine_options(setup).items() for word in (_flag(name), str(value))]
    argv = (sys.executable, "-m", "backends.llamacpp.server", "--model", str(setup.model))
    place = ("--served-model-name", setup.served_name, "--host", "127.0.0.1", "--port", str(port))
    launch = Launch((*argv, *place, *flags), "/health", {"FORGEGATE_ENGINE_SECRET": ""})
    return Peer("forgegate-engine", port, launch, _forgegate_version())


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
    return Peer("llama-cpp-python", port, Launch((*argv, *place, *room, *switches), "/v1/models"), version)


def _llama_server(setup: Setup) -> Peer:
    if setup.llama_server is None:
        raise PeerError("llama-server needs its binary: --llama-server PATH")
    port = free_port()
    threads = ("-t", str(setup.threads), "-tb", str(setup.threads))
    argv = (str(setup.llama_server), "-m", str(setup.model), "-a", setup.served_name, "--host", "127.0.0.1")
    room = ("--port", str(port), "-c", str(setup.n_ctx), "-np", str(setup.num_slots))
    version = _output((str(setup.llama_server), "--version"))
    return Peer("llama-server", port, Launch((*argv, *room, *threads), "/health"), version)


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
    return next((line for line in lines if "version" in line), lines[-1] if lines else "unknown").strip()


def _forgegate_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("forgegate")
    except metadata.PackageNotFoundError:
        return "source tree"
