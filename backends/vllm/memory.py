"""What a vLLM engine takes of this machine's memory. Pure.

GPU: `gpu_memory_utilization` of each of its GPUs, all of it from the start on: weights, buffers, the rest is KV cache.
CPU: weights, a KV cache of the size that is asked for, and the processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from backends.errors import NoRoom
from backends.gpus import Gpu
from backends.modelfolder import StoredTensor
from backends.plan import GIB, MIB, RAM, Pick, Plan, Use, size_words
from backends.vllm.options import CPU_KV_CACHE_GIB, Lora, Options

CPU_PROCESS_BYTES = 1200 * MIB
"""API server and engine core, without weights (0.6 GiB each were seen)."""
CPU_WORKER_BYTES = 640 * MIB
"""Each worker: libraries, and buffers of a small model."""
GPU_PROCESS_BYTES = 6 * GIB
"""RAM of an engine on a GPU: its processes, with pinned buffers."""
COMPUTE_BYTES = GIB
"""Activations of a step and CUDA graphs: vLLM measures them itself, here they are guessed."""
FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
ITEM_BYTES = {"auto": 2, "half": 2, "float16": 2, "bfloat16": 2, "float": 4, "float32": 4}
"""Of `dtype`; auto turns float32 checkpoints into 16 bits."""


def weight_bytes(tensors: Mapping[str, StoredTensor], dtype: str) -> int:
    """As they are loaded: floats in the type of activations, quantised ones as they are stored."""
    item_bytes = ITEM_BYTES.get(dtype, 2)
    return sum(
        math.prod(tensor.shape) * item_bytes if tensor.dtype in FLOATS else tensor.num_bytes
        for tensor in tensors.values()
    )


def adapter_bytes(tensors: Mapping[str, StoredTensor], lora: Lora, dtype: str, num_slots: int) -> int:
    """Of `num_slots` places, each for matrices of the highest rank beside every layer that adapters may change."""
    modules = [
        tensor.shape
        for name, tensor in tensors.items()
        if len(tensor.shape) == 2 and name.removesuffix(".weight").rsplit(".", 1)[-1] in lora.target_modules
    ]
    return num_slots * lora.max_rank * ITEM_BYTES.get(dtype, 2) * sum(map(sum, modules))


def plan_on_cpu(
    options: Options,
    tensors: Mapping[str, StoredTensor],
    draft: Mapping[str, StoredTensor],
    free_bytes: int | None,
    num_engines: int,
) -> Plan:
    """A KV cache that the user leaves open is made smaller where RAM is short. Raises NoRoom."""
    lora = options.lora
    use = Use(
        device=RAM,
        weights_bytes=weight_bytes(tensors, options.dtype) + weight_bytes(draft, options.dtype),
        kv_bytes=options.cpu_kv_cache_bytes * options.num_gpus,
        compute_bytes=0,
        other_bytes=CPU_PROCESS_BYTES + CPU_WORKER_BYTES * options.num_gpus,
        free_bytes=free_bytes,
        adapter_bytes=adapter_bytes(tensors, lora, options.dtype, lora.max_loras + lora.num_resident) if lora else 0,
    )
    if options.cpu_kv_cache_gib is not None:
        return Plan((), (_fitting(use, num_engines),), num_engines, _notes(options))
    gib = CPU_KV_CACHE_GIB if free_bytes is None else _kv_gib(use, free_bytes, num_engines)
    why = "the usual size" if gib == CPU_KV_CACHE_GIB else "what half of the RAM that is left allows"
    picked = replace(use, kv_bytes=gib * GIB * options.num_gpus)
    return Plan((Pick("cpu_kv_cache_gib", gib, why),), (_fitting(picked, num_engines),), num_engines, _notes(options))


def plan_on_gpus(
    options: Options,
    tensors: Mapping[str, StoredTensor],
    gpus: Sequence[Gpu],
    taken: Mapping[str, int],
    num_engines: int,
) -> Plan:
    """Raises NoRoom where the weights are larger than the share. That others hold the memory now is said, not refused: it is waited for."""
    used = gpus[: options.num_gpus]
    if len(used) < options.num_gpus:
        if not gpus:
            return Plan((), (), num_engines, ("how much memory the GPUs have is not known here",))
        raise NoRoom(f"it is spread over {options.num_gpus} GPUs, and there are {len(gpus)}")
    uses = tuple(_gpu_use(options, tensors, gpu, taken) for gpu in used)
    ram = Use(RAM, 0, 0, 0, GPU_PROCESS_BYTES, None)
    return Plan((), (*uses, ram), num_engines, (*_notes(options), *_crowded(uses, num_engines)))


def _gpu_use(options: Options, tensors: Mapping[str, StoredTensor], gpu: Gpu, taken: Mapping[str, int]) -> Use:
    lora, share = options.lora, int(options.gpu_share * gpu.total_bytes)
    num_parts = options.tensor_parallel_size * options.pipeline_parallel_size
    weights = weight_bytes(tensors, options.dtype) // num_parts
    adapters = adapter_bytes(tensors, lora, options.dtype, lora.max_loras) // num_parts if lora else 0
    kv = share - weights - adapters - COMPUTE_BYTES
    if kv <= 0:
        needs = size_words(weights + adapters + COMPUTE_BYTES)
        raise NoRoom(
            f"weights, adapters and buffers take {needs} of {gpu.name}, and gpu_memory_utilization {options.gpu_share:g} leaves it "
            f"{size_words(share)} of {size_words(gpu.total_bytes)}: raise it, spread the model (tensor_parallel_size), or take a "
            "quantised one"
        )
    free = max(0, gpu.free_bytes - taken.get(gpu.name, 0))
    return Use(gpu.name, weights, kv, COMPUTE_BYTES, 0, free, adapter_bytes=adapters)


def _crowded(uses: Sequence[Use], num_engines: int) -> list[str]:
    return [
        f"{use.device}: {size_words(use.of_pool(num_engines))} are more than the {size_words(use.free_bytes)} that are free now: it "
        "waits for them at its start"
        for use in uses
        if use.free_bytes is not None and use.of_pool(num_engines) > use.free_bytes
    ]


def _kv_gib(use: Use, free_bytes: int, num_engines: int) -> int:
    left = free_bytes // num_engines - (use.total_bytes - use.kv_bytes)
    return max(1, min(CPU_KV_CACHE_GIB, left // 2 // GIB))


def _fitting(use: Use, num_engines: int) -> Use:
    if use.free_bytes is not None and use.of_pool(num_engines) > use.free_bytes:
        engines = f"{num_engines} engines take" if num_engines > 1 else "it takes"
        raise NoRoom(
            f"{engines} {size_words(use.of_pool(num_engines))} of RAM (KV cache {size_words(use.kv_bytes)} each), and "
            f"{size_words(use.free_bytes)} are free: lower cpu_kv_cache_gib, or take fewer replicas or a smaller model"
        )
    return use


def _notes(options: Options) -> tuple[str, ...]:
    if options.lora and options.lora.num_resident > options.lora.max_loras:
        return (
            f"{options.lora.num_resident} adapters are loaded, of which {options.lora.max_loras} run in one batch; those of others wait",
        )
    return ()
