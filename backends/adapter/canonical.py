"""The one form in which versions are stored: equal adapters become equal bytes, and every engine reads them alike.

    lora_B <- scale * lora_B    scale = alpha / r, or alpha / sqrt(r), by PEFT's patterns for each module; then lora_alpha = r, scale 1
    rank   <- the highest of all modules, the others padded with zeros
    F32, names sorted, a configuration without patterns

llama.cpp's converter reads only `lora_alpha`, vLLM ignores patterns: both would scale some modules wrongly, and not say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backends.adapter.base import LAYER
from backends.adapter.manifest import file_digest
from backends.adapter.subject import Subject, tensor_name
from backends.adapter.upload import CONFIG, WEIGHTS

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Canonical:
    """What was written: `files` by name with their digests, `targets` last names, `layers` numbers."""

    rank: int
    targets: list[str]
    layers: list[int]
    num_modules: int
    num_parameters: int
    size_bytes: int
    files: dict[str, str]


def write_canonical(subject: Subject, folder: Path) -> Canonical:
    """The two files into the empty `folder`; one tensor at a time is in memory. `subject` has no faults. Raises OSError."""
    rank = max(subject.matches[module].rank for module in subject.factors)
    shapes = {
        tensor_name(module, factor): _padded_shape(subject, module, factor, rank)
        for module in subject.factors
        for factor in "AB"
    }
    with (folder / WEIGHTS).open("xb") as out:
        _write_header(out, shapes)
        for module, factor in _in_order(subject):
            out.write(_folded(subject, module, factor, rank).astype("<f4").tobytes())
    (folder / CONFIG).write_text(json.dumps(_config(subject, rank), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Canonical(
        rank=rank,
        targets=sorted({_last(module) for module in subject.factors}),
        layers=sorted({int(found[1]) for module in subject.factors if (found := LAYER.search(module))}),
        num_modules=len(subject.factors),
        num_parameters=sum(math.prod(entry.shape) for pair in subject.factors.values() for entry in pair.values()),
        size_bytes=(folder / WEIGHTS).stat().st_size,
        files={name: file_digest(folder / name) for name in (CONFIG, WEIGHTS)},
    )


def _in_order(subject: Subject) -> Iterator[tuple[str, str]]:
    names = {tensor_name(module, factor): (module, factor) for module in subject.factors for factor in "AB"}
    return iter(names[name] for name in sorted(names))


def _padded_shape(subject: Subject, module: str, factor: str, rank: int) -> tuple[int, int]:
    rows, columns = subject.factors[module][factor].shape
    return (rank, columns) if factor == "A" else (rows, rank)


def _write_header(out: BinaryIO, shapes: dict[str, tuple[int, int]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in sorted(shapes.items()):
        end = at + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)


def _folded(subject: Subject, module: str, factor: str, rank: int) -> Floats:
    values = subject.weights.tensor(subject.factors[module][factor].name).to_f32()
    if factor == "B":
        # One rounding: the product of two floats of 24 bits is exact in float64.
        values = (values.astype(np.float64) * subject.matches[module].scale).astype(np.float32)
    padded = np.zeros(_padded_shape(subject, module, factor, rank), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded


def _config(subject: Subject, rank: int) -> dict[str, Any]:
    """Without names of models and versions of trainers: those are no part of what an adapter computes."""
    return {
        "alpha_pattern": {}, "base_model_name_or_path": None, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": rank, "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA",
        "r": rank, "rank_pattern": {}, "target_modules": _targets(subject), "task_type": "CAUSAL_LM", "use_dora": False,
        "use_rslora": False,
    }  # fmt: skip


def _targets(subject: Subject) -> list[str]:
    """Last names where every layer has them, else whole ones: PEFT puts adapters on all that these name."""
    every = set(range(subject.base.num_layers))
    layers: dict[str, set[int]] = {}
    for module in subject.factors:
        found = LAYER.search(module)
        layers.setdefault(_last(module), set()).update([int(found[1])] if found else every)
    is_even = all(numbers == every for numbers in layers.values())
    return sorted(layers) if is_even else sorted(subject.factors)


def _last(module: str) -> str:
    return module.rsplit(".", 1)[-1]
