"""Which linear layers and which vectors the blocks of each family of models have, under the names that transformers gives them.

Each entry is held against the model that transformers builds of the same config.json, in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SPLIT = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = ("gate_proj", "up_proj", "down_proj")
FUSED_GATE = ("gate_up_proj", "down_proj")
HIDDEN, QUERY, KEY, QKV, MLP, TWO_MLP = "hidden", "query", "key", "qkv", "mlp", "two_mlp"
SIDES = {
    "q_proj": (QUERY, HIDDEN), "k_proj": (KEY, HIDDEN), "v_proj": (KEY, HIDDEN), "o_proj": (HIDDEN, QUERY), "dense": (HIDDEN, QUERY),
    "qkv_proj": (QKV, HIDDEN), "query_key_value": (QKV, HIDDEN), "gate_proj": (MLP, HIDDEN), "up_proj": (MLP, HIDDEN),
    "down_proj": (HIDDEN, MLP), "gate_up_proj": (TWO_MLP, HIDDEN), "fc1": (MLP, HIDDEN), "fc2": (HIDDEN, MLP), "c_fc": (MLP, HIDDEN),
    "c_proj": (HIDDEN, MLP), "dense_h_to_4h": (MLP, HIDDEN), "dense_4h_to_h": (HIDDEN, MLP),
}  # fmt: skip
"""(out, in) of a linear layer, by its name."""
HEAD_NORM, WHOLE_NORM = "head", "whole"


@dataclass(frozen=True, slots=True)
class Layout:
    attention: tuple[str, ...] = SPLIT
    mlp: tuple[str, ...] = GATED
    block_vectors: int = 2
    """Of the hidden size: weights of norms, and their biases."""
    final_vectors: int = 1
    query_norm: str = ""
    """`head`: queries and keys are normed by head; `whole`: all heads at once."""
    biased: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Linear layers with a bias by the key of config.json that says so; without key: always."""
    biased_by_default: bool = False
    """Where config.json lacks the key."""
    head_bias: bool = False
    is_tied: bool = False
    """Whether embeddings are the output head, where config.json does not say."""
    head_dim: int = 0
    """Where config.json does not say; 0: the hidden size by the number of heads."""

    @property
    def is_gated(self) -> bool:
        return len(self.mlp) == 3 or self.mlp == FUSED_GATE


_LLAMA_BIAS = {"attention_bias": SPLIT, "mlp_bias": GATED}
_ATTENTION_BIAS = {"attention_bias": SPLIT}
_QKV = ("q_proj", "k_proj", "v_proj")
LLAMA = Layout(biased=_LLAMA_BIAS)
LAYOUTS = {
    "llama": LLAMA,
    "mistral": Layout(),
    "ministral": Layout(),
    "ministral3": Layout(head_dim=128),
    "qwen2": Layout(biased={"": _QKV}),
    "qwen3": Layout(query_norm=HEAD_NORM, biased=_ATTENTION_BIAS, head_dim=128),
    "gemma": Layout(biased=_ATTENTION_BIAS, is_tied=True, head_dim=256),
    "gemma2": Layout(block_vectors=4, biased=_ATTENTION_BIAS, is_tied=True, head_dim=256),
    "gemma3_text": Layout(block_vectors=4, query_norm=HEAD_NORM, biased=_ATTENTION_BIAS, is_tied=True, head_dim=256),
    "phi": Layout(
        ("q_proj", "k_proj", "v_proj", "dense"), ("fc1", "fc2"), final_vectors=2, head_bias=True,
        biased={"": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")},
    ),
    "phi3": Layout(("qkv_proj", "o_proj"), FUSED_GATE),
    "granite": LLAMA,
    "smollm3": Layout(biased=_LLAMA_BIAS, is_tied=True),
    "olmo": Layout(block_vectors=0, final_vectors=0, biased=_ATTENTION_BIAS),
    "olmo2": Layout(query_norm=WHOLE_NORM, biased=_ATTENTION_BIAS),
    "olmo3": Layout(query_norm=WHOLE_NORM, biased=_ATTENTION_BIAS),
    "cohere": Layout(block_vectors=1, biased=_ATTENTION_BIAS, is_tied=True),
    "cohere2": Layout(block_vectors=1, biased=_ATTENTION_BIAS, is_tied=True),
    "stablelm": Layout(block_vectors=4, final_vectors=2, biased={"use_qkv_bias": _QKV}),
    "starcoder2": Layout(
        SPLIT, ("c_fc", "c_proj"), 4, 2, biased={"use_bias": (*SPLIT, "c_fc", "c_proj")}, biased_by_default=True, is_tied=True
    ),
    "glm": Layout(SPLIT, FUSED_GATE, biased={"attention_bias": _QKV}, head_dim=128),
    "glm4": Layout(SPLIT, FUSED_GATE, 4, biased={"attention_bias": _QKV}, head_dim=128),
    "exaone4": Layout(query_norm=HEAD_NORM),
    "nemotron": Layout(SPLIT, ("up_proj", "down_proj"), 4, 2, biased={"attention_bias": SPLIT, "mlp_bias": ("up_proj", "down_proj")}),
    "seed_oss": Layout(biased={"attention_bias": _QKV, "attention_out_bias": ("o_proj",), "mlp_bias": GATED}, head_dim=128),
    "ernie4_5": Layout(biased={"use_bias": (*SPLIT, *GATED)}, is_tied=True, head_dim=128),
    "gpt_neox": Layout(
        ("query_key_value", "dense"), ("dense_h_to_4h", "dense_4h_to_h"), 4, 2, biased_by_default=True,
        biased={"attention_bias": ("query_key_value", "dense"), "": ("dense_h_to_4h", "dense_4h_to_h")},
    ),
    "hunyuan_v1_dense": Layout(query_norm=HEAD_NORM, biased=_ATTENTION_BIAS),
}  # fmt: skip
"""By config.json's `model_type`."""
