"""Which models our own converter turns into GGUF without a mistake: the demo family, told apart from all other Llamas.

Other tokenizers and variants are llama.cpp's converter's business. Standard library only: the gateway asks, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.modelfolder import read_optional_json

_MODEL_SETTINGS: dict[str, tuple[Any, ...]] = {
    "type": ("BPE",), "byte_fallback": (True,), "dropout": (None,), "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""), "ignore_merges": (None, False),
}  # fmt: skip
_NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_DECODERS = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_PLAIN_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_CONFIG: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",), "attention_bias": (None, False), "mlp_bias": (None, False), "quantization_config": (None,),
    "partial_rotary_factor": (None, 1.0), "sliding_window": (None,),
}  # fmt: skip


def is_family(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether this folder's model and tokenizer are wholly of the kind that `convert` knows."""
    return config.get("architectures") == ["LlamaForCausalLM"] and not why_foreign(
        config, read_optional_json(folder / "tokenizer.json")
    )


def why_foreign(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str:
    """What is not of the family, in words; empty where all of it is."""
    for key, allowed in _CONFIG.items():
        if config.get(key) not in allowed:
            return f"{key} is {config.get(key)!r}"
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
        if kind != "default":
            return f"{key}: rope type {kind!r} is not supported"
    return _foreign_tokenizer(tokenizer)


def _foreign_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        return "there is no tokenizer.json with a model"
    for key, allowed in _MODEL_SETTINGS.items():
        if model.get(key) not in allowed:
            return f"the tokenizer must be a BPE with byte fallback: its {key} is {model.get(key)!r}"
    decoder = tokenizer.get("decoder")
    for name, is_right in (
        ("normalizer", tokenizer.get("normalizer") == _NORMALIZER),
        ("pre_tokenizer", tokenizer.get("pre_tokenizer") is None),
        ("post_processor", tokenizer.get("post_processor") is None),
        ("decoder", isinstance(decoder, dict) and decoder.get("decoders") == _DECODERS),
    ):
        if not is_right:
            return f"the tokenizer's {name} is not the family's"
    for token in tokenizer.get("added_tokens", ()):
        if any(token.get(key) != value for key, value in _PLAIN_ADDED.items()):
            return f"the added token {token.get('content')!r} is not a plain control token"
    return ""
