"""llama.cpp's own converter of adapters: on Llama it makes what forgegate makes, and it serves the other architectures."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.adapter import ingest
from backends.adapter.upload import CONFIG, WEIGHTS
from backends.artifacts import Tensor, source_digest, write_tensors
from backends.demo import TARGET_DIR
from backends.llamacpp import lora_convert
from backends.llamacpp.lora_convert import AdapterNotConvertible

HOST = TARGET_DIR.parents[1] / "adapters" / "host"
LAYER = "base_model.model.model.layers.{}.{}.lora_{}.weight"


def run_ingest(
    upload: Path, base: Path, store: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, Any]]:
    told = {"name": "base", "source_digest": source_digest(base), "template_digest": "sha256:0", "folder": str(base)}
    base_file = store.with_name("base.json")
    base_file.write_text(json.dumps(told))
    capsys.readouterr()
    paths = ["--upload", str(upload), "--store", str(store), "--base", str(base_file)]
    code = ingest.main([*paths, "--engines", "llamacpp", *more])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def tensors_of(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    """A Qwen2 of 2 layers with random weights, and the demo model's tokenizer."""
    pytest.importorskip("torch")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=4096
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TARGET_DIR / name, tmp_path / "qwen" / name)
    return tmp_path / "qwen"


@pytest.fixture
def qwen_adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "qwen-adapter"
    folder.mkdir()
    random = np.random.default_rng(1)

    def factor(*shape: int) -> Tensor:
        values = random.normal(0, 0.1, shape).astype(np.float32)
        return Tensor("F32", shape, values.reshape(-1).view(np.uint8))

    tensors = {}
    for layer in range(2):
        tensors[LAYER.format(layer, "self_attn.q_proj", "A")] = factor(4, 64)
        tensors[LAYER.format(layer, "self_attn.q_proj", "B")] = factor(64, 4)
    write_tensors(folder / WEIGHTS, tensors)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_llama_it_makes_what_forgegate_makes(
    converter_tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run_ingest(HOST, TARGET_DIR, tmp_path / "store", capsys)
    assert code == 0
    version, theirs = tmp_path / "store" / told["digest"], tmp_path / "theirs.gguf"
    digests = ("sha256:1", told["digest"])
    lora_convert.convert(version, TARGET_DIR, theirs, converter_tools, sys.executable, digests)
    ours, other = tensors_of(version / "adapter.gguf"), tensors_of(theirs)
    assert ours.keys() == other.keys()
    assert len(ours) == 112
    assert all(np.array_equal(values, other[name]) for name, values in ours.items())


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_architecture_is_converted_on_ingest(
    converter_tools: Path, qwen: Path, qwen_adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gguf import GGUFReader

    store = tmp_path / "store"
    code, told = run_ingest(qwen_adapter, qwen, store, capsys, "--tools", str(converter_tools))
    assert code == 0, told
    path = store / told["digest"] / "adapter.gguf"
    fields = GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "qwen2"
    assert fields["adapter.lora.alpha"].contents() == 4.0
    assert fields["forgegate.adapter_digest"].contents() == told["digest"]
    assert set(tensors_of(path)) == {f"blk.{layer}.attn_q.weight.lora_{factor}" for layer in (0, 1) for factor in "ab"}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_converter_refuses_is_told_in_its_words(
    converter_tools: Path, qwen: Path, qwen_adapter: Path, tmp_path: Path
) -> None:
    (qwen / "config.json").write_text(json.dumps({"architectures": ["NoSuchForCausalLM"], "num_hidden_layers": 2}))
    digests = ("sha256:1", "2")
    with pytest.raises(AdapterNotConvertible, match="NoSuchForCausalLM is not supported"):
        lora_convert.convert(qwen_adapter, qwen, tmp_path / "x.gguf", converter_tools, sys.executable, digests)


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho torch transformers\n")
    bare.chmod(0o755)
    paths = [
        "--adapter",
        "a",
        "--base",
        "b",
        "--out",
        str(tmp_path / "o"),
        "--tools",
        str(tmp_path),
        "--python",
        str(bare),
    ]
    assert lora_convert.main([*paths, "--source-digest", "1", "--version-digest", "2"]) == 3
    assert "has no torch, transformers: `forgegate install trainer`" in capsys.readouterr().out


@pytest.mark.torch
@pytest.mark.slow
def test_another_architecture_without_the_tools_leaves_nothing(
    qwen: Path, qwen_adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run_ingest(qwen_adapter, qwen, tmp_path / "store", capsys)
    assert (code, told["event"]) == (3, "failed")
    assert "needs --tools" in told["message"]
    assert list((tmp_path / "store").iterdir()) == []
