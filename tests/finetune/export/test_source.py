"""What a user names: a run's folder or an adapter's, and the base that belongs to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backends.adapter.upload import CONFIG, WEIGHTS
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR
from finetune.errors import RecipeUnusable
from finetune.export.source import find, recipe_of, require_full_precision, resolve_base

HOST = ADAPTERS_DIR / "host"


def run_folder(path: Path, base: Path | str, attempts: int = 1) -> Path:
    shutil.copytree(HOST, path / "adapter")
    (path / "attempts").mkdir()
    for number in range(1, attempts + 1):
        told = {"base": str(base) if number == attempts else "elsewhere", "number": number}
        (path / "attempts" / f"{number}.json").write_text(json.dumps(told))
    return path


def refusal(named: Path, base: Path | None = None) -> str:
    with pytest.raises(RecipeUnusable) as caught:
        find(named, base)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_run_is_its_adapter_on_the_base_of_its_last_attempt(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", TARGET_DIR, attempts=10)
    source = find(run, None)
    assert (source.adapter, source.base, source.run) == (run / "adapter", TARGET_DIR, run)
    assert (recipe_of(run) or {})["number"] == 10


def test_what_a_run_has_exported_is_on_the_runs_base(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", TARGET_DIR)
    shutil.copytree(HOST, run / "export")
    config = json.loads((HOST / CONFIG).read_text()) | {"base_model_name_or_path": None}  # as the canonical form has it
    (run / "export" / CONFIG).write_text(json.dumps(config))
    source = find(run / "export", None)
    assert (source.adapter, source.base, source.run) == (run / "export", TARGET_DIR, None)
    shutil.copytree(run / "export", run / "other")
    assert "does not say on which base" in refusal(run / "other")


def test_an_adapter_needs_its_base_said(tmp_path: Path) -> None:
    assert "was trained on forgegate-demo-target, which is not here: name it with --base" in refusal(HOST)
    source = find(HOST, Path("demo"))
    assert (source.adapter, source.base, source.run) == (HOST, TARGET_DIR, None)
    shutil.copytree(HOST, tmp_path / "own")
    config = json.loads((HOST / CONFIG).read_text()) | {"base_model_name_or_path": str(TARGET_DIR)}
    (tmp_path / "own" / CONFIG).write_text(json.dumps(config))
    assert find(tmp_path / "own", None).base == TARGET_DIR
    (tmp_path / "own" / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": None}))
    assert "does not say on which base it was trained: name its folder with --base" in refusal(tmp_path / "own")
    (tmp_path / "own" / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": "acme/model-8b"}))
    assert "was trained on acme/model-8b, which is not here: name it with --base" in refusal(tmp_path / "own")


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("none: no such folder")
    assert f"it has no {CONFIG} and no {WEIGHTS}" in refusal(tmp_path)
    (tmp_path / "run" / "attempts").mkdir(parents=True)
    assert "has no trained adapter yet" in refusal(tmp_path / "run")


def test_a_base_is_a_folder_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnusable, match="forgegate models pull ID"):
        resolve_base(tmp_path)
    (tmp_path / "m.gguf").touch()
    with pytest.raises(RecipeUnusable, match="is a file: --base takes the model's folder"):
        resolve_base(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "is quantised (bitsandbytes)",
        ),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "is quantised (AWQ)"),
        ({"quantization_config": {}}, ""),
    ],
)
def test_a_quantised_base_is_refused_with_the_reason(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if not words:
        require_full_precision(tmp_path)
        return
    with pytest.raises(RecipeUnusable) as caught:
        require_full_precision(tmp_path)
    assert words in str(caught.value)
    assert "forgegate quantize" in str(caught.value)
    assert words in refusal(HOST, tmp_path)
