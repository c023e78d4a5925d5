"""Model folders: which way they go, and why some are refused, with the engine that serves them named."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from backends.demo import TARGET_DIR
from backends.errors import ModelUnusable
from backends.llamacpp.family import is_family
from backends.llamacpp.folder import ARCHITECTURES, known_architectures, read_folder
from backends.llamacpp.launch import check_model
from backends.modelfolder import read_config
from tests.backends.llamacpp import ggufs

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
Entry = tuple[str, tuple[int, ...]]


def write_weights(path: Path, tensors: dict[str, Entry], cut_bytes: int = 0) -> None:
    """A safetensors file of zeros."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = {"BF16": 2, "F32": 4, "I32": 4, "F8_E4M3": 1, "U8": 1, "F16": 2}[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * (offset - cut_bytes))


def make(folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Entry] | None = None) -> Path:
    """A folder that llama.cpp's converter would take."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (folder / "tokenizer.json").write_text("{}")
    write_weights(folder / "model.safetensors", tensors or {"model.embed_tokens.weight": ("BF16", (128, 64))})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "model")


def refused(folder: Path, words: str) -> str:
    with pytest.raises(ModelUnusable, match=words) as caught:
        check_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_known_architecture_goes_to_llama_cpps_converter(folder: Path) -> None:
    model = read_folder(folder)
    assert (model.architecture, model.is_ours, model.num_bytes) == ("Qwen3ForCausalLM", False, 128 * 64 * 2)
    assert "Qwen3ForCausalLM, safetensors, converted to GGUF at first use" in check_model(folder)


def test_the_language_part_of_a_larger_model_counts(tmp_path: Path) -> None:
    text = {"architectures": ["Qwen2ForCausalLM"]}
    assert (
        read_folder(make(tmp_path / "a", {"architectures": ["Odd"], "text_config": text})).architecture
        == "Qwen2ForCausalLM"
    )
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"architectures": ["Odd"]}}
    assert read_folder(make(tmp_path / "b", config)).architecture == "Gemma3ForConditionalGeneration"


def test_an_unknown_architecture_tells_where_the_known_ones_are(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalML"]}))
    told = refused(
        folder, r"'Qwen3ForCausalML' is not among the \d+ .*near: Qwen3ForCausalLM.*give its GGUF file instead"
    )
    assert str(ARCHITECTURES) in told
    (folder / "config.json").write_text("{}")
    refused(folder, "a config.json without architectures")
    assert len(known_architectures()) > 200


# Which Llamas are ours --------------------------------------------------------------------------------------------------


def changed(tmp_path: Path, config: dict[str, Any] | None = None, tokenizer: dict[str, Any] | None = None) -> bool:
    """Whether the demo model is still of the family with these changes (`model.x` within the tokenizer's model)."""
    folder = tmp_path / "copy"
    shutil.copytree(TARGET_DIR, folder, dirs_exist_ok=True)
    read = json.loads((TARGET_DIR / "tokenizer.json").read_text())
    for key, value in (tokenizer or {}).items():
        (read["model"] if key.startswith("model.") else read)[key.removeprefix("model.")] = value
    (folder / "tokenizer.json").write_text(json.dumps(read))
    return is_family(folder, {**read_config(folder), **(config or {})})


def test_the_demo_family_is_ours(tmp_path: Path) -> None:
    assert changed(tmp_path)
    assert changed(tmp_path, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "hidden_size": 512})


_PREPENDED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}
_TOKEN = {"id": 9, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"pre_tokenizer": {"type": "ByteLevel"}},
        {"model.byte_fallback": False},
        {"model.type": "Unigram"},
        {"model.ignore_merges": True},
        {"normalizer": _PREPENDED},
        {"decoder": {"type": "ByteLevel"}},
        {"post_processor": {"type": "TemplateProcessing"}},
        {"added_tokens": [{**_TOKEN, "special": False}]},
        {"added_tokens": [{**_TOKEN, "special": True, "rstrip": True}]},
    ],
)
def test_llamas_with_other_tokenizers_are_not(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    assert not changed(tmp_path, tokenizer=tokenizer)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["MistralForCausalLM"]},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"sliding_window": 64},
    ],
)
def test_llamas_of_other_kinds_are_not(config: dict[str, Any], tmp_path: Path) -> None:
    assert not changed(tmp_path, config)


# Weights in other forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantisation", "words"),
    [
        ({"quant_method": "awq", "bits": 4}, "AWQ weights.*vLLM serves them"),
        ({"quant_method": "gptq", "bits": 4}, "GPTQ weights.*vLLM"),
        ({"quant_method": "exl2", "bits": 4.65}, "EXL2 weights.*TabbyAPI.*--engine remote"),
        ({"quant_method": "exl3"}, "EXL3 weights.*ExLlamaV3"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes weights.*vLLM"),
        ({"quant_method": "fp8"}, "FP8 weights.*vLLM"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors weights.*vLLM"),
        ({"quant_method": "new-thing"}, "'new-thing'-quantised weights.*no engine here is known"),
        ({"group_size": 64, "bits": 4, "mode": "affine"}, "MLX-quantised weights.*mlx_lm.server.*--engine remote"),
    ],
)
def test_quantised_weights_name_their_engine(quantisation: dict[str, Any], words: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": quantisation}))
    assert "for llama.cpp give the original weights or a GGUF file" in refused(folder, words)


def test_forms_that_llama_cpp_reads_pass(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "mxfp4"}}))
    assert read_folder(folder).architecture == "Qwen3ForCausalLM"


def test_mlx_says_it_in_a_section_of_its_own(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization": {"group_size": 64, "bits": 4}}))
    refused(folder, "MLX-quantised")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"quant_config.json": '{"w_bit": 4, "q_group_size": 128, "version": "GEMM"}'}, "AWQ weights"),
        ({"quantize_config.json": '{"bits": 4, "group_size": 128, "desc_act": true}'}, "GPTQ weights"),
        ({"measurement.json": "{}", "output.safetensors": ""}, "EXL2 weights"),
    ],
)
def test_files_beside_the_weights_tell_too(files: dict[str, str], words: str, folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_text(content)
    refused(folder, words)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"q.qweight": ("I32", (64, 8)), "q.qzeros": ("I32", (1, 8)), "q.scales": ("F16", (1, 64))}, "AWQ weights"),
        ({"q.qweight": ("I32", (8, 64)), "q.scales": ("F16", (1, 64))}, "GPTQ weights"),
        ({"q.qweight": ("I32", (8, 64)), "q.g_idx": ("I32", (64,))}, "GPTQ weights"),
        ({"q.weight_packed": ("I32", (8, 64))}, "compressed-tensors"),
        ({"q.weight.absmax": ("U8", (8,)), "q.weight": ("U8", (8, 1))}, "bitsandbytes"),
        ({"q.q_invperm": ("I32", (8,))}, "EXL2"),
        ({"q.trellis": ("I32", (8,))}, "EXL3"),
        ({"q.weight": ("I32", (8, 8)), "q.scales": ("F16", (8, 1)), "q.biases": ("F16", (8, 1))}, "MLX-quantised"),
        ({"q.weight": ("F8_E4M3", (8, 8)), "q.weight_scale": ("F32", (1,))}, "FP8 weights"),
    ],
)
def test_the_tensors_tell_where_nothing_else_does(tensors: dict[str, Entry], words: str, tmp_path: Path) -> None:
    refused(make(tmp_path / "m", tensors=tensors), words)


# Folders that are not whole ---------------------------------------------------------------------------------------------


def test_missing_parts_are_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    refused(
        folder, r"1 of 2 weight files that model\.safetensors\.index\.json tells of are missing: model-00002-of-00002"
    )
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "1 of 2 weight files that model-00001-of-00002.safetensors tells of are missing")
    (folder / "model.safetensors.index.json").write_text("{}")
    refused(folder, "it has no weight_map")


def test_cut_and_foreign_weight_files_are_named(folder: Path) -> None:
    write_weights(folder / "model.safetensors", {"a": ("BF16", (64, 64))}, cut_bytes=5)
    refused(folder, r"model\.safetensors: truncated: tensor 'a'")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(folder, "Git LFS pointer")
    (folder / "model.safetensors").write_bytes(b"")
    refused(folder, "not a whole safetensors file")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 3) + b"[1]")
    refused(folder, "header is not an object")


def test_a_missing_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, r"no tokenizer in this folder \(tokenizer\.json or tokenizer\.model\)")
    (folder / "tokenizer.model").write_bytes(b"x")
    assert read_folder(folder)


def test_pickles_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refused(folder, r"pickles \(pytorch_model\.bin\), which can run code.*save_pretrained")


def test_adapters_and_makers_layouts(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    refused(tmp_path, r"a LoRA adapter \(trained on org/base\), not a model")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    refused(tmp_path, "a LoRA adapter")
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    (tmp_path / "params.json").write_text("{}")
    refused(tmp_path, "their maker's own layout")
    (tmp_path / "consolidated.00.pth").unlink()
    (tmp_path / "model.onnx").write_bytes(b"")
    refused(tmp_path, "ONNX weights")


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    refused(tmp_path, "neither a GGUF file nor a model folder")
    (tmp_path / "x.Q4_K_M.gguf").write_bytes(b"")
    refused(tmp_path, r"name one of its GGUF files: x\.Q4_K_M\.gguf")
    (tmp_path / "config.json").write_text("[")
    refused(tmp_path, "not a JSON object")
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    refused(tmp_path, r"no \*\.safetensors")


# GGUF files that are no models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.type": "adapter", "general.architecture": "llama"}, "a LoRA adapter in GGUF form"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, r"\(mmproj\), not the model"),
        ({"general.architecture": "clip"}, r"\(mmproj\)"),
        ({"general.type": "imatrix"}, "statistics for quantisation"),
    ],
)
def test_gguf_files_that_are_no_models(metadata: dict[str, object], words: str, tmp_path: Path) -> None:
    refused(ggufs.write(tmp_path / "m.gguf", metadata, [("a", (32,), 0)]), words)


def test_a_vocabulary_alone(tmp_path: Path) -> None:
    refused(ggufs.write(tmp_path / "m.gguf", {"general.architecture": "llama"}), "a vocabulary without weights")
