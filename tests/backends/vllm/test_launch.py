"""How a vLLM engine is checked, planned, prepared and launched: no vLLM is needed for that, but what one said of itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.artifacts import source_digest
from backends.base import LaunchSpec, Places, PoolSpec, Reply
from backends.errors import BadSpec, EngineUnavailable, ModelUnusable, NoRoom
from backends.gpus import Gpu
from backends.llamacpp.header import read_header
from backends.llamacpp.launch import LlamaCpp
from backends.plan import GIB
from backends.process import Launcher
from backends.registry import build, kind_of
from backends.registry import option_problems as problems_of
from backends.vllm.inside import guard
from backends.vllm.launch import Machine, Vllm
from backends.vllm.pythonpath import GUARD_MODULE, PLUGIN, place
from backends.vllm.source import DEMO_DIR
from tests.backends.vllm.recorded import installed

PYTHON = "/opt/vllm/bin/python"
ON_CPU = Machine(lambda *_: installed("0.32", "cpu"), lambda: 64 * GIB, tuple)
ON_GPU = replace(ON_CPU, look=lambda *_: installed("0.26", "cuda"), gpus=lambda: (Gpu("CUDA0", 80 * GIB, 80 * GIB),))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "envs")


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    launcher = await Launcher.start()
    yield launcher
    await launcher.close()


def backend(places: Places, machine: Machine = ON_CPU, model: str = "demo", **options: Any) -> Vllm:
    return Vllm(PoolSpec("vllm", "demo", model=model, python=PYTHON, options=options), places, machine)


async def launched(engine: Vllm, launcher: Launcher) -> LaunchSpec:
    await engine.prepare(launcher, print)
    spec = engine.launch(4242)
    assert spec is not None
    return spec


def value(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


async def test_the_demo_is_launched_behind_the_guard(places: Places, launcher: Launcher) -> None:
    engine = backend(places, max_model_len=2048, enforce_eager=True)
    assert engine.check() == (
        f"vLLM {installed('0.32').version} engine on CPU, model {DEMO_DIR} (LlamaForCausalLM, safetensors, trained for 2048 tokens), "
        f"run by {PYTHON}"
    )
    spec = await launched(engine, launcher)
    assert spec.argv[:3] == (PYTHON, "-m", "vllm.entrypoints.openai.api_server")
    wanted = {
        "--model": str(DEMO_DIR), "--served-model-name": "demo", "--host": "127.0.0.1", "--port": "4242",
        "--max-model-len": "2048", "--middleware": f"{GUARD_MODULE}.Guard",
    }  # fmt: skip
    assert {flag: value(spec.argv, flag) for flag in wanted} == wanted
    assert "--api-key" not in spec.argv  # it would guard a part of the paths only
    assert spec.env[guard.MAX_ADAPTERS] == "0"
    assert spec.env["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert spec.cwd is None  # paths among the options are the user's
    assert spec.env["PYTHONSAFEPATH"] == "1"  # and modules that lie there are not meant
    assert spec.env["PYTHONPATH"].split(os.pathsep)[0] == str(place(places.tools_dir))


async def test_its_identity_is_that_of_a_llamacpp_pool_of_the_same_model(places: Places, launcher: Launcher) -> None:
    ours = await backend(places).prepare(launcher, print)
    theirs = await LlamaCpp(PoolSpec("llamacpp", "demo", model="demo", python=sys.executable), places).prepare(
        launcher, print
    )
    assert ours == theirs
    assert ours.is_source
    assert ours.digest == source_digest(DEMO_DIR)
    assert read_header(next(places.models_dir.glob("*.gguf"))).source_digest == ours.digest


async def test_adapters_have_as_many_places_as_the_workers_keep(places: Places, launcher: Launcher) -> None:
    engine = backend(places, lora={"max_loras": 2, "max_cpu_loras": 5})
    assert engine.num_adapter_slots == 5
    assert engine.adapters is not None
    spec = await launched(engine, launcher)
    assert spec.env[guard.MAX_ADAPTERS] == "5"
    assert spec.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "lm_head" not in spec.argv  # prompt log-probabilities on its adapters kill the engine on a CPU
    assert "q_proj" in spec.argv
    without = backend(places)
    assert (without.num_adapter_slots, without.adapters) == (0, None)


async def test_a_command_may_stand_before_the_interpreter(places: Places, launcher: Launcher) -> None:
    pool = PoolSpec("vllm", "demo", model="demo", python="nice -n 5 /opt/vllm/bin/python")
    asked: list[Any] = []
    machine = replace(
        ON_CPU, look=lambda command, models, _: (asked.append((command, models)), installed("0.32", "cpu"))[1]
    )
    spec = await launched(Vllm(pool, places, machine), launcher)
    assert spec.argv[:5] == ("nice", "-n", "5", "/opt/vllm/bin/python", "-m")
    assert asked[0] == (("nice", "-n", "5", "/opt/vllm/bin/python"), places.models_dir)


async def test_what_the_plan_picks_is_what_starts(places: Places, launcher: Launcher) -> None:
    engine = backend(places, replace(ON_CPU, free_ram=lambda: 6 * GIB))
    plan = engine.plan({})
    assert plan.options() == {"cpu_kv_cache_gib": 2}
    spec = await launched(engine, launcher)
    assert spec.env["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_what_does_not_fit_is_refused_by_name(places: Places) -> None:
    with pytest.raises(NoRoom, match=r"^demo: .*target does not fit: it takes .* of RAM"):
        backend(places, replace(ON_CPU, free_ram=lambda: GIB), cpu_kv_cache_gib=2).plan({})


async def test_on_gpus_sleep_is_there_where_it_is_switched_on(places: Places, launcher: Launcher) -> None:
    engine = backend(places, ON_GPU, sleep_mode=True)
    assert engine.sleeps is not None
    assert engine.sleeps.levels == (1, 2)
    assert engine.plan({}).taken()["CUDA0"] == int(0.9 * 80 * GIB)
    spec = await launched(engine, launcher)
    assert spec.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert "LD_PRELOAD" not in spec.env
    assert backend(places, ON_GPU).sleeps is None
    with pytest.raises(BadSpec, match="sleep_mode: vLLM on the CPU cannot sleep"):
        backend(places, sleep_mode=True).check()


async def test_users_variables_go_before_ours_but_for_what_options_decide(
    places: Places, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "99")
    monkeypatch.setenv("PYTHONPATH", "/my/site")
    monkeypatch.setenv("VLLM_PLUGINS", "mine")
    spec = await launched(backend(places, cpu_kv_cache_gib=3), launcher)
    assert "VLLM_NO_USAGE_STATS" not in spec.env
    assert spec.env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert spec.env["PYTHONPATH"].split(os.pathsep)[1:] == ["/my/site"]
    assert spec.env["VLLM_PLUGINS"] == f"mine,{PLUGIN}"


async def test_a_folder_that_changes_is_another_identity(places: Places, launcher: Launcher, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(DEMO_DIR, folder)
    engine = backend(places, model=str(folder))
    first = await engine.prepare(launcher, print)
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace("{", '{"note": "x", ', 1))
    assert await engine.prepare(launcher, print) != first


def test_bad_pools_are_refused_before_anything_starts(places: Places, tmp_path: Path) -> None:
    assert "max_len" in problems_of("vllm", {"max_len": 3})[0]
    with pytest.raises(BadSpec, match="max_len"):
        backend(places, max_len=3)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelUnusable, match="engine llamacpp"):
        backend(places, model=str(tmp_path / "m.gguf")).check()
    blind = replace(ON_CPU, look=lambda *_: installed("0.32", ""))
    with pytest.raises(EngineUnavailable, match="finds no device that it can use"):
        backend(places, blind).check()
    with pytest.raises(ModelUnusable, match=r"speculative\.model"):
        backend(
            places,
            speculative={"method": "draft_model", "model": str(tmp_path / "none"), "num_speculative_tokens": 2},
        ).check()


def test_the_registry_knows_it(places: Places) -> None:
    assert "model" in kind_of("vllm").required
    assert build(PoolSpec("vllm", "demo", model="demo"), places).kind == "vllm"


async def test_its_load_is_read_by_its_versions_names(places: Places, launcher: Launcher) -> None:
    engine = backend(places)
    await engine.prepare(launcher, print)

    async def fetch(path: str) -> Reply:
        assert path == "/metrics"
        return Reply(200, b'vllm:num_requests_running{engine="0"} 2.0\n')

    load = await engine.load(fetch)
    assert load is not None
    assert load.num_running == 2


def test_its_output_is_understood(places: Places) -> None:
    engine = backend(places)
    assert engine.progress("Loading safetensors checkpoint shards:  75% Completed | 3/4 [00:01<00:00]") == (
        "loading weights, 3 of 4 files"
    )
    assert engine.progress("INFO something else") == ""
    assert engine.explain(["INFO all is well"]) is None
