from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backends.errors import EngineUnavailable
from backends.pythons import command_of
from backends.vllm.command import choose_command


def environment(envs: Path, name: str) -> str:
    python = envs / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return str(python)


def test_a_path_is_one_word_whatever_it_holds(tmp_path: Path) -> None:
    python = tmp_path / "my envs" / "python"
    python.parent.mkdir()
    python.touch()
    assert command_of(str(python)) == (str(python),)


def test_a_command_is_split_as_a_shell_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert command_of("numactl -N 0 ~/v/bin/python") == ("numactl", "-N", "0", "/home/ann/v/bin/python")
    assert command_of("env 'A=b c' python3") == ("env", "A=b c", "python3")


@pytest.mark.parametrize(("text", "words"), [("", "it is empty"), ("a 'b", "cannot be split")])
def test_what_is_no_command_is_said(text: str, words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        command_of(text)


def test_environments_go_before_the_interpreter_that_runs_us(tmp_path: Path) -> None:
    cpu = environment(tmp_path, "vllm-cpu")
    assert choose_command(None, tmp_path) == (cpu,)
    cuda = environment(tmp_path, "vllm")
    assert choose_command(None, tmp_path) == (cuda,)
    assert choose_command("nice python3", tmp_path) == ("nice", "python3")


def test_without_any_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(
        EngineUnavailable, match=r"forgegate install vllm \(NVIDIA GPUs\) or forgegate install vllm-cpu"
    ):
        choose_command(None, tmp_path, current=sys.executable)
