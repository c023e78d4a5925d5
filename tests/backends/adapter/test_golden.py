"""The golden file: what is written is read, and a file that lies is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.adapter.golden import FORMULA, GoldenError, from_bytes, read_golden, to_bytes
from backends.artifacts import read_tensors
from tests.backends.adapter.synthetic import made_golden

GOLDEN = made_golden(num_layers=2)
CONTENT = to_bytes(GOLDEN)


def parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(to_bytes(replace(GOLDEN, made_by={"torch": "2.13"})))
    golden = read_golden(path)
    assert (golden.texts, golden.num_shared, golden.probe_id) == (GOLDEN.texts, GOLDEN.num_shared, GOLDEN.probe_id)
    assert (golden.base_digest, golden.adapter_digest) == (GOLDEN.base_digest, GOLDEN.adapter_digest)
    assert golden.made_by == {"torch": "2.13"}
    assert list(golden.base) == [np.float32(value) for value in GOLDEN.base]
    assert {name: list(row) for name, row in golden.decoys.items()} == {
        name: [np.float32(value) for value in row] for name, row in GOLDEN.decoys.items()
    }
    assert golden.prompts == [list(text.ids) for text in GOLDEN.texts]


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(CONTENT)
    tensors = read_tensors(path)
    assert tensors["base"].to_f32().tolist() == [np.float32(value) for value in GOLDEN.base]
    assert {tensor.dtype for tensor in tensors.values()} == {"F32", "I32"}


def test_equal_content_is_equal_bytes() -> None:
    assert to_bytes(from_bytes(CONTENT)) == CONTENT


def change_metadata(key: str, value: Any) -> Callable[[dict[str, Any], bytes], tuple[Any, bytes]]:
    def change(header: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        return {**header, "__metadata__": {**header["__metadata__"], key: value}}, body

    return change


def change_tensor(name: str, **fields: Any) -> Callable[[dict[str, Any], bytes], tuple[Any, bytes]]:
    return lambda header, body: ({**header, name: {**header[name], **fields}}, body)


def without(name: str) -> Callable[[dict[str, Any], bytes], tuple[Any, bytes]]:
    return lambda header, body: ({key: value for key, value in header.items() if key != name}, body)


LIES: dict[str, tuple[Callable[[dict[str, Any], bytes], tuple[Any, bytes]], str]] = {
    "format": (change_metadata("format", "pt"), "not a golden file"),
    "formula": (change_metadata("formula", "0"), f"made for formula '0', this is '{FORMULA}'"),
    "shared": (change_metadata("num_shared", "999"), "999 shared texts of 42"),
    "shared words": (change_metadata("num_shared", "many"), "incomplete"),
    "probe": (change_metadata("probe_id", "sha256:0"), "not those of its probe set"),
    "metadata": (change_metadata("format", 1), "metadata is not an object of texts"),
    "not an object": (lambda _, body: ([], body), "header is not an object"),
    "size": (change_tensor("base", shape=[3]), "does not have the size it states"),
    "negative": (change_tensor("base", shape=[-1]), "does not have the size it states"),
    "two dimensions": (change_tensor("base", shape=[3, 4]), "no row of F32 or I32"),
    "kind": (change_tensor("base", dtype="F64"), "no row of F32 or I32"),
    "fractions": (change_tensor("base", data_offsets=[0.5, 1.5]), "does not have the size it states"),
    "overlap": (change_tensor("base", data_offsets=[0, 4 * len(GOLDEN.base)]), "overlap or leave a gap"),
    "hidden": (lambda header, body: (header, body + bytes(4)), "its tensors need"),
    "cut": (lambda header, body: (header, body[:-4]), "its tensors need"),
    "missing row": (without("base"), "overlap or leave a gap|incomplete"),
    "fewer scores": (lambda header, body: without("base")(*short_of("base", header, body)), "overlap or leave a gap|incomplete"),
}  # fmt: skip


def short_of(name: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    return {**header, name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, body


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_by_name(name: str) -> None:
    change, message = LIES[name]
    with pytest.raises(GoldenError, match=message):
        from_bytes(joined(*change(*parted(CONTENT))))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (replace(GOLDEN, base=[*GOLDEN.base, 0.0]), "1033 scores for 'base' where 1032 tokens are scored"),
        (replace(GOLDEN, decoys={"x": [0.0]}), "1 scores for 'x'"),
        (replace(GOLDEN, adapter=[float("nan"), *GOLDEN.adapter[1:]]), "a score for 'adapter' is not a finite number"),
    ],
)
def test_scores_that_do_not_fit_the_texts_are_refused(made: Any, message: str) -> None:
    with pytest.raises(GoldenError, match=message):
        from_bytes(to_bytes(made))


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(8), b"\xff" * 8, b"\x05" + bytes(7) + b"hello", b"\x00\x00\x01" + bytes(64)]
)
def test_what_is_no_safetensors_file_is_refused(content: bytes) -> None:
    with pytest.raises(GoldenError, match=r"no whole safetensors file|not JSON"):
        from_bytes(content)


def test_the_message_names_file_and_fix(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"absent\.safetensors: No such file"):
        read_golden(tmp_path / "absent.safetensors")
    path = tmp_path / "golden.safetensors"
    path.write_bytes(CONTENT[:-4])
    with pytest.raises(GoldenError, match=r"golden\.safetensors: its tensors need .*: compute the reference anew"):
        read_golden(path)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=4))
def test_damage_is_refused_or_changes_numbers_only(place: int, damage: bytes) -> None:
    content = CONTENT[:place] + damage + CONTENT[place + len(damage) :]
    try:
        golden = from_bytes(content)
    except GoldenError:
        return
    assert len(golden.base) == len(golden.adapter) == sum(text.num_scored for text in golden.texts)
