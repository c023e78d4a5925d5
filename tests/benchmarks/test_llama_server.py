import sys
from pathlib import Path

import pytest

from benchmarks import llama_server
from benchmarks.llama_server import Recipe
from benchmarks.peer_launch import PeerError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Recipe, "of_installed", classmethod(lambda cls: cls("1.2.3")))
    return tmp_path / "forgegate"


def test_everything_that_the_binary_depends_on_names_its_folder():
    recipe = Recipe("1.2.3")
    name = recipe.folder_name({})
    assert name.startswith("llama-server-1.2.3-")
    assert recipe.folder_name({"HOME": "/x"}) == name
    others = [
        Recipe("1.2.4").folder_name({}),
        Recipe("1.2.3", ("GGML_CUDA=ON",)).folder_name({}),
        recipe.folder_name({"CXX": "clang++"}),
        recipe.folder_name({"CMAKE_ARGS": "-DGGML_NATIVE=OFF"}),
    ]
    assert len({name, *others}) == 5


def test_no_part_of_the_build_reaches_for_the_network():
    words = Recipe("1.2.3").configuration({"CMAKE_ARGS": "-DGGML_OPENMP=OFF '-DX=a b'"})
    for define in ("LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_BUILD_UI=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_SERVER=ON"):
        assert f"-D{define}" in words
    assert words[-2:] == ["-DGGML_OPENMP=OFF", "-DX=a b"]


@pytest.mark.engine
def test_the_version_is_that_of_the_installed_engine():
    assert Recipe.of_installed().version


def test_a_built_server_is_used_again(cache: Path):
    binary = cache / Recipe("1.2.3").folder_name(llama_server.os.environ) / "llama-server"
    binary.parent.mkdir(parents=True)
    binary.touch()
    assert llama_server.ensure(pytest.fail) == binary


def test_a_missing_tool_is_named_and_nothing_is_left(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", "/nowhere")
    assert llama_server.main() == 3
    assert "building llama-server needs cmake" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


def test_a_failed_step_shows_its_errors(tmp_path: Path):
    script = "print('fine'); print('x.cpp:1: error: no such thing'); raise SystemExit(2)"
    with pytest.raises(PeerError, match=r"exit code 2\)\nx.cpp:1: error: no such thing$"):
        llama_server._run((sys.executable, "-c", script), tmp_path)
