"""What a model folder is to llama.cpp, and which converter makes a GGUF of it. Reads heads and JSON files only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backends.errors import ModelUnusable
from backends.llamacpp.family import is_family
from backends.llamacpp.foreign import refusal_by_config, refusal_by_tensors, refusal_of_leftovers
from backends.modelfolder import StoredTensor, read_config, stored_tensors, tokenizer_files, weight_files

ARCHITECTURES = Path(__file__).with_name("architectures.txt")
"""What llama.cpp's converter of the pinned version knows, one a line."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that can be converted."""

    path: Path
    architecture: str
    """As its maker calls it, for example `Qwen3ForCausalLM`."""
    is_ours: bool
    """Of the demo family: converted by us, without torch; else by llama.cpp's converter."""
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())


def read_folder(path: Path) -> ModelFolder:
    """Raises ModelUnusable: not a model, not whole, or in a form that llama.cpp cannot read."""
    names = sorted(entry.name for entry in path.iterdir())
    if "config.json" not in names:
        raise ModelUnusable(refusal_of_leftovers(path, names) or _neither(path, names))
    config = read_config(path)
    _refuse(refusal_by_config(path, config))
    try:
        files = weight_files(path)
    except ModelUnusable as exc:
        raise ModelUnusable(refusal_of_leftovers(path, names) or str(exc)) from exc
    tensors = stored_tensors(files)
    _refuse(refusal_by_tensors(path, tensors))
    tokenizer_files(path)
    architecture = _architecture(config)
    is_ours = is_family(path, config)
    if not is_ours:
        _refuse(_unknown_architecture(path, architecture))
    return ModelFolder(path, architecture, is_ours, config, tensors)


@cache
def known_architectures() -> frozenset[str]:
    return frozenset(ARCHITECTURES.read_text(encoding="utf-8").split())


def _refuse(reason: str) -> None:
    if reason:
        raise ModelUnusable(reason)


def _neither(path: Path, names: list[str]) -> str:
    inside = [name for name in names if name.endswith(".gguf")]
    hint = f"; name one of its GGUF files: {', '.join(inside[:5])}" if inside else " (it has no config.json)"
    return f"{path}: neither a GGUF file nor a model folder{hint}"


def _architecture(config: Mapping[str, Any]) -> str:
    """The model's, else that of its language part: whichever llama.cpp's converter knows; empty where none is named."""
    text = config.get("text_config")
    sections = (config, text if isinstance(text, dict) else {})
    named = [
        str(listed[0]) for section in sections if isinstance(listed := section.get("architectures"), list) and listed
    ]
    return next((name for name in named if name in known_architectures()), named[0] if named else "")


def _unknown_architecture(path: Path, architecture: str) -> str:
    known = known_architectures()
    if architecture in known:
        return ""
    close = difflib.get_close_matches(architecture, known, n=1, cutoff=0.8)
    near = f" (near: {close[0]})" if close else ""
    what = f"architecture {architecture!r}" if architecture else "a config.json without architectures"
    return (
        f"{path}: {what} is not among the {len(known)} that llama.cpp's converter knows{near}; they are listed in "
        f"{ARCHITECTURES}; give its GGUF file instead"
    )
