"""How a model folder of the family is laid out. Numpy only."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifacts import Tensor, bf16_tensor, write_tensors
from backends.demo import TARGET_DIR
from backends.demo.shapes import Shape

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def write_model(
    out: Path,
    shape: Shape,
    weights: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]],
    tokenizer_dir: Path = TARGET_DIR,
) -> None:
    """Write `weights` (float32 by Hugging Face's names) as a bf16 model folder with config and tokenizer.

    Raises ValueError if a tensor is missing or misshapen, ArtifactError if the disk refuses.
    """
    expected = shape.tensor_shapes()
    actual = {name: tuple(values.shape) for name, values in weights.items()}
    if actual != expected:
        wrong = sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))
        raise ValueError(f"tensors missing or misshapen: {wrong}")
    tensors: dict[str, Tensor] = {name: bf16_tensor(values) for name, values in weights.items()}
    write_tensors(out / "model.safetensors", tensors)
    for name, content in {
        "config.json": shape.hf_config(),
        "generation_config.json": shape.generation_config(),
    }.items():
        (out / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if tokenizer_dir.resolve() != out.resolve():
        for name in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_dir / name, out / name)
