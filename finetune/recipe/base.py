"""The model that a recipe trains on: a folder, `demo`, or what was pulled from a hub; whether it can be trained on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import modelfolder
from backends.demo import TARGET_DIR
from backends.errors import ModelUnusable
from finetune.recipe.folders import Folders
from finetune.recipe.values import Unfit

DEMO, SAFETENSORS = "demo", "safetensors"
_HUB_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<label>[\w.-]+))?(?:@(?P<revision>[\w./+-]+))?"
)
_COMMIT_DIGITS = 12
_LAYER = re.compile(r"\.\d+\.")
_USUAL = frozenset({
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj", "query_key_value", "dense",
    "dense_h_to_4h", "dense_4h_to_h", "c_attn", "c_proj", "c_fc", "fc1", "fc2", "out_proj", "Wqkv", "w1", "w2", "w3", "W_pack",
    "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
})  # fmt: skip
"""Names of linear layers, for a base whose weights are not here."""


class WrongRevision(Unfit):
    """The revision that stands beside the name; the message says why it cannot be."""


@dataclass(frozen=True, slots=True)
class Base:
    folder: Path
    config: Mapping[str, Any]
    """config.json"""
    tokenizer: Mapping[str, Any]
    """tokenizer_config.json; empty where there is none."""
    linear_names: frozenset[str]
    """Last names of the blocks' linear layers."""

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(map(str, self.config.get("architectures") or ()))

    @property
    def max_length(self) -> int:
        """Positions that it has; 0 where it does not say."""
        text = self.config.get("text_config")
        value = (text if isinstance(text, dict) else self.config).get("max_position_embeddings")
        return value if isinstance(value, int) else 0


def find_base(name: str, revision: str, folders: Folders, needs_weights: bool) -> Base:
    """Raises Unfit, WrongRevision."""
    folder = _folder_of(name, revision, folders, needs_weights)
    try:
        return _checked(folder, needs_weights)
    except ModelUnusable as exc:
        raise Unfit(str(exc)) from exc


def _folder_of(name: str, revision: str, folders: Folders, needs_weights: bool) -> Path:
    path = folders.find(name)
    if os.path.isfile(path):  # pathlib raises where a name is too long
        raise Unfit(_file_words(path))
    if os.path.isdir(path) or name == DEMO:
        if revision:
            raise WrongRevision(f"{revision}: the base is no model of the hub, and has no revisions: leave it out")
        return path if os.path.isdir(path) else TARGET_DIR
    match = _HUB_NAME.fullmatch(name)
    if match is None or name.startswith("."):
        raise Unfit(
            f"there is no folder {path}; give a folder of safetensors, `demo`, or a model of the hub as ORG/NAME"
        )
    if match["label"] and match["label"].casefold() != SAFETENSORS:
        raise Unfit(f"{name!r}: a label names what is served; safetensors are trained on: write {match['repo']}")
    wanted = _one_revision(match["revision"] or "", revision)
    instead = "" if needs_weights else "; for a plan a folder with its config.json alone will do"
    try:
        return _pulled(folders.home / "models" / "hub", match["repo"], wanted, name)
    except Unfit as exc:
        raise Unfit(f"{exc}{instead}") from exc


def _one_revision(named: str, beside: str) -> str:
    """Raises WrongRevision where they differ."""
    if named and beside and named != beside:
        raise WrongRevision(f"{beside}, and base_model names @{named}: keep one of them")
    return named or beside


def _file_words(path: Path) -> str:
    if path.suffix.lower() == ".gguf":
        return (
            f"{path} is a GGUF, which is for serving: give the folder of the full-precision model that it was made of"
        )
    return f"{path} is a file: give the folder that it lies in"


def _pulled(store: Path, repo: str, revision: str, name: str) -> Path:
    """The newest of those that are whole; layout and manifest are those of `forgegate models pull`. Raises Unfit."""
    wanted = "" if revision == "main" else revision
    found = [(folder, held) for folder, held in _manifests(store, repo) if _is_revision(held, wanted)]
    models = [(folder, held) for folder, held in found if not held.get("is_gguf") and _is_whole(folder, held)]
    if models:
        folder, held = max(models, key=lambda pair: str(pair[1].get("pulled_at", "")))
        return folder / str(held["entry"])
    at = f"{repo}{'@' + wanted if wanted else ''}"
    if any(held.get("is_gguf") for _, held in found):
        safetensors = f"{repo}:safetensors{'@' + wanted if wanted else ''}"
        raise Unfit(
            f"of {at} only a GGUF is here, which is for serving: pull its weights with `forgegate models pull {safetensors}`"
        )
    raise Unfit(f"{name!r} is no folder, and {at} has not been pulled: `forgegate models pull {at}`")


def _manifests(store: Path, repo: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of commits, and what lies in them."""
    for path in sorted(store.glob("[!.]*/*/*/manifest.json")):
        try:
            held = json.loads(path.read_bytes())
            if held["repo"].casefold() == repo.casefold():
                yield path.parent / held["commit"][:_COMMIT_DIGITS], held
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue


def _is_revision(held: Mapping[str, Any], wanted: str) -> bool:
    return held.get("revision", "") == wanted or (len(wanted) >= 7 and str(held.get("commit", "")).startswith(wanted))


def _is_whole(folder: Path, held: Mapping[str, Any]) -> bool:
    try:
        return all(
            (folder / held["entry"] / file["path"]).stat().st_size == file["size_bytes"] for file in held["files"]
        )
    except (OSError, KeyError, TypeError):
        return False


def _checked(folder: Path, needs_weights: bool) -> Base:
    """Raises Unfit, ModelUnusable."""
    if not (folder / "config.json").is_file():
        raise Unfit(_no_model_words(folder))
    config = modelfolder.read_config(folder)
    if method := _quantised_by(folder, config):
        raise Unfit(
            f"{folder} is quantised ({method}): train on the full-precision model that it was made of; adapter: qlora holds that in "
            "4 bits while it trains, and the adapter goes onto either"
        )
    if needs_weights:
        modelfolder.tokenizer_files(folder)
    return Base(
        folder,
        config,
        modelfolder.read_optional_json(folder / "tokenizer_config.json"),
        _linear_names(folder, needs_weights),
    )


def _no_model_words(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return f"{folder} holds an adapter, not a model: give the folder of its base"
    if any(folder.glob("*.gguf")):
        return f"{folder} holds a GGUF, which is for serving: give the folder of the full-precision model that it was made of"
    return f"{folder} holds no config.json: give the folder of a model as Hugging Face lays it out"


def _quantised_by(folder: Path, config: Mapping[str, Any]) -> str:
    """Empty: it is not."""
    said = config.get("quantization_config")
    if isinstance(said, dict):
        return str(said.get("quant_method", "quantization_config"))
    beside = {"quant_config.json": "awq", "quantize_config.json": "gptq"}
    return next((method for name, method in beside.items() if (folder / name).is_file()), "")


def _linear_names(folder: Path, needs_weights: bool) -> frozenset[str]:
    """From the weights' names and shapes: matrices that belong to a numbered block. Raises ModelUnusable."""
    try:
        tensors = modelfolder.stored_tensors(modelfolder.weight_files(folder))
    except ModelUnusable:
        if needs_weights:
            raise
        return _USUAL
    found = {
        name.removesuffix(".weight").rpartition(".")[2]
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor.shape) == 2 and _LAYER.search(name)
    }
    return frozenset(found) or _USUAL
