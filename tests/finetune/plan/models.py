"""config.json of public models, as far as a plan reads it, and recipes on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.plan.shape import ModelShape
from finetune.recipe.recipe import Data, Memory, Recipe, Steps


def llama(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    } | more  # fmt: skip


LLAMA_31_8B = llama(4096, 14336, 32, 32, 8, 128256)
LLAMA_31_70B = llama(8192, 28672, 80, 64, 8, 128256)
LLAMA_32_3B = llama(3072, 8192, 28, 24, 8, 128256, tie_word_embeddings=True, head_dim=128)
LLAMA_2_7B = llama(4096, 11008, 32, 32, 32, 32000)
LLAMA_2_13B = llama(5120, 13824, 40, 40, 40, 32000)
CODE_LLAMA_34B = llama(8192, 22016, 48, 64, 8, 32000)
LLAMA_2_70B = llama(8192, 28672, 80, 64, 8, 32000)
QWEN_25_7B = llama(3584, 18944, 28, 28, 4, 152064, model_type="qwen2")
QWEN_3_14B = llama(5120, 17408, 40, 40, 8, 151936, model_type="qwen3", head_dim=128)


def shape(config: dict[str, Any]) -> ModelShape:
    return ModelShape.of(config)


def folder(at: Path, config: dict[str, Any]) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    (at / "config.json").write_text(json.dumps(config))
    return at


def recipe(base: Path = Path("base"), **changes: Any) -> Recipe:
    """QLoRA of one row a time; `changes` go to whichever part has a field of that name."""
    made = Recipe(base=base, data=Data(sources=()), output_dir=Path("out"), steps=Steps(optimizer="paged_adamw_8bit"))
    for name, value in changes.items():
        for part in ("data", "steps", "memory", "lora"):
            if name in type(getattr(made, part)).__dataclass_fields__:
                made = replace(made, **{part: replace(getattr(made, part), **{name: value})})
                break
        else:
            made = replace(made, **{name: value})
    return made


PLAIN = Memory(packing=False, chunked_loss=False)
"""What transformers and TRL did before their loss was chunked."""
