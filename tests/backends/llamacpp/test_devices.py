"""Asking an engine's environment for its GPUs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from backends.errors import EngineUnavailable
from backends.llamacpp import devices
from backends.llamacpp.devices import list_devices
from backends.llamacpp.memory import Device


def interpreter(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.engine
def test_the_real_llama_cpp_answers() -> None:
    pytest.importorskip("llama_cpp")
    found = list_devices(sys.executable)
    assert all(0 < device.free_bytes <= device.total_bytes for device in found)


def test_what_is_told_becomes_values(tmp_path: Path) -> None:
    card = {"name": "CUDA0", "description": "A card", "free_bytes": 5, "total_bytes": 9, "is_in_ram": False}
    python = interpreter(tmp_path, f"echo some noise; echo '{json.dumps([card])}'")
    assert list_devices(python) == (Device("CUDA0", "A card", 5, 9),)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo oops >&2; exit 1", "cannot load its llama.cpp: oops"),
        ("kill -ILL $$", "built for another CPU"),
        ("exit 0", "cannot load its llama.cpp: no output"),
        ("echo '[{}]'", "cannot load its llama.cpp"),
    ],
)
def test_an_environment_that_cannot(script: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        list_devices(interpreter(tmp_path, script))


def test_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "TIMEOUT_S", 0.2)
    with pytest.raises(EngineUnavailable, match=r"within 0\.2 s: does the GPU's driver answer"):
        list_devices(interpreter(tmp_path, "exec sleep 20"))


def test_no_such_interpreter() -> None:
    with pytest.raises(EngineUnavailable, match="/no/python cannot be run"):
        list_devices("/no/python")
