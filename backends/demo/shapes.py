"""The shapes of the family's models and their `config.json`: Llama, tied embeddings, grouped-query attention, head size 64."""

from dataclasses import dataclass
from typing import Any

IM_END_ID = 260  # <unk>, <s>, </s>, 256 bytes, <|im_start|>, <|im_end|> ...: pinned by a test against tokenizer.json
BOS_ID, PAD_ID = 1, 2
BYTE_IDS = range(3, 259)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one Llama-shaped model; `num_heads * head_dim` is the width of the attention."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = 64
    vocab: int = 4096
    context: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face's tensor names and shapes [out, in], in the order of the forward pass."""
        q, kv, h = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.hidden
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, h)}
        for layer in range(self.num_layers):
            prefix = f"model.layers.{layer}"
            shapes |= {
                f"{prefix}.input_layernorm.weight": (h,),
                f"{prefix}.self_attn.q_proj.weight": (q, h),
                f"{prefix}.self_attn.k_proj.weight": (kv, h),
                f"{prefix}.self_attn.v_proj.weight": (kv, h),
                f"{prefix}.self_attn.o_proj.weight": (h, q),
                f"{prefix}.post_attention_layernorm.weight": (h,),
                f"{prefix}.mlp.gate_proj.weight": (self.intermediate, h),
                f"{prefix}.mlp.up_proj.weight": (self.intermediate, h),
                f"{prefix}.mlp.down_proj.weight": (h, self.intermediate),
            }
        return {**shapes, "model.norm.weight": (h,)}

    def num_parameters(self) -> int:
        """Parameters, the shared embedding counted once."""
        total = 0
        for shape in self.tensor_shapes().values():
            total += shape[0] * (shape[1] if len(shape) == 2 else 1)
        return total

    def hf_config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.intermediate, "num_hidden_layers": self.num_layers, "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads, "head_dim": self.head_dim, "vocab_size": self.vocab,
            "max_position_embeddings": self.context, "rms_norm_eps": self.norm_eps, "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}, "hidden_act": "silu",
            "tie_word_embeddings": True, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
            "initializer_range": 0.02, "bos_token_id": BOS_ID, "eos_token_id": IM_END_ID, "pad_token_id": PAD_ID,
            "torch_dtype": "bfloat16", "use_cache": True,
        }  # fmt: skip

    def generation_config(self) -> dict[str, Any]:
        """The content of `generation_config.json`: greedy, ends with the assistant's turn."""
        return {"bos_token_id": BOS_ID, "eos_token_id": IM_END_ID, "pad_token_id": PAD_ID, "do_sample": False}


SHAPES = {
    "target": Shape(hidden=256, intermediate=768, num_layers=8, num_heads=4, num_kv_heads=2),
    "draft": Shape(hidden=128, intermediate=256, num_layers=2, num_heads=2, num_kv_heads=1),
    "tiny": Shape(hidden=64, intermediate=128, num_layers=1, num_heads=1, num_kv_heads=1),
}
