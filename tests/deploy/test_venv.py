"""deploy/venv.sh: environments that survive an interrupted run, and Pythons that are only names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/venv.sh"


def bash(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -euo pipefail; . "{SCRIPT}"; {code}', "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("with space") / "venv"
    assert bash('ensure_venv "$1" "$2"', made, sys.executable).returncode == 0
    return made


def test_a_name_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    broken.chmod(0o755)
    assert bash('find_python "$1" "$2"', broken, sys.executable).stdout.strip() == sys.executable


def test_without_a_python_the_packages_are_named(tmp_path: Path) -> None:
    done = bash('find_python "$1"', tmp_path / "none")
    assert done.returncode == 3
    assert "apt-get install python3" in done.stderr


@pytest.mark.slow
def test_a_whole_environment_is_kept(venv: Path) -> None:
    (venv / "kept").touch()
    assert bash('ensure_venv "$1" "$2"', venv, sys.executable).returncode == 0
    assert (venv / "kept").exists()


@pytest.mark.slow
def test_an_interrupted_installation_is_made_anew(venv: Path) -> None:
    failed = bash('install_into "$1" --no-index there-is-no-such-package', venv)
    assert failed.returncode == 3
    done = bash('ensure_venv "$1" "$2"', venv, sys.executable)
    assert done.returncode == 0
    assert "making it anew" in done.stderr
    assert not (venv / ".unfinished").exists()


@pytest.mark.slow
def test_an_environment_without_its_python_is_made_anew(venv: Path) -> None:
    (venv / "bin/python").unlink()
    done = bash('ensure_venv "$1" "$2"; "$1/bin/python" -m pip --version', venv, sys.executable)
    assert done.returncode == 0
    assert done.stdout.startswith("pip ")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    done = bash('ensure_venv "$1" "$2"', tmp_path, sys.executable)
    assert done.returncode == 3
    assert "is no virtual environment" in done.stderr
    assert (tmp_path / "notes").exists()


def test_a_digest_follows_names_and_contents(tmp_path: Path) -> None:
    def digest() -> str:
        return bash('digest_of "$1" "$2"', sys.executable, tmp_path / "tree").stdout

    (tmp_path / "tree/__pycache__").mkdir(parents=True)
    (tmp_path / "tree/a").write_text("1")
    first = digest()
    (tmp_path / "tree/__pycache__/a.pyc").write_text("x")
    assert digest() == first
    (tmp_path / "tree/a").write_text("2")
    changed = digest()
    (tmp_path / "tree/a").rename(tmp_path / "tree/b")
    assert len({first, changed, digest()}) == 3
