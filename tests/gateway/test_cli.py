from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway import cli
from gateway.exits import BAD_INPUT, DONE, UNABLE
from tests.processes import ROOT, stub_config, write_gguf


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_names_every_command() -> None:
    times = []
    for _ in range(3):
        start = time.monotonic()
        done = run("--help")
        times.append(time.monotonic() - start)
    assert done.returncode == DONE
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert min(times) < 1.0  # 0.05 s on an idle machine; test_imports holds what makes it so


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == DONE
    assert f"forgegate {command}" in done.stdout


def test_a_typo_is_answered_with_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serv"]) == BAD_INPUT
    assert "did you mean `forgegate serve`?" in capsys.readouterr().err


def test_no_command_and_a_bad_flag_are_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == BAD_INPUT
    assert cli.main(["serve", "--prot", "1"]) == BAD_INPUT
    assert cli.main(["serve", "--port", "70000"]) == BAD_INPUT
    assert "expected 0 to 65535, got '70000'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == DONE
    assert capsys.readouterr().out.startswith("forgegate ")


def test_an_unforeseen_error_is_one_line_and_a_crash_log(
    forgegate_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "broken", cli.Command("no.such.module:main", ""))
    assert cli.main(["broken"]) == UNABLE
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    (log,) = (forgegate_home / "logs").glob("crash-*.log")
    assert str(log) in error
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("arguments", [["engines", "list"], ["engines", "logs", "x"]])
def test_without_a_running_gateway(
    arguments: list[str], forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == UNABLE
    assert "no forgegate is running" in capsys.readouterr().err


def test_check_says_what_would_be_started(
    tmp_path: Path, forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = stub_config(tmp_path, workers=3, replicas=2, extra="keys: [{name: app, key: secret-key-1}]\n")
    assert cli.main(["serve", "--config", str(config), "--check", "--port", "9"]) == DONE
    out = capsys.readouterr().out
    assert "endpoint 127.0.0.1:9, 3 worker(s)" in out
    assert "demo: 2 x llama.cpp engine, model" in out
    assert "API keys: app" in out
    assert "secret" not in out
    assert not forgegate_home.exists()


def test_check_of_a_broken_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("models: []\nserver: {prot: 1}\n")
    assert cli.main(["serve", "--config", str(tmp_path / "c.yaml"), "--check"]) == BAD_INPUT
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file or folder"), (b"PK\x03\x04", "not a GGUF file"), (b"GGUF\x03", "cut off")],
    ids=["missing", "not gguf", "cut off"],
)
def test_check_of_a_broken_model(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["serve", "--model", str(path), "--check"]) == BAD_INPUT
    assert words in capsys.readouterr().err


def test_check_without_an_engine_that_can_run_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "m.gguf")
    (tmp_path / "c.yaml").write_text(
        f"models: [{{name: m, pools: [{{engine: llamacpp, model: {tmp_path}/m.gguf, python: /no/python}}]}}]"
    )
    assert cli.main(["serve", "--config", str(tmp_path / "c.yaml"), "--check"]) == UNABLE
    assert "no python here can run the llamacpp engine: /no/python cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "x.yaml", "--model", "demo"], "--config and --model exclude each other"),
        (["--engine", "remote"], "needs --model URL"),
        (["--engine", "vlm"], "unknown engine 'vlm'"),
        (["--engine", "remote", "--model", "h:9"], "base_url: expected http"),
        (["--name", "a b"], "--name 'a b'"),
    ],
)
def test_arguments_that_contradict(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--check", *arguments]) == BAD_INPUT
    assert words in capsys.readouterr().err


def test_help_config_prints_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help-config"]) == DONE
    assert "max_body_bytes: 33554432" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m gateway serve --help-config | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
