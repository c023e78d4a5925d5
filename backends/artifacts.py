"""Model folders as artefacts: the safetensors file format and the digest that names a model by its content.

Numpy only. A model folder holds `config.json`, one or more `*.safetensors` and a tokenizer. Its source digest is what every
derived form (GGUF of any level, AWQ ...) carries, so that a base and an adapter always match or are refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backends import atomicfile, modelfolder, sourcedigests
from backends.errors import BackendError, ModelUnusable

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the limit that the reference implementation enforces


class ArtifactError(BackendError):
    """A model folder or one of its files is missing, corrupt, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor: `dtype` as safetensors spells it (`BF16`, `F32` ...), `data` its raw little-endian bytes as uint8 [num_bytes]."""

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray[Any, np.dtype[np.uint8]]

    def to_f32(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The values as float32 of `shape`; raises ArtifactError for a dtype that is not F32, F16 or BF16."""
        if self.dtype == "BF16":
            widened = self.data.view(np.uint16).astype(np.uint32) << np.uint32(16)
            return widened.view(np.float32).reshape(self.shape)
        if self.dtype == "F16":
            return self.data.view(np.float16).astype(np.float32).reshape(self.shape)
        if self.dtype == "F32":
            return self.data.view(np.float32).reshape(self.shape)
        raise ArtifactError(f"cannot read a tensor of dtype {self.dtype} as float32")


def bf16_tensor(values: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    """Round finite float32 `values` to the nearest bfloat16 (ties to even)."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return Tensor("BF16", tuple(values.shape), rounded.astype(np.uint16).reshape(-1).view(np.uint8))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file: name -> Tensor backed by the file (read only). Raises ArtifactError if it is not whole."""
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{path}: cannot be read: {exc}") from exc
    header, start = _parse_header(path, raw)
    body = raw[start:]
    return {name: _slice_tensor(path, name, entry, body) for name, entry in header.items() if name != "__metadata__"}


def _parse_header(path: Path, raw: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(raw[:8].tobytes(), "little") if raw.size >= 8 else -1
    if not 0 < length <= min(MAX_HEADER_BYTES, raw.size - 8):
        raise ArtifactError(f"{path}: not a whole safetensors file (header of {length} bytes in a file of {raw.size})")
    try:
        header = json.loads(raw[8 : 8 + length].tobytes())
    except ValueError as exc:
        raise ArtifactError(f"{path}: the safetensors header is not JSON: {exc}") from exc
    if not isinstance(header, dict):
        raise ArtifactError(f"{path}: the safetensors header is not an object")
    return header, 8 + length


def _slice_tensor(path: Path, name: str, entry: Any, body: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
        expected = ITEM_BYTES[dtype] * int(np.prod(shape, dtype=np.int64))
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{path}: tensor {name} has a malformed header entry: {exc!r}") from exc
    if not 0 <= begin <= end <= body.size or end - begin != expected:
        raise ArtifactError(
            f"{path}: tensor {name} needs {expected} bytes at {begin}, the file has {body.size}: truncated?"
        )
    return Tensor(dtype, shape, body[begin:end])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file (names sorted, so that equal content is equal bytes), atomically. Raises ArtifactError."""
    header: dict[str, Any] = {"__metadata__": dict(sorted((metadata or {"format": "pt"}).items()))}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.data.size],
        }
        offset += tensor.data.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
    with atomic_writer(path) as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            out.write(tensor.data.tobytes())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """`backends.atomicfile.atomic_path`. Raises ArtifactError when the disk refuses, in the block too."""
    try:
        with atomicfile.atomic_path(path) as temporary:
            yield temporary
    except OSError as exc:
        raise ArtifactError(f"cannot write {path}: {exc.strerror or exc}") from exc


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Like `atomic_path`, opened for writing bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        yield out


def weight_files(model_dir: Path) -> list[Path]:
    """The folder's `*.safetensors`, sorted by name. Raises ArtifactError if there is none, or one is missing."""
    try:
        return modelfolder.weight_files(model_dir)
    except ModelUnusable as exc:
        raise ArtifactError(str(exc)) from exc


def tokenizer_files(model_dir: Path) -> list[Path]:
    """tokenizer.json, else all files that hold the vocabulary. Raises ArtifactError if there is none."""
    try:
        return modelfolder.tokenizer_files(model_dir)
    except ModelUnusable as exc:
        raise ArtifactError(str(exc)) from exc


def load_weights(model_dir: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, shards joined. Raises ArtifactError, also when two shards hold the same name."""
    joined: dict[str, Tensor] = {}
    for path in weight_files(model_dir):
        for name, tensor in read_tensors(path).items():
            if name in joined:
                raise ArtifactError(f"{path}: tensor {name} is stored twice")
            joined[name] = tensor
    return joined


def source_digest(model_dir: Path, cache_dir: Path | None = None) -> str:
    """`backends.sourcedigests.source_digest`. Raises ArtifactError."""
    try:
        return sourcedigests.source_digest(model_dir, cache_dir)
    except ModelUnusable as exc:
        raise ArtifactError(str(exc)) from exc


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises ArtifactError if it is missing or malformed."""
    try:
        return json.loads(path.read_bytes())
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ArtifactError(f"{path}: not valid JSON: {exc}") from exc
