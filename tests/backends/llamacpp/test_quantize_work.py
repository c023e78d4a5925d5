"""llama.cpp's quantiser, its evaluation callback and what is measured with it, on real files."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.artifacts import source_digest
from backends.demo.folders import TARGET_DIR
from backends.llamacpp.header import read_parts
from backends.llamacpp.quantize.levels import LEVELS
from backends.llamacpp.quantize.request import main_type
from backends.llamacpp.quantize.sizes import predicted, size_of, types_told
from backends.llamacpp.quantize.text import demo_held_out, demo_training
from tests.backends.llamacpp import ggufs

pytestmark = pytest.mark.engine
MAIN_TYPES = {
    "F16": 1, "Q8_0": 8, "Q6_K": 14, "Q5_K_M": 13, "Q5_K_S": 13, "Q4_K_M": 12, "Q4_K_S": 12, "IQ4_XS": 23, "Q3_K_M": 11, "Q2_K": 10,
}  # fmt: skip


def work(**task: Any) -> dict[str, Any]:
    """The outcome of one piece of work, done in this process."""
    from contextlib import redirect_stdout
    from io import StringIO

    from backends.llamacpp.quantize import work as module

    said = StringIO()
    with redirect_stdout(said):
        code = module.main([json.dumps(task)])
    outcome = dict(json.loads(said.getvalue().splitlines()[-1]))
    assert (code == 0) == (outcome["event"] == "done")
    return {**outcome, "code": code}


def make(source: Path, out: Path, level: str, imatrix: str = "", **metadata: str) -> dict[str, Any]:
    return work(
        do="quantize", source=str(source), out=str(out), file_type=LEVELS[level].file_type, level=level, imatrix=imatrix,
        metadata=metadata, is_requantizing=False,
    )  # fmt: skip


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_level_is_as_large_as_foretold_and_knows_its_source(demo_gguf: Path, tmp_path: Path) -> None:
    parts = read_parts(demo_gguf)
    file_types = [level.file_type for level in LEVELS.values()]
    told = work(do="predict", source=str(demo_gguf), file_types=file_types, is_requantizing=False)["lines"]
    for name, level in LEVELS.items():
        out = tmp_path / f"{name}.gguf"
        assert make(demo_gguf, out, name)["event"] == "done"
        made, foretold = read_parts(out), predicted(parts, types_told(told[str(level.file_type)]))
        assert size_of(made).tensor_bytes == foretold.tensor_bytes
        assert abs(size_of(made).file_bytes - foretold.file_bytes) < 4096, name
        assert main_type(made) == MAIN_TYPES[name]
        assert made[0].source_digest == source_digest(TARGET_DIR)
        assert made[0].metadata["general.file_type"] == level.file_type


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_becomes_full_is_said_as_that(demo_gguf: Path) -> None:
    told = make(demo_gguf, Path("/dev/full"), "Q2_K")
    print(told)
    assert (told["event"], told["code"]) == ("refused", 3)
    assert "/dev cannot be written to the end" in told["message"]
    assert "free some space, or name another disk with --out" in told["message"]


def test_a_source_without_a_digest_gets_one(tmp_path: Path) -> None:
    source = ggufs.llama(
        tmp_path / "m.gguf",
        kind=ggufs.F16,
        layers=1,
        width=256,
        inner=256,
        heads=4,
        kv_heads=2,
        head=64,
        vocabulary=64,
        length=64,
    )
    digest = f"sha256:{'ab' * 32}"
    assert make(source, tmp_path / "q.gguf", "Q8_0", **{"forgegate.source_digest": digest})["event"] == "done"
    assert read_parts(tmp_path / "q.gguf")[0].source_digest == digest


def test_what_llama_cpp_refuses_is_told_in_its_words(demo_gguf: Path, tmp_path: Path) -> None:
    assert make(demo_gguf, tmp_path / "q.gguf", "Q4_K_M")["event"] == "done"
    outcome = make(tmp_path / "q.gguf", tmp_path / "r.gguf", "Q2_K")
    assert (outcome["event"], outcome["code"]) == ("refused", 3)
    assert "requantizing from type q4_K is disabled" in outcome["message"]


# Sizes of the article's model -----------------------------------------------------------------------------------------

ARTICLE_GB = {
    "F16": 16.1, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q5_K_S": 5.5, "Q4_K_M": 4.9, "Q4_K_S": 4.7, "Q3_K_M": 4.0, "Q2_K": 3.2,
    "IQ4_XS": 4.4,
}  # fmt: skip


def test_sizes_of_the_8b_shape(tmp_path: Path) -> None:
    """llama.cpp's own dry run over a file of Llama-3.1-8B's shape that has no data."""
    source = ggufs.llama(
        tmp_path / "8b.gguf", kind=ggufs.F16, layers=32, width=4096, inner=14336, heads=32, kv_heads=8, head=128,
        vocabulary=128_256, length=131_072,
    )  # fmt: skip
    file_types = [level.file_type for level in LEVELS.values()]
    told = work(do="predict", source=str(source), file_types=file_types, is_requantizing=False)["lines"]
    parts = read_parts(source)
    for name, expected in ARTICLE_GB.items():
        found = predicted(parts, types_told(told[str(LEVELS[name].file_type)])).file_bytes / 1e9
        print(f"{name:<7} {found:6.2f} GB, the article's {expected} GB ({100 * (found / expected - 1):+.1f} %)")
        assert abs(found / expected - 1) <= 0.03


# Importance matrices --------------------------------------------------------------------------------------------------


def calibrated(source: Path, folder: Path, count: int) -> dict[str, Any]:
    """Sums and counts by name, as they lie in the file."""
    import gguf

    text, out = folder / "calibration.txt", folder / f"{source.stem}-imatrix.gguf"
    text.write_text(demo_training(200), encoding="utf-8")
    assert work(do="calibrate", source=str(source), text=str(text), out=str(out), most_windows=count)["event"] == "done"
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(out).tensors}


def tokens_of(source: Path, text: str) -> np.ndarray:
    from backends.llamacpp.binding.model import Model
    from backends.llamacpp.options import Options

    model = Model(source, Options())
    try:
        return model.tokenize(text, parse_special=True)
    finally:
        model.close()


def test_sums_are_those_of_what_goes_into_the_first_layer(demo_gguf: Path, tmp_path: Path) -> None:
    import gguf

    sums = calibrated(demo_gguf, tmp_path, 2)
    weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(demo_gguf).tensors}
    row = tokens_of(demo_gguf, (tmp_path / "calibration.txt").read_text())
    count = len(row) // 512
    windows = [row[index * 512 : (index + 1) * 512] for index in (0, count // 2)]
    x = np.asarray(weights["token_embd.weight"], dtype=np.float32)[np.concatenate(windows)]
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-5) * weights["blk.0.attn_norm.weight"]
    for name in ("attn_q", "attn_k", "attn_v"):
        assert sums[f"blk.0.{name}.weight.counts"].item() == 1024
        np.testing.assert_allclose(sums[f"blk.0.{name}.weight.in_sum2"][0], np.square(x).sum(axis=0), rtol=2e-3)
    matrices = [name for name in weights if name.startswith("blk.") and "norm" not in name]
    assert {name.removesuffix(".counts") for name in sums if name.endswith(".counts")} == set(matrices)


def with_experts(source: Path, out: Path) -> Path:
    """The same model with four copies of each feed-forward as experts, of which two are used: it computes the same."""
    import gguf

    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)
    for tensor in reader.tensors:
        for kind in ("gate", "up", "down"):
            if tensor.name.endswith(f"ffn_{kind}.weight"):
                block = tensor.name.rpartition("ffn_")[0]
                writer.add_tensor(f"{block}ffn_{kind}_exps.weight", np.stack([tensor.data] * 4))
                if kind == "gate":
                    router = np.random.default_rng(len(block)).normal(size=(4, tensor.data.shape[1]))
                    writer.add_tensor(f"{block}ffn_gate_inp.weight", router.astype(np.float32))
                break
        else:
            writer.add_tensor(tensor.name, tensor.data)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return out


@pytest.mark.slow
def test_sums_of_experts_are_those_of_the_tokens_that_went_to_them(demo_gguf: Path, tmp_path: Path) -> None:
    dense = calibrated(demo_gguf, tmp_path, 2)
    experts = calibrated(with_experts(demo_gguf, tmp_path / "moe.gguf"), tmp_path, 2)
    for kind in ("gate", "up", "down"):
        counts = experts[f"blk.1.ffn_{kind}_exps.weight.counts"]
        assert counts.sum() == 2 * 1024
        assert len({*counts.reshape(-1).tolist()}) > 1, "all experts saw the same number of tokens"
        total = experts[f"blk.1.ffn_{kind}_exps.weight.in_sum2"].sum(axis=0)
        np.testing.assert_allclose(total, 2 * dense[f"blk.1.ffn_{kind}.weight.in_sum2"][0], rtol=0.05)


def test_an_importance_matrix_moves_the_error_to_where_it_matters_less(demo_gguf: Path, tmp_path: Path) -> None:
    import gguf

    from backends.llamacpp.quantize.imatrix import read_imatrix

    calibrated(demo_gguf, tmp_path, 8)
    path = tmp_path / f"{demo_gguf.stem}-imatrix.gguf"
    means = read_imatrix(path).means
    exact = {tensor.name: tensor.data for tensor in gguf.GGUFReader(demo_gguf).tensors}

    def weighted_error(imatrix: str) -> float:
        out = tmp_path / "q.gguf"
        assert make(demo_gguf, out, "Q3_K_M", imatrix)["event"] == "done"
        total = 0.0
        for tensor in gguf.GGUFReader(out).tensors:
            if tensor.name in means:
                found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                total += float((np.square(found - exact[tensor.name]) * means[tensor.name]).sum())
        return total

    assert weighted_error(str(path)) < 0.95 * weighted_error("")


def test_too_short_a_text_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("짧은 글")
    outcome = work(
        do="calibrate", source=str(demo_gguf), text=str(tmp_path / "t.txt"), out=str(tmp_path / "i"), most_windows=8
    )
    assert (outcome["code"], "too few to calibrate with" in outcome["message"]) == (2, True)
    outcome = work(do="measure", files=[str(demo_gguf)], text=str(tmp_path / "t.txt"), most_windows=8)
    assert (outcome["code"], "shorter than one window" in outcome["message"]) == (2, True)
    assert not (tmp_path / "i").exists()


def test_windows_are_counted_before_without_weights(demo_gguf: Path, tmp_path: Path) -> None:
    from backends.llamacpp.quantize.measure import opened, windows_of

    text = tmp_path / "t.txt"
    text.write_text(demo_held_out(), encoding="utf-8")
    with opened(demo_gguf, 1) as context:
        counted = len(windows_of(context, demo_held_out(), 0))
    head = tmp_path / "head.gguf"
    head.write_bytes(demo_gguf.read_bytes()[: read_parts(demo_gguf)[0].data_start])
    os.truncate(head, demo_gguf.stat().st_size)
    for most, expected in ((0, counted), (3, 3)):
        outcome = work(do="foresee", source=str(head), text=str(text), most_windows=most)
        assert (outcome["event"], outcome["can_generate"], outcome["num_windows"]) == ("done", True, expected)
    text.write_text("짧은 글")
    outcome = work(do="foresee", source=str(head), text=str(text), most_windows=8)
    assert (outcome["code"], "shorter than one window of 512 tokens" in outcome["message"]) == (2, True)
    assert work(do="foresee", source=str(head), text="", most_windows=8)["num_windows"] == 0


def test_an_encoder_generates_nothing(tmp_path: Path) -> None:
    import gguf

    from tests.backends.llamacpp.tiny_bert import random_weights, write_gguf

    path = write_gguf(tmp_path / "bert.gguf", random_weights(), gguf.PoolingType.CLS)
    assert work(do="foresee", source=str(path), text="", most_windows=8)["can_generate"] is False


# Measurements ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.torch
def test_losses_are_those_of_transformers(demo_gguf: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from backends.llamacpp.quantize.measure import opened, window_loss, windows_of

    model = AutoModelForCausalLM.from_pretrained(TARGET_DIR, dtype=torch.float32)
    with opened(demo_gguf, 2) as context:
        windows = windows_of(context, demo_held_out(), 3)
        assert [len(window) for window in windows] == [512] * 3
        for window in windows:
            ids = torch.tensor(window.astype(np.int64))[None]
            with torch.inference_mode():
                logits = model(ids).logits[0, 255:-1]
            expected = float(torch.nn.functional.cross_entropy(logits, ids[0, 256:]))
            assert math.isclose(window_loss(context, window), expected, rel_tol=0.01)


def test_a_speed_is_tokens_over_time(demo_gguf: Path) -> None:
    from backends.llamacpp.quantize.measure import opened, speed

    ticks = iter(range(100))
    with opened(demo_gguf, 1) as context:
        found = speed(context, least_s=4.0, clock=lambda: float(next(ticks)))
    assert (found.prefill, found.decode) == (128.0, 32.0)
    assert next(ticks) == 6, "two turns of two seconds each"
