"""Which of a repository's files make up the model that was asked for. Pure, but for reading an index of shards.

With a label: the GGUF that it means, or `safetensors`. Without: the repository's GGUF by `PREFERENCE`, else, where it holds no GGUF,
its safetensors model. Pickled weights, code, and second copies of the weights in other layouts are never taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from backends.hub.errors import NoChoice
from backends.hub.gguf import Gguf, find_ggufs, fitting
from backends.hub.listing import RemoteFile
from backends.modelfolder import INDEX, weight_names
from backends.plan import size_words

PREFERENCE = (
    "Q4_K_M", "Q8_0", "Q5_K_M", "UD-Q4_K_XL", "Q4_K_XL", "Q4_K_L", "Q6_K", "Q4_K_S", "Q5_K_S", "MXFP4", "MXFP4_MOE", "IQ4_NL", "IQ4_XS",
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q3_K_L", "Q3_K_M", "BF16", "F16", "F32",
)  # fmt: skip
"""Without a label. The first two as llama.cpp takes them; then what loses little, small before large."""
SAFETENSORS = "safetensors"
NUM_LISTED = 30
_BESIDE = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "*.model", "*.tiktoken", "tekken.json", "preprocessor_config.json", "processor_config.json",
    "rwkv_vocab_*", "quant_config.json", "quantize_config.json", "LICENSE*", "NOTICE*",
)  # fmt: skip
"""What belongs to a safetensors model besides the weights."""
_NEVER = (
    ".py",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".safetensors",
    ".gguf",
    ".h5",
    ".onnx",
    ".msgpack",
    ".zip",
)

Read = Callable[[RemoteFile], bytes]
"""Fetches a small file."""


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    """Names the model on disk."""
    files: tuple[RemoteFile, ...]
    entry: str
    """What an engine is given: the path of the (first) GGUF file, or `.` for the folder."""
    why: str
    """Half a sentence."""

    @property
    def is_gguf(self) -> bool:
        return self.entry != "."

    @property
    def num_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def choose(repo: str, files: Sequence[RemoteFile], label: str, pattern: str, read: Read) -> Choice:
    """The model of `repo` that `label` and `pattern` (of paths, as in a shell) mean. Raises NoChoice listing what there is."""
    ggufs = [model for model in find_ggufs(files) if not pattern or _is_meant(model, pattern)]
    models = [model for model in ggufs if pattern or not model.is_companion]
    if label.casefold() == SAFETENSORS or (not label and not ggufs and not pattern):
        return _safetensors(repo, files, read)
    if pattern and not ggufs:
        raise _refusal(repo, f"no GGUF file fits --file {pattern}", find_ggufs(files), files)
    if label:
        found = fitting(label, models) or fitting(label, ggufs)
        return _only(repo, found, ggufs, files, f"{label!r}", "as asked for")
    return _preferred(repo, models, files)


def _is_meant(model: Gguf, pattern: str) -> bool:
    """Any part of a split model names it whole."""
    return any(fnmatchcase(file.path, pattern) or fnmatchcase(file.name, pattern) for file in model.files)


def _preferred(repo: str, models: Sequence[Gguf], files: Sequence[RemoteFile]) -> Choice:
    if len(models) == 1:
        return _gguf(repo, models[0], "its only GGUF model")
    for tag in PREFERENCE:
        found = [model for model in models if model.tag == tag]
        if found:
            return _only(repo, found, models, files, tag, "the usual choice where none is named")
    return _only(repo, models, models, files, "", "")


def _only(
    repo: str, found: Sequence[Gguf], models: Sequence[Gguf], files: Sequence[RemoteFile], wanted: str, why: str
) -> Choice:
    if len(found) == 1:
        return _gguf(repo, found[0], why)
    if found:
        raise _refusal(
            repo, f"{len(found)} GGUF models fit{f' {wanted}' if wanted else ''}: name one of them", found, files
        )
    raise _refusal(repo, f"no model fits {wanted}", models, files)


def _gguf(repo: str, model: Gguf, why: str) -> Choice:
    if not model.is_whole:
        raise NoChoice(
            f"{repo} holds {len(model.files)} of the {model.num_parts} parts of {model.stem}: it is not whole there"
        )
    return Choice(model.label, model.files, model.files[0].path, why)


def _safetensors(repo: str, files: Sequence[RemoteFile], read: Read) -> Choice:
    top = {file.path: file for file in files if not file.folder}
    weights = _weights(repo, top, read)
    if not weights or "config.json" not in top:
        raise _refusal(repo, "no safetensors model (config.json and weights)", find_ggufs(files), files)
    beside = [file for path, file in sorted(top.items()) if _belongs(path)]
    index = [top[INDEX]] if INDEX in top else []
    return Choice(SAFETENSORS, (*beside, *index, *weights), ".", "its safetensors model")


def _belongs(path: str) -> bool:
    return not path.lower().endswith(_NEVER) and any(fnmatchcase(path, pattern) for pattern in _BESIDE)


def _weights(repo: str, top: dict[str, RemoteFile], read: Read) -> list[RemoteFile]:
    try:
        names = weight_names(top, _parse(read(top[INDEX])) if INDEX in top else None)
    except ValueError as exc:
        raise NoChoice(f"{repo}: its {INDEX} {exc}") from exc
    missing = [name for name in names if name not in top]
    if missing:
        raise NoChoice(
            f"{repo} lacks {len(missing)} of its {len(names)} weight files, among them {missing[0]}: it is not whole there"
        )
    return [top[name] for name in names]


def _parse(content: bytes) -> object:
    """Of JSON; empty where it is none."""
    try:
        return json.loads(content) or {}
    except (ValueError, RecursionError):
        return {}


def _refusal(repo: str, reason: str, models: Sequence[Gguf], files: Sequence[RemoteFile]) -> NoChoice:
    lines = [f"  {repo}:{model.label}  {size_words(model.num_bytes)}" for model in models]
    if any(file.path == "config.json" for file in files) and any(file.path.endswith(".safetensors") for file in files):
        lines.append(f"  {repo}:{SAFETENSORS}")
    if not lines:
        lines = [f"  {file.path}  {size_words(file.size_bytes)}" for file in files if not file.name.startswith(".")]
    more = [f"  and {len(lines) - NUM_LISTED} more"] if len(lines) > NUM_LISTED else []
    held = "\n".join(["it holds:", *lines[:NUM_LISTED], *more]) if lines else "it holds nothing"
    return NoChoice(f"{repo}: {reason}{_hint(files)}; {held}")


def _hint(files: Sequence[RemoteFile]) -> str:
    names = {file.path for file in files}
    if "adapter_config.json" in names:
        return " (a LoRA adapter, not a model: take the model that it was trained on)"
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names) and not any(
        name.endswith((".gguf", ".safetensors")) for name in names
    ):
        return " (its weights are pickles, which can run code when they are read: take a safetensors or GGUF release)"
    return ""
