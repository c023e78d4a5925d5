"""The wheel: what is inside, and that it works where nothing else of the checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_WHEEL_BYTES = 25_000_000

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> str:
    """Stdout of a command that must succeed, in an environment that does not lead back to the checkout."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a clean environment with the wheel, its dependencies and the engine in it."""
    engine = Path(sys.prefix, "forgegate-engine")  # tests/run.sh writes there which wheel it installed
    if not engine.is_file():
        pytest.skip("the engine's wheel is unknown here; `bash tests/run.sh` builds it")
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    run(*pip, engine.read_text(), f"{wheel}[llamacpp]", cwd=folder)
    return folder / "venv/bin"


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        name.split("/")[0].rpartition("-")[0] or name.split("/")[0] for name in names if ".dist-info" not in name
    } == {
        "gateway",
        "backends",
        "finetune",
        "benchmarks",
    }
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "backends/demo/weights").rglob("*") if path.is_file()}
    assert "backends/demo/weights/target/model.safetensors" in data
    data |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "finetune/pages/assets").iterdir()}
    assert "finetune/pages/assets/review.html" in data
    assert data <= set(names)
    assert not [name for name in names if name.startswith("benchmarks/results/")]
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_it_is_the_installed_package_that_is_imported(installed: Path, tmp_path: Path) -> None:
    for package in ("gateway", "backends", "finetune", "benchmarks"):
        where = run(installed / "python", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
        assert Path(where.strip()).is_relative_to(installed.parent)


def test_the_command_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert "serve" in run(installed / "forgegate", "--help", cwd=tmp_path)
    run(installed / "forgegate", "serve", "--check", cwd=tmp_path)
