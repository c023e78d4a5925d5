"""`forgegate quantize --to awq`, with a stand-in for AutoAWQ's child."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.artifacts import source_digest
from backends.demo.folders import TARGET_DIR
from backends.derivation import RECORD, read_record, source_of
from backends.llamacpp.header import read_header
from backends.llamacpp.quantize.text import demo_held_out, demo_training
from backends.sourcedigests import compute_digest
from gateway.exits import BAD_INPUT, DONE, UNABLE
from gateway.quantize.awq import _whole_folder
from tests.finetune import fake_awq
from tests.gateway.quantizing import Run, runner, shape_8b


@pytest.fixture
def run(forgegate_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def calls(forgegate_home: Path) -> Path:
    """AutoAWQ seems to be installed; the file of what was asked of it."""
    pytest.importorskip("tokenizers")
    return fake_awq.install(forgegate_home / "envs")


def tasks(calls: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def told(calls: Path) -> list[str]:
    return [task["do"] for task in tasks(calls)]


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    """To calibrate with, to measure on."""
    chats, held_out = tmp_path / "chats.txt", tmp_path / "held-out.txt"
    chats.write_text(demo_training(60), encoding="utf-8")
    held_out.write_text(demo_held_out(), encoding="utf-8")
    return chats, held_out


# What is refused ------------------------------------------------------------------------------------------------------


def test_awq_without_its_environment_says_how_to_get_it(run: Run, forgegate_home: Path) -> None:
    code, _, err = run("demo", "--to", "awq")
    assert (code, "forgegate install awq" in err) == (UNABLE, True)
    assert not (forgegate_home / "models" / "quantized" / "demo-target").exists()


def test_awq_of_a_model_that_memory_cannot_hold_is_refused(
    run: Run, forgegate_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = forgegate_home / "envs" / "awq" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setattr("gateway.quantize.awq.free_ram", lambda: 8 << 30)
    monkeypatch.setattr("gateway.quantize.awq.has_nvidia", lambda: False)
    text = tmp_path / "t.txt"
    text.write_text("words")
    folder = shape_8b(tmp_path / "llama-3.1-8b")
    assert "needs text like that of its later use" in run(folder, "--to", "awq")[2]
    code, _, err = run(folder, "--to", "awq", "--calibrate", text)
    assert code == UNABLE
    assert "AutoAWQ loads the whole model, 29.9 GiB, and 8.0 GiB of memory are free" in err
    text.write_bytes(b"\xff\xfe")
    code, _, err = run(folder, "--to", "awq", "--calibrate", text)
    assert (code, "not UTF-8" in err) == (BAD_INPUT, True)


@pytest.mark.engine
def test_what_awq_lacks_is_told_before_any_level_is_made(
    run: Run, texts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tokenizers")
    out = tmp_path / "out"

    def refused(*options: object) -> tuple[int, str]:
        code, _, err = run("demo", "--to", "Q8_0,awq", "--out", out, *options)
        assert not out.exists()
        return code, err

    code, err = refused()
    assert (code, "forgegate install awq" in err) == (UNABLE, True)
    calls = fake_awq.install(tmp_path / "home" / "envs")
    monkeypatch.setattr("gateway.quantize.awq.free_ram", lambda: 1 << 20)
    code, err = refused()
    assert (code, "AutoAWQ loads the whole model" in err) == (UNABLE, True)
    monkeypatch.undo()
    monkeypatch.setenv("FORGEGATE_HOME", str(tmp_path / "home"))
    assert tasks(calls) == []
    short = tmp_path / "short.txt"
    short.write_text("words " * 600)
    for option in ("--calibrate", "--text"):
        code, err = refused(option, short)
        assert (code, f"{short}: " in err, "too few" in err) == (BAD_INPUT, True, True)
    assert told(calls) == ["check", "check"]


def test_a_folder_that_is_no_demo_needs_a_text_also_beside_a_matrix(run: Run, calls: Path, tmp_path: Path) -> None:
    folder = shape_8b(tmp_path / "m")
    code, _, err = run(folder, "--to", "Q8_0,awq", "--imatrix", __file__)
    assert (code, "--calibrate FILE, in a command without --imatrix" in err) == (BAD_INPUT, True)
    assert tasks(calls) == []


def test_a_child_that_dies_leaves_nothing(run: Run, calls: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    texts[0].write_text("die " + texts[0].read_text(encoding="utf-8"), encoding="utf-8")
    code, out, err = run("demo", "--to", "awq", "--calibrate", texts[0], "--out", tmp_path / "out")
    assert (code, out) == (UNABLE, "")
    assert "finetune.awq did not come to an end (killed by SIGKILL, out of memory?)" in err
    assert told(calls) == ["quantize"]
    assert not (tmp_path / "out").exists()


# Folders --------------------------------------------------------------------------------------------------------------


def test_the_folder_says_what_it_was_made_from(run: Run, calls: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "o[1]ut"
    old, left = out / "demo-target-awq", out / ".demo-target-awq.making-of-one-that-was-killed"
    for folder in (old, left):
        folder.mkdir(parents=True)
        (folder / "stale.txt").write_text("stale")
    chats, held_out = texts
    code, printed, _ = run(
        "demo", "--to", "awq", "--calibrate", chats, "--text", held_out, "--windows", 5, "--json", "--out", out
    )
    assert code == DONE
    result = json.loads(printed)
    (form,) = result["forms"]
    assert (form["level"], form["path"], form["size_bytes"]) == ("awq", str(old), 5_374_464)
    assert (form["num_windows"], form["perplexity"]["value"]) == (5, pytest.approx(7.614, abs=0.001))
    assert form["perplexity_ratio"]["value"] == pytest.approx(1.0305, abs=0.0001)
    assert [path.name for path in out.iterdir()] == ["demo-target-awq"], "nothing is left beside it"
    assert not (old / "stale.txt").exists()
    assert json.loads((old / "config.json").read_bytes())["quantization_config"]["quant_method"] == "awq"
    record = read_record(old)
    assert record is not None
    assert (record.form, record.source_digest) == ("awq", source_digest(TARGET_DIR))
    assert result["source_digest"] == record.source_digest
    assert record.content_digest == compute_digest(old), "of what lies there"
    assert source_of(old, compute_digest(old)) == source_digest(TARGET_DIR), "the gateway takes it as the same base"
    (task,) = tasks(calls)
    assert (task["do"], task["calibration"], task["text"], task["group_size"]) == (
        "quantize", str(chats), str(held_out), 128,
    )  # fmt: skip


def test_a_text_that_it_was_calibrated_with_flatters(
    run: Run, calls: Path, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    code, printed, _ = run(
        "demo", "--to", "awq", "--calibrate", texts[1], "--text", texts[1], "--out", tmp_path / "out"
    )
    assert (code, "its perplexity flatters" in printed) == (DONE, True)
    code, printed, _ = run("demo", "--to", "awq", "--out", tmp_path / "out")
    assert (code, "its perplexity flatters" in printed) == (DONE, False)


def test_a_folder_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    old = tmp_path / "a[bc]" / "m-awq"
    left = old.parent / ".m-awq.making-1"
    for folder in (old, left):
        folder.mkdir(parents=True)
    (old / RECORD).write_text("old")

    def fail() -> None:
        with _whole_folder(old) as temporary:
            (temporary / RECORD).write_text("new")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (old / RECORD).read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("name", ["m[1]", "a*", "q?"])
def test_what_a_killed_one_left_is_found_under_any_name(tmp_path: Path, name: str) -> None:
    left, others = tmp_path / f".{name}-awq.making-1", tmp_path / ".mine-awq.making-1"
    another = tmp_path / ".m1-awq.making-1"
    for folder in (left, others, another):
        folder.mkdir()
    with _whole_folder(tmp_path / f"{name}-awq"):
        assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f"{name}-awq", others, another])


@pytest.mark.engine
@pytest.mark.slow
def test_levels_and_awq_in_one_table(run: Run, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, err = run("demo", "--to", "Q8_0,awq", "--windows", 4, "--json", "--out", out)
    assert (code, err) == (DONE, "")
    result = json.loads(printed)
    forms = {form["level"]: form for form in result["forms"]}
    assert list(forms) == ["F16 (source)", "Q8_0", "awq"]
    assert forms["Q8_0"]["num_windows"] == forms["awq"]["num_windows"] == 4
    header = read_header(out / "demo-target-Q8_0.gguf")
    record = read_record(out / "demo-target-awq")
    assert record is not None
    assert header.source_digest == record.source_digest == result["source_digest"]
    assert told(calls) == ["check", "quantize"]
    assert result["imatrix"] is None, "the demo's own text calibrates awq alone"
    assert "quantize.imatrix.file" not in header.metadata
    assert sorted(path.name for path in out.iterdir()) == ["demo-target-Q8_0.gguf", "demo-target-awq"]
