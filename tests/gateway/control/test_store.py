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
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from gateway.control import aliases, verdicts
from gateway.control.aliases import Rules
from gateway.control.desired import Desired, Version, Vote, Watch
from gateway.control.gate import Move
from gateway.control.schema import MIGRATIONS, SCHEMA, StoreUnusable, metadata
from gateway.control.store import Store, StoreFailed
from gateway.snapshot import Share
from tests.gateway.control.verdict_documents import document, encoded

A, B = (
    Version(f"s@{x * 12}", x * 64, "demo", "sha256:" + "ba" * 32, 8, 10, "ann", 1.0 + i) for i, x in enumerate("ab")
)
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


async def test_verdicts_are_kept_with_their_documents_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db") as store:
        told = [document("s@" + "a" * 12), document("s@" + "b" * 12, "s@" + "a" * 12, outcome="NO-GO")]
        read = [verdicts.read(encoded(one), 9.0 - at, "127.0.0.1") for at, one in enumerate(told)]
        for verdict, text in read:
            await store.add_verdict(verdict, text)
        loaded = (await store.load()).verdicts
        assert list(loaded.items()) == [(verdict.digest, verdict) for verdict, _ in read[::-1]]
        assert await store.documents("") == {verdict.digest: text for verdict, text in read}
        assert await store.documents("s@" + "a" * 12) == {read[0][0].digest: read[0][1]}
        with pytest.raises(StoreFailed, match="UNIQUE"):
            await store.add_verdict(*read[0])


async def test_a_change_keeps_its_verdict_and_an_alias_its_watch(tmp_path: Path) -> None:
    watch = Watch(0.02, 1.5, 100, 300.0, "ann", 7.0)
    async with opened(tmp_path / "f.db", A, B) as store:
        verdict, text = verdicts.read(encoded(document(A.name, base=verdicts.base_of("demo", A.base_digest))), 1.0, "x")
        await store.add_verdict(verdict, text)
        after = await move(store, replace(TWO, verdicts={verdict.digest: verdict}), Share(A.name))
        assert after.history["s"][0].verdict == verdict.digest
        await store.watch("s", watch)
        after = replace(after, aliases={"s": replace(after.aliases["s"], watch=watch)})
        after = await move(store, after, Share(B.name))  # a move leaves it
        assert await store.load() == after
    async with opened(tmp_path / "f.db") as store:
        assert await store.load() == after
        await store.watch("s", replace(watch, min_requests=5))
        assert (await store.load()).aliases["s"].watch == replace(watch, min_requests=5)
        await store.watch("s", None)
        assert (await store.load()).aliases["s"].watch is None
        with pytest.raises(StoreFailed, match="FOREIGN KEY"):
            await store.watch("nobody", watch)


async def test_a_vote_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "f.db") as store:
        votes = [Vote("s1", "s@b", "s@a", f"p{n}", "live", "ann", float(n)) for n in range(3)]
        for vote in (*votes, replace(votes[0], choice="tie", at=9.0)):
            await store.add_vote(vote)
        assert await store.votes("", "", "") == [*votes[1:], replace(votes[0], choice="tie", at=9.0)]
        assert await store.votes("s@b", "s@a", "s1") == await store.votes("", "", "")
        assert await store.votes("s@a", "", "") == await store.votes("", "", "s2") == []


async def test_a_database_of_the_first_schema_is_read_as_it_was_and_can_do_all_that_is_new(tmp_path: Path) -> None:
    """What `schema-1.sql` holds was written by the forgegate that had no verdicts."""
    path = tmp_path / "f.db"
    with sqlite3.connect(path) as database:
        database.executescript((Path(__file__).parent / "schema-1.sql").read_text(encoding="utf-8"))
        before = database.execute("SELECT * FROM alias_changes ORDER BY id").fetchall()
        assert database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [("1",)]
    database.close()
    a, b, c = ("s@" + letter * 12 for letter in "abc")
    async with opened(path) as store:
        desired = await store.load()
        assert [(version.name, version.is_pinned, version.has_served) for version in desired.versions.values()] == [
            (a, False, True), (b, False, True), (c, True, True),
        ]  # fmt: skip
        served, other = desired.aliases["s"], desired.aliases["other/name"]
        assert (served.shares, served.previous, served.gate, served.watch) == (
            (Share(a),), (Share(b),), "ungated", None,
        )  # fmt: skip
        assert (served.served, other.shares, other.gate) == (frozenset((a, b)), (Share(c),), "forced")
        assert [(change.kind, change.gate, change.verdict) for change in desired.history["s"]] == [
            ("flip", "ungated", ""), ("split", "ungated", ""), ("rollback", "ungated", ""), ("flip", "ungated", ""),
            ("rollback", "ungated", ""),
        ]  # fmt: skip
        assert desired.history["other/name"][0].reason == "demo day; it's fine"
        assert [change.kind for change in desired.history["gone"]] == ["flip", "drop"]
        await store.watch("s", Watch(0.02, 1.5, 100, 300.0, "ann", 7.0))
        verdict, text = verdicts.read(encoded(document(b, a)), 1.0, "x")
        await store.add_verdict(verdict, text)
        after = await move(store, await store.load(), Share(b))
        assert (after.history["s"][-1].gate, after.history["s"][-1].verdict) == ("go", verdict.digest)
        assert await store.load() == after
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT * FROM alias_changes ORDER BY id").fetchall()
        assert [row[:-1] for row in rows[: len(before)]] == before
        assert database.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA),)]
    database.close()


async def test_a_migration_that_is_killed_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.db"
    with sqlite3.connect(path) as database:
        database.executescript((Path(__file__).parent / "schema-1.sql").read_text(encoding="utf-8"))
    database.close()

    def broken(connection: Connection) -> None:
        MIGRATIONS[1](connection)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gateway.control.schema.MIGRATIONS", (MIGRATIONS[0], broken))
        with pytest.raises(KeyboardInterrupt):
            Store.open(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [("1",)]
        assert "verdicts" not in {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    async with opened(path) as store:
        assert len((await store.load()).versions) == 3


def test_an_old_and_a_new_database_have_the_same_tables(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.executescript((Path(__file__).parent / "schema-1.sql").read_text(encoding="utf-8"))
    database.close()
    found = []
    for name in ("old.db", "new.db"):
        asyncio.run(Store.open(tmp_path / name).close())
        with sqlite3.connect(tmp_path / name) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
            columns = {table: [row[1:4] for row in database.execute(f"PRAGMA table_info({table})")] for table in tables}
        database.close()
        found.append(columns)
    assert found[0] == found[1]


def test_the_tables_can_be_made_on_postgresql() -> None:
    """As far as it can be said without one: each statement compiles in its dialect."""
    made = [str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in metadata.sorted_tables]
    assert len(made) == 9
    assert any("verdict TEXT DEFAULT '' NOT NULL" in text for text in made)


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

    monkeypatch.setattr("gateway.control.schema.MIGRATIONS", (*MIGRATIONS, broken))
    monkeypatch.setattr("gateway.control.schema.SCHEMA", SCHEMA + 1)
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
