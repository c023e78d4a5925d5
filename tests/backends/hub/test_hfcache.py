from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backends.hub.hfcache import cache_folder, find_cached
from backends.hub.names import parse_name

DEMO = Path(__file__).parents[3] / "backends" / "demo" / "weights" / "target"
COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    repository = tmp_path / "models--org--demo"
    shutil.copytree(DEMO, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path


def test_a_name_means_the_commit_that_its_branch_meant_last(cache: Path) -> None:
    folder = cache / "models--org--demo" / "snapshots" / COMMIT
    assert find_cached(parse_name("org/demo"), cache) == folder
    assert find_cached(parse_name(f"org/demo@{COMMIT}"), cache) == folder
    assert find_cached(parse_name("org/demo@v2"), cache) is None
    assert find_cached(parse_name("org/other"), cache) is None


@pytest.mark.parametrize("absent", ["config.json", "tokenizer.json", "model.safetensors"])
def test_half_a_download_is_none(cache: Path, absent: str) -> None:
    (cache / "models--org--demo" / "snapshots" / COMMIT / absent).unlink()
    assert find_cached(parse_name("org/demo"), cache) is None


def test_it_is_where_the_hubs_own_tools_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_folder({}) == Path("/home/ann/.cache/huggingface/hub")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/huggingface/hub")
    assert cache_folder({"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/x"}) == Path("/home/ann/hf/hub")
    assert cache_folder({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}) == Path("/c")
