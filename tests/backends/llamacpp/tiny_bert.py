"""A BERT with random weights: as a GGUF, and as transformers' model and tokenizer for reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WORDS = [
    "the", "cat", "dog", "sat", "on", "a", "mat", "and", "kv", "cache", "is", "what", "tokens", "##s", "##ing", "embed",
    "vector", "of", "text", ".", ",", "?",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, *"bcdefghijklmnopqrstuvwxyz"]
WIDTH, LAYERS, HEADS, INNER, LENGTH = 64, 2, 4, 128, 64

_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def make_model() -> Any:
    """transformers' BertModel, the same at every call."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=LENGTH, initializer_range=0.2,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def make_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer over the same vocabulary."""
    from transformers import BertTokenizer

    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return BertTokenizer(str(path))


def random_weights(seed: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Weights in the shapes of such a model under transformers' names, without torch."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (LENGTH, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= {f"{at}attention.{name}.weight": (WIDTH, WIDTH), f"{at}attention.{name}.bias": (WIDTH,)}
        shapes |= {f"{at}intermediate.dense.weight": (INNER, WIDTH), f"{at}intermediate.dense.bias": (INNER,)}
        shapes |= {f"{at}output.dense.weight": (WIDTH, INNER), f"{at}output.dense.bias": (WIDTH,)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    weights = {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        weights |= {f"{name}.weight": np.ones(WIDTH, np.float32), f"{name}.bias": np.zeros(WIDTH, np.float32)}
    return weights


def write_gguf(path: Path, weights: dict[str, np.ndarray[Any, Any]], pooling: gguf.PoolingType | None) -> Path:
    """The file that llama.cpp's converter would make of it, in F32."""
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_vocabulary(writer)
    for name, values in weights.items():
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_type_count(2)
    texts = [
        token if token in SPECIAL else token.removeprefix("##") if token.startswith("##") else "\u2581" + token
        for token in VOCABULARY
    ]
    writer.add_token_list(texts)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_mask_token_id(4)


def _gguf_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if not stem.startswith("encoder.layer."):
        return f"{_NAMES[stem]}.{end}"
    layer, _, part = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{layer}.{_NAMES[part]}.{end}"
