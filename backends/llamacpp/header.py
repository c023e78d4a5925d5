"""The head of a GGUF file, read with the standard library alone: metadata, and where each tensor lies.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from backends.errors import ModelUnusable

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_U64 = struct.Struct("<Q")
MAX_KEYS = 100_000
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 8
MAX_STRING_BYTES = 64 * 1024 * 1024
MAX_KEPT_ITEMS = 1024
"""Longer arrays (vocabulary, merges) are skipped; what is kept has an entry per layer at most."""
_CHUNK_BYTES = 1 << 20

TYPE_SIZES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""Of each ggml type: values in a block, bytes of a block (gguf's GGML_QUANT_SIZES)."""
FLOAT_TYPES = frozenset({0, 1, 28, 30})
"""f32, f16, f64, bf16: what llama.cpp computes with as it lies in the file, without repacking it."""

_OTHER_MAGICS = {
    b"version ": "a Git LFS pointer, not the model: fetch it with `git lfs pull`",
    b"<!doctyp": "a web page, not a model: the download went wrong",
    b"tjgg": "a GGML file from before GGUF: convert the original weights anew",
    b"fmgg": "a GGML file from before GGUF: convert the original weights anew",
    b"lmgg": "a GGML file from before GGUF: convert the original weights anew",
    b"PK\x03\x04": "a pickle or a zip archive, not a GGUF file",
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its dimensions as ggml orders them (fastest first), `offset` in bytes from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def num_bytes(self) -> int | None:
        """None for a type that is newer than this table."""
        if self.type not in TYPE_SIZES:
            return None
        num_values, num_bytes = TYPE_SIZES[self.type]
        return math.prod(self.shape) // num_values * num_bytes


@dataclass(frozen=True)
class Header:
    """`metadata` holds scalars, texts, and short arrays of numbers as tuples; long arrays and those of texts are skipped."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_start: int
    """Where in the file the tensors' data begin."""
    file_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int | None:
        return self.number("context_length")

    @property
    def source_digest(self) -> str:
        """`sha256:<hex>` of the weights it was made from; empty in files that others made."""
        return str(self.metadata.get("forgegate.source_digest", ""))

    @property
    def num_parts(self) -> int:
        """Files that this model is split over."""
        count = self.metadata.get("split.count")
        return count if isinstance(count, int) and count > 1 else 1

    def number(self, key: str) -> int | None:
        """A whole number of this architecture, for example `block_count`."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @cached_property
    def tensor_bytes(self) -> dict[str, int]:
        """Bytes of each tensor; of an unknown type by the distance to the next one."""
        starts = sorted({tensor.offset for tensor in self.tensors} | {max(0, self.file_bytes - self.data_start)})
        following = dict(pairwise(starts))
        return {
            tensor.name: following.get(tensor.offset, tensor.offset) - tensor.offset
            if tensor.num_bytes is None
            else tensor.num_bytes
            for tensor in self.tensors
        }


def read_header(path: Path) -> Header:
    """Raises ModelUnusable: missing, not GGUF, cut off in its head."""
    try:
        with path.open("rb") as file:
            return _read(_Cursor(file), path)
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (struct.error, EOFError) as exc:
        raise ModelUnusable(f"{path}: the file ends within its header: a download that was cut off?") from exc


def read_parts(path: Path) -> tuple[Header, ...]:
    """The headers of all files of a model, of which `path` is the first, each checked for being whole. Raises ModelUnusable."""
    first = read_header(path)
    parts = (first, *(read_header(part) for part in _other_parts(first)))
    for part in parts:
        check_whole(part)
    return parts


def check_whole(header: Header) -> None:
    """Raises ModelUnusable when a tensor lies beyond the end of the file."""
    sizes = header.tensor_bytes
    end = max((header.data_start + tensor.offset + sizes[tensor.name] for tensor in header.tensors), default=0)
    missing = end - header.file_bytes
    if missing > 0:
        raise ModelUnusable(
            f"{header.path}: {missing:,} of {end:,} bytes are missing at its end: a download that was cut off?"
        )


def _other_parts(first: Header) -> list[Path]:
    """Part n of N is named `...-0000n-of-0000N.gguf`; only by the first are the others found."""
    count, number = first.num_parts, first.metadata.get("split.no", 0)
    if count == 1:
        return []
    match = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", first.path.name)
    if match is None or int(match[3]) != count:
        raise ModelUnusable(
            f"{first.path}: one of {count} parts, but not named as such; it must end in -00001-of-{count:05}.gguf"
        )
    paths = [first.path.with_name(f"{match[1]}-{n:05}-of-{match[3]}.gguf") for n in range(1, count + 1)]
    if isinstance(number, int) and number != 0:
        raise ModelUnusable(f"{first.path}: part {number + 1} of {count}; name the first one: {paths[0]}")
    absent = [path.name for path in paths if not path.exists()]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise ModelUnusable(f"{first.path}: one of {count} parts, of which are missing: {', '.join(absent[:3])}{more}")
    return paths[1:]


def _read(cursor: _Cursor, path: Path) -> Header:
    magic = cursor.peek(8)
    if not magic.startswith(b"GGUF"):
        raise ModelUnusable(f"{path}: {_what_it_is(magic)}")
    cursor.take(4)
    version, num_tensors, num_keys = cursor.unpack("<IQQ")
    if version in (2 << 24, 3 << 24):
        raise ModelUnusable(f"{path}: a GGUF file for big-endian machines, which cannot be read here")
    if not 2 <= version <= 3 or num_keys > MAX_KEYS or num_tensors > MAX_TENSORS:
        raise ModelUnusable(
            f"{path}: GGUF version {version} with {num_keys} metadata keys and {num_tensors} tensors cannot be read"
        )
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text()
        value = _value(cursor, cursor.unpack("<I")[0], path)
        if value is not None:
            metadata[key] = value
    tensors = tuple(_tensor(cursor, path) for _ in range(num_tensors))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise ModelUnusable(f"{path}: alignment {alignment!r}: a damaged file?")
    start = -(-cursor.position // alignment) * alignment
    return Header(path, version, metadata, tensors, start, path.stat().st_size)


def _what_it_is(magic: bytes) -> str:
    for begin, words in _OTHER_MAGICS.items():
        if magic.lower().startswith(begin.lower()):
            return f"not a GGUF file: {words}"
    return f"not a GGUF file (it starts with {magic[:4]!r})"


def _value(cursor: _Cursor, kind: int, path: Path) -> Any:
    if kind in _SCALARS:
        return cursor.unpack("<" + _SCALARS[kind])[0]
    if kind == _STRING:
        return cursor.text()
    item, length = cursor.unpack("<IQ") if kind == _ARRAY else (kind, 0)
    if item in _SCALARS and length <= MAX_KEPT_ITEMS:
        return cursor.unpack(f"<{length}{_SCALARS[item]}")
    if item in _SCALARS:
        cursor.skip(struct.calcsize("<" + _SCALARS[item]) * length)
    elif item == _STRING:
        cursor.skip_texts(length)
    else:
        raise ModelUnusable(f"{path}: unknown metadata type {item}: a damaged file?")
    return None


def _tensor(cursor: _Cursor, path: Path) -> TensorInfo:
    name = cursor.text()
    (num_dimensions,) = cursor.unpack("<I")
    if num_dimensions > MAX_DIMENSIONS:
        raise ModelUnusable(f"{path}: tensor {name!r} has {num_dimensions} dimensions: a damaged file?")
    *shape, kind, offset = cursor.unpack(f"<{num_dimensions}QIQ")
    return TensorInfo(name, tuple(shape), kind, offset)


class _Cursor:
    """Reads forward through a file, a large piece at a time. Raises EOFError beyond the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = b""
        self._at = 0
        self._begin = 0

    @property
    def position(self) -> int:
        """Bytes taken so far."""
        return self._begin + self._at

    def peek(self, length: int) -> bytes:
        """Up to `length` bytes, not taken."""
        self._fill(length)
        return self._data[self._at : self._at + length]

    def take(self, length: int) -> bytes:
        if not self._fill(length):
            raise EOFError
        begin, self._at = self._at, self._at + length
        return self._data[begin : self._at]

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> str:
        (length,) = self.unpack("<Q")
        if length > MAX_STRING_BYTES:
            raise EOFError
        return self.take(length).decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        while length > 0:
            step = min(length, _CHUNK_BYTES)
            self.take(step)
            length -= step

    def skip_texts(self, count: int) -> None:
        """A vocabulary has hundreds of thousands."""
        done = 0
        while done < count:
            done += self._skip_buffered_texts(count - done)
            if done < count:
                self.skip(self.unpack("<Q")[0])
                done += 1

    def _skip_buffered_texts(self, count: int) -> int:
        """As many as lie wholly in memory; how many those were."""
        data, at, end, unpack = self._data, self._at, len(self._data), _U64.unpack_from
        num_skipped = 0
        while num_skipped < count and at + 8 <= end:
            after = at + 8 + unpack(data, at)[0]
            if after > end:
                break
            at = after
            num_skipped += 1
        self._at = at
        return num_skipped

    def _fill(self, length: int) -> bool:
        """Whether `length` bytes are in memory now."""
        if len(self._data) - self._at < length:
            rest = self._data[self._at :]
            self._begin += self._at
            self._at = 0
            self._data = rest + self._file.read(max(length, _CHUNK_BYTES))
        return len(self._data) >= self._at + length
