"""Cases of `bench micro`, their least work, and a short real run."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from backends.llamacpp.header import Header, TensorInfo
from benchmarks import cli
from benchmarks.micro import (
    STEPS,
    Case,
    MicroError,
    Plan,
    cases_of,
    floor_of,
    params_of,
    require_one_device,
    work_of,
)
from benchmarks.roofline import Device, Shape, Work


def test_every_prompt_and_every_batch_at_every_context() -> None:
    labels = [case.label for case in cases_of((128,), (1, 8), (0, 512))]
    assert labels == [
        "prefill of 128 after 0",
        "prefill of 128 after 512",
        "decode, batch 1, after 1",
        "decode, batch 8, after 1",
        "decode, batch 1, after 512",
        "decode, batch 8, after 512",
    ]


def test_a_prompt_is_computed_in_chunks_each_of_which_sees_those_before() -> None:
    first, second = work_of(Case("prefill", 1, 10, 513))
    assert first == Work(512, sum(10 + place for place in range(512)), 1)
    assert second == Work(1, 522, 1)


def test_a_step_of_decoding_sees_all_sequences() -> None:
    works = work_of(Case("decode", 4, 100))
    assert (len(works), works[0], works[-1]) == (STEPS, Work(4, 400, 4), Work(4, 4 * (100 + STEPS - 1), 4))


def test_weights_are_read_once_a_step() -> None:
    shape, device = Shape(200, 80, 20, 0, 0), Device("a device", 100.0, 1e9)
    assert floor_of(Case("decode", 1, 1), shape, device).memory_s == 2.0 * STEPS
    assert floor_of(Case("prefill", 1, 0, 512), shape, device).memory_s == 2.0


def test_the_context_has_room_for_the_largest_case() -> None:
    options = Plan(cases_of((128,), (1, 8), (512,)), 1, 1).options
    assert options.n_ctx >= 8 * (512 + 128)
    assert options.n_seq_max == 8


@pytest.mark.engine
@pytest.mark.slow
def test_the_demo_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "micro.json"
    words = [
        "micro",
        "--prompt",
        "32",
        "--batch",
        "1,2",
        "--context",
        "0",
        "--repeats",
        "1",
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    assert cli.main(words) == 0
    result = json.loads(out.read_text())
    assert [row["case"] for row in result["cases"]] == [
        "prefill of 32 after 0",
        "decode, batch 1, after 1",
        "decode, batch 2, after 1",
    ]
    for row in result["cases"]:
        assert row["tok_s"]["median"] > 0
        assert row["share_of_roofline"] == pytest.approx(row["tok_s"]["median"] / row["roofline_tok_s"])
    assert "roofline" in capsys.readouterr().out


@pytest.mark.engine
def test_a_case_beyond_the_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["micro", "--context", "4096", "--repeats", "1"]) == 2
    assert "lower --context or --prompt" in capsys.readouterr().err


@pytest.mark.engine
def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["micro", "--model", "nowhere.gguf"]) == 2
    assert "no such model file: nowhere.gguf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("num_gpu_layers", "is_refused"), [(0, False), (-1, False), (13, False), (12, True), (1, True)]
)
def test_layers_on_both_devices_have_no_roof(num_gpu_layers: int, is_refused: bool) -> None:
    with pytest.raises(MicroError, match="no roof") if is_refused else nullcontext():
        require_one_device(num_gpu_layers, num_layers=12)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_table_that_is_only_looked_up_is_neither_computed_nor_read(is_tied: bool, tmp_path: Path) -> None:
    f16 = 1
    tensors = [TensorInfo("token_embd.weight", (4, 10), f16, 0), TensorInfo("blk.0.ffn_up.weight", (4, 6), f16, 80)]
    tensors += [] if is_tied else [TensorInfo("output.weight", (4, 10), f16, 128)]
    header = Header(tmp_path, 3, {}, tuple(tensors), 0, 0)
    assert params_of([header]) == (24, 40, 0 if is_tied else 80)


@pytest.mark.parametrize(
    ("text", "words"), [(",", "names no number of tokens"), ("0,0", "twice"), ("-1", "at least 0"), ("a", "'a' is not")]
)
def test_contexts_that_are_none_are_one_line(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["micro", f"--context={text}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: argument --context: ")
    assert words in said
