"""A safetensors file of unknown origin: everything that its header says is held against the file before a value is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from backends.adapter.problem import Problem
from backends.artifacts import ITEM_BYTES, MAX_HEADER_BYTES, Tensor

MAX_DIMENSION = 2**31 - 1
"""Of any matrix that an engine can multiply."""
MAX_TENSORS = 200_000
FLOATS = ("F16", "BF16", "F32")
"""What an adapter's tensors may be."""
_ANEW = "save the adapter anew with peft's save_pretrained, or upload it again: the file is damaged"
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the header lists it; its bytes are known to lie within the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Weights:
    """`entries` are those that the header describes rightly; `problems` tell of all others."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data: np.ndarray[Any, np.dtype[np.uint8]]
    """All that follows the header, mapped."""
    problems: tuple[Problem, ...]

    def tensor(self, name: str) -> Tensor:
        """Of a dtype that numpy or `Tensor.to_f32` knows."""
        entry = self.entries[name]
        return Tensor(entry.dtype, entry.shape, self.data[entry.begin : entry.end])


def read_weights(path: Path) -> Weights:
    """Never raises for what the file holds. OSError where it cannot be read."""
    raw = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    length = int.from_bytes(raw[:8].tobytes(), "little") if raw.size >= 8 else 0
    if not 0 < length <= min(MAX_HEADER_BYTES, raw.size - 8):
        return _unreadable(_no_header(raw, length))
    try:
        header = json.loads(raw[8 : 8 + length].tobytes(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as exc:
        return _unreadable(f"its safetensors header is not JSON ({exc})")
    if not isinstance(header, _Pairs):
        return _unreadable("its safetensors header is not an object")
    if len(header) > MAX_TENSORS:
        return _unreadable(f"its header lists {len(header):,} tensors")
    return _held_against(header, raw[8 + length :])


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as often as they are written."""

    def as_dict(self) -> dict[str, Any]:
        return dict(self)


def _no_header(raw: np.ndarray[Any, np.dtype[np.uint8]], length: int) -> str:
    head = raw[:32].tobytes()
    if head.startswith(_LFS):
        return "it is a Git LFS pointer, not the weights (fetch them with `git lfs pull`)"
    if head.startswith(b"PK\x03\x04") or head[:2] in (b"\x80\x02", b"\x80\x04"):
        return "it is a pickle under the name of a safetensors file"
    return f"it says that its header has {length:,} bytes, in a file of {raw.size:,}"


def _unreadable(why: str) -> Weights:
    problem = Problem("header", "", f"adapter_model.safetensors cannot be read: {why}", _ANEW)
    return Weights({}, {}, np.zeros(0, np.uint8), (problem,))


def _held_against(header: _Pairs, data: np.ndarray[Any, np.dtype[np.uint8]]) -> Weights:
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    seen: set[str] = set()
    metadata: dict[str, str] = {}
    for name, value in header:
        if name in seen:
            problems.append(Problem("duplicate-tensor", name, f"tensor {name} is listed twice in the header", _ANEW))
        elif name == "__metadata__":
            metadata = {key: text for key, text in value if isinstance(text, str)} if isinstance(value, _Pairs) else {}
        else:
            entry = _entry(name, value, data.size)
            if isinstance(entry, Problem):
                problems.append(entry)
            else:
                entries[name] = entry
        seen.add(name)
    # Gaps and overlaps are only told apart where every entry is whole.
    problems += [] if problems else _gaps(list(entries.values()), data.size)
    return Weights(entries, metadata, data, tuple(problems))


def _entry(name: str, value: Any, num_bytes: int) -> Entry | Problem:
    def refuse(rule: str, why: str) -> Problem:
        return Problem(rule, name, f"tensor {name}: {why}", _ANEW)

    fields = value.as_dict() if isinstance(value, _Pairs) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        return refuse("header", "its entry in the header lacks a dtype, shape or data_offsets")
    if any(length > MAX_DIMENSION for length in shape) or len(shape) > 8:
        return refuse("shape-overflow", f"no tensor has the shape {shape}")
    if dtype not in ITEM_BYTES:
        return refuse("dtype", f"its dtype {dtype} is not F32, F16 or BF16")
    begin, end = offsets
    needed = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != needed:
        return refuse("header", f"{dtype} {shape} takes {needed:,} bytes, its data_offsets span {end - begin:,}")
    if not 0 <= begin <= end <= num_bytes:
        return refuse("header", f"its data_offsets end at byte {end:,} of {num_bytes:,}: cut off?")
    return Entry(name, dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _gaps(entries: list[Entry], num_bytes: int) -> Iterator[Problem]:
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < at:
            yield Problem("overlap", entry.name, f"tensor {entry.name} shares its bytes with another tensor", _ANEW)
        elif entry.begin > at:
            gap = f"{entry.begin - at:,} bytes before tensor {entry.name} belong to no tensor"
            yield Problem("header", entry.name, gap, _ANEW)
        at = max(at, entry.end)
    if at < num_bytes:
        yield Problem("trailing-bytes", "", f"{num_bytes - at:,} bytes after the last tensor belong to none", _ANEW)
