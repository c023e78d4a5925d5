"""base + B A, tensor by tensor: the adapter's scale is in B already, sums are float32, each weight is rounded once. Numpy, no torch.

A merged file has the base file's own header, so that nothing but the values of the merged matrices differs; one tensor is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backends.adapter.subject import PREFIX
from backends.adapter.upload import WEIGHTS
from backends.artifacts import Tensor, bf16_tensor, read_tensors
from backends.modelfolder import StoredTensor, tensors_of
from finetune.errors import RecipeUnusable, TrainError

Floats = np.ndarray[Any, np.dtype[np.float32]]
DTYPES = ("F32", "F16", "BF16")
_COPY_BYTES = 16 * 1024 * 1024
_A, _B, _WEIGHT = ".lora_A.weight", ".lora_B.weight", ".weight"


@dataclass(frozen=True, slots=True)
class Change:
    """What a canonical adapter adds to one matrix [out, in]: B [out, rank] times A [rank, in]."""

    a: Tensor
    b: Tensor

    def of(self, base: Floats) -> Floats:
        return np.asarray(base + self.b.to_f32() @ self.a.to_f32(), np.float32)


def changes(adapter: Path) -> dict[str, Change]:
    """By the names of the base's tensors. `adapter` is canonical: its scale is 1. Raises ArtifactError."""
    stored = read_tensors(adapter / WEIGHTS)
    modules = [name.removeprefix(PREFIX).removesuffix(_A) for name in stored if name.endswith(_A)]
    return {
        f"{module}{_WEIGHT}": Change(stored[f"{PREFIX}{module}{_A}"], stored[f"{PREFIX}{module}{_B}"])
        for module in modules
    }


def merge_file(source: Path, out: Path, changed: Mapping[str, Change], merging: Callable[[str], None]) -> None:
    """One weight file; `merging` is told the name of each tensor that is changed. Raises TrainError, ModelUnusable, OSError."""
    tensors = sorted(tensors_of(source), key=lambda item: item[1].begin)
    with source.open("rb") as reading, out.open("xb") as writing:
        for name, tensor in tensors:
            _copy(reading, writing, tensor.begin - reading.tell())
            if name in changed:
                merging(name)
                writing.write(_merged(reading, name, tensor, changed[name]))
            else:
                _copy(reading, writing, tensor.num_bytes)
        _copy(reading, writing, source.stat().st_size - reading.tell())


def _merged(reading: BinaryIO, name: str, tensor: StoredTensor, change: Change) -> bytes:
    if tensor.dtype not in DTYPES:
        raise RecipeUnusable(
            f"tensor {name} of the base is stored as {tensor.dtype}: a merge needs the full-precision model (F32, F16 or BF16)"
        )
    raw = np.frombuffer(_some(reading, tensor.num_bytes), np.uint8)
    values = change.of(Tensor(tensor.dtype, tensor.shape, raw).to_f32())
    if not np.isfinite(values).all():
        raise RecipeUnusable(
            f"tensor {name} has values that are no finite numbers after the merge: the adapter is damaged"
        )
    return rounded(name, values, tensor.dtype)


def rounded(name: str, values: Floats, dtype: str) -> bytes:
    """To the nearest value of `dtype`, ties to even. Raises RecipeUnusable where float16 cannot hold one."""
    if dtype == "BF16":
        return bf16_tensor(values).data.tobytes()
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        raise RecipeUnusable(
            f"tensor {name} has values beyond float16 after the merge: merge onto a bfloat16 copy of the base"
        )
    return halves.tobytes()


def _copy(reading: BinaryIO, writing: BinaryIO, num_bytes: int) -> None:
    while num_bytes > 0:
        num_next = min(num_bytes, _COPY_BYTES)
        writing.write(_some(reading, num_next))
        num_bytes -= num_next


def _some(reading: BinaryIO, num_bytes: int) -> bytes:
    """So many bytes. Raises TrainError where they are not there."""
    data = reading.read(num_bytes)
    if len(data) < num_bytes:
        raise TrainError(
            f"{reading.name} became shorter while it was read: export again once the base is left as it is"
        )
    return data
