"""Safetensors to GGUF for the demo family (LlamaForCausalLM with a SentencePiece-style tokenizer). Numpy and gguf only, no torch.

python -m backends.llamacpp.convert MODEL_DIR OUT.gguf [--dtype f16|bf16|f32]
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifacts import ArtifactError, Tensor, atomic_path, load_weights, read_json, source_digest
from backends.errors import PrepareFailed
from backends.llamacpp.family import why_foreign
from backends.modelfolder import chat_template, display_name

FORMAT = 1  # raise it when the same source must be derived again
Floats = np.ndarray[Any, np.dtype[np.float32]]
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


class ConvertError(PrepareFailed):
    """A model folder cannot be turned into GGUF; the message is one line that says which file and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is read from a model folder: parsed JSON files, tensors by Hugging Face's names, the source digest."""

    name: str
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str

    def recipe(self, dtype: str) -> str:
        """Names everything besides the weights that shapes the GGUF: it is derived anew when this changes."""
        parts = [FORMAT, dtype, self.digest, self.config, self.tokenizer_config]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with SPM score and llama.cpp's token type."""

    tokens: list[bytes]
    scores: list[float]
    types: list[int]
    ids: dict[str, int]


def convert(model_dir: Path, out: Path, dtype: str = "f16", digest_cache: Path | None = None) -> None:
    """Write `out` as a GGUF, atomically: matrices in `dtype` ("f16", "bf16", "f32"), norms in F32. Raises ConvertError."""
    source = _read_source(model_dir, digest_cache)
    try:
        _write(source, out, dtype)
    except ArtifactError as exc:
        raise ConvertError(str(exc)) from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise ConvertError(f"{model_dir}: not a model of this family: {type(exc).__name__}: {exc}") from exc


def ensure_gguf(model_dir: Path, cache_dir: Path, dtype: str = "f16") -> Path:
    """The GGUF form of `model_dir`, derived at first use into `cache_dir`. Raises ConvertError.

    Safe to call from several processes at once: two that race each write a whole file and rename
    it over the other's, with equal content, so neither is harmed.
    """
    source = _read_source(model_dir, cache_dir)
    out = cache_dir / f"{source.name}-{source.digest.removeprefix('sha256:')[:12]}-{dtype}.gguf"
    if not is_current(out, source.recipe(dtype)):
        convert(model_dir, out, dtype, cache_dir)
    return out


def is_current(path: Path, recipe: str) -> bool:
    """Whether `path` was made by this very recipe, which is among its first metadata entries."""
    try:
        with path.open("rb") as file:
            return recipe.encode() in file.read(4096)
    except OSError:
        return False


def _read_source(model_dir: Path, digest_cache: Path | None) -> Source:
    try:
        settings = _as_object(model_dir / "tokenizer_config.json")
        source = Source(
            name=display_name(model_dir),
            config=_as_object(model_dir / "config.json"),
            tokenizer=_as_object(model_dir / "tokenizer.json"),
            tokenizer_config={**settings, "chat_template": chat_template(model_dir, settings)},
            tensors=load_weights(model_dir),
            digest=source_digest(model_dir, digest_cache),
        )
    except ArtifactError as exc:
        raise ConvertError(str(exc)) from exc
    if "LlamaForCausalLM" not in source.config.get("architectures", []):
        raise ConvertError(
            f"{model_dir}/config.json: architectures {source.config.get('architectures')}, can convert LlamaForCausalLM"
        )
    reason = why_foreign(source.config, source.tokenizer)
    if reason:
        raise ConvertError(f"{model_dir}: not a model of this family: {reason}")
    return source


def _as_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: must hold a JSON object")
    return content


def _write(source: Source, out: Path, dtype: str) -> None:
    import gguf

    with atomic_path(out) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        try:
            _add_metadata(writer, source, dtype)
            _add_vocabulary(writer, read_vocabulary(source.tokenizer, int(source.config["vocab_size"])), source)
            for name, values in _mapped_tensors(source):
                _add_tensor(writer, name, values, dtype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _add_metadata(writer: Any, source: Source, dtype: str) -> None:
    import gguf

    config, heads = source.config, int(source.config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    # First, so that `is_current` finds the recipe without parsing the file.
    writer.add_string("forgegate.source_digest", source.digest)
    writer.add_string("forgegate.recipe_digest", source.recipe(dtype))
    writer.add_name(source.name)
    writer.add_file_type(_file_type(dtype))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope_theta(config))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def _rope_theta(config: dict[str, Any]) -> float:
    """Transformers 5 keeps it under `rope_parameters`, earlier versions at the top."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _file_type(dtype: str) -> int:
    import gguf

    kinds = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    }
    if dtype not in kinds:
        raise ValueError(f"dtype {dtype!r}, must be one of {sorted(kinds)}")
    return int(kinds[dtype])


def read_vocabulary(tokenizer: dict[str, Any], size: int) -> Vocabulary:
    """The SPM vocabulary of a byte-fallback BPE `tokenizer.json`: a piece's score is minus the rank at which merges first make it.

    Raises ValueError for a tokenizer of another kind, or ids that are not 0 .. size - 1.
    """
    import gguf

    model = tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback") or tokenizer.get("pre_tokenizer") is not None:
        raise ValueError("the tokenizer must be a BPE with byte fallback and without pre-tokenizer")
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids: dict[str, int] = {**model["vocab"], **special}
    if sorted(ids.values()) != list(range(size)):
        raise ValueError(f"the tokenizer's {len(ids)} ids do not cover 0 .. {size - 1}")
    ranks: dict[str, int] = {}
    for left, right in (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]):
        ranks.setdefault(left + right, len(ranks))
    tokens, scores, types = [b""] * size, [0.0] * size, [int(gguf.TokenType.NORMAL)] * size
    for text, index in ids.items():
        tokens[index] = text.encode()
        scores[index] = -float(ranks.get(text, len(ranks)))
        if text in special:
            types[index] = int(gguf.TokenType.UNKNOWN if text == model.get("unk_token") else gguf.TokenType.CONTROL)
        elif _BYTE_TOKEN.fullmatch(text):
            types[index] = int(gguf.TokenType.BYTE)
    return Vocabulary(tokens, scores, types, ids)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary, source: Source) -> None:
    settings = source.tokenizer_config
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    adders = {
        "bos_token": writer.add_bos_token_id,
        "eos_token": writer.add_eos_token_id,
        "unk_token": writer.add_unk_token_id,
        "pad_token": writer.add_pad_token_id,
    }
    for role, add in adders.items():
        if settings.get(role):
            add(vocabulary.ids[_token_text(settings[role])])
    writer.add_eot_token_id(vocabulary.ids[_token_text(settings["eos_token"])])
    writer.add_add_bos_token(bool(settings.get("add_bos_token", False)))
    writer.add_add_eos_token(bool(settings.get("add_eos_token", False)))
    writer.add_add_space_prefix(False)
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def _token_text(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _mapped_tensors(source: Source) -> Iterator[tuple[str, Floats]]:
    """The tensors under llama.cpp's names, as float32, q and k permuted. KeyError or ValueError for one unknown or missing."""
    config, heads = source.config, int(source.config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    missing = set(_expected_names(config)) - set(source.tensors)
    if missing:
        raise ValueError(f"tensors missing: {sorted(missing)[:4]}")
    for name, tensor in source.tensors.items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue  # some writers store the shared matrix twice
        values = tensor.to_f32()
        if not np.isfinite(values).all():
            raise ValueError(f"tensor {name} holds values that are not finite")
        if name.endswith("q_proj.weight"):
            values = permute_rope(values, heads)
        elif name.endswith("k_proj.weight"):
            values = permute_rope(values, kv_heads)
        yield _gguf_name(name), values


def _expected_names(config: dict[str, Any]) -> Iterator[str]:
    yield "model.embed_tokens.weight"
    yield "model.norm.weight"
    if not config.get("tie_word_embeddings"):
        yield "lm_head.weight"
    for layer in range(int(config["num_hidden_layers"])):
        yield from (f"model.layers.{layer}.{name}" for name in _LAYER_NAMES)


def _gguf_name(name: str) -> str:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if match is None or match[2] not in _LAYER_NAMES:
        raise KeyError(f"unknown tensor {name}")
    return f"blk.{match[1]}.{_LAYER_NAMES[match[2]]}"


def permute_rope(weight: Floats, num_heads: int) -> Floats:
    """Reorder the rows of a q or k projection [num_heads * head_dim, in] from halves (transformers) to interleaved pairs (llama.cpp)."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add_tensor(writer: Any, name: str, values: Floats, dtype: str) -> None:
    import gguf

    if dtype == "f32" or values.ndim == 1:
        writer.add_tensor(name, np.ascontiguousarray(values))
    elif dtype == "f16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert a model folder of the demo family to GGUF.")
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=("f16", "bf16", "f32"), default="f16")
    args = parser.parse_args()
    try:
        convert(args.model_dir, args.out, args.dtype)
    except ConvertError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
