"""The head of a GGUF: what is read, what is refused, and that it stays quick."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from backends.errors import ModelUnusable
from backends.llamacpp.header import MAX_KEPT_ITEMS, TYPE_SIZES, read_header, read_parts
from tests.backends.llamacpp import ggufs
from tests.processes import write_gguf


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"GGUF", "ends within its header"),
        (b"GGUF" + b"\xff" * 20, "cannot be read"),
        (b"GGUF\x00\x00\x00\x03" + b"\0" * 16, "big-endian"),
        (b"GGUF\x03\0\0\0" + b"\0" * 8 + b"\x01" + b"\0" * 7 + b"\xff" * 8, "ends within its header"),
        (
            b"GGUF\x03\0\0\0" + b"\0" * 8 + b"\x01" + b"\0" * 7 + b"\x01" + b"\0" * 7 + b"k\x63\0\0\0",
            "unknown metadata type 99",
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page, not a model"),
        (b"tjgg\x03\0\0\0", "before GGUF"),
        (b"PK\x03\x04....", "a pickle or a zip"),
    ],
)
def test_damaged_and_foreign_heads(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable, match=words):
        read_header(path)


def test_every_cut_of_a_head_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "whole.gguf", "sha256:ab")
    head = read_header(path)
    assert (head.context_length, head.source_digest) == (2048, "sha256:ab")
    whole = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(head.data_start), head.data_start, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelUnusable):
            read_parts(cut)


def test_missing_tensor_data_is_told_in_bytes(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "m.gguf", {"general.architecture": "llama"}, [("a", (256, 4), 12)], cut_bytes=100)
    assert read_header(path).tensors[0].num_bytes == 4 * 144
    with pytest.raises(ModelUnusable, match=r"100 of .* bytes are missing at its end"):
        read_parts(path)


def test_a_type_newer_than_the_table_is_measured_by_the_next_tensor(tmp_path: Path) -> None:
    path = ggufs.write(
        tmp_path / "m.gguf",
        {"general.architecture": "x"},
        [("first", (32,), 0), ("second", (64,), 0), ("third", (32,), 0)],
    )
    data = path.read_bytes()
    kind_at = data.index(b"second") + len("second") + 4 + 8
    path.write_bytes(data[:kind_at] + struct.pack("<I", 1234) + data[kind_at + 4 :])
    head = read_parts(path)[0]
    assert [tensor.num_bytes for tensor in head.tensors] == [128, None, 128]
    assert head.tensor_bytes == {"first": 128, "second": 256, "third": 128}


def test_short_arrays_of_numbers_are_kept(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "llama", "llama.attention.head_count_kv": [8, 0, 8], "tokenizer.ggml.tokens": ["a", "b"],
        "long": [1] * (MAX_KEPT_ITEMS + 1), "after": 7,
    }  # fmt: skip
    head = read_header(ggufs.write(tmp_path / "m.gguf", metadata))
    assert head.metadata["llama.attention.head_count_kv"] == (8, 0, 8)
    assert "tokenizer.ggml.tokens" not in head.metadata
    assert "long" not in head.metadata
    assert head.metadata["after"] == 7


def test_type_sizes_are_those_of_gguf() -> None:
    gguf = pytest.importorskip("gguf")
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items() if kind.name != "Q8_1"}
    assert {kind: TYPE_SIZES.get(kind) for kind in theirs} == theirs


def test_a_large_vocabulary_and_a_thousand_tensors_are_read_at_once(tmp_path: Path) -> None:
    metadata = {"general.architecture": "llama", "tokenizer.ggml.merges": [f"token{n} x" for n in range(400_000)]}
    path = ggufs.write(tmp_path / "m.gguf", metadata, [(f"blk.{n}.ffn_up.weight", (256, 256), 12) for n in range(1000)])
    start = time.perf_counter()
    assert len(read_parts(path)[0].tensors) == 1000
    assert time.perf_counter() - start < 1.5  # a tenth of that where nothing else computes


# Files that a model is split over ------------------------------------------------------------------------------------


@pytest.fixture
def split(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        metadata = {"general.architecture": "llama", "split.no": number, "split.count": 3}
        ggufs.write(path, metadata, [(f"blk.{number}.ffn_up.weight", (256, 8), 12)])
    return paths


def test_a_split_model_is_read_through_its_first_part(split: list[Path]) -> None:
    parts = read_parts(split[0])
    assert [part.tensors[0].name for part in parts] == [f"blk.{n}.ffn_up.weight" for n in range(3)]


def test_a_middle_part_names_the_first(split: list[Path]) -> None:
    with pytest.raises(ModelUnusable, match=r"part 2 of 3; name the first one: .*m-00001-of-00003\.gguf"):
        read_parts(split[1])


def test_missing_and_cut_parts_are_named(split: list[Path]) -> None:
    whole = split[2].read_bytes()
    split[2].write_bytes(whole[:-1])
    with pytest.raises(ModelUnusable, match=r"00003-of-00003\.gguf: 1 of"):
        read_parts(split[0])
    split[2].unlink()
    with pytest.raises(ModelUnusable, match=r"one of 3 parts, of which are missing: m-00003-of-00003\.gguf"):
        read_parts(split[0])


@pytest.mark.parametrize("count", [2, 200_000, 4_000_000_000])
def test_a_count_of_parts_that_the_name_denies(count: int, tmp_path: Path) -> None:
    metadata = {"general.architecture": "llama", "split.no": 0, "split.count": count}
    path = ggufs.write(tmp_path / "m-00001-of-00003.gguf", metadata)
    start = time.perf_counter()
    with pytest.raises(ModelUnusable, match=rf"one of {count} parts, but not named as such"):
        read_parts(path)
    assert time.perf_counter() - start < 0.5


def test_a_number_of_a_part_that_is_none(tmp_path: Path) -> None:
    metadata = {"general.architecture": "llama", "split.no": "one", "split.count": 2}
    path = ggufs.write(tmp_path / "m-00001-of-00002.gguf", metadata)
    with pytest.raises(ModelUnusable, match="missing: m-00002-of-00002"):
        read_parts(path)


def test_a_part_under_another_name(split: list[Path], tmp_path: Path) -> None:
    split[0].rename(tmp_path / "model.gguf")
    with pytest.raises(ModelUnusable, match=r"must end in -00001-of-00003\.gguf"):
        read_parts(tmp_path / "model.gguf")
