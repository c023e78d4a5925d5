"""A setting for tests, with what they change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.claims.setting import TINY, Setting


def setting(**changes: object) -> Setting:
    """Tiny, llama.cpp, the demo model."""
    fields: dict[str, object] = {
        "model": "demo", "draft": "demo", "engine": "llamacpp", "python": None, "torch_python": sys.executable, "workdir": Path("work"),
        "has_gpu": False, "scale": TINY, "seed": 1, "repeats": 3, "is_synthetic": False,
    }  # fmt: skip
    return Setting(**{**fields, **changes})  # type: ignore[arg-type]


def model_folder(folder: Path, layers: int, num_bytes: int) -> Path:
    """A model's shape, its weights holes of that size."""
    folder.mkdir()
    config = {
        "num_hidden_layers": layers, "num_key_value_heads": 8, "num_attention_heads": 32, "hidden_size": 4096, "head_dim": 128,
        "vocab_size": 128256,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(num_bytes)
    return folder
