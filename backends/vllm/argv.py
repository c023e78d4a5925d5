"""From options to the command line and the environment of a vLLM of a known version. Pure; whatever it lacks is refused at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from backends.base import LOOPBACK
from backends.errors import BadSpec
from backends.vllm import extra
from backends.vllm.installed import Installed
from backends.vllm.options import Compilation, Lora, Options, Speculative

MODULE = "vllm.entrypoints.openai.api_server"
"""`python -m` this: vLLM calls it deprecated, and it is the one that both versions have, also without the `vllm` script."""
WITH_DEFAULTS = ("dtype", "runner", "convert", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Options whose default is vLLM's own: not written then."""
LORA_WITH_DEFAULTS = ("fully_sharded", "dtype")
OTHERWISE = ("cpu_kv_cache_gib", "extra_args", "compilation", "speculative", "lora", "gpu_memory_utilization")
"""Options that are not simply one flag with their value."""
PATHS = ("chat_template", "tokenizer")
CPU_ATTENTION = ("CPU_", "AMX_")
"""Begins the names of attention kernels for CPUs; vLLM takes no notice of others there."""
LM_HEAD = "lm_head"
ARCTIC = "arctic_inference"
TOKENS_PER_SEQ, TOKENS_PER_SEQ_ON_CPU = 8, 16
"""What vLLM's own max_num_batched_tokens is per request of its own max_num_seqs (EngineArgs.get_batch_defaults), at least."""
SHUTDOWN_S = 3600
"""Told to end, vLLM finishes running requests for so long. Its default cuts them at once and answers 200 with half a text; how long
they may really take is the caller's business, who kills it then, so that clients see an error."""
PLUGINS = {"--tool-call-parser": "--tool-parser-plugin", "--reasoning-parser": "--reasoning-parser-plugin"}
"""Flags whose values a plugin adds to, and that plugin's flag."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What an engine is started with besides its options."""

    model: str
    """A folder, or a hub's name."""
    served_name: str
    port: int
    host: str = LOOPBACK
    middleware: tuple[str, ...] = ()
    """Import paths of ASGI middleware."""
    draft: str = ""
    """Where the draft model is; empty: as the options name it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One flag, and the option that asks for it."""

    option: str
    flag: str
    values: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return (self.flag, *self.values)


def vllm_argv(options: Options, serving: Serving, installed: Installed) -> tuple[str, ...]:
    """The words after `python -m MODULE`. Raises BadSpec naming every option that this version or device lacks."""
    parts = [*parts_of(options, serving, installed)]
    problems = [
        *device_problems(options, installed),
        *size_problems(options, installed),
        *version_problems(options, installed),
        *(f"{part.option}: {fault}" for part in parts if (fault := _fault(part, options, installed))),
        *extra.problems(options.extra_args, installed),
    ]
    if problems:
        raise BadSpec(problems)
    own = [
        "--model", serving.model, "--served-model-name", serving.served_name,
        "--host", serving.host, "--port", str(serving.port), "--disable-uvicorn-access-log",
        "--shutdown-timeout", str(SHUTDOWN_S),
    ]  # fmt: skip
    for name in serving.middleware:
        own += ["--middleware", name]
    return (*own, *(word for part in parts for word in part.words), *options.extra_args)


def vllm_env(options: Options, installed: Installed) -> dict[str, str]:
    """What the options need in the environment."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if installed.is_cpu:
        env["VLLM_CPU_KVCACHE_SPACE"] = str(options.cpu_kv_cache_bytes >> 30)
    if options.lora:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if options.sleep_mode:
        env["VLLM_SERVER_DEV_MODE"] = "1"  # /sleep, /wake_up and /collective_rpc are there in this mode only
    return env


def parts_of(options: Options, serving: Serving, installed: Installed) -> Iterator[Part]:
    """The flags that the options ask for."""
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in OTHERWISE and _is_set(field.name, value, field.default):
            yield _part(field.name, value, installed)
    if not installed.is_cpu:
        yield _part("gpu_memory_utilization", options.gpu_share, installed)
    if options.tool_call_parser:
        yield Part("tool_call_parser", "--enable-auto-tool-choice")
    if options.compilation:
        yield _part("compilation", json.dumps(compilation_keys(options.compilation)), installed)
    if options.speculative:
        yield _part("speculative", json.dumps(speculative_keys(options.speculative, serving.draft)), installed)
    if options.lora:
        yield from _lora_parts(_with_spare_slot(options.lora) if installed.is_cpu else options.lora, installed)


def _with_spare_slot(lora: Lora) -> Lora:
    """Its slots and one that stays empty.

    vLLM's kernels on the CPU know requests without an adapter by the slot -1, which for them is the last one: among requests of
    adapters, those of the base would get the adapter in it (https://github.com/vllm-project/vllm/pull/48421).
    """
    num_slots = lora.num_resident + 1
    return replace(lora, max_loras=num_slots, max_cpu_loras=num_slots)


def _lora_parts(lora: Lora, installed: Installed) -> Iterator[Part]:
    yield Part("lora", installed.table.flags["lora"])
    for field in fields(lora):
        value = lora.num_resident if field.name == "max_cpu_loras" else getattr(lora, field.name)
        if value != field.default or field.name not in LORA_WITH_DEFAULTS:
            yield _part(f"lora.{field.name}", value, installed)


def speculative_keys(speculative: Speculative, draft: str = "") -> dict[str, Any]:
    """The object that --speculative-config takes."""
    keys = {field.name: getattr(speculative, field.name) for field in fields(speculative)}
    keys["model"] = draft or speculative.model
    del keys["schedule"]
    return _given(keys)


def compilation_keys(compilation: Compilation) -> dict[str, Any]:
    """The object that --compilation-config takes."""
    return _given({field.name: getattr(compilation, field.name) for field in fields(compilation)})


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    """Without what is left open; a 0 is a value."""
    return {
        name: value
        for name, value in keys.items()
        if value is not None and value is not False and value not in ("", ())
    }


def device_problems(options: Options, installed: Installed) -> Iterator[str]:
    """What the device cannot do."""
    if not installed.is_cpu:
        if options.cpu_kv_cache_gib is not None:
            yield "cpu_kv_cache_gib: this vLLM runs on GPUs; write gpu_memory_utilization"
        return
    if options.gpu_memory_utilization is not None:
        yield "gpu_memory_utilization: this vLLM runs on the CPU; write cpu_kv_cache_gib"
    if options.sleep_mode:
        yield "sleep_mode: vLLM on the CPU cannot sleep; leave it out, an idle engine is stopped instead"
    backend = options.attention_backend
    if backend and not backend.startswith(CPU_ATTENTION):
        yield f"attention_backend: {backend} is for GPUs, and this vLLM runs on the CPU; leave it out"
    if options.lora and LM_HEAD in options.lora.target_modules:
        yield (
            f"lora.target_modules: without {LM_HEAD}; on the CPU vLLM ends when it scores a prompt with an adapted one, and adapters are "
            "proven by such scores"
        )
    if options.compilation:
        yield from _compiling_on_cpu(options.compilation, options.lora is not None)


def _compiling_on_cpu(compilation: Compilation, has_lora: bool) -> Iterator[str]:
    for name in ("cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size"):
        if getattr(compilation, name):
            yield f"compilation.{name}: there are no CUDA graphs on the CPU; leave it out"
    if compilation.mode and has_lora:
        yield "compilation.mode: vLLM on the CPU compiles nothing with adapters; leave it out"


def size_problems(options: Options, installed: Installed) -> Iterator[str]:
    """Sizes that are left to vLLM, and that it finds too small itself."""
    speculative = options.speculative
    if options.lora is None or speculative is None or options.max_num_batched_tokens or options.max_num_seqs:
        return
    depth = speculative.num_speculative_tokens or 0
    if depth + 1 > (TOKENS_PER_SEQ_ON_CPU if installed.is_cpu else TOKENS_PER_SEQ):
        yield (
            f"max_num_batched_tokens: with adapters and {depth} draft tokens for each request vLLM's own size is too small; write "
            f"max_num_seqs, and here max_num_seqs x {depth + 1} or more"
        )


def version_problems(options: Options, installed: Installed) -> Iterator[str]:
    """What this version lacks, apart from flags and their values."""
    if options.compilation:
        for key in installed.strange_keys("--compilation-config", list(compilation_keys(options.compilation))):
            yield f"compilation.{key}: {installed.title} has no such setting"
    speculative = options.speculative
    if speculative is None:
        return
    for key in installed.strange_keys("--speculative-config", list(speculative_keys(speculative))):
        yield f"speculative.{key}: {installed.title} has no such setting"
    listed = installed.flags.get("--spec-method")
    if listed and listed.choices and speculative.method not in listed.choices:
        yield f"speculative.method: {installed.title} has no {speculative.method}"
    if speculative.method == "suffix" and ARCTIC not in installed.modules:
        yield (
            "speculative.method: suffix needs Arctic Inference in the engine's environment; install it there with: "
            "pip install arctic-inference==0.1.1"
        )


def _fault(part: Part, options: Options, installed: Installed) -> str:
    plugin = PLUGINS.get(part.flag)
    if plugin and any(word.startswith(plugin) for word in options.extra_args):
        return ""  # it brings parsers that are known once it is loaded
    return installed.fault(part.flag, part.values)


def _is_set(name: str, value: Any, default: Any) -> bool:
    if name in WITH_DEFAULTS or isinstance(default, bool):
        return bool(value != default)
    return value not in (None, "", ())


def _part(option: str, value: Any, installed: Installed) -> Part:
    flag = installed.table.flags[option]
    if isinstance(value, bool):
        return Part(option, flag if value else f"--no-{flag.removeprefix('--')}")
    if option in PATHS:
        value = Path(value).expanduser().absolute()  # the engine may run in another folder
    if isinstance(value, tuple):
        return Part(option, flag, tuple(str(part) for part in value))
    return Part(option, flag, (f"{value:g}" if isinstance(value, float) else str(value),))
