from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway.control import aliases
from gateway.control.aliases import Move, Rules
from gateway.control.desired import Desired, Version
from gateway.control.store import MIGRATIONS, SCHEMA, Store, StoreFailed, StoreUnusable
from gateway.snapshot import Share

A, B = (Version(f"s@{x}", x * 64, "demo", "sha256:b", 8, 10, "ann", 1.0 + i) for i, x in enumerate("ab"))
TWO = Desired({A.name: A, B.name: B})


@asynccontextmanager
async def opened(path: Path, *versions: Version) -> AsyncIterator[Store]:
    store = Store.open(path)
    try:
        for version in versions:
            await store.add(version)
        yield store
    finally:
        await store.close()


async def move(store: Store, desired: Desired, *shares: Share, alias: str = "s") -> Desired:
    change = aliases.point(desired, Move(alias, shares, "ann", "why"), Rules(), 5.0)
    assert change is not None
    after = aliases.apply(desired, change)
    await store.move(change, after.aliases[alias])
    return after


async def test_what_is_read_is_what_the_moves_led_to(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A, B) as store:
        after = await move(store, TWO, Share(A.name))
        after = await move(store, after, Share(A.name, 9), Share(B.name, 1))
        after = await move(store, after, Share(B.name), alias="t")
        change = aliases.rollback(after, "s", "bob", 6.0)
        after = aliases.apply(after, change)
        await store.move(change, after.aliases["s"])
        assert await store.load() == after
    async with opened(tmp_path / "f.db") as store:
        assert await store.load() == after


async def test_a_dropped_alias_leaves_its_history_and_begins_anew(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A, B) as store:
        after = await move(store, TWO, Share(A.name))
        change = aliases.drop(after, "s", "ann", 6.0)
        after = aliases.apply(after, change)
        await store.move(change, None)
        assert await store.load() == after
        after = await move(store, after, Share(B.name))
        loaded = await store.load()
        assert loaded == after
        assert [change.kind for change in loaded.history["s"]] == ["flip", "drop", "flip"]
        assert loaded.aliases["s"].served == {B.name}


async def test_pins_are_kept_and_go_with_their_version(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A) as store:
        await store.pin(A.name, True)
        await store.pin(A.name, True)
        assert (await store.load()).versions == {A.name: replace(A, is_pinned=True)}
        await store.remove(A.name)
        await store.add(A)
        assert (await store.load()).versions == {A.name: A}


async def test_a_version_added_again_keeps_that_it_has_served(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A, B) as store:
        await move(store, TWO, Share(A.name))
        await store.add(A)
        assert (await store.load()).versions[A.name].has_served


async def test_what_an_alias_needs_cannot_be_removed_and_nothing_changes(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A, B) as store:
        after = await move(store, TWO, Share(A.name))
        with pytest.raises(StoreFailed, match="nothing was changed: FOREIGN KEY"):
            await store.remove(A.name)
        assert await store.load() == after


async def test_a_move_that_fails_in_the_middle_has_not_happened(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db", A) as store:
        with pytest.raises(StoreFailed):
            await move(store, TWO, Share(A.name), Share(B.name))  # the second version is not there
        assert await store.load() == Desired({A.name: A})


async def test_a_locked_database_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.store.BUSY_TIMEOUT_MS", 50)
    async with opened(tmp_path / "f.db") as store:
        with sqlite3.connect(tmp_path / "f.db") as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreFailed, match="database is locked"):
                await store.add(A)
        other.close()
        await store.add(A)


async def test_the_database_is_durable_and_checks_its_keys(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db") as store:
        with store._engine.connect() as connection:
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys")]
            level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    assert (found, level) == (["wal", 1], 2)


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    asyncio.run(Store.open(path).close())
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA + 1),))
    database.close()
    with pytest.raises(StoreUnusable, match=f"newer forgegate .schema {SCHEMA + 1}.*FORGEGATE_HOME"):
        Store.open(path)


def test_what_is_no_database_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreUnusable, match=r"f\.db: file is not a database"):
        Store.open(path)


def test_a_driver_that_is_not_installed_is_named_and_no_password_shown() -> None:
    with pytest.raises(StoreUnusable, match=r"postgresql://u:\*\*\*@h/d: .*install the database's driver") as caught:
        Store.open("postgresql://u:secret@h/d")
    assert "secret" not in str(caught.value)


def test_a_migration_that_dies_leaves_the_old_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.db"
    asyncio.run(Store.open(path).close())

    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.control.store.MIGRATIONS", (*MIGRATIONS, broken))
    monkeypatch.setattr("gateway.control.store.SCHEMA", SCHEMA + 1)
    with pytest.raises(KeyboardInterrupt):
        Store.open(path)
    with sqlite3.connect(path) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        assert database.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA),)]
    database.close()
    assert "half" not in tables


def _die_at(point: str, path: str) -> None:
    """In a process of its own."""
    from gateway.control import failpoints

    failpoints._chosen = point

    async def work() -> None:
        store = Store.open(Path(path))
        desired = await store.load()
        if A.name not in desired.versions:
            await store.add(A)
            await store.add(B)
        else:
            await move(store, desired, Share(B.name))

    asyncio.run(work())


@pytest.mark.parametrize(
    ("point", "has_version", "serves"),
    [
        ("publish.recording", False, None),
        ("publish.recorded", True, None),
        ("alias.moving", True, A.name),
        ("alias.moved", True, B.name),
    ],
)
async def test_killed_anywhere_the_state_is_the_old_or_the_new_one(
    tmp_path: Path, point: str, has_version: bool, serves: str | None
) -> None:
    path = tmp_path / "f.db"
    if serves:
        async with opened(path, A, B) as store:
            await move(store, TWO, Share(A.name))
    child = multiprocessing.get_context("spawn").Process(target=_die_at, args=(point, str(path)))
    child.start()
    await asyncio.to_thread(child.join, 30)
    assert child.exitcode == -9
    child.close()
    async with opened(path) as store:
        after = await store.load()
    assert (A.name in after.versions) is has_version
    if serves:
        assert after.aliases["s"].shares == (Share(serves),)
        assert after.history["s"][-1].shares == (Share(serves),)
        assert after.versions[B.name].has_served is (serves == B.name)
