from __future__ import annotations

import os
from pathlib import Path

import pytest

from backends.vllm.cpu import fast_env


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    (tmp_path / "lib").mkdir()
    return path


def test_libraries_of_its_environment_are_loaded_first(python: Path) -> None:
    assert fast_env(str(python), {}) == {}
    lib = python.parent.parent / "lib"
    iomp, malloc = lib / "libiomp5.so", lib / "libtcmalloc_minimal.so.4"
    iomp.touch()
    assert fast_env(str(python), {}) == {"LD_PRELOAD": str(iomp)}
    malloc.touch()
    assert fast_env(str(python), {}) == {"LD_PRELOAD": f"{malloc}:{iomp}"}
    assert fast_env(str(python), {"LD_PRELOAD": "/mine.so"}) == {}


def test_a_bare_name_is_looked_for_as_a_shell_would(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iomp = python.parent.parent / "lib" / "libiomp5.so"
    iomp.touch()
    monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}/bin")
    assert fast_env("python", {}) == {"LD_PRELOAD": str(iomp)}
    assert fast_env("no-such-python", {}) == {}


def test_replicas_are_not_bound_to_the_same_cores() -> None:
    assert fast_env("no-such-python", {}, 2) == {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert fast_env("no-such-python", {"VLLM_CPU_OMP_THREADS_BIND": "0"}, 2) == {}
