"""What is decided about quantising, without llama.cpp."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from backends.errors import ModelUnusable
from backends.llamacpp.header import read_header, read_parts
from backends.llamacpp.quantize.estimate import Interval, perplexity, perplexity_ratio, rate_ratio
from backends.llamacpp.quantize.imatrix import read_imatrix, write_imatrix
from backends.llamacpp.quantize.levels import LEVELS, LevelUnknown, parse
from backends.llamacpp.quantize.request import RequestRefused, base_name, main_type, refuse_quantised, split_by_gain
from backends.llamacpp.quantize.sizes import predicted, size_of, types_told
from backends.llamacpp.quantize.text import TextUnreadable, demo_held_out, demo_training, read_text
from tests.backends.llamacpp import ggufs

SEED = random.SystemRandom().randrange(10**6)
TINY = {
    "layers": 2,
    "width": 256,
    "inner": 512,
    "heads": 4,
    "kv_heads": 2,
    "head": 64,
    "vocabulary": 320,
    "length": 512,
}


# Levels and requests --------------------------------------------------------------------------------------------------


def test_levels_are_named_in_any_spelling_and_come_largest_first() -> None:
    wanted = parse("q4_k_m, Q8-0,awq,q4_k_m")
    assert ([level.name for level in wanted.levels], wanted.awq, wanted.is_all) == (["Q8_0", "Q4_K_M"], True, False)
    assert [level.name for level in parse("all").levels] == list(LEVELS)
    assert len(LEVELS) == 10


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("Q5KM", "Q5_K_M"), ("q4", "Q4_K_M"), ("Q4_0", "Q4_K_M"), ("4bit", "Q4_K_M"), ("int8", "Q8_0"), ("Q5_1", "Q5_K_M"),
        ("Q4_K_L", "Q4_K_M"), ("Q3_K_S", "Q3_K_M"), ("IQ4XS", "IQ4_XS"), ("al", "all"), ("fp16", "F16"), ("bf16", "F16"),
    ],
)  # fmt: skip
def test_an_unknown_level_is_answered_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(LevelUnknown, match=rf"no level '{text}': did you mean {near}\?.*There are: F16, Q8_0"):
        parse(text)
    with pytest.raises(LevelUnknown, match="names no level"):
        parse(" ,")


def test_what_is_quantised_already_is_refused(tmp_path: Path) -> None:
    for kind, types in ((ggufs.Q4_K, "Q4_K, Q6_K"), (ggufs.Q6_K, "Q6_K")):
        parts = read_parts(ggufs.llama(tmp_path / "m.gguf", kind=kind, **TINY))
        with pytest.raises(RequestRefused, match=rf"quantised already \({types}\).*--requantize"):
            refuse_quantised(parts, is_forced=False)
        refuse_quantised(parts, is_forced=True)
    for kind in (ggufs.F16, ggufs.F32, 30, 8):
        refuse_quantised(read_parts(ggufs.llama(tmp_path / "m.gguf", kind=kind, **TINY)), is_forced=False)


def test_levels_that_gain_nothing_are_told_apart(tmp_path: Path) -> None:
    def names(kind: int) -> tuple[list[str], list[str]]:
        parts = read_parts(ggufs.llama(tmp_path / "m.gguf", kind=kind, **TINY))
        kept, useless = split_by_gain(parts, LEVELS.values())
        return [level.name for level in kept], [level.name for level in useless]

    assert names(ggufs.F16) == (list(LEVELS), [])
    assert names(8) == (list(LEVELS)[2:], ["F16", "Q8_0"])
    assert names(ggufs.Q4_K) == (["IQ4_XS", "Q3_K_M", "Q2_K"], list(LEVELS)[:7])


def test_a_file_without_matrices_is_refused(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "m.gguf", {"general.architecture": "llama"}, [("output_norm.weight", (8,), 0)])
    with pytest.raises(ModelUnusable, match="no matrices"):
        main_type(read_parts(path))


@pytest.mark.parametrize(
    ("name", "bare"),
    [("m-F16.gguf", "m"), ("a.b-Q4_K_M.gguf", "a.b"), ("m.IQ4_XS.gguf", "m"), ("llama-3-8b.gguf", "llama-3-8b"),
     ("m-bf16-00001-of-00002.gguf", "m"), ("F16.gguf", "F16"), ("qwen2.5-q8_0.gguf", "qwen2.5")],
)  # fmt: skip
def test_a_name_loses_its_level(name: str, bare: str) -> None:
    assert base_name(Path(name)) == bare


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_a_dry_run_is_read_and_adds_up(tmp_path: Path) -> None:
    tensors = [("a.weight", (256, 3), 1), ("b.weight", (512, 2), 1), ("n.weight", (256,), 0)]
    parts = read_parts(ggufs.write(tmp_path / "m.gguf", {"general.architecture": "llama"}, tensors))
    types = types_told([
        "llama_model_loader: loaded meta data",
        "[   1/   3] a.weight       - [  256,     3,     1,     1], type =    f16, size =     0.00 MiB ->     0.00 MiB (q6_K)",
        "[   2/   3] b.weight       - [  512,     2,     1,     1], type =    f16, size =     0.002 MiB",
        "[   3/   3] n.weight       - [  256,     1,     1,     1], type =    f32, size =     0.001 MiB",
    ])  # fmt: skip
    assert types == {"a.weight": 14, "b.weight": 1, "n.weight": 0}
    size = predicted(parts, types)
    assert size.tensor_bytes == 3 * 210 + 2048 + 1024
    assert size.file_bytes == parts[0].data_start + 640 + 2048 + 1024
    assert size.bits_per_weight == 8 * size.tensor_bytes / (768 + 1024 + 256)
    assert size_of(parts).file_bytes == (tmp_path / "m.gguf").stat().st_size


# Estimates ------------------------------------------------------------------------------------------------------------


def low(interval: Interval) -> float:
    assert interval.low is not None
    return interval.low


def high(interval: Interval) -> float:
    assert interval.high is not None
    return interval.high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    hits, paired, trials = 0, 0, 2000
    for _ in range(trials):
        hard = [draw.gauss(2.0, 0.5) for _ in range(12)]
        ours = [loss + draw.gauss(0.05, 0.02) for loss in hard]
        own, ratio = perplexity(hard), perplexity_ratio(ours, hard)
        hits += low(own) <= math.exp(2.0) <= high(own)
        paired += low(ratio) <= math.exp(0.05) <= high(ratio)
        assert high(ratio) / low(ratio) < high(own) / low(own)
    assert 0.93 < hits / trials < 0.97
    assert 0.93 < paired / trials < 0.97


def test_one_observation_has_no_interval() -> None:
    assert perplexity([1.0]).as_json() == {"value": math.e, "low": None, "high": None}
    assert rate_ratio([20.0, 20.0], [10.0, 10.0]).value == pytest.approx(2.0)


def test_the_demos_texts_share_nothing_worth_learning() -> None:
    held_out, training = demo_held_out(), demo_training(50)
    assert held_out.startswith("<|im_start|>")
    assert len(held_out) > 20_000 < len(training)
    answers = {line for line in held_out.splitlines() if len(line) > 60}
    assert len(answers & set(training.splitlines())) < len(answers) / 4


def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(path) == "abc"
    path.write_bytes("한글".encode("cp949"))
    with pytest.raises(TextUnreadable, match="not UTF-8"):
        read_text(path)
    with pytest.raises(TextUnreadable, match="No such file"):
        read_text(tmp_path / "none")


# Importance matrices --------------------------------------------------------------------------------------------------


def test_an_importance_matrix_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m-imatrix.gguf"
    squares = {"blk.0.a.weight": np.array([[8.0, 4.0]]), "blk.0.e.weight": np.array([[2.0, 4.0], [0.0, 0.0]])}
    write_imatrix(path, squares, {"blk.0.a.weight": np.array([4]), "blk.0.e.weight": np.array([2, 0])}, 3, 512, "t.txt")
    found = read_imatrix(path)
    assert {name: row.tolist() for name, row in found.means.items()} == {
        "blk.0.a.weight": [2.0, 1.0],
        "blk.0.e.weight": [1.0, 2.0, 1.0, 1.0],  # the second expert saw nothing: no column matters more than another
    }
    assert (found.num_chunks, found.dataset) == (3, "t.txt")
    assert read_header(path).metadata["general.type"] == "imatrix"


def legacy(entries: dict[str, tuple[int, list[float]]], end: bytes = b"") -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += (
            struct.pack("<i", len(name))
            + name.encode()
            + struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
        )
    return data + end


def test_the_older_form_is_read_with_and_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "m.dat"
    entries = {"blk.0.a.weight": (4, [8.0, 4.0]), "blk.1.a.weight": (0, [1.0])}
    for end, expected in ((b"", (0, "")), (struct.pack("<ii", 7, 5) + b"t.txt", (7, "t.txt"))):
        path.write_bytes(legacy(entries, end))
        found = read_imatrix(path)
        assert found.means["blk.0.a.weight"].tolist() == [2.0, 1.0]
        assert (found.num_chunks, found.dataset) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not a whole importance matrix"), (b"hello world, no matrix", "not a whole importance matrix"),
     (legacy({"a": (1, [1.0, 2.0])})[:-3], "not a whole importance matrix"), (legacy({"a": (1, [math.nan])}), "no mean squares"),
     (legacy({"a": (1, [-1.0])}), "no mean squares")],
)  # fmt: skip
def test_what_is_no_importance_matrix_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable, match=words):
        read_imatrix(path)


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="a GGUF of type model"):
        read_imatrix(ggufs.llama(tmp_path / "m.gguf", kind=ggufs.F16, **TINY))
