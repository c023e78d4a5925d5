"""The GGUF form of a stored version for llama.cpp: of Llama-shaped models, whose rotary embedding is laid out otherwise there.

F32, as the canonical weights are: on the demo's F32 base the adapter's effect on the logits is then within 2e-6 of PEFT's (rms), as
F16 within 2e-4, since llama.cpp rounds what it multiplies with them as well. The price is some megabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backends.adapter.base import Base
from backends.adapter.subject import PREFIX
from backends.adapter.upload import WEIGHTS
from backends.artifacts import read_tensors
from backends.errors import BackendError

GGUF = "adapter.gguf"
SOURCE_KEY, VERSION_KEY = "forgegate.base_source_digest", "forgegate.adapter_digest"


class NotConvertible(BackendError):
    """llama.cpp has no place for a part of the adapter."""

    exit_code = 2


Floats = np.ndarray[Any, np.dtype[np.float32]]


def write_gguf(version: Path, base: Base, rank: int, digest: str, out: Path) -> None:
    """`version` holds the canonical weights, `base` must be Llama-shaped (`is_llama`). Raises NotConvertible, OSError, ArtifactError."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, base.num_layers)
    writer = gguf.GGUFWriter(out, "llama")
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))  # over the rank: a scale of 1
        writer.add_string(SOURCE_KEY, base.source_digest)
        writer.add_string(VERSION_KEY, digest)
        for name, tensor in sorted(read_tensors(version / WEIGHTS).items()):
            module, factor = _parts(name)
            target = names.get_name(module)
            if target is None:
                raise NotConvertible(f"llama.cpp has no matrix for {module}")
            values = tensor.to_f32()
            if factor == "b":
                values = rotated(values, module, base)
            writer.add_tensor(f"{target}.weight.lora_{factor}", np.ascontiguousarray(values))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _parts(name: str) -> tuple[str, str]:
    module, factor = name.removeprefix(PREFIX).removesuffix(".weight").rsplit(".lora_", 1)
    return module, factor.lower()


def rotated(lora_b: Floats, module: str, base: Base) -> Floats:
    """The rows of q and k from halves (transformers) to pairs (llama.cpp), head by head, as its converter reorders the base's own."""
    if module.endswith(".q_proj"):
        return _permuted(lora_b, base.num_heads)
    if module.endswith(".k_proj"):
        return _permuted(lora_b, base.num_kv_heads)
    return lora_b


def _permuted(rows: Floats, num_heads: int) -> Floats:
    num_rows, rank = rows.shape
    halves = rows.reshape(num_heads, 2, num_rows // num_heads // 2, rank)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(num_rows, rank))
