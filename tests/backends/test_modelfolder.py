"""Which files hold a model's weights; refusals that users see are in llamacpp/test_folder.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.errors import ModelUnusable
from backends.modelfolder import INDEX, read_config, read_optional_json, weight_files, weight_names


@pytest.mark.parametrize(
    ("present", "names"),
    [
        ([], []),
        (["config.json", "model.bin"], []),
        (["b.safetensors", "a.safetensors", "adapter_model.safetensors"], ["a.safetensors", "b.safetensors"]),
        (["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["m-00002-of-00002.safetensors"], ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]),
    ],
)
def test_without_an_index(present: list[str], names: list[str]) -> None:
    assert weight_names(present, None) == names


def test_by_the_index() -> None:
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    assert weight_names(["stray.safetensors"], index) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("index", [{}, [], None, {"weight_map": {}}, {"weight_map": ["a.safetensors"]}])
def test_an_index_that_names_nothing(index: object, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelUnusable, match="it has no weight_map"):
        weight_files(tmp_path)


@pytest.mark.parametrize("form", ["../other/w.safetensors", "{}/other/w.safetensors", "sub\\w.safetensors", "w.bin"])
def test_an_index_leads_nowhere_else(form: str, tmp_path: Path) -> None:
    folder, other = tmp_path / "m", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for path in (other / "w.safetensors", folder / "w.bin", folder / "sub\\w.safetensors"):
        path.write_bytes(b"")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": form.format(tmp_path)}}))
    with pytest.raises(ModelUnusable, match=r"it names '.*', which is no weight file of this folder"):
        weight_files(folder)


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 200_000)
    assert read_optional_json(tmp_path / "config.json") == {}
    with pytest.raises(ModelUnusable, match=r"config\.json: not a JSON object"):
        read_config(tmp_path)
