"""A file of lines with several writers, rotated, and never readable by others."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.logfile import LogFile


def lines_of(folder: Path) -> list[bytes]:
    return [line for path in folder.iterdir() for line in path.read_bytes().splitlines()]


def test_lines_are_appended_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    file = LogFile(path, 1000, 2)
    file.append(b"one\n")
    path.chmod(0o644)
    other = LogFile(path, 1000, 2)
    other.append(b"two\nthree\n")
    file.append(b"four\n")
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.close(), other.close()


def test_a_full_one_is_renamed_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log", 10, 2)
    for number in range(8):
        file.append(b"line %d\n" % number)
    file.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "log": b"line 6\nline 7\n", "log.1": b"line 4\nline 5\n", "log.2": b"line 2\nline 3\n",
    }  # fmt: skip


def test_one_that_is_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path, 1000, 2)
    file.append(b"one\n")
    path.rename(tmp_path / "moved")
    file.append(b"two\n")
    path.unlink()
    file.append(b"three\n")
    file.close()
    assert path.read_bytes() == b"three\n"
    assert (tmp_path / "moved").read_bytes() == b"one\n"


def test_many_writers_lose_no_line_when_they_rotate(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        file = LogFile(tmp_path / "log", 500, 1000)
        for number in range(200):
            file.append(b"%d %d\n" % (writer, number))
        file.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sorted(lines_of(tmp_path)) == sorted(
        b"%d %d" % (writer, number) for writer in range(4) for number in range(200)
    )
    assert len(list(tmp_path.iterdir())) > 5


def test_after_a_torn_line_the_next_begins_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    file = LogFile(path, 1000, 2)
    file.append(b"whole\n")
    write, left = os.write, [3]

    def full_disk(fd: int, data: memoryview) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return write(fd, data[: left.pop()])

    monkeypatch.setattr(os, "write", full_disk)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            file.append(b"torn line\n")
    monkeypatch.setattr(os, "write", write)
    file.append(b"after\n")
    file.close()
    assert path.read_bytes() == b"whole\ntor\nafter\n"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path, tmp_path / "link", tmp_path / "target" / "x"):
        with pytest.raises(OSError, match=r"."):
            LogFile(path, 1000, 2).check()
    LogFile(tmp_path / "new", 1000, 2).check()
    assert (tmp_path / "new").exists()
