"""How a llama.cpp engine is checked, prepared and launched: no engine is needed for that."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import Load, Places, PoolSpec, Reply
from backends.digests import file_digest
from backends.errors import BadSpec, EngineUnavailable, ModelUnusable, NoRoom, PrepareFailed
from backends.llamacpp.header import read_header
from backends.llamacpp.launch import DEMO_DIR, LlamaCpp, check_model, load_of
from backends.llamacpp.metrics import EngineMetrics
from backends.llamacpp.threads import num_physical_cores
from backends.plan import GIB
from backends.process import Launcher
from backends.pythons import choose_python
from tests.backends.llamacpp import ggufs
from tests.backends.llamacpp.test_folder import make
from tests.processes import stub_python, write_gguf


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "envs")


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    launcher = await Launcher.start()
    yield launcher
    await launcher.close()


def backend(places: Places, model: Path | str, python: Path | str | None = None, **options: object) -> LlamaCpp:
    return LlamaCpp(
        PoolSpec("llamacpp", "demo", model=str(model), python=None if python is None else str(python), options=options),
        places,
    )


async def test_a_gguf_is_launched_as_it_is(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    gguf, python = write_gguf(tmp_path / "m.gguf"), stub_python(tmp_path)
    engine = backend(places, gguf, python, n_ctx=512, prefix_cache=False)
    assert str(gguf) in engine.check()
    identity = await engine.prepare(launcher, print)
    assert identity.digest == file_digest(gguf, places.models_dir / "file-digests.json")
    assert not identity.is_source
    spec = engine.launch(4242)
    assert spec is not None
    assert spec.argv[:4] == (str(python), "-P", "-m", "backends.llamacpp.server")
    flags = dict(zip(spec.argv[4::2], spec.argv[5::2], strict=True))
    assert flags == {
        "--model": str(gguf), "--served-model-name": "demo", "--host": "127.0.0.1", "--port": "4242",
        "--n-ctx": "512", "--prefix-cache": "false", "--n-seq-max": "2", "--n-batch": "512", "--n-ubatch": "512",
        "--max-adapters": "4", "--n-threads": str(num_physical_cores()),
    }  # fmt: skip
    assert not any("secret" in word.lower() for word in spec.argv)


async def test_a_gguf_of_ours_names_its_source(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    digest = "sha256:" + "ab" * 32
    identity = await backend(places, write_gguf(tmp_path / "m.gguf", digest), stub_python(tmp_path)).prepare(
        launcher, print
    )
    assert (identity.digest, identity.is_source) == (digest, True)


@pytest.mark.engine
@pytest.mark.slow
async def test_the_bundled_demo_model_is_converted_once(places: Places, launcher: Launcher) -> None:
    engine = backend(places, "demo")
    identity = await engine.prepare(launcher, print)
    assert identity.is_source
    spec = engine.launch(1)
    assert spec is not None
    gguf = Path(spec.argv[5])
    assert gguf.parent == places.models_dir
    assert read_header(gguf).source_digest == identity.digest
    made = gguf.stat().st_mtime_ns
    assert await backend(places, "demo").prepare(launcher, print) == identity
    assert gguf.stat().st_mtime_ns == made


@pytest.mark.engine
@pytest.mark.slow
async def test_what_the_engine_gets_is_what_was_planned(places: Places, launcher: Launcher) -> None:
    engine = backend(places, "demo", n_seq_max=4)
    planned = engine.plan({})
    assert planned.options() == {
        "n_ctx": 8192, "n_batch": 512, "n_ubatch": 512, "max_adapters": 4, "n_threads": num_physical_cores(),
    }  # fmt: skip
    await engine.prepare(launcher, print)
    spec = engine.launch(1)
    assert spec is not None
    flags = dict(zip(spec.argv[4::2], spec.argv[5::2], strict=True))
    assert {flag: flags[flag] for flag in ("--n-ctx", "--n-seq-max", "--n-batch")} == {
        "--n-ctx": "8192", "--n-seq-max": "4", "--n-batch": "512",
    }  # fmt: skip


async def test_a_folder_that_cannot_be_converted(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    folder = make(tmp_path / "model")
    (folder / "config.json").write_text('{"architectures": ["Odd"]}')
    with pytest.raises(ModelUnusable, match="'Odd' is not among"):
        await backend(places, folder, stub_python(tmp_path)).prepare(launcher, print)


async def test_a_conversion_that_fails_is_one_line_and_its_progress_is_told(
    tmp_path: Path, places: Places, launcher: Launcher
) -> None:
    python = tmp_path / "python"
    answers = '[ "$2" = -c ] && exit 0'
    python.write_text(f"#!/bin/sh\n{answers}\necho progress: half done\necho error: it broke >&2\nexit 3\n")
    python.chmod(0o755)
    told: list[str] = []
    with pytest.raises(PrepareFailed, match="model cannot be converted: it broke"):
        await backend(places, make(tmp_path / "model"), python).prepare(launcher, told.append)
    assert told == ["half done"]


def test_which_interpreter_converts(tmp_path: Path, places: Places) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\ncase "$*" in *torch*) echo torch transformers;; esac\n')
    engine.chmod(0o755)
    folder = make(tmp_path / "model")
    with pytest.raises(EngineUnavailable) as caught:
        backend(places, folder, engine).check()
    assert f"must be converted by llama.cpp's converter: {engine} has no torch, transformers; install" in str(
        caught.value
    )
    assert "install what has it: forgegate install trainer; or give a GGUF file" in str(caught.value)
    trainer = places.envs_dir / "trainer" / "bin" / "python"
    trainer.parent.mkdir(parents=True)
    trainer.symlink_to(stub_python(tmp_path))
    assert f"by llama.cpp's converter in {trainer}), run by {engine}" in backend(places, folder, engine).check()
    # The demo family needs none of that.
    trainer.unlink()
    assert "converter" not in backend(places, "demo", engine).check()


# What is picked by the free memory ---------------------------------------------------------------------------------------


def with_gpu(folder: Path, *devices: dict[str, object]) -> Path:
    """An interpreter whose llama.cpp sees these devices."""
    path = folder / "gpu-python"
    path.write_text(f"#!/bin/sh\n[ \"$2\" = -c ] && exit 0\necho '{json.dumps(devices)}'\n")
    path.chmod(0o755)
    return path


CARD: dict[str, object] = {
    "name": "CUDA0", "description": "a card", "free_bytes": 24 * GIB, "total_bytes": 24 * GIB, "is_in_ram": False,
}  # fmt: skip


def test_pools_before_leave_less(tmp_path: Path, places: Places) -> None:
    model, python = ggufs.llama_8b(tmp_path / "m.gguf"), with_gpu(tmp_path, CARD)
    first = backend(places, model, python).plan({})
    assert first.options()["n_gpu_layers"] == 33
    second = backend(places, model, python).plan(first.taken())
    assert second.options()["n_gpu_layers"] < 33
    assert second.uses[0].free_bytes is not None
    assert second.uses[0].free_bytes < (first.uses[0].free_bytes or 0) + GIB


def test_layers_for_a_gpu_that_is_not_there(tmp_path: Path, places: Places) -> None:
    model, python = ggufs.llama_8b(tmp_path / "m.gguf"), with_gpu(tmp_path)
    with pytest.raises(
        EngineUnavailable, match=r"n_gpu_layers: 20 layers on a GPU, but the llama\.cpp of .* sees none"
    ):
        backend(places, model, python, n_gpu_layers=20).plan({})


def test_a_model_that_does_not_fit(tmp_path: Path, places: Places) -> None:
    model, python = ggufs.llama_70b(tmp_path / "m.gguf"), stub_python(tmp_path)
    spec = PoolSpec("llamacpp", "big", model=str(model), python=str(python))
    with pytest.raises(NoRoom, match=r"big: .*m\.gguf does not fit: the engine would take 38\.2 GiB"):
        LlamaCpp(spec, places, measure_ram=lambda: 8 * GIB).plan({})
    paged = replace(spec, options={"use_mmap": True})
    assert "read from disk" in LlamaCpp(paged, places, measure_ram=lambda: 8 * GIB).plan({}).notes[0]


async def test_a_file_that_was_replaced_is_planned_anew(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    path, python = tmp_path / "m.gguf", stub_python(tmp_path)
    engine = LlamaCpp(PoolSpec("llamacpp", "m", model=str(path), python=str(python)), places, lambda: 8 * GIB)
    sizes = {"layers": 2, "width": 256, "inner": 512, "heads": 4, "kv_heads": 4, "head": 64, "vocabulary": 512}
    ggufs.llama(path, length=4096, kind=ggufs.F16, **sizes)
    assert engine.plan({}).options()["n_ctx"] == 16_384
    await engine.prepare(launcher, print)
    ggufs.llama(path, length=2048, kind=ggufs.F16, **sizes)
    await engine.prepare(launcher, print)
    spec = engine.launch(1)
    assert spec is not None
    assert spec.argv[spec.argv.index("--n-ctx") + 1] == "8192"


def test_the_demo_model_is_there() -> None:
    assert "safetensors" in check_model(DEMO_DIR)


def test_bad_options_are_all_named(places: Places) -> None:
    with pytest.raises(BadSpec) as caught:
        backend(places, "demo", None, n_ctxx=1, n_batch="many")
    assert len(caught.value.problems) == 2


async def test_what_a_ready_engine_says(places: Places) -> None:
    replies = {
        "/health": {"status": "ok", "backend": "CUDA", "n_threads": 8},
        "/v1/models": {"data": [{"id": "demo", "max_model_len": 2048, "capabilities": ["embeddings"]}]},
    }

    async def fetch(path: str) -> Reply:
        if path == "/metrics":
            text = "forgegate_engine_num_requests_running 3\nforgegate_engine_kv_cache_usage_ratio 0.25\n"
            return Reply(200, text.encode())
        return Reply(200, json.dumps(replies[path]).encode())

    engine = backend(places, "demo")
    facts = await engine.inspect(fetch)
    assert (facts.description, facts.context_length, facts.model) == ("llama.cpp on CUDA, 8 threads", 2048, "demo")
    assert facts.capabilities == ("embeddings",)
    load = await engine.load(fetch)
    assert load is not None
    assert (load.num_running, load.num_waiting, load.kv_usage) == (3, 0, 0.25)


def test_the_load_is_read_off_the_page_that_the_engine_writes() -> None:
    metrics = EngineMetrics(100, lambda: {"tiger@1": 2, "idle@2": 0})
    metrics.num_running, metrics.num_waiting, metrics.num_cells_used = 3, 4, 25
    metrics.num_prompt_tokens, metrics.num_reused_tokens, metrics.num_generated_tokens = 70, 30, 50
    metrics.num_preempted = 6
    assert load_of(metrics.page().decode()) == Load(
        num_running=3, num_waiting=4, kv_usage=0.25, num_preemptions=6, num_prompt_tokens=100, num_cached_tokens=30,
        num_generated_tokens=50, adapters_running=("tiger@1",),
    )  # fmt: skip


def test_the_engines_environment_goes_before_the_current_one(tmp_path: Path) -> None:
    own = tmp_path / "llamacpp" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(stub_python(tmp_path))
    assert choose_python("llamacpp", ["json"], None, tmp_path) == str(own)
    assert choose_python("llamacpp", ["json"], sys.executable, tmp_path) == sys.executable


def test_a_broken_environment_does_not_hide_a_working_interpreter(tmp_path: Path) -> None:
    broken = tmp_path / "llamacpp" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert choose_python("llamacpp", ["json"], None, tmp_path) == sys.executable
    with pytest.raises(EngineUnavailable, match="no_such_module") as caught:
        choose_python("llamacpp", ["no_such_module"], None, tmp_path)
    assert str(broken) in str(caught.value)


def test_a_named_interpreter_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="/no/python cannot be run"):
        choose_python("llamacpp", ["json"], "/no/python", tmp_path)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "m.gguf", tmp_path / "models" / "digests.json"
    path.write_bytes(b"one")
    first = file_digest(path, cache)
    cache.write_text(cache.read_text().replace(first, "sha256:remembered"))
    assert file_digest(path, cache) == "sha256:remembered"
    path.write_bytes(b"other")
    assert file_digest(path, cache) not in (first, "sha256:remembered")
    cache.write_text("{broken")
    assert file_digest(path, cache).startswith("sha256:")
