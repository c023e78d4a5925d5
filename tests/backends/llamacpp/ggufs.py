"""GGUF files with true heads and no data: sparse, so that a 70B model takes a few kilobytes of disk."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from backends.llamacpp.header import TYPE_SIZES

F32, F16, Q4_K, Q6_K = 0, 1, 12, 14
Tensors = Iterable[tuple[str, tuple[int, ...], int]]
"""Name, dimensions (fastest first), ggml type."""


def write(path: Path, metadata: Mapping[str, object], tensors: Tensors = (), cut_bytes: int = 0) -> Path:
    """`cut_bytes` are missing at the end."""
    listed = list(tensors)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, shape, kind in listed:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        num_values, num_bytes = TYPE_SIZES[kind]
        offset += -(-(math.prod(shape) // num_values * num_bytes) // 32) * 32
    path.write_bytes(head + b"\0" * (-len(head) % 32))
    os.truncate(path, path.stat().st_size + offset - cut_bytes)
    return path


def llama(
    path: Path,
    *,
    layers: int,
    width: int,
    inner: int,
    heads: int,
    kv_heads: int | list[int],
    head: int,
    vocabulary: int,
    length: int,
    arch: str = "llama",
    experts: int = 0,
    used: int = 0,
    is_tied: bool = False,
    kind: int = Q4_K,
    **more: object,
) -> Path:
    """A model of Llama's kind; `more` metadata of its architecture, `__` for dots."""
    metadata: dict[str, object] = {
        "general.architecture": arch, "general.file_type": 15, "tokenizer.ggml.model": "no_vocab",
        f"{arch}.vocab_size": vocabulary, f"{arch}.context_length": length, f"{arch}.embedding_length": width,
        f"{arch}.block_count": layers, f"{arch}.feed_forward_length": inner, f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": kv_heads, f"{arch}.attention.key_length": head,
        f"{arch}.attention.value_length": head, f"{arch}.rope.dimension_count": head,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    if experts:
        metadata |= {f"{arch}.expert_count": experts, f"{arch}.expert_used_count": used}
    metadata |= {f"{arch}.{key.replace('__', '.')}": value for key, value in more.items()}
    per_layer = kv_heads if isinstance(kv_heads, list) else [kv_heads] * layers
    sizes = _Sizes(width, inner, heads * head, head, vocabulary, experts, is_tied, kind)
    return write(path, metadata, _llama_tensors(arch, per_layer, sizes))


class _Sizes(NamedTuple):
    width: int
    inner: int
    queries: int
    head: int
    vocabulary: int
    experts: int
    is_tied: bool
    kind: int


def _llama_tensors(arch: str, kv_heads: list[int], sizes: _Sizes) -> Iterator[tuple[str, tuple[int, ...], int]]:
    width, inner, queries, head, vocabulary, experts, is_tied, kind = sizes
    yield "token_embd.weight", (width, vocabulary), kind
    yield "output_norm.weight", (width,), F32
    if not is_tied:
        yield "output.weight", (width, vocabulary), Q6_K if kind == Q4_K else kind
    norms = ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if arch == "gemma2" else [])
    for index, num_kv in enumerate(kv_heads):
        block = f"blk.{index}."
        yield from ((f"{block}{name}.weight", (width,), F32) for name in norms)
        yield f"{block}attn_q.weight", (width, queries), kind
        yield f"{block}attn_output.weight", (queries, width), kind
        for name in ("attn_k", "attn_v"):
            yield f"{block}{name}.weight", (width, num_kv * head), kind
        if arch == "qwen2":
            biases = {"q": queries, "k": num_kv * head, "v": num_kv * head}
            yield from ((f"{block}attn_{name}.bias", (size,), F32) for name, size in biases.items())
        if experts:
            yield f"{block}ffn_gate_inp.weight", (width, experts), F32
        end, more = ("_exps", (experts,)) if experts else ("", ())
        yield f"{block}ffn_gate{end}.weight", (width, inner, *more), kind
        yield f"{block}ffn_up{end}.weight", (width, inner, *more), kind
        yield f"{block}ffn_down{end}.weight", (inner, width, *more), kind


def llama_8b(path: Path) -> Path:
    """Llama 3.1 8B, Q4_K with Q6_K output."""
    return llama(
        path, layers=32, width=4096, inner=14336, heads=32, kv_heads=8, head=128, vocabulary=128_256, length=131_072
    )


def llama_70b(path: Path) -> Path:
    return llama(
        path, layers=80, width=8192, inner=28_672, heads=64, kv_heads=8, head=128, vocabulary=128_256, length=131_072
    )


def qwen_7b(path: Path) -> Path:
    """Qwen2.5 7B."""
    return llama(
        path, arch="qwen2", layers=28, width=3584, inner=18_944, heads=28, kv_heads=4, head=128, vocabulary=152_064,
        length=32_768,
    )  # fmt: skip


def mixtral(path: Path) -> Path:
    """Mixtral 8x7B."""
    return llama(
        path, layers=32, width=4096, inner=14_336, heads=32, kv_heads=8, head=128, vocabulary=32_000, length=32_768,
        experts=8, used=2,
    )  # fmt: skip


def gemma_9b(path: Path) -> Path:
    """Gemma 2 9B: every other layer sees a window, the output matrix is that of the input."""
    return llama(
        path, arch="gemma2", layers=42, width=3584, inner=14_336, heads=16, kv_heads=8, head=256, vocabulary=256_000,
        length=8192, is_tied=True, attention__sliding_window=4096, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    )  # fmt: skip


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case list() if value and isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        case list():
            return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    raise TypeError(f"no metadata of type {type(value)}")
