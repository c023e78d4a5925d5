"""The gateway that runs here, or one that is named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.recipe.folders import Folders, digest_cache, home_of
from finetune.running import Gateway, endpoint, find, running

URL, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:8081"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "serve.json").write_text(json.dumps({"pid": os.getpid(), "url": URL, "admin_url": ADMIN}))
    (tmp_path / "admin-token").write_text("fga-own\n")
    return tmp_path


def env(home: Path, **more: str) -> dict[str, str]:
    return {"FORGEGATE_HOME": str(home), **more}


def test_the_one_here_needs_nothing_said(home: Path) -> None:
    assert find(env=env(home)) == Gateway(URL, ADMIN, "fga-own")
    assert find(ADMIN, "given", env(home)) == Gateway(URL, ADMIN, "given")
    assert endpoint("", env(home)) == (URL, "fga-own")
    assert endpoint(f"{URL}/v1/", env(home)) == (URL, "fga-own")
    assert "fga-own" not in repr(find(env=env(home)))


def test_another_is_never_shown_the_token_of_this_home(home: Path) -> None:
    assert endpoint("http://elsewhere:8080", env(home)) == ("http://elsewhere:8080", "")
    assert endpoint("http://elsewhere:8080", env(home, FORGEGATE_API_KEY="k")) == ("http://elsewhere:8080", "k")
    with pytest.raises(
        RecipeUnusable, match=r"where do clients reach the gateway of http://elsewhere:8081\? Say it in FORGEGATE_URL"
    ):
        find("http://elsewhere:8081", env=env(home))
    named = env(home, FORGEGATE_URL="http://elsewhere:8080")
    with pytest.raises(RecipeUnusable, match="no admin token for http://elsewhere:8081: set FORGEGATE_ADMIN_TOKEN"):
        find("http://elsewhere:8081", env=named)
    assert find("http://elsewhere:8081", "t", named) == Gateway("http://elsewhere:8080", "http://elsewhere:8081", "t")


@pytest.mark.parametrize("url", ["http://gpu:port", "http://[::1", "gpu-1:8080", "http://:80", "http://gpu:0"])
def test_what_is_no_address_is_said_before_anything_is_asked(home: Path, url: str) -> None:
    words = f"{re.escape(url)} is no address: write it as http://gpu-1:8080"
    with pytest.raises(RecipeUnusable, match=words):
        endpoint(url, env(home))
    with pytest.raises(RecipeUnusable, match=words):
        find(url, "t", env(home, FORGEGATE_URL=URL))
    with pytest.raises(RecipeUnusable, match=words):
        find(ADMIN, env=env(home, FORGEGATE_URL=url))


def test_the_home_is_the_usual_one_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = tmp_path / ".local" / "share" / "forgegate"
    assert (home_of({}), home_of({"FORGEGATE_HOME": ""}), Folders.of(tmp_path, {}).home) == (usual, usual, usual)
    assert digest_cache({}) == usual / "models"
    assert (usual / "models").is_dir()
    with pytest.raises(RecipeUnusable, match=f"no forgegate is running with home {usual}"):
        find(env={})


def test_digests_are_kept_nowhere_where_the_home_takes_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert digest_cache({"FORGEGATE_HOME": str(tmp_path / "file")}) is None


def test_none_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with pytest.raises(RecipeUnusable, match="start one with `forgegate serve`, or name one with --url"):
        find(env=env(tmp_path))
    with pytest.raises(RecipeUnusable, match="name the endpoint with --url, or in FORGEGATE_URL"):
        endpoint("", env(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "serve.json").write_text(json.dumps({"pid": 2**22 + 1, "url": URL, "admin_url": ADMIN}))
    assert running(tmp_path) is None  # it has ended, and left that behind
