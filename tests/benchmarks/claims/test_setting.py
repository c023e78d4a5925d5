"""What engines of a section are given: options that are accepted, that fit side by side, and that differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.llamacpp.options import Options
from backends.vllm.launch import option_problems
from benchmarks import gpu_memory
from benchmarks.claims import batching, prompts, speculation
from benchmarks.claims.batching import PAGED, RESERVED
from benchmarks.claims.models import token_bytes
from benchmarks.claims.setting import CPU, GPU, TINY, Setting, capture_sizes
from benchmarks.claims.speculation import given
from tests.benchmarks.claims.settings import model_folder, setting

H200 = gpu_memory.Gpu("H200", "580", 143_771 << 20)
LLAMA_8B, LLAMA_1B = 16_060_000_000, 2_500_000_000


@pytest.fixture
def on_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(gpu_memory, "gpu", lambda: H200)
    model, draft = model_folder(tmp_path / "8b", 32, LLAMA_8B), model_folder(tmp_path / "1b", 16, LLAMA_1B)
    return setting(engine="vllm", has_gpu=True, scale=GPU, model=str(model), draft=str(draft))


def pools_of(here: Setting) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Of the sections that name them apart."""
    ways = {"off": {}, **{f"{share}": {"speculative": given(here.draft, share)} for share in speculation.ACCEPTANCES}}
    return {
        "paged": batching.paged_pools(here),
        "chunked": prompts.chunked_pools(here, 16),
        "synthetic": {way: here.pool(64, 512, speculation._captured(here, more)) for way, more in ways.items()},
    }


@pytest.mark.parametrize("scale", [CPU, TINY])
def test_llamacpp_takes_these_options(scale: object) -> None:
    here = setting(scale=scale)
    for pools in (batching.paged_pools(here), prompts.chunked_pools(here, 8)):
        for pool in pools.values():
            Options.from_mapping(pool["options"]).settled()


@pytest.mark.parametrize("scale", [CPU, TINY])
def test_vllm_on_a_cpu_takes_these_options(scale: object) -> None:
    for pools in pools_of(setting(engine="vllm", scale=scale)).values():
        for pool in pools.values():
            assert option_problems(pool["options"]) == []


def test_vllm_on_a_gpu_takes_these_options_and_all_fit_side_by_side(on_gpu: Setting) -> None:
    for pools in pools_of(on_gpu).values():
        for pool in pools.values():
            assert option_problems(pool["options"]) == []
        assert sum(pool["options"]["gpu_memory_utilization"] for pool in pools.values()) < 0.95


def test_the_kv_cache_of_a_gpu_is_given_in_bytes(on_gpu: Setting) -> None:
    pool = on_gpu.pool(64, 4096, cells=32768)
    assert pool["options"]["extra_args"] == ["--kv-cache-memory-bytes", str(32768 * 131072)]
    share = pool["options"]["gpu_memory_utilization"]
    assert share * H200.total_bytes > LLAMA_8B + 32768 * 131072


def test_a_draft_has_weights_and_cache_of_its_own(on_gpu: Setting) -> None:
    alone, drafted = (on_gpu.pool(64, 512, more)["options"] for more in ({}, {"speculative": given(on_gpu.draft, 0.7)}))
    assert int(drafted["extra_args"][1]) == int(alone["extra_args"][1]) * 3 // 2  # half as many layers
    assert drafted["gpu_memory_utilization"] > alone["gpu_memory_utilization"]


def test_both_caches_of_pagedattention_are_as_large() -> None:
    for engine in ("llamacpp", "vllm"):
        pools = batching.paged_pools(setting(engine=engine, scale=CPU))
        paged, reserved = pools[PAGED]["options"], pools[RESERVED]["options"]
        assert paged.get("n_ctx") == reserved.get("n_ctx")
        assert paged.get("extra_args") == reserved.get("extra_args")
        seats = "n_seq_max" if engine == "llamacpp" else "max_num_seqs"
        assert reserved[seats] == CPU.cells // CPU.max_length
        assert paged[seats] == 2 * CPU.streams


def test_a_reservation_wastes_what_lengths_leave() -> None:
    found = batching.reservation(setting(scale=GPU))
    assert found["reserved_at_once"] == 8
    assert found["reserved_per_token"] == pytest.approx(4096 / found["mean_tokens"])
    assert 256 + 16 < found["mean_tokens"] < 256 + 384
    assert 1 < found["paged_per_token"] < 1.2
    assert found["paged_at_once"] > 2 * found["reserved_at_once"]


def test_acceptances_are_those_of_the_first_the_first_two_and_so_on() -> None:
    assert given("draft", 0.5)["synthetic_acceptance_rates"] == [0.5, 0.25, 0.125, 0.0625]


def test_graphs_are_captured_for_the_steps_there_are() -> None:
    assert capture_sizes(64) == [1, 2, 4, 8, 16, 32, 64]
    assert capture_sizes(48, 5) == [5, 10, 20, 40, 80, 160, 240]


def test_a_token_of_the_8b_shape_takes_128_kib(tmp_path: Path) -> None:
    assert token_bytes(model_folder(tmp_path / "8b", 32, 0)) == 128 << 10


def test_more_turns_of_a_setting_belong_to_those_there_are() -> None:
    assert setting(repeats=3).mark == setting(repeats=5).mark
    assert setting(seed=1).mark != setting(seed=2).mark
