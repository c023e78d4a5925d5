"""How a llama.cpp engine is checked, planned, prepared and launched. Imports neither llama_cpp nor numpy."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.adapter.calls import LoraCalls
from backends.base import (
    ENDPOINTS,
    LITERAL_SPECIAL_TEXT,
    LOOPBACK,
    Facts,
    Fetch,
    Identity,
    LaunchSpec,
    Load,
    Places,
    PoolSpec,
    Reply,
    Tell,
    parse_metrics,
    untold,
)
from backends.digests import file_digest
from backends.errors import BadSpec, EngineUnavailable, ModelUnusable, NoRoom
from backends.launched import Launched
from backends.llamacpp.devices import list_devices
from backends.llamacpp.fit import Room, fit
from backends.llamacpp.folder import ModelFolder, read_folder
from backends.llamacpp.foreign import refusal_of_gguf
from backends.llamacpp.header import Header, read_header, read_parts
from backends.llamacpp.options import Options, OptionsError
from backends.llamacpp.preparation import prepared
from backends.llamacpp.purpose import POOLED, for_purpose
from backends.llamacpp.shape import Shape, shape_of, shape_of_folder
from backends.llamacpp.threads import num_physical_cores
from backends.plan import RAM, Pick, Plan
from backends.pythons import choose_python, environment_python, import_env, lacking
from backends.ram import free_ram
from backends.remote import listed_capabilities, listed_models

if TYPE_CHECKING:
    from backends.process import Launcher

DEMO = "demo"
DEMO_DIR = Path(__file__).parents[1] / "demo" / "weights" / "target"
MODULES = ("llama_cpp", "numpy", "gguf", "jinja2", "backends.llamacpp")
ADAPTER_FILE = "adapter.gguf"
"""Of a version's files the one that is loaded."""
CONVERTER_MODULES = ("torch", "transformers", "sentencepiece", "numpy", "tqdm", "yaml", "backends.llamacpp")
"""What llama.cpp's converter imports, and what runs it."""
_ADAPTER_REQUESTS = re.compile(r'^forgegate_engine_adapter_requests\{adapter="([^"]*)"\} (\S+)$', re.MULTILINE)


class LlamaCpp(Launched):
    kind = "llamacpp"
    title = "llama.cpp"
    capabilities = (*ENDPOINTS, LITERAL_SPECIAL_TEXT)
    adapters = LoraCalls(ADAPTER_FILE)

    def __init__(self, spec: PoolSpec, places: Places, measure_ram: Callable[[], int | None] = free_ram) -> None:
        problems = option_problems(spec.options)
        if problems:
            raise BadSpec(problems)
        super().__init__(spec, places)
        self._measure_ram = measure_ram
        self._options = Options.from_mapping(spec.options)
        self.num_adapter_slots = _num_slots(self._options)
        self._source = locate_model(spec.model or DEMO)
        self._gguf: Path | None = None
        self._identity: Identity | None = None
        self._python = ""
        self._room: Room | None = None
        self._plan: Plan | None = None
        self._planned_for = ""

    def check(self, tell: Tell = untold) -> str:
        model = read_model(self._source)
        converter = "" if _is_read_by_us(model) else self._converter_python()
        return f"llama.cpp engine, {model_words(model, converter)}, run by {self._interpreter()}"

    def plan(self, taken: Mapping[str, int]) -> Plan:
        self._room = self._look_around(taken)
        return self._fit(read_model(self._source))

    async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
        async with self._preparing:
            if self._identity is None or self._gguf is None or not self._gguf.exists():
                await asyncio.to_thread(self._interpreter)
                model = await asyncio.to_thread(read_model, self._source)
                self._gguf = await self._derive(model, launcher, tell) if self._source.is_dir() else self._source
            # At every launch: the file may have been replaced meanwhile. Its digest is remembered by path, size and time.
            self._identity = await asyncio.to_thread(self._identify, self._gguf)
            if self._plan is None or self._planned_for != self._identity.digest:
                await asyncio.to_thread(self._plan_for, self._gguf, self._identity.digest)
            return self._identity

    def launch(self, port: int) -> LaunchSpec | None:
        assert self._gguf is not None
        assert self._plan is not None
        picked: dict[str, Any] = self._plan.options()
        argv = (
            self._python, "-P", "-m", "backends.llamacpp.server",
            "--model", str(self._gguf), "--served-model-name", self._spec.served_name,
            "--host", LOOPBACK, "--port", str(port),
            *replace(self._options, **picked).to_argv(),
        )  # fmt: skip
        return LaunchSpec(argv, import_env())

    async def inspect(self, fetch: Fetch) -> Facts:
        health = _json_object(await fetch("/health"))
        models = listed_models(await fetch("/v1/models"))
        listed = models[0] if models else {}
        length = listed.get("max_model_len")
        backend, num_threads = health.get("backend", "CPU"), health.get("n_threads")
        threads = f", {num_threads} threads" if num_threads else ""
        return Facts(
            description=f"llama.cpp on {backend}{threads}",
            context_length=length if isinstance(length, int) else None,
            model=self._spec.served_name,
            capabilities=listed_capabilities(listed),
        )

    async def load(self, fetch: Fetch) -> Load | None:
        return load_of((await fetch("/metrics")).text)

    def _interpreter(self) -> str:
        if not self._python or not Path(self._python).exists():  # an upgrade may have removed its environment
            self._python = choose_python(self.kind, MODULES, self._spec.python, self._places.envs_dir)
        return self._python

    def _converter_python(self) -> str:
        try:
            return converter_python(self._interpreter(), self._places.envs_dir)
        except EngineUnavailable as exc:
            raise EngineUnavailable(
                f"{self._source} must be converted by llama.cpp's converter: {exc}; or give a GGUF file of this model"
            ) from exc

    async def _derive(self, model: ModelFolder | tuple[Header, ...], launcher: Launcher, tell: Tell) -> Path:
        converter = "" if _is_read_by_us(model) else await asyncio.to_thread(self._converter_python)
        return await prepared(launcher, self._python, self._source, self._places, converter, tell)

    def _identify(self, gguf: Path) -> Identity:
        source = read_header(gguf).source_digest
        if source:
            return Identity(source, is_source=True)
        return Identity(file_digest(gguf, self._places.models_dir / "file-digests.json"))

    def _plan_for(self, gguf: Path, digest: str) -> None:
        """Anew for what is loaded indeed: before, there may have been a folder only, or another file."""
        if self._room is None:
            self._room = self._look_around({})
        self._plan = self._fit(read_parts(gguf))
        self._planned_for = digest

    def _look_around(self, taken: Mapping[str, int]) -> Room:
        """What is free here now. Raises EngineUnavailable."""
        python = self._interpreter()
        devices = () if self._options.n_gpu_layers == 0 else list_devices(python)
        if self._options.n_gpu_layers > 0 and not devices:
            raise EngineUnavailable(
                f"n_gpu_layers: {self._options.n_gpu_layers} layers on a GPU, but the llama.cpp of {python} sees none"
            )
        ram = self._measure_ram()
        return Room(
            ram_bytes=None if ram is None else max(0, ram - taken.get(RAM, 0)),
            devices=tuple(
                replace(device, free_bytes=max(0, device.free_bytes - taken.get(device.name, 0))) for device in devices
            ),
            num_threads=num_physical_cores(),
        )

    def _fit(self, model: ModelFolder | tuple[Header, ...]) -> Plan:
        assert self._room is not None
        given = self._options
        options = given if isinstance(model, ModelFolder) else for_purpose(model[0], given)
        is_paging_accepted = given.use_mmap and "use_mmap" in self._spec.options
        try:
            plan = fit(shape_of_model(model), options, self._room, self._spec.replicas, is_paging_accepted)
            picked: dict[str, Any] = plan.options()
            self.num_adapter_slots = _num_slots(
                replace(options, max_adapters=picked.get("max_adapters", given.max_adapters))
            )
            return replace(plan, picks=(*_purpose_picks(given, options), *plan.picks))
        except NoRoom as exc:
            raise NoRoom(f"{self._spec.served_name}: {self._source} does not fit: {exc}") from exc


def load_of(page: str) -> Load:
    """What the engine's metrics page says."""
    samples = parse_metrics(page)

    def count(name: str) -> int:
        return int(samples.get(f"forgegate_engine_{name}", 0))

    num_cached = count("prefix_cache_hit_tokens_total")
    return Load(
        num_running=count("num_requests_running"),
        num_waiting=count("num_requests_waiting"),
        kv_usage=samples.get("forgegate_engine_kv_cache_usage_ratio", 0.0),
        num_preemptions=count("preemptions_total"),
        num_prompt_tokens=count("prompt_tokens_total") + num_cached,  # the engine's own count is of those it computed
        num_cached_tokens=num_cached,
        num_generated_tokens=count("generation_tokens_total"),
        adapters_running=tuple(name for name, num in _ADAPTER_REQUESTS.findall(page) if float(num) > 0),
    )


def converter_python(engine: str, envs_dir: Path) -> str:
    """Which interpreter runs llama.cpp's converter: the engine's, else the trainer's. Raises EngineUnavailable saying what to install."""
    trainer = environment_python(envs_dir, "trainer")
    for python in (engine, *([trainer] if trainer else [])):
        if not lacking(python, CONVERTER_MODULES):
            return python
    raise EngineUnavailable(
        f"{engine} {lacking(engine, CONVERTER_MODULES)}; install what has it: forgegate install trainer"
    )


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


def read_model(path: Path) -> ModelFolder | tuple[Header, ...]:
    """A folder, or the heads of a GGUF's files, found fit to be served. Raises ModelUnusable."""
    if path == DEMO_DIR and not path.is_dir():
        raise ModelUnusable(f"the bundled demo model is missing ({path}): the installation is not whole")
    try:
        if path.is_dir():
            return read_folder(path)
        exists = path.exists()
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    if not exists:
        hint = f" (did you mean {DEMO!r}?)" if difflib.get_close_matches(path.name, [DEMO]) else ""
        raise ModelUnusable(f"{path}: no such file or folder{hint}")
    parts = read_parts(path)
    num_tensors = sum(len(part.tensors) for part in parts)
    kind = str(parts[0].metadata.get("general.type", "model"))
    reason = refusal_of_gguf(path, kind, parts[0].architecture, num_tensors)
    if reason:
        raise ModelUnusable(reason)
    return parts


def model_words(model: ModelFolder | tuple[Header, ...], converter: str = "") -> str:
    """`model PATH (llama, trained for 2048 tokens)`; `converter`: the interpreter that runs llama.cpp's, if that is used."""
    if isinstance(model, ModelFolder):
        by = f" by llama.cpp's converter in {converter}" if converter else ""
        return f"model {model.path} ({model.architecture}, safetensors, converted to GGUF at first use{by})"
    length = f", trained for {model[0].context_length} tokens" if model[0].context_length else ""
    num_parts = f", {len(model)} files" if len(model) > 1 else ""
    return f"model {model[0].path} ({model[0].architecture}{length}{num_parts})"


def check_model(path: Path) -> str:
    """The model in words. Raises ModelUnusable."""
    return model_words(read_model(path))


def _is_read_by_us(model: ModelFolder | tuple[Header, ...]) -> bool:
    return not isinstance(model, ModelFolder) or model.is_ours


def _num_slots(options: Options) -> int:
    return 0 if options.pooling in POOLED else options.num_adapter_slots


def _purpose_picks(given: Options, options: Options) -> Iterator[Pick]:
    """The sizes that embeddings decide."""
    for name in ("n_ctx", "n_seq_max", "n_batch", "n_ubatch"):
        if getattr(options, name) != getattr(given, name):
            yield Pick(name, getattr(options, name), f"for embeddings (pooling: {options.pooling})")


def shape_of_model(model: ModelFolder | tuple[Header, ...]) -> Shape | None:
    """What its memory depends on; of a folder an estimate."""
    if isinstance(model, ModelFolder):
        return shape_of_folder(model.config, model.tensors)
    return shape_of(model)


def _json_object(reply: Reply) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}
