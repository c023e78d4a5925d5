from __future__ import annotations

import pytest

from backends.errors import NoRoom
from backends.gpus import Gpu
from backends.modelfolder import StoredTensor
from backends.plan import GIB, RAM
from backends.vllm.memory import COMPUTE_BYTES, adapter_bytes, plan_on_cpu, plan_on_gpus, weight_bytes
from backends.vllm.options import Lora, Options

TENSORS = {
    "model.embed_tokens.weight": StoredTensor("F32", (1000, 64), 256_000, 0),
    "model.layers.0.self_attn.q_proj.weight": StoredTensor("BF16", (64, 64), 8192, 0),
    "model.layers.0.mlp.gate_proj.qweight": StoredTensor("I32", (8, 64), 2048, 0),
}
BIG = {"x.weight": StoredTensor("BF16", (10 * GIB // 2,), 10 * GIB, 0)}
GPU = Gpu("CUDA0", 80 * GIB, 79 * GIB)


def test_floats_are_loaded_in_the_type_of_activations_quantised_ones_as_stored() -> None:
    assert weight_bytes(TENSORS, "auto") == 2 * 64_000 + 2 * 4096 + 2048
    assert weight_bytes(TENSORS, "float32") == 4 * 64_000 + 4 * 4096 + 2048


def test_adapters_take_their_highest_rank_beside_each_target() -> None:
    assert adapter_bytes(TENSORS, Lora(max_rank=8), "bfloat16", 3) == 3 * 8 * 2 * (64 + 64)


def test_an_open_kv_cache_follows_the_free_ram() -> None:
    plenty = plan_on_cpu(Options(), TENSORS, {}, 64 * GIB, 1)
    assert plenty.options() == {"cpu_kv_cache_gib": 4}
    short = plan_on_cpu(Options(), TENSORS, {}, 6 * GIB, 1)
    assert short.options() == {"cpu_kv_cache_gib": 2}
    assert short.taken()[RAM] < 6 * GIB
    assert plan_on_cpu(Options(), TENSORS, {}, None, 1).options() == {"cpu_kv_cache_gib": 4}


def test_a_given_kv_cache_is_kept_or_refused() -> None:
    plan = plan_on_cpu(Options(cpu_kv_cache_gib=3), TENSORS, TENSORS, 8 * GIB, 1)
    assert plan.picks == ()
    assert plan.uses[0].kv_bytes == 3 * GIB
    assert plan.uses[0].weights_bytes == 2 * weight_bytes(TENSORS, "auto")
    with pytest.raises(NoRoom, match=r"2 engines take .* lower cpu_kv_cache_gib"):
        plan_on_cpu(Options(cpu_kv_cache_gib=3), TENSORS, {}, 8 * GIB, 2)


def test_on_a_gpu_it_takes_its_share_whole() -> None:
    plan = plan_on_gpus(Options(gpu_memory_utilization=0.5), BIG, [GPU], {}, 1)
    gpu, ram = plan.uses
    assert (gpu.device, ram.device) == ("CUDA0", RAM)
    assert gpu.total_bytes == 40 * GIB
    assert gpu.kv_bytes == 40 * GIB - 10 * GIB - COMPUTE_BYTES
    assert plan.notes == ()


def test_a_model_larger_than_its_share_is_refused_with_the_ways_out() -> None:
    with pytest.raises(NoRoom, match=r"11\.0 GiB of CUDA0, and gpu_memory_utilization 0\.1 leaves it 8\.0 GiB"):
        plan_on_gpus(Options(gpu_memory_utilization=0.1), BIG, [GPU], {}, 1)
    halves = plan_on_gpus(Options(gpu_memory_utilization=0.1, tensor_parallel_size=2), BIG, [GPU, GPU], {}, 1)
    assert halves.uses[0].weights_bytes == 5 * GIB


def test_memory_that_others_hold_now_is_waited_for() -> None:
    plan = plan_on_gpus(Options(), BIG, [GPU], {"CUDA0": 40 * GIB}, 1)
    assert plan.notes == (
        "CUDA0: 72.0 GiB are more than the 39.0 GiB that are free now: it waits for them at its start",
    )


def test_fewer_gpus_than_it_is_spread_over() -> None:
    with pytest.raises(NoRoom, match="spread over 4 GPUs, and there are 1"):
        plan_on_gpus(Options(tensor_parallel_size=4), BIG, [GPU], {}, 1)
    assert plan_on_gpus(Options(), BIG, [], {}, 1).uses == ()
