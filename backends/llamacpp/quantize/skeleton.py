"""A GGUF with the shape of a model folder and no data: what llama.cpp's quantiser needs for a dry run, without converting anything.

For folders whose tensors are named and laid out as Llama's are, which is how most families store theirs; what has other names (experts,
fused projections) is laid out anew by llama.cpp's converter, so that its sizes are known only afterwards.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.errors import BackendError
from backends.llamacpp.folder import ModelFolder
from backends.modelfolder import StoredTensor

F32, F16 = 0, 1
_ALIGNMENT = 32
_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_proj.bias": "attn_q.bias", "self_attn.k_proj.bias": "attn_k.bias", "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight", "mlp.down_proj.weight": "ffn_down.weight",
}  # fmt: skip
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_BUFFERS = re.compile(r"\.rotary_emb\.inv_freq$")
"""Stored by old writers, not converted."""


class ShapeUnknown(BackendError):
    """This folder's tensors are laid out anew by the converter."""


def write_skeleton(folder: ModelFolder, path: Path) -> Path:
    """A sparse file: it takes a few kilobytes of disk. Raises ShapeUnknown, OSError."""
    tensors = list(_tensors(folder.config, folder.tensors))
    metadata = _metadata(folder.config)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, shape, kind in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        num_bytes = (4 if kind == F32 else 2) * math.prod(shape)
        offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT))
    os.truncate(path, path.stat().st_size + offset)
    return path


def _tensors(
    config: Mapping[str, Any], stored: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, tuple[int, ...], int]]:
    is_tied = bool(config.get("tie_word_embeddings"))
    for name, tensor in stored.items():
        if _BUFFERS.search(name) or (is_tied and name == "lm_head.weight"):
            continue
        shape = tuple(reversed(tensor.shape))
        yield _name(name), shape, F32 if len(shape) < 2 else F16


def _name(name: str) -> str:
    match = _LAYER.fullmatch(name)
    if match and match[2] in _INNER:
        return f"blk.{match[1]}.{_INNER[match[2]]}"
    if name in _OUTER:
        return _OUTER[name]
    raise ShapeUnknown(
        f"its tensor {name} is laid out anew by llama.cpp's converter, so that sizes are known after the conversion"
    )


def _metadata(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What the quantiser reads. It treats every architecture that has these tensors alike."""
    heads = _count(config, "num_attention_heads")
    head_dim = config.get("head_dim") or _count(config, "hidden_size") // heads
    return {
        "general.architecture": "llama",
        "general.file_type": F16,
        "tokenizer.ggml.model": "no_vocab",
        "llama.vocab_size": _count(config, "vocab_size"),
        "llama.context_length": _count(config, "max_position_embeddings"),
        "llama.embedding_length": _count(config, "hidden_size"),
        "llama.block_count": _count(config, "num_hidden_layers"),
        "llama.feed_forward_length": _count(config, "intermediate_size"),
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.rope.dimension_count": head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ShapeUnknown(f"its config.json has no {key}, so that sizes are known after the conversion")
    return value


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
