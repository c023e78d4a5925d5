"""Merging, tensor by tensor: float32 sums, one rounding, everything else byte for byte the base's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.adapter.upload import WEIGHTS
from backends.artifacts import Tensor, bf16_tensor, read_tensors, write_tensors
from backends.modelfolder import tensors_of
from finetune.errors import RecipeUnusable, TrainError
from finetune.export import merge
from finetune.export.merge import changes, merge_file, rounded

Floats = np.ndarray[Any, np.dtype[np.float32]]
MODULE = "model.layers.0.self_attn.q_proj"
RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> Floats:
    return RANDOM.standard_normal(shape).astype(np.float32)


def stored(values: Floats, dtype: str = "F32") -> Tensor:
    if dtype == "BF16":
        return bf16_tensor(values)
    kind = {"F32": np.float32, "F16": np.float16}[dtype]
    return Tensor(dtype, values.shape, np.ascontiguousarray(values.astype(kind)).reshape(-1).view(np.uint8))


def adapter(folder: Path, a: Floats, b: Floats) -> Path:
    folder.mkdir(exist_ok=True)
    names = {f"base_model.model.{MODULE}.lora_{factor}.weight": stored(v) for factor, v in (("A", a), ("B", b))}
    write_tensors(folder / WEIGHTS, names)
    return folder


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_nearest_value_of_the_bases_dtype_and_nothing_else_changes(tmp_path: Path, dtype: str) -> None:
    weight, a, b = floats(6, 5), floats(2, 5), floats(6, 2)
    base = {f"{MODULE}.weight": stored(weight, dtype), "norm.weight": stored(floats(5), dtype), "z": stored(floats(3))}
    write_tensors(tmp_path / "model.safetensors", base)
    told: list[str] = []
    merge_file(tmp_path / "model.safetensors", tmp_path / "out", changes(adapter(tmp_path / "a", a, b)), told.append)
    assert told == [f"{MODULE}.weight"]
    merged = read_tensors(tmp_path / "out")
    exact = base[f"{MODULE}.weight"].to_f32().astype(np.float64) + b.astype(np.float64) @ a.astype(np.float64)
    error = np.abs(merged[f"{MODULE}.weight"].to_f32() - exact)
    half_step = np.exp2(np.floor(np.log2(np.abs(exact))) - {"F32": 23, "F16": 10, "BF16": 7}[dtype] - 1)
    assert (error <= half_step + 1e-6).all()
    assert error.max() > 0
    for name in ("norm.weight", "z"):
        assert merged[name].data.tobytes() == base[name].data.tobytes()
    assert (tmp_path / "out").stat().st_size == (tmp_path / "model.safetensors").stat().st_size


def test_rounding_is_to_the_nearest_even() -> None:
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)  # between two bfloat16 each
    assert np.frombuffer(rounded("w", halfway, "BF16"), np.uint16).tolist() == [0x3F80, 0x3F82]


@pytest.mark.parametrize("num_cut", [1, 40, 100])
def test_a_base_that_is_cut_meanwhile_is_said(tmp_path: Path, num_cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(
        path, {f"{MODULE}.weight": stored(floats(6, 5)), "norm.weight": stored(floats(5)), "z": stored(floats(3))}
    )
    known = list(tensors_of(path))
    os.truncate(path, path.stat().st_size - num_cut)
    monkeypatch.setattr(merge, "tensors_of", lambda _: known)
    changed = changes(adapter(tmp_path / "a", floats(2, 5), floats(6, 2)))
    with pytest.raises(TrainError, match=r"model\.safetensors became shorter while it was read"):
        merge_file(path, tmp_path / "out", changed, lambda _: None)


def test_what_a_dtype_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="beyond float16 after the merge: merge onto a bfloat16 copy"):
        rounded("w", np.array([7e4], np.float32), "F16")
    write_tensors(tmp_path / "m.safetensors", {f"{MODULE}.weight": Tensor("I8", (2, 2), np.zeros(4, np.uint8))})
    changed = changes(adapter(tmp_path / "a", floats(1, 2), floats(2, 1)))
    with pytest.raises(RecipeUnusable, match="stored as I8: a merge needs the full-precision model"):
        merge_file(tmp_path / "m.safetensors", tmp_path / "out", changed, lambda _: None)
    write_tensors(tmp_path / "n.safetensors", {f"{MODULE}.weight": stored(floats(2, 2))})
    broken = changes(adapter(tmp_path / "b", floats(1, 2), np.full((2, 1), np.inf, np.float32)))
    with pytest.raises(RecipeUnusable, match="no finite numbers after the merge"):
        merge_file(tmp_path / "n.safetensors", tmp_path / "out2", broken, lambda _: None)
