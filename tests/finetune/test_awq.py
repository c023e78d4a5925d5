"""AWQ's child: what it reads and writes; the whole of it where its environment is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.awq import plan_awq
from backends.demo import TARGET_DIR
from backends.errors import ModelUnusable
from backends.llamacpp.quantize.text import demo_training
from backends.modelfolder import stored_tensors, weight_files
from backends.pythons import child_env, environment_python
from finetune import awq
from tests.finetune import fake_awq

HOME = Path(os.environ.get("FORGEGATE_HOME") or Path.home() / ".local/share/forgegate")
PYTHON = environment_python(HOME / "envs", "awq")


def test_a_newer_configuration_is_put_into_its_old_form() -> None:
    newer = {"dtype": "bfloat16", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}, "a": 1}
    assert awq.old_config(newer) == {
        "a": 1, "torch_dtype": "bfloat16", "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }  # fmt: skip
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "torch_dtype": "float16"}
    assert awq.old_config(plain) == {"rope_theta": 1e4, "torch_dtype": "float16"}
    assert newer["dtype"] == "bfloat16", "the original is left alone"


def test_a_model_that_autoawq_does_not_know_is_refused() -> None:
    with pytest.raises(ModelUnusable, match="does not know models of type 'mamba'; it knows llama, qwen2"):
        awq._require_known(Path("m"), "mamba", {"qwen2": None, "llama": None})


def test_rows_are_whole_and_span_the_text(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    text = tmp_path / "t.txt"
    text.write_text("하나 둘 셋 넷 다섯 여섯. " * 2000, encoding="utf-8")
    every, some = awq._rows(TARGET_DIR, text, 10_000), awq._rows(TARGET_DIR, text, 4)
    assert {len(row) for row in every} == {512}
    assert some == [every[index * len(every) // 4] for index in range(4)]
    text.write_text("짧은 글")
    with pytest.raises(ModelUnusable, match="too few"):
        awq._rows(TARGET_DIR, text, 4)


def test_the_original_keeps_its_files_and_gains_what_was_done(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for name in (
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
        "model.safetensors.index.json",
        "modeling_x.py",
    ):
        (source / name).write_text(name)
    (out / "model.safetensors").write_text("packed")
    (out / "config.json").write_text(json.dumps({"rope_theta": 1, "quantization_config": {"bits": 4}}))
    awq._finish(source, out, {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 5e5}})
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (out / "model.safetensors").read_text() == "packed"
    assert json.loads((out / "config.json").read_text()) == {
        "dtype": "float16", "rope_parameters": {"rope_theta": 5e5}, "quantization_config": {"bits": 4},
    }  # fmt: skip


def test_without_autoawq_it_says_how_to_get_it(tmp_path: Path) -> None:
    if PYTHON is not None or _has_awq():
        pytest.skip("AutoAWQ is installed")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "finetune.awq", json.dumps({"do": "check", "model": str(TARGET_DIR)})],
        env=child_env(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "forgegate install awq" in json.loads(done.stdout)["message"]


def _has_awq() -> bool:
    import importlib.util

    return importlib.util.find_spec("awq") is not None


REAL = [
    pytest.mark.slow, pytest.mark.timeout(900),
    pytest.mark.skipif(PYTHON is None, reason="AutoAWQ's environment is not installed: forgegate install awq"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["fake", pytest.param("real", marks=REAL)])
def test_the_demo_model_as_awq(tmp_path: Path, kind: str) -> None:
    """Whoever obeys this stands in for the other."""
    pytest.importorskip("tokenizers")
    if kind == "fake":
        fake_awq.install(tmp_path)
    python = environment_python(tmp_path, "awq") if kind == "fake" else PYTHON
    text, out = tmp_path / "t.txt", tmp_path / "out"
    text.write_text(demo_training(100), encoding="utf-8")
    out.mkdir()

    def outcome(**task: object) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [str(python), "-P", "-m", "finetune.awq", json.dumps(task)],
            env=child_env(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    task = {"model": str(TARGET_DIR), "calibration": str(text), "text": str(text), "most_windows": 4}
    assert outcome(do="check", **task) == (0, {"event": "done"})
    short = tmp_path / "short.txt"
    short.write_text("짧은 글")
    code, said = outcome(do="check", **{**task, "text": str(short)})
    assert (code, said["event"], "too few" in said["message"]) == (2, "refused", True)
    assert not list(out.iterdir()), "a check writes nothing"
    code, said = outcome(do="quantize", out=str(out), group_size=128, **task)
    assert (code, said["event"]) == (0, "done"), said
    assert len(said["losses"]) == len(said["reference_losses"]) == 4
    assert sum(said["losses"]) / sum(said["reference_losses"]) == pytest.approx(1.0, abs=0.1)
    tensors = stored_tensors(weight_files(out))
    assert sum(tensor.num_bytes for tensor in tensors.values()) == plan_awq(TARGET_DIR).tensor_bytes
    settings = json.loads((out / "config.json").read_bytes())["quantization_config"]
    assert (settings["quant_method"], settings["bits"], settings["group_size"]) == ("awq", 4, 128)
    assert (out / "tokenizer.json").read_bytes() == (TARGET_DIR / "tokenizer.json").read_bytes()
