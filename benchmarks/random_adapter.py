"""A LoRA adapter of random weights in PEFT's format, for the shape of a model folder: large enough to be told from the base."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STD_A, STD_B = 0.02, 0.01
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def write(model: Path, out: Path, rank: int, seed: int) -> int:
    """On all linear layers, in F32 as PEFT saves them; returns the weights' size in bytes."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    adapter = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": [*_ATTENTION, *_MLP], "base_model_name_or_path": model.name, "fan_in_fan_out": False,
        "inference_mode": True, "use_rslora": False, "use_dora": False, "modules_to_save": None,
    }  # fmt: skip
    (out / "adapter_config.json").write_text(json.dumps(adapter, indent=1), "utf-8")
    generator = np.random.default_rng(seed)
    shapes = list(_tensors(config, rank))
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _ in shapes:
        begin, end = end, end + 4 * shape[0] * shape[1]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    described = json.dumps(head).encode()
    described += b" " * (-len(described) % 8)
    with (out / "adapter_model.safetensors").open("wb") as file:
        file.write(len(described).to_bytes(8, "little") + described)
        for _, shape, std in shapes:
            file.write((generator.standard_normal(shape, dtype=np.float32) * np.float32(std)).tobytes())
    return end


def _tensors(config: dict[str, Any], rank: int) -> Iterator[tuple[str, tuple[int, int], float]]:
    """Name, shape and scale."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    sizes = {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    for layer in range(config["num_hidden_layers"]):
        for part, (num_in, num_out) in sizes.items():
            block = "self_attn" if part in _ATTENTION else "mlp"
            name = f"base_model.model.model.layers.{layer}.{block}.{part}"
            yield f"{name}.lora_A.weight", (rank, num_in), STD_A
            yield f"{name}.lora_B.weight", (num_out, rank), STD_B
