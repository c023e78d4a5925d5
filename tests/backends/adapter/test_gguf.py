"""The GGUF form does in llama.cpp what the adapter does in transformers + PEFT."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.adapter import gguf as adapter_gguf
from backends.adapter.base import read_base
from backends.demo import TARGET_DIR
from tests.backends.adapter.faulty import HOST
from tests.backends.adapter.ingesting import Ingester
from tests.backends.adapter.peft_reference import TOKENS, peft_logits

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
ADAPTERS = HOST.parent


@contextmanager
def loaded(gguf: Path) -> Iterator[tuple[Any, Any]]:
    """A model and a context of llama.cpp, float32 throughout."""
    import llama_cpp.llama_cpp as C

    from backends.llamacpp.binding import library

    library.initialise()
    model = C.llama_model_load_from_file(str(gguf).encode(), C.llama_model_default_params())
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 256, 64, 1, 1
    params.type_k = params.type_v = 0  # f32
    params.flash_attn_type = 0
    context = C.llama_init_from_model(model, params)
    try:
        yield model, context
    finally:
        C.llama_free(context)
        C.llama_model_free(model)


def llama_logits(gguf: Path, adapter: Path | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    import llama_cpp.llama_cpp as C

    with loaded(gguf) as (model, context):
        if adapter is not None:
            handle = C.llama_adapter_lora_init(model, str(adapter).encode())
            assert handle, "llama.cpp refuses the adapter"
            handles, scales = (C.llama_adapter_lora_p_ctypes * 1)(handle), (ctypes.c_float * 1)(1.0)
            assert C.llama_set_adapters_lora(context, handles, 1, scales) == 0
        batch = C.llama_batch_init(len(TOKENS), 0, 1)
        batch.n_tokens = len(TOKENS)
        for i, token in enumerate(TOKENS):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert C.llama_decode(context, batch) == 0
        size = len(TOKENS) * 4096
        flat = ctypes.cast(C.llama_get_logits(context), ctypes.POINTER(ctypes.c_float * size)).contents
        logits = np.array(flat, dtype=np.float32).reshape(len(TOKENS), 4096)
        C.llama_batch_free(batch)
        return logits


@pytest.fixture(scope="module")
def demo_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backends.llamacpp.convert import convert

    out = tmp_path_factory.mktemp("models") / "demo-f32.gguf"
    convert(TARGET_DIR, out, "f32")
    return out


def version_of(ingester: Ingester, name: str) -> Path:
    return ingester.store / ingester(ADAPTERS / name).last["digest"]


@pytest.mark.engine
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("name", ["host", "pilot", "tiger"])
def test_llamacpp_computes_what_peft_computes(name: str, ingester: Ingester, demo_f32: Path) -> None:
    pytest.importorskip("peft")
    version = version_of(ingester, name)
    expected, base = peft_logits(ADAPTERS / name), peft_logits(None)
    actual = llama_logits(demo_f32, version / "adapter.gguf")
    error, effect = np.abs(actual - expected).max(), np.abs(expected - base).max()
    assert effect > 5.0
    assert error < 1e-4 * effect


@pytest.mark.engine
@pytest.mark.torch
@pytest.mark.slow
def test_without_the_permutation_of_q_and_k_it_computes_something_else(
    ingester: Ingester, demo_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    version = version_of(ingester, "host")
    base = read_base(ingester.base)
    monkeypatch.setattr(adapter_gguf, "rotated", lambda lora_b, module, base: lora_b)
    adapter_gguf.write_gguf(version, base, 8, version.name, tmp_path / "straight.gguf")
    expected = peft_logits(HOST)
    error = np.abs(llama_logits(demo_f32, tmp_path / "straight.gguf") - expected).max()
    assert error > 0.05 * np.abs(expected - peft_logits(None)).max()


def test_a_module_that_llamacpp_does_not_know_is_refused(
    ingester: Ingester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_gguf, "_parts", lambda name: ("model.layers.0.nothing", "a"))
    told = ingester(HOST)
    assert (told.code, told.last["problems"][0]["rule"]) == (2, "conversion")
    assert ingester.left() == []


@pytest.mark.engine
def test_it_carries_the_digests_and_a_scale_of_one(ingester: Ingester) -> None:
    from gguf import GGUFReader

    version = version_of(ingester, "tiger")
    fields = GGUFReader(version / "adapter.gguf").fields
    told = {key: fields[key].contents() for key in fields if not key.startswith("GGUF.")}
    assert told == {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0,
        "forgegate.base_source_digest": json.loads(ingester.base.read_text())["source_digest"],
        "forgegate.adapter_digest": version.name,
    }  # fmt: skip


@pytest.mark.engine
def test_a_base_known_by_its_gguf_alone_gives_the_same_version(
    ingester: Ingester, demo_f32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {**json.loads(ingester.base.read_text()), "folder": None, "gguf": str(demo_f32)}
    (tmp_path / "gguf.json").write_text(json.dumps(told))
    by_gguf = Ingester(tmp_path / "gguf.json", tmp_path / "other-store", capsys)
    first, second = ingester(HOST).last, by_gguf(HOST).last
    assert first["digest"] == second["digest"]
    assert first["manifest"]["attachments"] == second["manifest"]["attachments"]
