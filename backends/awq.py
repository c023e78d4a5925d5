"""AWQ: 4-bit weights in groups of a row, each with a scale and a zero point; a folder that vLLM serves. What a model becomes; pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.errors import ModelUnusable
from backends.modelfolder import StoredTensor, read_config, stored_tensors, tokenizer_files, weight_files

GROUPS = (128, 64)
"""Columns that share a scale, the usual one first."""
_ROWS = 64
"""AutoAWQ works on so many rows at once, and needs a multiple of them; eight are packed in one word."""
_ROUTERS = {"mixtral", "deepseek_v2", "deepseek_v3"}
"""Families whose routers AutoAWQ leaves as they are: by its own list, or because they are no linear layers."""
_ROUTER = ".gate.weight"
_MATRIX = re.compile(r"\.(?:layers|h|blocks)\.\d+\..+\.weight$")


@dataclass(frozen=True, slots=True)
class AwqPlan:
    model_type: str
    group_size: int
    tensor_bytes: int
    num_values: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.tensor_bytes / self.num_values


def plan_awq(folder: Path) -> AwqPlan:
    """Raises ModelUnusable: a GGUF, quantised already, or of a shape that no group size divides."""
    if not folder.is_dir():
        raise ModelUnusable(f"{folder}: AWQ is made from a model's folder of safetensors, not from a GGUF file")
    config = read_config(folder)
    _refuse_quantised(folder, config.get("quantization_config"))
    tokenizer_files(folder)
    tensors = stored_tensors(weight_files(folder))
    if config.get("tie_word_embeddings"):
        tensors = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    model_type = str(config.get("model_type", ""))
    matrices = {name: tensor for name, tensor in tensors.items() if _is_packed(name, tensor, model_type)}
    if not matrices:
        raise ModelUnusable(f"{folder}: no linear layers in it that AWQ could quantise")
    group_size = _group_size(folder, matrices)
    num_bytes = sum(_bytes(tensor, group_size if name in matrices else 0) for name, tensor in tensors.items())
    num_values = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return AwqPlan(model_type, group_size, num_bytes, num_values)


def _refuse_quantised(folder: Path, said: Any) -> None:
    """`said`: what the configuration tells of it."""
    if said:
        method = said.get("quant_method", "another method") if isinstance(said, dict) else "another method"
        raise ModelUnusable(f"{folder}: it is quantised already ({method}); give the weights that it was made from")


def _is_packed(name: str, tensor: StoredTensor, model_type: str) -> bool:
    """Whether AutoAWQ puts this tensor into 4 bits."""
    is_left_out = model_type in _ROUTERS and name.endswith(_ROUTER)
    return _MATRIX.search(name) is not None and len(tensor.shape) == 2 and not is_left_out


def _group_size(folder: Path, matrices: dict[str, StoredTensor]) -> int:
    for group_size in GROUPS:
        if all(tensor.shape[1] % group_size == 0 and tensor.shape[0] % _ROWS == 0 for tensor in matrices.values()):
            return group_size
    least = GROUPS[-1]
    name, tensor = next(
        (name, tensor)
        for name, tensor in matrices.items()
        if tensor.shape[1] % least != 0 or tensor.shape[0] % _ROWS != 0
    )
    raise ModelUnusable(
        f"{folder}: AWQ needs rows of a multiple of {least} weights, and a multiple of {_ROWS} of them; {name} has "
        f"{tensor.shape[0]:,} rows of {tensor.shape[1]:,}: take a GGUF level instead"
    )


def _bytes(tensor: StoredTensor, group_size: int) -> int:
    """Weights of 4 bits, for each group a scale of 16 bits and a zero point of 4; all else 16 bits."""
    count = math.prod(tensor.shape)
    return count // 2 + count // group_size * 2 + count // group_size // 2 if group_size else 2 * count
