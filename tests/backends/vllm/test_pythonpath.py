from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backends.errors import EngineUnavailable
from backends.vllm.inside import guard, mends
from backends.vllm.pythonpath import GUARD_MODULE, MENDS_MODULE, PLUGIN, place, plugins


def run(folder: Path, code: str) -> str:
    """By an interpreter that has nothing of ours but the folder."""
    env = {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd="/", capture_output=True, text=True, check=True)
    return done.stdout


def test_it_holds_the_guard_and_the_mends_and_nothing_else(tmp_path: Path) -> None:
    folder = place(tmp_path)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    installed = "forgegate_vllm-1.dist-info"
    assert found == [
        f"{installed}/METADATA", f"{installed}/entry_points.txt", f"{GUARD_MODULE}.py", f"{MENDS_MODULE}.py",
    ]  # fmt: skip


def test_any_interpreter_finds_both_and_nothing_else_of_ours(tmp_path: Path) -> None:
    code = f"import {GUARD_MODULE}, {MENDS_MODULE}, sys; print([n for n in sys.modules if n.startswith(('backends', 'gateway'))])"
    assert run(place(tmp_path), code) == "[]\n"


def test_the_mends_are_a_plugin_that_vllm_finds(tmp_path: Path) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        f"[found] = [p for p in entry_points(group='vllm.general_plugins') if p.name == {PLUGIN!r}]\n"
        "print(found.dist.name, found.dist.version, found.load().__module__)"
    )
    assert run(place(tmp_path), code) == f"forgegate-vllm 1 {MENDS_MODULE}\n"


@pytest.mark.parametrize("name", [GUARD_MODULE, MENDS_MODULE])
def test_a_damaged_copy_is_replaced(tmp_path: Path, name: str) -> None:
    folder = place(tmp_path)
    path = folder / f"{name}.py"
    path.write_text("class Guard: ...")
    assert place(tmp_path) == folder
    module = guard if name == GUARD_MODULE else mends
    assert path.read_bytes() == Path(module.__file__).read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tools").write_text("")
    with pytest.raises(EngineUnavailable, match=rf"^cannot write {tmp_path}/tools/vllm-guard-\w+/{GUARD_MODULE}.py: "):
        place(tmp_path / "tools")


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({}, {}), ({"VLLM_PLUGINS": "a,b"}, {"VLLM_PLUGINS": f"a,b,{PLUGIN}"}), ({"VLLM_PLUGINS": ""}, {"VLLM_PLUGINS": PLUGIN})],
    ids=["all", "listed", "none"],
)  # fmt: skip
def test_a_list_of_plugins_does_not_leave_the_mends_out(environ: dict[str, str], wanted: dict[str, str]) -> None:
    assert plugins(environ) == wanted
