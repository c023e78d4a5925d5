from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backends.errors import ModelUnusable
from backends.vllm.source import DEMO_DIR, can_chat, read_source


def test_the_demo_model_is_read() -> None:
    source = read_source("demo")
    assert source.folder == DEMO_DIR
    assert (source.architecture, source.trained_length) == ("LlamaForCausalLM", 2048)
    assert source.weight_bytes == sum(tensor.num_bytes for tensor in source.tensors.values()) > 1_000_000
    assert source.words == f"model {DEMO_DIR} (LlamaForCausalLM, safetensors, trained for 2048 tokens)"


@pytest.mark.parametrize("name", ["m.gguf", "m.bin"])
def test_a_gguf_is_refused_with_the_engine_that_takes_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelUnusable, match="a GGUF file is for engine llamacpp; vLLM takes the folder"):
        read_source(str(tmp_path / name))


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelUnusable, match="vLLM takes a model's folder"):
        read_source(str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelUnusable, match=r"no such folder$"):
        read_source(str(tmp_path / "absent"))
    with pytest.raises(ModelUnusable, match="did you mean 'demo'"):
        read_source(str(tmp_path / "dmo"))
    with pytest.raises(ModelUnusable, match="a GGUF file is for engine llamacpp"):
        read_source(str(tmp_path / "absent.gguf"))


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(DEMO_DIR, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnusable, match="no tokenizer"):
        read_source(str(folder))
    shutil.copy(DEMO_DIR / "tokenizer.json", folder)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelUnusable, match="truncated"):
        read_source(str(folder))


def test_lengths_of_models_of_several_media_are_in_their_text_part(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(DEMO_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    config = {"architectures": config["architectures"], "text_config": {"max_position_embeddings": 4096}}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_source(str(folder)).trained_length == 4096


@pytest.mark.parametrize(
    ("name", "content", "is_able"),
    [
        ("tokenizer_config.json", {"chat_template": "{{ x }}"}, True),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": "{{ x }}"}]}, True),
        ("chat_template.json", {"chat_template": "{{ x }}"}, True),
        ("tekken.json", {}, True),
        ("tokenizer_config.json", {"chat_template": None}, False),
    ],
)
def test_chat_needs_a_template_of_some_kind(tmp_path: Path, name: str, content: object, is_able: bool) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert can_chat(tmp_path) == is_able


def test_a_template_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    assert not can_chat(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    assert can_chat(tmp_path)
