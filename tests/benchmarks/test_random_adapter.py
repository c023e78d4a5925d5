"""What is written is what PEFT and the gateway's own reader take for an adapter of the base's shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from backends.demo import TARGET_DIR
from benchmarks import random_adapter


def test_shapes_are_the_models_and_seeds_differ(tmp_path: Path) -> None:
    size = random_adapter.write(TARGET_DIR, tmp_path / "one", 8, seed=1)
    random_adapter.write(TARGET_DIR, tmp_path / "two", 8, seed=2)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert sum(tensor.nbytes for tensor in one.values()) == size
    assert len(one) == 8 * 7 * 2
    name = "base_model.model.model.layers.0.self_attn.k_proj"
    assert one[f"{name}.lora_A.weight"].shape == (8, 256)
    assert one[f"{name}.lora_B.weight"].shape == (128, 8)
    assert not np.array_equal(one[f"{name}.lora_B.weight"], two[f"{name}.lora_B.weight"])
    assert 0.005 < float(one[f"{name}.lora_B.weight"].std()) < 0.02
