"""What of a model decides the memory it takes: layer by layer, from a GGUF's head or, before a conversion, from its folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.llamacpp.header import FLOAT_TYPES, Header
from backends.llamacpp.purpose import ENCODERS
from backends.modelfolder import StoredTensor

_BLOCK = re.compile(r"(?:enc\.|dec\.)?blk\.(\d+)\.(.+)")
_HF_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)")
_HF_ELSEWHERE = re.compile(r"(?:^|\.)(?:visual|vision\w*|audio\w*|multi_modal_projector|mm_projector)\.")
"""Images and sound have a file of their own, which is not made here."""
_ATTENTION = ("attn_k.", "attn_v.", "attn_qkv.", "attn_kv_a_mqa.", "attn_kv_b.", "attn_k_b.")
_STATE = ("ssm_", "time_mix_", "shortconv.")


@dataclass(frozen=True, slots=True)
class Layer:
    """`k_width` and `v_width`: values that a KV cell holds here; `state_values`: float32 that a sequence keeps (recurrent models)."""

    weight_bytes: int
    k_width: int
    v_width: int
    state_values: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """All that the memory of a model depends on."""

    layers: tuple[Layer, ...]
    input_bytes: int
    """Token embeddings and the like: they stay in RAM whatever is on a GPU."""
    output_bytes: int
    """Output matrix and norm: the one "layer" more that can be on a GPU."""
    tied_bytes: int
    """Of the token embeddings, where they are the output matrix as well: a GPU needs a copy."""
    trained_length: int
    vocabulary: int
    embedding: int
    num_heads: int
    attention_width: int
    """Query values of a token in a layer."""
    feed_forward: int
    """Inner values of a token in a layer, over the experts that it uses."""
    has_window: bool
    is_quantised: bool
    """llama.cpp repacks quantised weights for the CPU: then each engine has a copy of its own."""

    @property
    def weight_bytes(self) -> int:
        return self.input_bytes + self.output_bytes + sum(layer.weight_bytes for layer in self.layers)


def shape_of(parts: Sequence[Header]) -> Shape | None:
    """The shape of a GGUF model; None where its head does not say enough (unusual architectures)."""
    head = parts[0]
    sizes = {name: size for part in parts for name, size in part.tensor_bytes.items()}
    dimensions = {tensor.name: tensor.shape for part in parts for tensor in part.tensors}
    num_layers, embedding = head.number("block_count"), head.number("embedding_length")
    if not num_layers or not embedding or num_layers > 10_000:
        return None
    table = dimensions.get("token_embd.weight", (embedding, 0))
    is_tied = "output.weight" not in sizes
    heads = _per_layer(head, "attention.head_count", num_layers, 0)
    key_length = head.number("attention.key_length") or embedding // (heads[0] or max(heads) or 1)
    outside = {name: size for name, size in sizes.items() if not _BLOCK.fullmatch(name)}
    output_bytes = sum(size for name, size in outside.items() if name.startswith("output"))
    return Shape(
        layers=tuple(_layers(head, sizes, num_layers, key_length)),
        input_bytes=sum(outside.values()) - output_bytes,
        output_bytes=output_bytes,
        tied_bytes=sizes.get("token_embd.weight", 0) if is_tied else 0,
        trained_length=head.context_length or 0,
        vocabulary=table[1] if len(table) > 1 else 0,
        embedding=embedding,
        num_heads=max(heads),
        attention_width=max(heads) * key_length,
        feed_forward=_feed_forward(head, num_layers),
        has_window=bool(head.number("attention.sliding_window")),
        is_quantised=any(tensor.type not in FLOAT_TYPES for part in parts for tensor in part.tensors),
    )


def _layers(head: Header, sizes: Mapping[str, int], num_layers: int, key_length: int) -> Iterable[Layer]:
    inside: list[dict[str, int]] = [{} for _ in range(num_layers)]
    for name, size in sizes.items():
        match = _BLOCK.fullmatch(name)
        if match and int(match[1]) < num_layers:
            inside[int(match[1])][match[2]] = size
    kv_heads = _kv_heads(head, num_layers)
    value_length = head.number("attention.value_length") or key_length
    key_length = max(key_length, head.number("attention.key_length_swa") or 0)
    value_length = max(value_length, head.number("attention.value_length_swa") or 0)
    if head.number("attention.key_length_mla"):
        value_length = 0  # one compressed row serves as both
    indexer = head.number("attention.indexer.key_length") or 0
    num_cached = num_layers - (head.number("nextn_predict_layers") or 0)
    num_cached -= head.number("attention.shared_kv_layers") or 0
    keeps = head.architecture not in ENCODERS
    for index, (tensors, num_kv) in enumerate(zip(inside, kv_heads, strict=True)):
        attends = keeps and index < num_cached and any(name.startswith(_ATTENTION) for name in tensors)
        yield Layer(
            weight_bytes=sum(tensors.values()),
            k_width=num_kv * key_length + indexer if attends else 0,
            v_width=num_kv * value_length if attends else 0,
            state_values=_state_values(head) if any(name.startswith(_STATE) for name in tensors) else 0,
        )


def _kv_heads(head: Header, num_layers: int) -> list[int]:
    heads = _per_layer(head, "attention.head_count", num_layers, 0)
    return _per_layer(head, "attention.head_count_kv", num_layers, None) or heads


def _per_layer(head: Header, key: str, num_layers: int, fallback: int | None) -> list[int]:
    """A number, or one for each layer; empty (or the fallback, repeated) where it is not given."""
    value = head.metadata.get(f"{head.architecture}.{key}")
    if isinstance(value, tuple) and len(value) >= num_layers:
        return [int(item) for item in value[:num_layers]]
    if isinstance(value, int):
        return [value] * num_layers
    return [] if fallback is None else [fallback] * num_layers


def _feed_forward(head: Header, num_layers: int) -> int:
    dense = max(_per_layer(head, "feed_forward_length", num_layers, 0))
    used = max(_per_layer(head, "expert_used_count", num_layers, 0))
    expert = max(_per_layer(head, "expert_feed_forward_length", num_layers, 0)) or dense
    shared = head.number("expert_shared_feed_forward_length") or 0
    recurrent = 2 * (head.number("ssm.inner_size") or 0)
    return max(dense, used * expert + shared, recurrent)


def _state_values(head: Header) -> int:
    """llama.cpp's llama_hparams::n_embd_r() + n_embd_s(), for Mamba's and RWKV's kind and LFM2's short convolutions."""
    embedding = head.number("embedding_length") or 0
    if wkv := head.number("wkv.head_size"):
        return embedding * (wkv + (head.number("token_shift_count") or 2))
    if short := head.number("shortconv.l_cache"):
        return embedding * (short - 1)
    inner, state = head.number("ssm.inner_size") or 0, head.number("ssm.state_size") or 0
    kernel, groups = head.number("ssm.conv_kernel") or 0, head.number("ssm.group_count") or 0
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


# Before a conversion ---------------------------------------------------------------------------------------------------


def converted_bytes(tensor: StoredTensor) -> int:
    """Its size in a GGUF: matrices become 16 bits wide, what has one dimension 32; packed integers stay as they are."""
    if tensor.dtype.startswith(("F", "BF")):
        return math.prod(tensor.shape) * (4 if len(tensor.shape) < 2 else 2)
    return tensor.num_bytes


def shape_of_folder(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Shape | None:
    """As `shape_of`, from config.json and the weights' headers; None where they do not say enough.

    An estimate, for planning before the conversion; afterwards the GGUF's own head is asked.
    """
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    embedding, heads = _count(text, "hidden_size", "n_embd"), _count(text, "num_attention_heads", "n_head")
    num_layers = _count(text, "num_hidden_layers", "n_layer")
    if not embedding or not num_layers or num_layers > 10_000:
        return None
    head_dim = _count(text, "head_dim") or (embedding // heads if heads else 0)
    kept = {name: tensor for name, tensor in tensors.items() if not _HF_ELSEWHERE.search(name)}
    outside = {name: converted_bytes(tensor) for name, tensor in kept.items() if not _HF_BLOCK.search(name)}
    table = sum(size for name, size in outside.items() if re.search(r"embed_tokens\.|wte\.|word_embeddings\.", name))
    is_tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    output = sum(size for name, size in outside.items() if re.search(r"lm_head\.|norm|ln_f", name))
    return Shape(
        layers=tuple(_folder_layers(text, kept, num_layers, head_dim)),
        input_bytes=sum(outside.values()) - output,
        output_bytes=output,
        tied_bytes=table if is_tied else 0,
        trained_length=_count(text, "max_position_embeddings", "n_positions", "n_ctx"),
        vocabulary=_count(text, "vocab_size") or _count(config, "vocab_size"),
        embedding=embedding,
        num_heads=heads,
        attention_width=heads * head_dim,
        feed_forward=_folder_feed_forward(text, embedding),
        has_window=bool(text.get("sliding_window")),
        is_quantised=any(not tensor.dtype.startswith(("F", "BF")) for tensor in kept.values()),
    )


def _folder_layers(
    text: Mapping[str, Any], tensors: Mapping[str, StoredTensor], num_layers: int, head_dim: int
) -> Iterable[Layer]:
    kv_heads = _count(text, "num_key_value_heads") or _count(text, "num_attention_heads", "n_head")
    k_width = v_width = kv_heads * head_dim
    if latent := _count(text, "kv_lora_rank"):
        k_width, v_width = latent + _count(text, "qk_rope_head_dim"), 0
    weights, attends = [0] * num_layers, [False] * num_layers
    for name, tensor in tensors.items():
        match = _HF_BLOCK.search(name)
        if match and int(match[1]) < num_layers:
            weights[int(match[1])] += converted_bytes(tensor)
            attends[int(match[1])] |= "attn" in match[2].replace("linear_attn", "") or "attention" in match[2]
    for size, is_attention in zip(weights, attends, strict=True):
        yield Layer(size, k_width if is_attention else 0, v_width if is_attention else 0)


def _folder_feed_forward(text: Mapping[str, Any], embedding: int) -> int:
    dense = _count(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * embedding
    used = _count(text, "num_experts_per_tok", "moe_topk", "num_experts_per_token")
    return max(dense, used * (_count(text, "moe_intermediate_size") or dense))


def _count(config: Mapping[str, Any], *keys: str) -> int:
    """The first of these keys that holds a whole number; 0 where none does."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0
