from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from backends.environments import table
from backends.environments.folders import RECORD_FILE, Folders, Record
from backends.environments.package import running_package
from backends.environments.table import ENVIRONMENTS, Environment, pins_of
from gateway import cli, doctor
from gateway.exits import BAD_INPUT, DONE, UNABLE
from gateway.home import Home
from gateway.install import Lines, Spinner, state_of
from tests.backends.tiny_environment import make_environment, make_wheel


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an environment, too; its package lies in tmp_path/wheels."""
    monkeypatch.setitem(table.ENVIRONMENTS, "tiny", make_tiny(tmp_path, "1.0"))
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "tinydep", version, f"VERSION = {version!r}\n")


def make_tiny(folder: Path, version: str) -> Environment:
    return replace(make_environment(folder, version), probe="import tinydep, backends")


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert cli.main(["install", "--list", "--json"]) == DONE
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip and venv, on a machine that may be busy
@pytest.mark.e2e
def test_install_list_upgrade_remove(
    tmp_path: Path, forgegate_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))  # such a setting would leave the environment empty
    monkeypatch.chdir(tmp_path)
    links = ["--find-links", "wheels", "--no-index"]
    assert cli.main(["install", "tiny", "--python", sys.executable, *links]) == DONE
    shown = capsys.readouterr()
    link = forgegate_home / "envs" / "tiny"
    assert "tiny installed in " in shown.out
    assert str(link) in shown.out
    assert "1 pinned packages" in shown.err
    version = subprocess.run([link / "bin" / "forgegate", "--version"], capture_output=True, text=True, check=False)
    assert version.stdout == f"forgegate {running_package().version}\n"
    where = subprocess.run([link / "bin/python", "-I", "-c", "import gateway; print(gateway.__file__)"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert where.stdout.startswith(str(link))

    row = rows(capsys)["tiny"]
    assert (row["state"], row["path"], row["forgegate"]) == ("current", str(link), running_package().version)
    assert isinstance(row["size_bytes"], int)
    assert cli.main(["install", "--upgrade"]) == DONE
    assert capsys.readouterr().out == f"tiny is up to date: {link}\n"

    monkeypatch.setitem(table.ENVIRONMENTS, "tiny", make_tiny(tmp_path, "2.0"))
    assert rows(capsys)["tiny"]["state"] == "outdated"
    found = doctor.check_environments(doctor.Machine(Home.from_env()))
    assert (found.status, found.detail) == (doctor.WARNING, "tiny outdated")
    assert "forgegate install tiny" in found.fix
    assert cli.main(["install", "--upgrade", "tiny", "--find-links", "/no/such/folder", "--no-index"]) == UNABLE
    assert "offers no tinydep==2.0" in capsys.readouterr().err
    assert rows(capsys)["tiny"]["state"] == "outdated"
    assert cli.main(["install", "--remove", "tiny"]) == DONE
    assert rows(capsys)["tiny"]["state"] == "absent"
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which environment? forgegate install llamacpp | trainer | vllm | vllm-cpu"),
        (["trainr"], "did you mean trainer? there are: llamacpp, trainer, vllm, vllm-cpu"),
        (["--list", "trainer"], "--list takes no further NAME: trainer"),
        (["--list", "--upgrade"], "--list and --upgrade exclude each other"),
        (["--json"], "--json goes with --list"),
        (["--remove", "x"], "no environment 'x'"),
        (["--remove", "trainer"], "trainer is not installed"),
        (["--list", "--python", "p"], "--list installs nothing"),
        (["--upgrade"], "nothing is installed yet"),
        (["--upgrade", "trainer"], "trainer: not installed, so not upgraded: forgegate install trainer"),
        (["trainer", "--python", "/no/python"], "--python /no/python: no such program"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], words: str, forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["install", *arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_states(tmp_path: Path) -> None:
    environment, package = ENVIRONMENTS["trainer"], replace(running_package(), is_checkout=False)
    folders = Folders(tmp_path / "envs", "trainer")

    def state() -> str:
        return str(state_of(environment, tmp_path / "envs", package)["state"])

    assert state() == "absent"
    folder = folders.make()
    record = Record(
        "trainer",
        package.version,
        package.digest,
        pins_of(environment),
        sys.executable,
        "3.11",
        "2026-01-01T00:00:00Z",
        1.0,
        1,
    )
    folders.switch(folder, record)
    assert state() == "broken"  # its Python is gone
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    assert state() == "current"
    for change in ({"forgegate": "0.0"}, {"pins": ("torch==1.0",)}, {"digest": "sha256:0"}):
        (folder / RECORD_FILE).write_text(json.dumps({**asdict(record), **change}))
        assert state() == "outdated"
    checkout = replace(package, is_checkout=True)  # its children import the checkout's code
    assert state_of(environment, tmp_path / "envs", checkout)["state"] == "current"
    (folder / RECORD_FILE).write_text("{")
    assert state() == "broken"
    folders.remove()
    folders.link.mkdir()
    assert state() == "own"


def test_what_an_old_process_left_is_swept(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "envs", "trainer")
    left = folders.make()
    (left / "lib").mkdir()
    (left.parent / "link-0").symlink_to("nowhere")
    assert folders.sweep() == []
    assert not list(left.parent.iterdir())


def test_lines_for_a_log_come_every_few_seconds() -> None:
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, lambda: now[0])
    lines.step("torch")
    for now[0] in (1.0, 6.0, 7.0):
        lines.line(f"at {now[0]:.0f}")
    assert stream.getvalue().splitlines() == ["  torch", "    at 6"]


def test_a_terminal_shows_steps_and_survives_brackets() -> None:
    stream = io.StringIO()
    with Spinner(stream) as spinner:
        spinner.step("torch==2 [/x]")
        spinner.line("Collecting [/red]")
    assert "torch==2 [/x]" in stream.getvalue()


def test_vllm_for_gpus_on_a_machine_without_one(
    forgegate_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gateway.install.has_nvidia", lambda: False)
    assert cli.main(["install", "vllm"]) == UNABLE
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: vllm computes on NVIDIA GPUs, and this machine has none that its driver lists")
    assert shown.endswith("for the CPU: forgegate install vllm-cpu")
    assert "resolved, not run" in str(rows(capsys)["vllm"]["note"])
