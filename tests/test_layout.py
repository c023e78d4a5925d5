"""The shape of the tree: what lies at the top, how long files are, and no trace of the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {
    "pyproject.toml",
    "gateway",
    "backends",
    "finetune",
    "benchmarks",
    "tests",
    "deploy",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
}
MAX_LINES = 450
# Split, so that this file does not find itself.
NOT_IN_THE_TREE = [
    r"/wo" + r"rk/",
    r"/opt/" + r"(?:wheels|pypi)",
    r"/ro" + r"ot/",
    r"/tm" + r"p/fg\b",
]
TEXT = {".py", ".md", ".sh", ".toml", ".yaml", ".yml", ".txt", ".json", ".jsonl", ""}


def files() -> list[Path]:
    """What git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, or git is missing")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_the_agreed_one() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in files()}
    assert {name for name in found if not name.startswith(".")} <= TOP_LEVEL


def test_files_stay_short() -> None:
    lines = {path: path.read_text().count("\n") for path in files() if path.suffix in (".py", ".sh")}
    assert not {str(path.relative_to(ROOT)): count for path, count in lines.items() if count >= MAX_LINES}


def test_no_path_of_a_machine_is_in_the_tree() -> None:
    pattern = re.compile("|".join(NOT_IN_THE_TREE))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files()
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found
