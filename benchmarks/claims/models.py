"""Model folders that claims are measured on: where they lie, and what they take."""

import json
from pathlib import Path
from typing import Any

DEMO = "demo"
DEMO_TARGET, DEMO_DRAFT = (
    Path(__file__).parents[2] / "backends" / "demo" / "weights" / name for name in ("target", "draft")
)


def token_bytes(model: Path) -> int:
    """Of one token in the KV cache, 16 bits a number."""
    config = config_of(model)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return 4 * int(config["num_hidden_layers"]) * int(config["num_key_value_heads"]) * int(head)


def weight_bytes(model: Path) -> int:
    """Of its safetensors."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def config_of(model: Path) -> dict[str, Any]:
    """Its config.json."""
    found: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
    return found
