"""What tests of `forgegate quantize` share: the command as it is typed, and folders that have heads and no weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import cli

Run = Callable[..., tuple[int, str, str]]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """`forgegate quantize ...` in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["quantize", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def shape_8b(folder: Path) -> Path:
    """A folder with the heads of Llama-3.1-8B's weights, and no data: sparse."""
    width, inner, narrow, words = 4096, 14336, 1024, 128_256
    shapes = {
        "model.embed_tokens.weight": (words, width),
        "lm_head.weight": (words, width),
        "model.norm.weight": (width,),
    }
    for layer in range(32):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
        shapes |= {f"{block}self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{block}self_attn.{name}_proj.weight": (narrow, width) for name in "kv"}
        shapes |= {f"{block}mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes |= {f"{block}mlp.down_proj.weight": (width, inner)}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": words,
        "max_position_embeddings": 131_072, "tie_word_embeddings": False,
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return sparse(folder, shapes)


def sparse(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + offset)
    return folder
