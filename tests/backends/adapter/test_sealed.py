"""Whether modes keep a hand off is the system's business; here are the modes, and that everything of ours still works with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.adapter.sealed import opened, remove_tree, seal
from backends.adapter.store import Store

DIGEST = "ab" * 32


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}


def stored(root: Path) -> Path:
    store = Store(root)
    with store.working() as work:
        made = work.folder / "version"
        made.mkdir()
        (made / "manifest.json").write_text("{}")
        assert store.put(made, DIGEST)
    return store.version(DIGEST)


def add_in_vain(folder: Path) -> None:
    with opened(folder):
        (folder / "most").write_text("x")
        (folder / "nowhere" / "x").write_text("x")


def test_what_is_stored_is_read_only(tmp_path: Path) -> None:
    assert modes(stored(tmp_path)) == {DIGEST: 0o555, "manifest.json": 0o444}


def test_it_is_sealed_again_after_additions_also_failed_ones(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    with opened(folder):
        assert folder.stat().st_mode & 0o777 == 0o755
        (folder / "more").write_text("x")
    assert modes(folder) == {DIGEST: 0o555, "manifest.json": 0o444, "more": 0o444}
    with pytest.raises(FileNotFoundError):
        add_in_vain(folder)
    assert modes(folder)["most"] == 0o444


def test_sealing_again_touches_no_file(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    before = (folder / "manifest.json").stat().st_ctime_ns
    seal(folder)
    assert (folder / "manifest.json").stat().st_ctime_ns == before


def test_marks_come_and_go(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    Store(tmp_path).mark(DIGEST, "known")
    assert modes(folder) == {DIGEST: 0o555, "manifest.json": 0o444, "known": 0o444}
    Store(tmp_path).unmark(DIGEST, "known")
    Store(tmp_path).unmark(DIGEST, "known")
    assert modes(folder) == {DIGEST: 0o555, "manifest.json": 0o444}
    with pytest.raises(FileNotFoundError):
        Store(tmp_path).mark("cd" * 32, "known")


def test_sealed_folders_can_be_removed(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    Store(tmp_path / "a").remove(DIGEST)
    assert list((tmp_path / "a").iterdir()) == []
    stored(tmp_path / "b")
    remove_tree(tmp_path / "b")
    assert not (tmp_path / "b").exists()
