"""How a llama.cpp engine is checked, prepared and launched. Imports neither llama_cpp nor numpy."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.base import (
    LOOPBACK,
    Address,
    Facts,
    Fetch,
    Identity,
    LaunchSpec,
    Load,
    Places,
    PoolSpec,
    Reply,
    parse_metrics,
)
from backends.digests import file_digest
from backends.errors import BadSpec, ModelUnusable, PrepareFailed
from backends.llamacpp.header import read_header
from backends.llamacpp.options import Options, OptionsError
from backends.logring import LogRing
from backends.pythons import choose_python, import_env
from backends.remote import listed_models
from backends.restart import RestartPolicy
from backends.status import Timing

if TYPE_CHECKING:
    from backends.process import Launcher

DEMO = "demo"
DEMO_DIR = Path(__file__).parents[1] / "demo" / "weights" / "target"
MODULES = ("llama_cpp", "numpy", "gguf", "jinja2", "llguidance", "backends.llamacpp")


class LlamaCpp:
    kind = "llamacpp"
    title = "llama.cpp"
    ready_path = "/health"
    capabilities = ("chat", "completions", "tokenize")
    policy = RestartPolicy()

    def __init__(self, spec: PoolSpec, places: Places) -> None:
        problems = option_problems(spec.options)
        if problems:
            raise BadSpec(problems)
        self._spec = spec
        self._places = places
        self._options = Options.from_mapping(spec.options)
        self._source = locate_model(spec.model or DEMO)
        self._gguf: Path | None = None
        self._identity: Identity | None = None
        self._python = ""
        self._preparing = asyncio.Lock()
        self.timing = Timing(start_timeout_s=spec.start_timeout_s)

    def check(self) -> str:
        model = check_model(self._source)
        return f"llama.cpp engine, {model}, run by {self._interpreter()}"

    async def prepare(self, launcher: Launcher) -> Identity:
        async with self._preparing:  # replicas start together; the work is done once
            if self._identity is None or self._gguf is None or not self._gguf.exists():
                await asyncio.to_thread(self._interpreter)
                await asyncio.to_thread(check_model, self._source)
                self._gguf = await self._derive(launcher) if self._source.is_dir() else self._source
            # At every launch: the file may have been replaced meanwhile. Its digest is remembered by path, size and time.
            self._identity = await asyncio.to_thread(self._identify, self._gguf)
            return self._identity

    def launch(self, port: int) -> LaunchSpec | None:
        assert self._gguf is not None
        argv = (
            self._python, "-P", "-m", "backends.llamacpp.server",
            "--model", str(self._gguf), "--served-model-name", self._spec.served_name,
            "--host", LOOPBACK, "--port", str(port),
            *self._options.to_argv(),
        )  # fmt: skip
        return LaunchSpec(argv, import_env())

    def address(self, port: int) -> Address:
        return Address(LOOPBACK, port)

    def secret_for(self, launch_secret: str) -> str:
        return launch_secret

    def refusal(self, reply: Reply) -> str:
        return ""

    async def inspect(self, fetch: Fetch) -> Facts:
        health = _json_object(await fetch("/health"))
        models = listed_models(await fetch("/v1/models"))
        length = models[0].get("max_model_len") if models else None
        backend, num_threads = health.get("backend", "CPU"), health.get("n_threads")
        threads = f", {num_threads} threads" if num_threads else ""
        return Facts(
            description=f"llama.cpp on {backend}{threads}",
            context_length=length if isinstance(length, int) else None,
            model=self._spec.served_name,
        )

    async def load(self, fetch: Fetch) -> Load | None:
        samples = parse_metrics((await fetch("/metrics")).text)
        return Load(
            num_running=int(samples.get("forgegate_engine_num_requests_running", 0)),
            num_waiting=int(samples.get("forgegate_engine_num_requests_waiting", 0)),
            kv_usage=samples.get("forgegate_engine_kv_cache_usage_ratio", 0.0),
        )

    def _interpreter(self) -> str:
        if not self._python:
            self._python = choose_python(self.kind, MODULES, self._spec.python, self._places.envs_dir)
        return self._python

    async def _derive(self, launcher: Launcher) -> Path:
        log = LogRing()
        argv = (self._python, "-P", "-m", "backends.llamacpp.prepare", str(self._source), str(self._places.models_dir))
        child = await launcher.spawn(LaunchSpec(argv, import_env()), log)
        try:
            code = await child.wait()
        finally:
            child.kill()
        last = (log.tail(1) or ("no output",))[0]
        if code != 0:
            raise PrepareFailed(f"{self._source} cannot be converted: {last.removeprefix('error: ')}")
        return Path(last)

    def _identify(self, gguf: Path) -> Identity:
        source = read_header(gguf).source_digest
        if source:
            return Identity(source, is_source=True)
        return Identity(file_digest(gguf, self._places.models_dir / "file-digests.json"))


def option_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with these engine options, one sentence each."""
    try:
        Options.from_mapping(options)
    except OptionsError as exc:
        return exc.problems
    return []


def locate_model(name: str) -> Path:
    """`demo`, or a path."""
    return DEMO_DIR if name == DEMO else Path(name).expanduser().absolute()


def check_model(path: Path) -> str:
    """The model in words. Raises ModelUnusable."""
    if path == DEMO_DIR and not path.is_dir():
        raise ModelUnusable(f"the bundled demo model is missing ({path}): the installation is not whole")
    if path.is_dir():
        return _check_folder(path)
    if not path.exists():
        hint = f" (did you mean {DEMO!r}?)" if difflib.get_close_matches(path.name, [DEMO]) else ""
        raise ModelUnusable(f"{path}: no such file or folder{hint}")
    header = read_header(path)
    length = f", trained for {header.context_length} tokens" if header.context_length else ""
    return f"model {path} ({header.architecture}{length})"


def _check_folder(path: Path) -> str:
    config = path / "config.json"
    try:
        architectures = json.loads(config.read_bytes()).get("architectures", [])
    except OSError as exc:
        inside = ", ".join(sorted(file.name for file in path.glob("*.gguf"))[:5])
        hint = f"; name one of its GGUF files: {inside}" if inside else f" ({config.name}: {exc.strerror})"
        raise ModelUnusable(f"{path}: neither a GGUF file nor a model folder{hint}") from exc
    except (ValueError, AttributeError) as exc:
        raise ModelUnusable(f"{config}: not a JSON object: {exc}") from exc
    if not any(path.glob("*.safetensors")):
        raise ModelUnusable(f"{path}: no *.safetensors file in this folder")
    if "LlamaForCausalLM" not in architectures:
        raise ModelUnusable(
            f"{path}: architecture {architectures} cannot be converted here; give its GGUF file instead"
        )
    return f"model {path} (safetensors, converted to GGUF at first use)"


def _json_object(reply: Reply) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}
