"""`forgegate quantize` as users type it."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.artifacts import source_digest
from backends.demo.folders import TARGET_DIR
from backends.llamacpp.header import read_header
from backends.llamacpp.quantize.levels import LEVELS
from backends.llamacpp.quantize.text import demo_training
from gateway import cli
from gateway.exits import BAD_INPUT, DONE, UNABLE
from gateway.home import Home
from gateway.quantize import place
from tests.backends.llamacpp import ggufs
from tests.gateway.quantizing import Run, runner, shape_8b, sparse
from tests.hub_server import HubServer
from tests.processes import ROOT, eventually


@pytest.fixture
def run(forgegate_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--to", "Q5KM"), "no level 'Q5KM': did you mean Q5_K_M?"),
        (("demo", "--to", "Q9"), "no level 'Q9'. There are: F16"),
        (("demo", "--to", "Q4_K_M", "--out", __file__), "is a file: name a folder"),
        (("demo", "--to", "Q4_K_M", "--text", "none.txt"), "none.txt: no such file"),
        (("demo", "--to", "Q4_K_M", "--text", str(ROOT)), f"--text {ROOT}: a folder, not a file"),
        (("demo", "--to", "Q4_K_M", "--imatrix", "none.dat"), "no such file"),
        (("demo", "--to", "Q4_K_M", "--imatrix", "a", "--calibrate", "b"), "not allowed with argument"),
        (("demo", "--to", "awq", "--imatrix", __file__), "--imatrix is for GGUF levels"),
        (("demo", "--to", "Q4_K_M", "--windows", "0"), "'0' is no whole number above 0"),
        (("demo", "--to", "Q4_K_M", "--text", __file__, "--no-measure"), "exclude each other"),
        (("org/absent", "--to", "Q4_K_M"), "not pulled: forgegate models pull org/absent"),
        (("absent-folder", "--to", "Q4_K_M"), "no such file or folder"),
        (("demo",), "--to"),
    ],
)
def test_wrong_requests_are_answered_in_one_sentence(run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (BAD_INPUT, "")
    assert words in err
    assert "Traceback" not in err


def test_what_is_no_model_to_quantise_is_refused(run: Run, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    code, _, err = run(adapter, "--to", "Q4_K_M")
    assert (code, "a LoRA adapter, not a model" in err) == (BAD_INPUT, True)
    tiny = ggufs.llama(
        tmp_path / "m-Q4_K_M.gguf",
        layers=1,
        width=256,
        inner=256,
        heads=4,
        kv_heads=2,
        head=64,
        vocabulary=64,
        length=64,
    )
    code, _, err = run(tiny, "--to", "Q2_K")
    assert (code, "it is quantised already (Q4_K, Q6_K)" in err) == (BAD_INPUT, True)
    code, _, err = run(tiny, "--to", "awq")
    assert (code, "not from a GGUF file" in err) == (BAD_INPUT, True)


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_dry_run_of_a_folder_tells_the_articles_sizes_and_writes_nothing(
    run: Run, forgegate_home: Path, tmp_path: Path
) -> None:
    folder = shape_8b(tmp_path / "llama-3.1-8b")
    code, out, _ = run(folder, "--to", "all,awq", "--dry-run")
    print(out)
    assert code == DONE
    lines = [line for line in out.splitlines()[1:] if not line.startswith("note:")]
    rows = {line.split()[0]: float(line.split()[1]) for line in lines}
    expected = {
        "F16": 16.1, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q5_K_S": 5.5, "Q4_K_M": 4.9, "Q4_K_S": 4.7, "Q3_K_M": 4.0,
        "Q2_K": 3.2, "IQ4_XS": 4.4,
    }  # fmt: skip
    assert {name: abs(rows[name] / size - 1) <= 0.03 for name, size in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert rows["awq"] == pytest.approx(5.73, abs=0.01)
    notes = [line for line in out.splitlines() if line.startswith("note: awq cannot be made as things are: ")]
    assert "forgegate install awq" in notes[0]
    assert "--calibrate FILE" in notes[1]
    assert not list(forgegate_home.rglob("*.gguf"))
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.mark.engine
def test_what_was_pulled_goes_by_its_name_and_odd_shapes_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ggufs.llama(
        tmp_path / "m-F16.gguf",
        kind=ggufs.F16,
        layers=1,
        width=320,
        inner=512,
        heads=5,
        kv_heads=1,
        head=64,
        vocabulary=64,
        length=64,
    )
    with HubServer() as server:
        server.add("org/Name-GGUF", {path.name: path.read_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert cli.main(["models", "pull", "org/Name-GGUF"]) == DONE
    capsys.readouterr()
    code, out, _ = run("org/Name-GGUF:F16", "--to", "Q8_0,Q4_K_M", "--dry-run")
    assert code == DONE
    assert [line.split()[0] for line in out.splitlines()] == ["LEVEL", "Q8_0", "Q4_K_M", "note:"]
    assert out.splitlines()[-1].endswith("because their rows are no multiple of the level's blocks: 7 in Q4_K_M")


@pytest.mark.engine
def test_a_folder_that_is_laid_out_anew_is_not_guessed_at(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "phi"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Phi3ForCausalLM"], "num_attention_heads": 4}))
    (folder / "tokenizer.json").write_text("{}")
    sparse(folder, {"model.layers.0.self_attn.qkv_proj.weight": (768, 256)})
    code, _, err = run(folder, "--to", "Q4_K_M", "--dry-run")
    assert (code, "is laid out anew by llama.cpp's converter" in err) == (UNABLE, True)


@pytest.mark.engine
def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(place.shutil, "disk_usage", lambda _: usage._replace(free=9_000_000))
    out = tmp_path / "out"
    code, _, err = run("demo", "--to", "Q8_0,Q4_K_M", "--out", out, "--no-measure")
    assert code == UNABLE
    assert "Q8_0 8 MiB, Q4_K_M 5 MiB: 13 MiB together" in err
    assert "--out" in err
    assert not out.exists()


@pytest.mark.engine
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a text, and no importance matrix", "not a whole importance matrix (imatrix GGUF, or the older .dat)"),
        (b"GGUF", "not a whole importance matrix"),
        (b"", "not a whole importance matrix"),
    ],
)
def test_what_is_no_importance_matrix_is_seen_before_the_model_is_converted(
    run: Run, forgegate_home: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    given = tmp_path / "imatrix.dat"
    given.write_bytes(content)
    code, _, err = run("demo", "--to", "Q4_K_M", "--imatrix", given, "--out", tmp_path / "out", "--no-measure")
    assert (code, f"{given}: {words}" in err) == (BAD_INPUT, True)
    assert not list(forgegate_home.rglob("*.gguf"))
    assert not (tmp_path / "out").exists()


# What is to be measured -----------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_text_that_is_too_short_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    text, out = tmp_path / "short.txt", tmp_path / "out"
    text.write_text("three short words")
    code, _, err = run("demo", "--to", "Q8_0", "--text", text, "--out", out)
    assert (code, f"{text}: shorter than one window of 512 tokens; give a longer text" in err) == (BAD_INPUT, True)
    assert not out.exists()


@pytest.mark.engine
def test_a_model_that_generates_nothing_is_made_smaller_and_not_measured(run: Run, tmp_path: Path) -> None:
    import gguf

    from tests.backends.llamacpp.tiny_bert import random_weights, write_gguf

    path, out = write_gguf(tmp_path / "bert.gguf", random_weights(), gguf.PoolingType.CLS), tmp_path / "out"
    code, _, err = run(path, "--to", "Q8_0", "--out", out, "--text", __file__)
    assert (code, "it generates no text, so that there is no perplexity: leave out --text" in err) == (BAD_INPUT, True)
    assert not out.exists()
    code, printed, _ = run(path, "--to", "Q8_0", "--out", out)
    assert (code, "note: not measured: this model generates no text" in printed) == (DONE, True)
    assert (out / "bert-Q8_0.gguf").is_file()


@pytest.mark.engine
def test_measuring_that_dies_is_no_success(run: Run, forgegate_home: Path, tmp_path: Path) -> None:
    python, out = forgegate_home / "envs" / "llamacpp" / "bin" / "python", tmp_path / "out"
    python.parent.mkdir(parents=True)
    dies = """case "$*" in *'"do": "measure"'*) kill -9 $$ ;; esac"""
    python.write_text(f'#!/bin/sh\n{dies}\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    code, printed, err = run("demo", "--to", "Q8_0", "--out", out, "--json")
    words = "backends.llamacpp.quantize.work did not come to an end (killed by SIGKILL, out of memory?)"
    assert (code, f"error: the files are made, and not measured: {words}" in err) == (UNABLE, True)
    result = json.loads(printed)
    assert f"not measured: {words}" in result["notes"]
    assert [form["path"] for form in result["forms"] if not form["is_source"]] == [str(out / "demo-target-Q8_0.gguf")]
    assert (out / "demo-target-Q8_0.gguf").is_file()


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_ten_levels_of_the_demo_model_in_one_table(run: Run, tmp_path: Path) -> None:
    code, out, err = run("demo", "--to", "all", "--windows", 8, "--json", "--out", tmp_path)
    assert (code, err) == (DONE, "")
    result = json.loads(out)
    forms = {form["level"]: form for form in result["forms"]}
    assert list(forms) == list(LEVELS)
    _print_table(forms)
    assert result["source_digest"] == source_digest(TARGET_DIR)
    assert result["reference"] == "F16"
    sizes = [form["size_bytes"] for form in forms.values()]
    assert sizes == sorted(sizes, reverse=True)
    for name, form in forms.items():
        path = Path(form["path"])
        assert path.name == f"demo-target-{name}.gguf"
        assert path.stat().st_size == form["size_bytes"]
        header = read_header(path)
        assert header.source_digest == result["source_digest"], "the gateway takes it as the same base"
        assert form["num_windows"] == 8
        assert form["perplexity"]["low"] < form["perplexity"]["value"] < form["perplexity"]["high"] < 3
        assert form["prefill_tok_s"] > 0 < form["decode_tok_s"]
    ratios = {name: form["perplexity_ratio"]["value"] for name, form in forms.items()}
    assert ratios["F16"] == 1.0
    assert abs(ratios["Q8_0"] - 1) < 0.002
    assert all(0.98 < ratio < 1.05 for ratio in ratios.values()), ratios
    assert {path.name for path in tmp_path.glob("*.gguf")} == {f"demo-target-{name}.gguf" for name in LEVELS}
    assert not list(tmp_path.glob(".*"))


def _print_table(forms: dict[str, Any]) -> None:
    for name, form in forms.items():
        shown = form["perplexity"]
        print(
            f"{name:<7} {form['size_bytes'] / 1e6:5.2f} MB {form['bits_per_weight']:5.2f} bits  perplexity {shown['value']:.3f} "
            f"({shown['low']:.3f} to {shown['high']:.3f}), {form['perplexity_ratio']['value']:.4f} of F16; "
            f"{form['prefill_tok_s']:,.0f} and {form['decode_tok_s']:,.0f} tok/s"
        )


@pytest.mark.engine
@pytest.mark.slow
def test_a_gguf_is_quantised_again_only_downwards_and_an_imatrix_must_fit(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "chats.txt"
    text.write_text(demo_training(60), encoding="utf-8")
    code, out, _ = run("demo", "--to", "Q8_0,Q4_K_M", "--out", tmp_path, "--no-measure", "--calibrate", text)
    assert code == DONE
    assert "PERPLEXITY" not in out
    assert read_header(tmp_path / "demo-target-Q4_K_M.gguf").metadata["quantize.imatrix.dataset"] == "chats.txt"
    q8, matrix = tmp_path / "demo-target-Q8_0.gguf", tmp_path / "demo-target-imatrix.gguf"
    code, out, _ = run(q8, "--to", "all", "--dry-run")
    assert code == DONE
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == list(LEVELS)[2:]
    assert out.splitlines()[-1].startswith("note: F16, Q8_0: no smaller than what demo-target-Q8_0.gguf holds (Q8_0)")
    assert run(q8, "--to", "F16")[0] == BAD_INPUT
    code, out, _ = run(q8, "--to", "Q4_K_M", "--imatrix", matrix, "--windows", 4, "--out", tmp_path / "again")
    assert code == DONE
    assert "note: perplexity is left out: give a text with --text FILE" in out
    assert out.splitlines()[1].startswith("Q8_0 (source)")
    assert read_header(tmp_path / "again" / "demo-target-Q4_K_M.gguf").source_digest == source_digest(TARGET_DIR)
    code, out, _ = run(
        tmp_path / "demo-target-Q4_K_M.gguf", "--to", "Q2_K", "--requantize", "--no-measure", "--out", tmp_path
    )
    assert (code, (tmp_path / "demo-target-Q2_K.gguf").is_file()) == (DONE, True)
    other = ggufs.llama(
        tmp_path / "other.gguf", kind=ggufs.F16, layers=1, width=512, inner=512, heads=4, kv_heads=2, head=128, vocabulary=64,
        length=64,
    )  # fmt: skip
    code, _, err = run(other, "--to", "Q4_K_M", "--imatrix", matrix, "--no-measure", "--out", tmp_path / "other")
    assert (code, "an importance matrix of another model" in err) == (BAD_INPUT, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_stopped_leaves_nothing(forgegate_home: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "gateway",
        "quantize",
        "demo",
        "--to",
        "IQ4_XS,Q3_K_M,Q2_K",
        "--no-measure",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: out.is_dir() and any(out.glob(".demo-target-IQ4_XS.gguf.*")), timeout_s=60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "stopped: what was not finished is removed" in err
    assert "Traceback" not in err
    assert not out.exists() or not list(out.iterdir())
    assert eventually(lambda: not any(child.is_running() for child in children), timeout_s=10)


def test_two_at_once_do_not_write_into_one_folder(run: Run, forgegate_home: Path, tmp_path: Path) -> None:
    home = Home.from_env()
    home.ensure()
    with place.owned(tmp_path, "m", home):
        with pytest.raises(place.Busy, match="another forgegate quantize writes into"):
            with place.owned(tmp_path, "m", home):
                pass
    left = tmp_path / ".m-Q2_K.gguf.abc"
    left.write_text("of one that was killed")
    with place.owned(tmp_path, "m", home):
        assert not left.exists()
