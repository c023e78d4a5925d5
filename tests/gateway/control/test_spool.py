from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.control import spool as module
from gateway.control.spool import Spool, StorageFull


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "publish", max_bytes=10_000_000)


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def held(spool: Spool, tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "publish").glob("*"))


async def test_an_upload_becomes_a_file(spool: Spool) -> None:
    spool.check(3)
    path = await spool.receive(body(b"a" * 5_000_000, b"", b"b" * 3))
    assert path.read_bytes() == b"a" * 5_000_000 + b"bbb"


async def test_too_much_is_refused_when_it_is_announced_and_when_it_comes(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(errors.BodyTooLarge, match="max_upload_bytes"):
        spool.check(10_000_001)
    with pytest.raises(errors.BodyTooLarge):
        await spool.receive(body(b"x" * 9_000_000, b"x" * 1_000_001))
    assert held(spool, tmp_path) == []


async def test_a_client_that_goes_away_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 5_000_000
        raise ConnectionResetError

    with pytest.raises(StorageFull, match="cannot be written"):  # an OSError of whoever it is
        await spool.receive(broken())
    assert held(spool, tmp_path) == []


async def test_a_full_disk_is_said_so(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(StorageFull, match="free some space"):
            spool.check(None)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.asyncio, "to_thread", full)
    with pytest.raises(StorageFull, match="filled up during the upload"):
        await spool.receive(body(b"x"))
    assert held(spool, tmp_path) == []


def test_what_a_killed_process_left_is_cleared(spool: Spool, tmp_path: Path) -> None:
    spool.new_file(".json").write_bytes(b"{}")
    spool.clear()
    spool.clear()
    assert held(spool, tmp_path) == []
