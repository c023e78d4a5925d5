"""Importance matrices: the mean square of what goes into each column of each weight matrix. Quantising keeps to the columns that matter.

Two forms of llama.cpp's are read, its GGUF (`general.type` imatrix) and the older .dat; the GGUF is written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.artifacts import atomic_path
from backends.errors import ModelUnusable

Row = NDArray[np.float32]
_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME_BYTES, _MAX_VALUES = 4096, 1 << 28


@dataclass(frozen=True, slots=True)
class Imatrix:
    means: Mapping[str, Row]
    """By the tensor's name, shape [columns] or [experts * columns]; 1 for an expert that no token went to."""
    num_chunks: int = 0
    """Pieces of text that it was computed from; 0 where the file does not say."""
    dataset: str = ""


def read_imatrix(path: Path) -> Imatrix:
    """Raises ModelUnusable: missing, of another kind, not whole, values that are not finite."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        found = _read_gguf(path) if magic == b"GGUF" else _read_legacy(path.read_bytes(), path)
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as exc:
        raise ModelUnusable(f"{path}: not a whole importance matrix (imatrix GGUF, or the older .dat): {exc}") from exc
    if not found.means:
        raise ModelUnusable(f"{path}: an importance matrix without entries")
    for name, row in found.means.items():
        if not np.isfinite(row).all() or (row < 0).any():
            raise ModelUnusable(f"{path}: the importance matrix has values for {name} that are no mean squares")
    return found


def write_imatrix(
    path: Path, squares: Mapping[str, Any], counts: Mapping[str, Any], num_chunks: int, chunk: int, dataset: str
) -> None:
    """As llama.cpp's own tool writes it. `squares` by name: sums, shape [matrices, columns]; `counts`: rows, shape [matrices].

    Raises ArtifactError.
    """
    import gguf

    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "")
        try:
            writer.add_type("imatrix")
            writer.add_array("imatrix.datasets", [dataset])
            writer.add_uint32("imatrix.chunk_count", num_chunks)
            writer.add_uint32("imatrix.chunk_size", chunk)
            for name in sorted(squares):
                writer.add_tensor(name + _SUMS, np.ascontiguousarray(squares[name], dtype=np.float32))
                writer.add_tensor(name + _COUNTS, np.asarray(counts[name], dtype=np.float32).reshape(-1, 1))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _read_gguf(path: Path) -> Imatrix:
    import gguf

    reader = gguf.GGUFReader(path)
    kind = _field(reader, "general.type")
    if kind != "imatrix":
        raise ValueError(f"a GGUF of type {kind or 'model'}")
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    means: dict[str, Row] = {}
    for name, sums in tensors.items():
        if name.endswith(_SUMS):
            bare = name.removesuffix(_SUMS)
            means[bare] = _means(sums, tensors[bare + _COUNTS])
    datasets = _field(reader, "imatrix.datasets")
    dataset = str(datasets[0]) if isinstance(datasets, list) and datasets else ""
    return Imatrix(means, int(_field(reader, "imatrix.chunk_count") or 0), dataset)


def _means(sums: Row, counts: Row) -> Row:
    """Row by row; an expert that no token went to has no importance to tell, so that all its columns are worth the same."""
    rows, seen = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
    return np.where(seen > 0, rows / np.maximum(seen, 1), np.float32(1)).astype(np.float32).reshape(-1)


def _field(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _read_legacy(data: bytes, path: Path) -> Imatrix:
    """int32 number of entries; each: int32 length, name, int32 calls, int32 values, float32 sums; then int32 chunks and the dataset."""
    at = 4
    (num_entries,) = struct.unpack_from("<i", data)
    if not 0 < num_entries < 1_000_000:
        raise ValueError(f"it begins with {data[:4]!r}")
    means: dict[str, Row] = {}
    for _ in range(num_entries):
        (length,) = struct.unpack_from("<i", data, at)
        if not 0 < length <= _MAX_NAME_BYTES:
            raise ValueError(f"a name of {length} bytes")
        name = data[at + 4 : at + 4 + length].decode()
        at += 4 + length
        num_calls, num_values = struct.unpack_from("<ii", data, at)
        if not 0 < num_values <= _MAX_VALUES:
            raise ValueError(f"{num_values} values for {name}")
        sums = np.frombuffer(data, dtype="<f4", count=num_values, offset=at + 8)
        means[name] = (sums / max(num_calls, 1)).astype(np.float32)
        at += 8 + 4 * num_values
    return Imatrix(means, *_legacy_end(data, at))


def _legacy_end(data: bytes, at: int) -> tuple[int, str]:
    """Absent in files of the first versions."""
    if at + 8 > len(data):
        return 0, ""
    num_chunks, length = struct.unpack_from("<ii", data, at)
    return num_chunks, data[at + 8 : at + 8 + length].decode("utf-8", "replace")
