"""A model folder as Hugging Face lays it out: which files hold weights and tokenizer, what is in them. Standard library only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from backends.errors import ModelUnusable

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""The limit that the reference implementation enforces."""
DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "qwen.tiktoken", "rwkv_vocab_v20230424.txt",
)  # fmt: skip
_WEIGHTS = ".safetensors"
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a safetensors header lists it."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    begin: int
    """Where its bytes begin in the file."""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises ModelUnusable."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelUnusable(f"{path}: not a JSON object: {exc}") from exc
    if not isinstance(config, dict):
        raise ModelUnusable(f"{path}: not a JSON object")
    return config


def read_optional_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none or it is something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def display_name(model_dir: Path) -> str:
    """`demo-target` for `.../demo/weights/target`: a label, safe as a file name."""
    resolved = model_dir.resolve()
    parts = [resolved.parent.parent.name, resolved.name] if resolved.parent.name == "weights" else [resolved.name]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "model"


def chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The folder's chat template: newer ones have a file of its own. None where there is none."""
    try:
        return (folder / "chat_template.jinja").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        template = tokenizer_config.get("chat_template")
        return template if isinstance(template, str) else None


def weight_names(present: Iterable[str], index: Any) -> list[str]:
    """The weights of a folder that holds the files `present`: those of its `index`, else all that are no adapter and no second copy.

    Also such as are missing: of an index, and of the parts of a split one. `index` is the content of `INDEX`; None: there is none.
    Raises ValueError in words that follow the index's name.
    """
    if index is not None:
        return _indexed(index)
    found = sorted(name for name in present if name.endswith(_WEIGHTS) and not name.startswith("adapter_model"))
    found = [name for name in found if not name.startswith("consolidated")] or found
    match = _PART.fullmatch(found[0]) if found else None
    if match:
        return [f"{match[1]}-{number:05}-of-{match[3]}.safetensors" for number in range(1, int(match[3]) + 1)]
    return found


def _indexed(index: Any) -> list[str]:
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ValueError("has no weight_map")
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(_WEIGHTS):
            raise ValueError(f"names {name!r}, which is no weight file of this folder")
    return names


def weight_files(folder: Path) -> list[Path]:
    """The `*.safetensors` that make up the model. Raises ModelUnusable: there is none, one is missing, the index leads elsewhere."""
    index = folder / INDEX
    content = read_optional_json(index) if index.is_file() else None
    present = sorted(path.name for path in folder.glob(f"*{_WEIGHTS}"))
    try:
        names = weight_names(present, content)
    except ValueError as exc:
        raise ModelUnusable(f"{index}: it {exc}; download it anew") from exc
    if not names:
        raise ModelUnusable(f"{folder}: no *.safetensors file in this folder")
    told_by = next((name for name in names if name in present), names[0]) if content is None else INDEX
    return _all_present(folder, names, told_by)


def _all_present(folder: Path, names: list[str], said_by: str) -> list[Path]:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise ModelUnusable(
            f"{folder}: {len(absent)} of {len(names)} weight files that {said_by} tells of are missing: "
            f"{', '.join(absent[:3])}{more}; download them"
        )
    return [folder / name for name in names]


def tokenizer_files(folder: Path) -> list[Path]:
    """tokenizer.json if it is there, else all other files that hold a vocabulary. Raises ModelUnusable where there is none."""
    found = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    if not found:
        raise ModelUnusable(
            f"{folder}: no tokenizer in this folder (tokenizer.json or tokenizer.model): copy it from the model's origin"
        )
    return found[:1] if found[0].name == _TOKENIZERS[0] else found


def stored_tensors(paths: list[Path]) -> dict[str, StoredTensor]:
    """All tensors of these safetensors files, by name. Raises ModelUnusable naming a file that is not whole."""
    return {name: tensor for path in paths for name, tensor in tensors_of(path)}


def tensors_of(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Of one safetensors file. Raises ModelUnusable where it is not whole."""
    try:
        with path.open("rb") as file:
            header, data_bytes = _read_header(file, path)
            data_begin = path.stat().st_size - data_bytes
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelUnusable(f"{path}: tensor {name!r} has a malformed entry in the header") from exc
        if not 0 <= begin <= end <= data_bytes:
            raise ModelUnusable(
                f"{path}: truncated: tensor {name!r} ends at byte {end:,} of {data_bytes:,}; download it anew"
            )
        bits = DTYPE_BITS.get(dtype)
        if bits is not None and math.prod(shape) * bits != 8 * (end - begin):
            raise ModelUnusable(
                f"{path}: tensor {name!r} has {end - begin:,} bytes, not what {dtype} {list(shape)} takes"
            )
        yield name, StoredTensor(dtype, shape, end - begin, data_begin + begin)


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes of data follow it."""
    head = file.read(8)
    file_bytes = path.stat().st_size
    if _LFS.startswith(head) and head:
        raise ModelUnusable(f"{path}: a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    length = int.from_bytes(head, "little") if len(head) == 8 else 0
    if not 0 < length <= min(MAX_HEADER_BYTES, file_bytes - 8):
        raise ModelUnusable(f"{path}: not a whole safetensors file ({file_bytes:,} bytes); download it anew")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as exc:
        raise ModelUnusable(f"{path}: its safetensors header is not JSON: {exc}") from exc
    if not isinstance(header, dict):
        raise ModelUnusable(f"{path}: its safetensors header is not an object")
    return header, file_bytes - 8 - length
