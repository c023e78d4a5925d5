"""The golden file of an adapter version: what the reference implementation says of every probe token. Standard library only.

A safetensors file: tensors of F32 and I32, the rest in its metadata. For n tokens scored in t texts

    ids      I32 [m]   the texts' token ids, one text after the other        base          F32 [n]   log-probability by the base
    lengths  I32 [t]   how many of them each text has                        adapter       F32 [n]   with the adapter
    first    I32 [t]   where in each the scored tokens begin                 decoy:<name>  F32 [n]   with the adapter as a fault leaves it

The first `num_shared` texts are the base's probe set; the others are this adapter's own answers. Whoever scores needs this file only.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.adapter.probe import Text, probe_id
from backends.errors import BackendError

FORMAT = "forgegate.golden"
FORMULA = "1"
"""Names how scores are computed and compared; a file of another one is refused."""
DECOY = "decoy:"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024
_ITEM_BYTES = 4
_CODES = {"F32": "f", "I32": "i"}


class GoldenError(BackendError):
    """A golden file cannot be read, or does not hold what it says."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Reference scores of one adapter version. Rows are [n]: the scored tokens of all texts, one text after the other."""

    base_digest: str
    adapter_digest: str
    probe_id: str
    num_shared: int
    texts: tuple[Text, ...]
    base: Sequence[float]
    adapter: Sequence[float]
    decoys: Mapping[str, Sequence[float]]
    """By what a fault would be called in a message: `the scale is x2`."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Versions of what computed it."""
    attested_by: str = ""
    """Whose word it is, where it was not computed or shipped where it is used."""

    @property
    def prompts(self) -> list[list[int]]:
        """What an engine is asked to score, text by text."""
        return [list(text.ids) for text in self.texts]


def read_golden(path: Path) -> Golden:
    """Raises GoldenError for a file that is missing, damaged, or lies about itself."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise GoldenError(f"{path}: {exc.strerror or exc}") from exc
    try:
        return from_bytes(content)
    except GoldenError as exc:
        raise GoldenError(f"{path}: {exc}: compute the reference anew") from exc


def from_bytes(content: bytes) -> Golden:
    """Raises GoldenError."""
    metadata, rows = _split(content)
    if metadata.get("format") != FORMAT:
        raise GoldenError(f"not a golden file (format {metadata.get('format')!r})")
    if metadata.get("formula") != FORMULA:
        raise GoldenError(f"made for formula {metadata.get('formula')!r}, this is {FORMULA!r}")
    try:
        golden = Golden(
            base_digest=metadata["base_digest"],
            adapter_digest=metadata["adapter_digest"],
            probe_id=metadata["probe_id"],
            num_shared=int(metadata["num_shared"]),
            texts=_texts(rows),
            base=rows["base"],
            adapter=rows["adapter"],
            decoys={name.removeprefix(DECOY): row for name, row in rows.items() if name.startswith(DECOY)},
            made_by=json.loads(metadata.get("made_by", "{}")),
            attested_by=metadata.get("attested_by", ""),
        )
    except (KeyError, ValueError) as exc:
        raise GoldenError(f"incomplete: {exc}") from exc
    _check(golden)
    return golden


def to_bytes(golden: Golden) -> bytes:
    """Equal content is equal bytes."""
    rows: dict[str, tuple[str, array[Any]]] = {
        "ids": ("I32", array("i", (token for text in golden.texts for token in text.ids))),
        "lengths": ("I32", array("i", (len(text.ids) for text in golden.texts))),
        "first": ("I32", array("i", (text.first for text in golden.texts))),
        "base": ("F32", array("f", golden.base)),
        "adapter": ("F32", array("f", golden.adapter)),
        **{DECOY + name: ("F32", array("f", row)) for name, row in golden.decoys.items()},
    }
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "formula": FORMULA,
            "base_digest": golden.base_digest,
            "adapter_digest": golden.adapter_digest,
            "probe_id": golden.probe_id,
            "num_shared": str(golden.num_shared),
            "made_by": json.dumps(dict(golden.made_by), sort_keys=True),
            **({"attested_by": golden.attested_by} if golden.attested_by else {}),
        }
    }
    body = b""
    for name, (dtype, row) in sorted(rows.items()):
        data = _little(row).tobytes()
        header[name] = {"dtype": dtype, "shape": [len(row)], "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def _split(content: bytes) -> tuple[dict[str, str], dict[str, array[Any]]]:
    """Metadata and rows of a safetensors file whose tensors are rows that fill it without gap or overlap."""
    if len(content) > MAX_FILE_BYTES:
        raise GoldenError(f"more than {MAX_FILE_BYTES} bytes")
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else -1
    if not 0 < length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise GoldenError(f"no whole safetensors file: a header of {length} bytes in a file of {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (RecursionError, ValueError) as exc:
        raise GoldenError("its header is not JSON") from exc
    if not isinstance(header, dict):
        raise GoldenError("its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise GoldenError("its metadata is not an object of texts")
    return metadata, _rows(header, content[8 + length :])


def _rows(header: Mapping[str, Any], body: bytes) -> dict[str, array[Any]]:
    """The tensors by name; together they are the whole body, so that nothing is read twice and nothing hides."""
    spans = {name: _span(name, entry) for name, entry in header.items()}
    end = 0
    for begin, stop, _ in sorted(spans.values()):
        if begin != end:
            raise GoldenError(f"its tensors overlap or leave a gap at byte {min(begin, end)}")
        end = stop
    if end != len(body):
        raise GoldenError(f"its tensors need {end} bytes, the file has {len(body)}")
    rows: dict[str, array[Any]] = {}
    for name, (begin, stop, code) in spans.items():
        rows[name] = array(code)
        rows[name].frombytes(body[begin:stop])
        _little(rows[name])
    return rows


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor begins and ends, and its array code."""
    try:
        code, (size,), (begin, end) = _CODES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        is_sound = all(type(number) is int for number in (size, begin, end)) and 0 <= begin <= end
        if not is_sound or end - begin != _ITEM_BYTES * size:
            raise ValueError
    except (KeyError, TypeError, ValueError) as exc:
        raise GoldenError(f"its tensor {name!r} is no row of F32 or I32, or does not have the size it states") from exc
    return begin, end, code


def _little(row: array[Any]) -> array[Any]:
    """The row itself, its bytes swapped on a big-endian machine: files are little-endian."""
    if sys.byteorder == "big":
        row.byteswap()
    return row


def _texts(rows: Mapping[str, array[Any]]) -> tuple[Text, ...]:
    """Raises KeyError, ValueError."""
    ids, lengths, first = rows["ids"], rows["lengths"], rows["first"]
    if len(lengths) != len(first) or any(not 1 <= at < length for at, length in zip(first, lengths, strict=True)):
        raise ValueError("a text without scored tokens")
    if sum(lengths) != len(ids) or any(token < 0 for token in ids):
        raise ValueError("ids that do not fit the texts' lengths")
    texts, begin = [], 0
    for length, at in zip(lengths, first, strict=True):
        texts.append(Text(tuple(ids[begin : begin + length]), at))
        begin += length
    return tuple(texts)


def _check(golden: Golden) -> None:
    num_scored = sum(text.num_scored for text in golden.texts)
    rows = {"base": golden.base, "adapter": golden.adapter, **golden.decoys}
    for name, row in rows.items():
        if len(row) != num_scored:
            raise GoldenError(f"{len(row)} scores for {name!r} where {num_scored} tokens are scored")
        if not all(map(math.isfinite, row)):
            raise GoldenError(f"a score for {name!r} is not a finite number")
    if not 0 < golden.num_shared <= len(golden.texts):
        raise GoldenError(f"{golden.num_shared} shared texts of {len(golden.texts)}")
    if probe_id(golden.texts[: golden.num_shared]) != golden.probe_id:
        raise GoldenError("its texts are not those of its probe set")
