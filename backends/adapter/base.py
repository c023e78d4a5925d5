"""What an adapter must fit: the base model's digests, and the shapes of its matrices by their names at Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from backends.errors import BackendError, ModelUnusable
from backends.modelfolder import StoredTensor, read_config, stored_tensors, weight_files

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_NAMES_KEPT = ("model.", "lm_head", "transformer.", "language_model.")


class BaseUnreadable(BackendError):
    """The base model's own files are not there, or do not tell its shapes."""


class VllmLimits(msgspec.Struct, frozen=True):
    """What every vLLM engine of the model takes."""

    max_rank: int
    target_modules: tuple[str, ...]
    """Last names of the modules that adapters may change."""


class BaseFile(msgspec.Struct, frozen=True):
    """`base.json`, as the gateway writes it; digests are `sha256:<hex>`."""

    name: str
    source_digest: str
    template_digest: str
    folder: str | None = None
    gguf: str | None = None
    vllm: VllmLimits | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """`modules` maps a matrix' name without `.weight` to its shape [out, in]."""

    name: str
    source_digest: str
    template_digest: str
    architecture: str
    """`LlamaForCausalLM`, or llama.cpp's name (`llama`) where only a GGUF is known."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    is_tied: bool
    """No output matrix of its own."""
    folder: Path | None
    modules: Mapping[str, tuple[int, ...]] = field(repr=False)
    vllm: VllmLimits | None = None
    """None: not known, or no vLLM engine serves it."""

    @property
    def is_llama(self) -> bool:
        """Of the family whose GGUF is made here."""
        return self.architecture in ("LlamaForCausalLM", "MistralForCausalLM", "llama")


def read_base(path: Path) -> Base:
    """From `base.json`. Raises BaseUnreadable."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=BaseFile)
        if told.folder:
            return _of_folder(told, Path(told.folder))
        if told.gguf:
            return _of_gguf(told, Path(told.gguf))
    except OSError as exc:
        raise BaseUnreadable(f"{exc.filename or path}: {exc.strerror or exc}") from exc
    except (msgspec.MsgspecError, ModelUnusable, LookupError, TypeError, ValueError, OverflowError) as exc:
        raise BaseUnreadable(f"{path}: the base model cannot be read: {exc}") from exc
    raise BaseUnreadable(f"{path}: it names neither the base model's folder nor its GGUF file")


def _of_folder(told: BaseFile, folder: Path) -> Base:
    config = read_config(folder)
    inner = config.get("text_config")
    sizes = {**config, **inner} if isinstance(inner, dict) else config
    stored = stored_tensors(weight_files(folder))
    heads = int(sizes.get("num_attention_heads") or 0)
    return Base(
        name=told.name,
        source_digest=told.source_digest,
        template_digest=told.template_digest,
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        num_layers=int(sizes["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(sizes.get("num_key_value_heads") or heads),
        vocab_size=int(sizes.get("vocab_size") or 0),
        is_tied=bool(sizes.get("tie_word_embeddings")) or not any(name.endswith("lm_head.weight") for name in stored),
        folder=folder,
        modules=_matrices(stored),
        vllm=told.vllm,
    )


def _matrices(stored: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in stored.items()
        if name.endswith(".weight") and len(tensor.shape) == 2
    }


def _of_gguf(told: BaseFile, path: Path) -> Base:
    import gguf

    reader = gguf.GGUFReader(path)
    architecture = str(reader.fields["general.architecture"].contents())

    def number(key: str) -> int:
        entry = reader.fields.get(f"{architecture}.{key}")
        value: Any = entry.contents() if entry else 0
        return max(value) if isinstance(value, list) else int(value)

    shapes = {str(tensor.name): tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    layers, heads = number("block_count"), number("attention.head_count")
    return Base(
        name=told.name,
        source_digest=told.source_digest,
        template_digest=told.template_digest,
        architecture=architecture,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=number("attention.head_count_kv") or heads,
        vocab_size=shapes.get("token_embd.weight", (0,))[0],
        is_tied="output.weight" not in shapes,
        folder=None,
        modules=_by_model_names(architecture, layers, shapes),
        vllm=told.vllm,
    )


def _by_model_names(architecture: str, num_layers: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """By all names that a matrix has in any model of this architecture. Raises ValueError for one unknown to gguf."""
    import gguf

    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise ValueError(f"the gguf package does not know the architecture {architecture}")
    names = gguf.get_tensor_name_map(known[architecture], num_layers).mapping
    return {
        name: shape
        for name, (_, stored) in names.items()
        if name.startswith(_NAMES_KEPT) and len(shape := shapes.get(f"{stored}.weight", ())) == 2
    }
