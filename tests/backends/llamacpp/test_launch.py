"""How a llama.cpp engine is checked, prepared and launched: no engine is needed for that."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.base import Places, PoolSpec, Reply
from backends.digests import file_digest
from backends.errors import BadSpec, EngineUnavailable, ModelUnusable, PrepareFailed
from backends.llamacpp.header import read_header
from backends.llamacpp.launch import DEMO_DIR, LlamaCpp, check_model
from backends.process import Launcher
from backends.pythons import choose_python
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
    identity = await engine.prepare(launcher)
    assert identity.digest == file_digest(gguf, places.models_dir / "file-digests.json")
    assert not identity.is_source
    spec = engine.launch(4242)
    assert spec is not None
    assert spec.argv[:4] == (str(python), "-P", "-m", "backends.llamacpp.server")
    flags = dict(zip(spec.argv[4::2], spec.argv[5::2], strict=True))
    assert flags == {
        "--model": str(gguf), "--served-model-name": "demo", "--host": "127.0.0.1", "--port": "4242",
        "--n-ctx": "512", "--prefix-cache": "false",
    }  # fmt: skip
    assert not any("secret" in word.lower() for word in spec.argv)


async def test_a_gguf_of_ours_names_its_source(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    digest = "sha256:" + "ab" * 32
    identity = await backend(places, write_gguf(tmp_path / "m.gguf", digest), stub_python(tmp_path)).prepare(launcher)
    assert (identity.digest, identity.is_source) == (digest, True)


@pytest.mark.engine
@pytest.mark.slow
async def test_the_bundled_demo_model_is_converted_once(places: Places, launcher: Launcher) -> None:
    engine = backend(places, "demo")
    identity = await engine.prepare(launcher)
    assert identity.is_source
    spec = engine.launch(1)
    assert spec is not None
    gguf = Path(spec.argv[5])
    assert gguf.parent == places.models_dir
    assert read_header(gguf).source_digest == identity.digest
    made = gguf.stat().st_mtime_ns
    assert await backend(places, "demo").prepare(launcher) == identity
    assert gguf.stat().st_mtime_ns == made


@pytest.mark.engine
async def test_a_folder_that_cannot_be_converted(tmp_path: Path, places: Places, launcher: Launcher) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(PrepareFailed, match=f"{tmp_path} cannot be converted: "):
        await backend(places, tmp_path).prepare(launcher)


def test_folders_that_are_no_models_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="neither a GGUF file nor a model folder"):
        check_model(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ModelUnusable, match="not a JSON object"):
        check_model(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(ModelUnusable, match=r"no \*\.safetensors"):
        check_model(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnusable, match=r"GPT2LMHeadModel.*give its GGUF file instead"):
        check_model(tmp_path)


def test_the_demo_model_is_there() -> None:
    assert "safetensors" in check_model(DEMO_DIR)


def test_bad_options_are_all_named(places: Places) -> None:
    with pytest.raises(BadSpec) as caught:
        backend(places, "demo", None, n_ctxx=1, n_batch="many")
    assert len(caught.value.problems) == 2


async def test_what_a_ready_engine_says(places: Places) -> None:
    replies = {
        "/health": {"status": "ok", "backend": "CUDA", "n_threads": 8},
        "/v1/models": {"data": [{"id": "demo", "max_model_len": 2048}]},
    }

    async def fetch(path: str) -> Reply:
        if path == "/metrics":
            text = "forgegate_engine_num_requests_running 3\nforgegate_engine_kv_cache_usage_ratio 0.25\n"
            return Reply(200, text.encode())
        return Reply(200, json.dumps(replies[path]).encode())

    engine = backend(places, "demo")
    facts = await engine.inspect(fetch)
    assert (facts.description, facts.context_length, facts.model) == ("llama.cpp on CUDA, 8 threads", 2048, "demo")
    load = await engine.load(fetch)
    assert load is not None
    assert (load.num_running, load.num_waiting, load.kv_usage) == (3, 0, 0.25)


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"GGUF", "ends within its header"),
        (b"GGUF" + b"\xff" * 20, "cannot be read"),
        (b"GGUF\x03\0\0\0" + b"\0" * 8 + b"\x01" + b"\0" * 7 + b"\xff" * 8, "ends within its header"),
        (
            b"GGUF\x03\0\0\0" + b"\0" * 8 + b"\x01" + b"\0" * 7 + b"\x01" + b"\0" * 7 + b"k\x63\0\0\0",
            "unknown metadata type 99",
        ),
    ],
)
def test_damaged_headers(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable, match=words):
        read_header(path)


def test_every_cut_of_a_header_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", "sha256:ab").read_bytes()
    assert read_header(tmp_path / "whole.gguf").context_length == 2048
    cut = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelUnusable):
            read_header(cut)


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
