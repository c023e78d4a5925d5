"""Decisions on disk: whole after a kill, about one thing, by one process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.pages.journal import Journal, content_digest

HEAD = {"format": "forgegate-review", "content": "sha256:1"}


def journal(path: Path, **head: str) -> Journal:
    return Journal(path, {**HEAD, **head}, ("content",))


def test_entries_are_there_again(tmp_path: Path) -> None:
    with journal(tmp_path / "j") as one:
        assert one.entries == []
        one.append({"row": 1, "text": "둘\nlines \ud83c"})
        one.append({"row": 2})
    with journal(tmp_path / "j", seed="another") as again:
        assert again.head == HEAD
        assert again.entries == [{"row": 1, "text": "둘\nlines \ud83c"}, {"row": 2}]


def test_a_line_that_was_cut_off_goes_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with journal(tmp_path / "j") as one:
        one.append({"row": 1})
    with (tmp_path / "j").open("ab") as file:
        file.write(b'{"row": 2, "do')
    with journal(tmp_path / "j") as again:
        again.append({"row": 3})
    with journal(tmp_path / "j") as last:
        assert last.entries == [{"row": 1}, {"row": 3}]


def test_a_head_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"format": "forge')
    with journal(tmp_path / "j") as one:
        assert (one.head, one.entries) == (HEAD, [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"format": "forgegate-review", "content": "sha256:2"}\n', "another content .sha256:2, not sha256:1"),
        (b'{"format": "something"}\n', "is something else"),
        (b"plain text\n", "line 1: it is no JSON"),
        (b'{"format": "forgegate-review", "content": "sha256:1"}\n[]\n', "line 2: it is no object"),
    ],
)
def test_what_is_something_else_is_refused_and_stays(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(DataUnusable, match=said):
        journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == content


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with journal(tmp_path / "j"), pytest.raises(DataUnusable, match="open in another forgegate"):
        journal(tmp_path / "j")
    journal(tmp_path / "j").__exit__(None, None, None)


def test_a_line_that_the_disk_does_not_take_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path / "j") as one:
        before = (tmp_path / "j").read_bytes()
        write, calls = os.write, []

        def half(fd: int, data: bytes) -> int:
            calls.append(fd)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
            return write(fd, bytes(data)[:5])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space left") as caught:
                one.append({"row": 1})
        assert caught.value.filename == str(tmp_path / "j")
        assert (tmp_path / "j").read_bytes() == before
        one.append({"row": 2})
    with journal(tmp_path / "j") as again:
        assert again.entries == [{"row": 2}]


def test_a_thread_that_is_late_writes_nowhere(tmp_path: Path) -> None:
    with journal(tmp_path / "j") as one:
        pass
    with (tmp_path / "other").open("wb"), pytest.raises(OSError, match="Bad file descriptor"):
        one.append({"row": 1})
    assert (tmp_path / "other").read_bytes() == b""


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text)
    one, same, other = (content_digest(tmp_path / name) for name in "abc")
    assert one == same != other
