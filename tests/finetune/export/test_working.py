"""The folder that an export is made in: one process at a time, nothing left by those that were killed."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.export.working import OutBusy, working

HOLD = """
import sys
from pathlib import Path
from finetune.export.working import working
with working(Path(sys.argv[1])) as work:
    (work / "model").mkdir()
    print(work, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holder(out: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that exports to `out`, and its folder."""
    argv = [sys.executable, "-c", HOLD, str(out)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_it_is_beside_what_is_made_and_gone_afterwards(tmp_path: Path) -> None:
    with working(tmp_path / "new" / "out") as work:
        assert work.parent == tmp_path / "new"
        (work / "sealed").mkdir()
        (work / "sealed").chmod(0o555)
    with pytest.raises(KeyboardInterrupt), working(tmp_path / "new" / "out"):
        raise KeyboardInterrupt
    assert names(tmp_path / "new") == []


def test_what_a_killed_process_left_goes_with_the_next_export(tmp_path: Path) -> None:
    child, left = holder(tmp_path / "out")
    end(child)
    mine = (".out.settings", ".out-old", ".outer.forgegate-export-x", "out.txt")
    for name in mine:
        (tmp_path / name).mkdir()
    assert (left / "model").is_dir()
    with working(tmp_path / "out") as work:
        assert names(tmp_path) == sorted([*mine, work.name])


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / ".ab.forgegate-export-x").mkdir()
    with working(tmp_path / "[a]b"):
        assert (tmp_path / ".ab.forgegate-export-x").is_dir()


def test_one_process_at_a_time_exports_to_a_place(tmp_path: Path) -> None:
    child, its = holder(tmp_path / "out")
    try:
        with pytest.raises(OutBusy, match=r"another process exports to .*out: wait for it"), working(tmp_path / "out"):
            pass
        with working(tmp_path / "other"):
            assert (its / "model").is_dir()
    finally:
        end(child)


def test_where_the_disk_has_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    child, left = holder(tmp_path / "out")
    end(child)
    monkeypatch.setattr(fcntl, "flock", refused)
    with working(tmp_path / "out"):
        assert left.is_dir()
