"""The engine's wheel: what its cache key depends on, which backend is chosen, and what a failed build says."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from backends.llamacpp.toolkit import kept_archive

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEPLOY))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("llamacpp_wheel")


@pytest.fixture
def toolchain(wheel: ModuleType) -> ModuleType:
    return importlib.import_module("toolchain")


def test_the_version_is_the_one_that_the_package_pins(wheel: ModuleType) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", wheel.pinned_version())


def test_the_key_follows_all_that_changes_the_bytes(wheel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [wheel.Spec("0.3.36", "cpu", "").key(), wheel.Spec("0.3.37", "cpu", "").key()]
    keys += [wheel.Spec("0.3.36", "vulkan", "").key(), wheel.Spec("0.3.36", "cpu", "/wheels").key()]
    assert wheel.Spec("0.3.36", "cpu", "").key() == keys[0]
    monkeypatch.setenv("CFLAGS", "-O1")
    keys.append(wheel.Spec("0.3.36", "cpu", "").key())
    monkeypatch.delenv("CFLAGS")
    monkeypatch.setattr(wheel, "cpu_features", lambda: "another CPU")
    keys.append(wheel.Spec("0.3.36", "cpu", "").key())
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("is_driver", "compiler", "backend"),
    [(False, "/usr/bin/nvcc", "cpu"), (True, None, "cpu"), (True, "/usr/bin/nvcc", "cuda"), (False, None, "cpu")],
)
def test_auto_takes_cuda_only_with_a_driver_and_a_compiler(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, is_driver: bool, compiler: str | None, backend: str
) -> None:
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    monkeypatch.setattr(toolchain, "is_cuda_driver_answering", lambda: is_driver)
    monkeypatch.setattr(toolchain, "nvcc", lambda: compiler)
    assert toolchain.chosen_backend("auto") == backend


def test_a_missing_compiler_is_named_with_its_package(
    toolchain: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("FORGEGATE_APT", raising=False)
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 1\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        toolchain.BuildError, match=r"a C\+\+ compiler.*apt-get install gcc libc6-dev g\+\+.*FORGEGATE_APT=1"
    ):
        toolchain.require_tools("cpu")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("fatal error: error writing to /x.s: No space left on device", "the disk is full"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "out of memory"),
        ("WARNING: Retrying: NewConnectionError('...')", "the package index cannot be reached"),
        ("src/llama.cpp:7:1: error: expected unqualified-id", "failed\n    src/llama.cpp:7:1: error"),
    ],
)
def test_a_failed_build_says_why(wheel: ModuleType, tmp_path: Path, line: str, cause: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"[1/78] g++ -c a.cpp\na.cpp:1:1: warning: unused\n{line}\nninja: build stopped\n")
    message = str(wheel.failure("building", log))
    assert cause in message
    assert "warning: unused" not in message
    assert str(log) in message


def test_the_common_library_is_switched_off(wheel: ModuleType, tmp_path: Path) -> None:
    lists = tmp_path / "CMakeLists.txt"
    lists.write_text(f"project(llama_cpp)\n    {wheel.COMMON_ON}\n")
    assert wheel.only_the_library(tmp_path) == ["build.targets=llama"]
    assert 'set(LLAMA_BUILD_COMMON OFF CACHE BOOL "Build llama.cpp common library" FORCE)' in lists.read_text()


def test_an_unknown_source_is_built_whole(wheel: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("project(llama_cpp)\n")
    assert wheel.only_the_library(tmp_path) == []


def test_a_wheel_that_does_not_load_is_not_cached(
    wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_build(_: object, work: Path, __: Path) -> Path:
        made: Path = work / "wheel/llama_cpp_python-0.3.36-py3-none-any.whl"
        made.parent.mkdir()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("llama_cpp/lib/libllama.so", "not a library")
        return made

    monkeypatch.setattr(wheel, "build", fake_build)
    spec = wheel.Spec("0.3.36", "cpu", "")
    with pytest.raises(wheel.BuildError, match="cannot be loaded on this machine"):
        wheel.obtain(spec)
    assert [path.suffix for path in wheel.cache_folder().iterdir()] == [".lock"]

    monkeypatch.setattr(wheel, "check_loads", lambda *_: "fine")
    path = wheel.obtain(spec)
    assert path.parent.name == spec.key()
    monkeypatch.setattr(wheel, "build", lambda *_: pytest.fail("built again"))
    assert wheel.obtain(spec) == path


def test_the_source_is_kept_where_the_engine_looks_for_it(
    wheel: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"llama_cpp_python-{wheel.pinned_version()}.tar.gz"
    (tmp_path / name).write_bytes(b"source")
    wheel.keep_source(tmp_path / name)
    assert kept_archive().read_bytes() == b"source"
    kept_archive().unlink()
    kept_archive().parent.rmdir()
    kept_archive().parent.write_text("in the way")
    (tmp_path / name).write_bytes(b"source")
    wheel.keep_source(tmp_path / name)
    assert "fetched again when it is needed" in capsys.readouterr().err
