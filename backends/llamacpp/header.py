"""The metadata at the head of a GGUF file, read with the standard library alone.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from backends.errors import ModelUnusable

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
MAX_KEYS = 100_000
MAX_STRING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Header:
    """`metadata` without arrays: those (vocabulary, merges) are skipped, not kept."""

    version: int
    num_tensors: int
    metadata: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int | None:
        length = self.metadata.get(f"{self.architecture}.context_length")
        return length if isinstance(length, int) else None

    @property
    def source_digest(self) -> str:
        """`sha256:<hex>` of the weights it was made from; empty in files that others made."""
        return str(self.metadata.get("forgegate.source_digest", ""))


def read_header(path: Path) -> Header:
    """Raises ModelUnusable: missing, not GGUF, cut off in its head."""
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (struct.error, EOFError) as exc:
        raise ModelUnusable(f"{path}: the file ends within its header: a download that was cut off?") from exc


def _read(file: BinaryIO, path: Path) -> Header:
    magic = file.read(4)
    if magic != b"GGUF":
        raise ModelUnusable(f"{path}: not a GGUF file (it starts with {magic!r})")
    version, num_tensors, num_keys = _unpack(file, "<IQQ")
    if not 2 <= version <= 3 or num_keys > MAX_KEYS:
        raise ModelUnusable(f"{path}: GGUF version {version} with {num_keys} metadata keys cannot be read")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        value = _value(file, kind, path)
        if value is not None:
            metadata[key] = value
    return Header(version, num_tensors, metadata)


def _value(file: BinaryIO, kind: int, path: Path) -> Any:
    if kind in _SCALARS:
        return _unpack(file, "<" + _SCALARS[kind])[0]
    if kind == _STRING:
        return _string(file)
    item, length = _unpack(file, "<IQ") if kind == _ARRAY else (kind, 0)
    if item in _SCALARS:
        _skip(file, struct.calcsize("<" + _SCALARS[item]) * length)
    elif item == _STRING:
        for _ in range(length):
            _skip(file, _unpack(file, "<Q")[0])
    else:
        raise ModelUnusable(f"{path}: unknown metadata type {item}: a damaged file?")
    return None


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > MAX_STRING_BYTES:
        raise EOFError
    return _exactly(file, length).decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _skip(file: BinaryIO, length: int) -> None:
    """Not beyond the end: seeking there would succeed."""
    if length > 1 << 40 or (length and not _exactly(file, 1)):
        raise EOFError
    file.seek(max(0, length - 1), 1)
