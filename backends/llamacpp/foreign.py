"""Weights in a form that llama.cpp cannot read, and which engine can: recognised by configuration, file names and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.modelfolder import StoredTensor, read_optional_json

_VLLM = "vLLM serves them (`vllm serve {path}`, then here --engine remote --model http://HOST:PORT)"
_EXLLAMA = "TabbyAPI (ExLlama{version}) serves them, behind --engine remote --model http://HOST:PORT"
_MLX = "`mlx_lm.server --model {path}` serves them on a Mac, behind --engine remote --model http://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Form:
    """`words` for `these are ... weights`, `served_by` a clause; empty where no engine is known."""

    words: str
    served_by: str = ""


AWQ, GPTQ = Form("AWQ", _VLLM), Form("GPTQ", _VLLM)
EXL2, EXL3 = Form("EXL2", _EXLLAMA.format(version="V2")), Form("EXL3", _EXLLAMA.format(version="V3"))
BITSANDBYTES, FP8 = Form("bitsandbytes", _VLLM), Form("FP8", _VLLM)
COMPRESSED, MLX = Form("compressed-tensors", _VLLM), Form("MLX-quantised", _MLX)
METHODS = {
    "awq": AWQ, "gptq": GPTQ, "marlin": GPTQ, "gptq_marlin": GPTQ, "exl2": EXL2, "exl3": EXL3,
    "bitsandbytes": BITSANDBYTES, "fp8": FP8, "fbgemm_fp8": FP8, "compressed-tensors": COMPRESSED,
    "modelopt": Form("ModelOpt", _VLLM), "quark": Form("Quark", _VLLM), "torchao": Form("TorchAO", _VLLM),
    "auto-round": Form("AutoRound", _VLLM),
}  # fmt: skip
"""quantization_config.quant_method."""
READABLE_METHODS = frozenset({"mxfp4", "bitnet"})
"""Stored so by their makers, with a form of their own in GGUF."""

_TENSOR_ENDS = (
    (".trellis", EXL3), (".q_scale_max", EXL2), (".q_invperm", EXL2), (".q_perm", EXL2), (".weight_packed", COMPRESSED),
    (".absmax", BITSANDBYTES), (".quant_map", BITSANDBYTES), (".g_idx", GPTQ),
)  # fmt: skip


def refusal_by_config(path: Path, config: Mapping[str, Any]) -> str:
    """Why these weights are not for llama.cpp, told by the folder's JSON files; empty where nothing speaks against them."""
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, dict) and quantisation.get("quant_method"):
        method = str(quantisation["quant_method"]).lower()
        if method in READABLE_METHODS:
            return ""
        return _refusal(path, METHODS.get(method, Form(repr(method) + "-quantised")))
    # MLX writes `quantization` (and a copy of it under the usual key), without a method.
    for key in ("quantization", "quantization_config"):
        section = config.get(key)
        if isinstance(section, dict) and {"bits", "group_size"} <= section.keys():
            return _refusal(path, MLX)
    if {"w_bit", "q_group_size"} <= read_optional_json(path / "quant_config.json").keys():
        return _refusal(path, AWQ)
    if {"bits", "group_size"} <= read_optional_json(path / "quantize_config.json").keys():
        return _refusal(path, GPTQ)
    if (path / "measurement.json").is_file() and (path / "output.safetensors").is_file():
        return _refusal(path, EXL2)
    return ""


def refusal_by_tensors(path: Path, tensors: Mapping[str, StoredTensor]) -> str:
    """As `refusal_by_config`, told by the tensors' names and types."""
    for end, form in _TENSOR_ENDS:
        if any(name.endswith(end) for name in tensors):
            return _refusal(path, form)
    packed = next((name for name in tensors if name.endswith(".qweight")), "")
    if packed:
        scales = tensors.get(packed.removesuffix("qweight") + "scales")
        # AWQ packs the columns, GPTQ the rows.
        is_gptq = scales is not None and scales.shape[-1:] == tensors[packed].shape[-1:]
        return _refusal(path, GPTQ if is_gptq else AWQ)
    if any(name.endswith(".scales") for name in tensors) and any(name.endswith(".biases") for name in tensors):
        return _refusal(path, MLX)
    if any(tensor.dtype in ("F8_E4M3", "F8_E5M2") for tensor in tensors.values()):
        return _refusal(path, FP8)
    return ""


def refusal_of_gguf(path: Path, kind: str, architecture: str, num_tensors: int) -> str:
    """Why a GGUF file is no model to serve (`kind`: its general.type); empty where it is one."""
    if kind == "adapter":
        return f"{path}: a LoRA adapter in GGUF form, not a model: serve the model that it was trained on"
    if kind == "mmproj" or architecture == "clip":
        return f"{path}: the image or sound encoder of a model (mmproj), not the model: name its main GGUF file"
    if kind == "imatrix":
        return f"{path}: statistics for quantisation (imatrix), not a model"
    if not num_tensors:
        return f"{path}: a vocabulary without weights, not a model"
    return ""


def refusal_of_leftovers(path: Path, names: Iterable[str]) -> str:
    """What a folder without safetensors is instead; empty where nothing is recognised."""
    names = sorted(names)
    if "adapter_config.json" in names:
        base = read_optional_json(path / "adapter_config.json").get("base_model_name_or_path")
        of = f" (trained on {base})" if base else ""
        return f"{path}: a LoRA adapter{of}, not a model: serve the model that it was trained on"
    pickles = [
        name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")) and name != "training_args.bin"
    ]
    if pickles and "config.json" in names:
        return (
            f"{path}: its weights are pickles ({pickles[0]}), which can run code when they are read; convert them, where you trust them, "
            f"to safetensors: python -c \"from transformers import AutoModelForCausalLM as M; "
            f"M.from_pretrained('{path}', dtype='auto').save_pretrained('NEW-FOLDER')\", and copy the tokenizer's files there"
        )  # fmt: skip
    if pickles or any(name.startswith("consolidated") for name in names):
        return f"{path}: weights in their maker's own layout: take the release in Hugging Face's layout, or a GGUF file"
    for end, words in ((".onnx", "ONNX"), (".h5", "TensorFlow"), (".msgpack", "Flax"), (".tflite", "TensorFlow Lite")):
        if any(name.endswith(end) for name in names):
            return f"{path}: {words} weights, which llama.cpp cannot read: give safetensors or a GGUF file"
    return ""


def _refusal(path: Path, form: Form) -> str:
    served_by = form.served_by.format(path=path) if form.served_by else "no engine here is known to serve them"
    return (
        f"{path}: these are {form.words} weights, which llama.cpp cannot read: {served_by}; "
        "for llama.cpp give the original weights or a GGUF file"
    )
