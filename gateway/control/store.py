"""The durable state: versions, aliases, their history, pins, verdicts, votes. SQLite, or PostgreSQL by URL; one writer, one transaction
per change. What the tables are is in `schema`.

All calls run on the store's own thread, so that a slow disk holds up nobody but who waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gateway import errors
from gateway.control import schema
from gateway.control.desired import MAX_HISTORY, Alias, Change, Desired, Shares, Verdict, Version, Vote, Watch
from gateway.control.failpoints import failpoint
from gateway.control.schema import StoreUnusable, migrate
from gateway.snapshot import Share

BUSY_TIMEOUT_MS = 5000
T = TypeVar("T")
_NOW, _BEFORE = 0, 1


class StoreFailed(errors.GatewayError):
    """The database refuses, or does not answer."""

    status = 503
    code = "store_failed"


class Store:
    """Methods raise StoreFailed. Nothing has changed then, unless the connection was lost while it was made durable: `load` tells."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    @classmethod
    def open(cls, place: Path | str) -> Self:
        """A SQLite file, or a database's URL. Blocks. Raises StoreUnusable."""
        where = str(place) if isinstance(place, Path) else _safe(place)
        try:
            engine = _sqlite(place) if isinstance(place, Path) else sa.create_engine(place, pool_size=1, max_overflow=0)
            migrate(engine, where)
        except ImportError as exc:
            raise StoreUnusable(f"store {where}: {exc}; install the database's driver beside forgegate") from exc
        except SQLAlchemyError as exc:
            raise StoreUnusable(f"store {where}: {_words(exc)}") from exc
        return cls(engine)

    async def close(self) -> None:
        """What was asked for before is done first."""
        await self._run(self._engine.dispose)
        self._thread.shutdown(wait=False)

    async def load(self) -> Desired:
        """Everything."""
        return await self._run(self._load, "the store cannot be read")

    async def add(self, version: Version) -> None:
        """A new version; one that is there already becomes this one, but for what it has served."""
        await self._run(lambda: self._add(version))

    async def remove(self, version: str) -> None:
        """Raises StoreFailed also where an alias needs it."""
        await self._run(lambda: self._write(sa.delete(schema.versions).where(schema.versions.c.name == version)))

    async def pin(self, version: str, is_pinned: bool) -> None:
        drop = sa.delete(schema.pins).where(schema.pins.c.version == version)
        make = [sa.insert(schema.pins).values(version=version)] if is_pinned else []
        await self._run(lambda: self._write(drop, *make))

    async def watch(self, alias: str, watch: Watch | None) -> None:
        """None: it does not go back by itself any more."""
        drop = sa.delete(schema.watches).where(schema.watches.c.alias == alias)
        make = [sa.insert(schema.watches).values(alias=alias, **_fields(watch))] if watch else []
        await self._run(lambda: self._write(drop, *make))

    async def add_verdict(self, verdict: Verdict, document: str) -> None:
        """A new one."""
        row = {
            "digest": verdict.digest, "candidate": verdict.candidate, "live": _json(verdict.live), "base": verdict.base,
            "suite": verdict.suite, "rule": verdict.rule, "outcome": verdict.outcome, "document": document,
            "who": verdict.who, "at": verdict.at,
        }  # fmt: skip
        await self._run(lambda: self._write(sa.insert(schema.verdicts).values(row)))

    async def documents(self, candidate: str) -> dict[str, str]:
        """The documents of a version's verdicts, or of all, by digest."""
        found = sa.select(schema.verdicts.c.digest, schema.verdicts.c.document)
        found = found.where(schema.verdicts.c.candidate == candidate) if candidate else found
        return await self._run(lambda: dict(self._read(found)), "the store cannot be read")

    async def add_vote(self, vote: Vote) -> None:
        """In place of an earlier one of the same session on the same prompt."""
        votes = schema.votes.c
        same = sa.and_(
            votes.session == vote.session, votes.prompt_digest == vote.prompt_digest, votes.candidate == vote.candidate,
            votes.live == vote.live,
        )  # fmt: skip
        put = sa.insert(schema.votes).values(_fields(vote))
        await self._run(lambda: self._write(sa.delete(schema.votes).where(same), put))

    async def votes(self, candidate: str, live: str, session: str) -> list[Vote]:
        """Oldest first; those that fit what is not empty."""
        found = sa.select(*(schema.votes.c[name] for name in Vote.__slots__)).order_by(schema.votes.c.id)
        for name, value in (("candidate", candidate), ("live", live), ("session", session)):
            found = found.where(schema.votes.c[name] == value) if value else found
        return await self._run(lambda: [Vote(*row) for row in self._read(found)], "the store cannot be read")

    async def move(self, change: Change, alias: Alias | None) -> None:
        """Record `change`, after which the alias is `alias`; None: it is gone."""
        await self._run(lambda: self._move(change, alias))

    async def _run(
        self, work: Callable[[], T], failure: str = "the store refuses the change, nothing was changed"
    ) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except SQLAlchemyError as exc:
            raise StoreFailed(f"{failure}: {_words(exc)}", retry_after_s=5) from exc

    def _write(self, *statements: Any) -> None:
        with self._engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def _read(self, query: Any) -> list[Any]:
        with self._engine.begin() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _add(self, version: Version) -> None:
        told = {
            "digest": version.digest, "model": version.model, "base_digest": version.base_digest, "rank": version.rank,
            "size_bytes": version.size_bytes, "who": version.who, "created": version.created,
        }  # fmt: skip
        with self._engine.begin() as connection:
            known = connection.execute(
                sa.update(schema.versions).where(schema.versions.c.name == version.name).values(told)
            )
            if not known.rowcount:
                connection.execute(sa.insert(schema.versions).values(name=version.name, has_served=False, **told))
            failpoint("publish.recording")
        failpoint("publish.recorded")

    def _move(self, change: Change, alias: Alias | None) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(schema.shares).where(schema.shares.c.alias == change.alias))
            if alias is None:
                connection.execute(sa.delete(schema.aliases).where(schema.aliases.c.name == change.alias))
            else:
                _put_alias(connection, alias)
            failpoint("alias.moving")
            names = [share.adapter for share in change.shares]
            connection.execute(
                sa.update(schema.versions).where(schema.versions.c.name.in_(names)).values(has_served=True)
            )
            connection.execute(sa.insert(schema.changes).values(_row(change)))
        failpoint("alias.moved")

    def _load(self) -> Desired:
        with self._engine.begin() as connection:
            pins = set(connection.execute(sa.select(schema.pins.c.version)).scalars())
            rows = connection.execute(_by_time(schema.versions)).mappings()
            versions = {row["name"]: Version(**row, is_pinned=row["name"] in pins) for row in rows}
            changes = [
                _change(row)
                for row in connection.execute(sa.select(schema.changes).order_by(schema.changes.c.id)).mappings()
            ]
            shares = list(connection.execute(sa.select(schema.shares).order_by(schema.shares.c.position)).mappings())
            watches = {row["alias"]: _watch(row) for row in connection.execute(sa.select(schema.watches)).mappings()}
            aliases = {
                row["name"]: _alias(row, shares, changes, watches.get(row["name"]))
                for row in connection.execute(_by_time(schema.aliases)).mappings()
            }
            told = connection.execute(
                sa.select(schema.verdicts).order_by(schema.verdicts.c.at, schema.verdicts.c.digest)
            ).mappings()
            return Desired(versions, aliases, _by_alias(changes), {row["digest"]: _verdict(row) for row in told})


def _sqlite(path: Path) -> sa.Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = (
            None  # the driver begins no transactions of its own: the schema's changes belong in one
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _put_alias(connection: sa.Connection, alias: Alias) -> None:
    told = {"model": alias.model, "gate": alias.gate, "previous_gate": alias.previous_gate, "created": alias.created}
    if not connection.execute(
        sa.update(schema.aliases).where(schema.aliases.c.name == alias.name).values(told)
    ).rowcount:
        connection.execute(sa.insert(schema.aliases).values(name=alias.name, **told))
    for slot, shares in ((_NOW, alias.shares), (_BEFORE, alias.previous)):
        for position, share in enumerate(shares):
            row = {"alias": alias.name, "slot": slot, "position": position, "version": share.adapter}
            connection.execute(sa.insert(schema.shares).values(weight=share.weight, **row))


def _by_time(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table).order_by(table.c.created, table.c.name)


def _alias(row: Any, shares: list[Any], changes: list[Change], watch: Watch | None) -> Alias:
    def of(slot: int) -> Shares:
        mine = [share for share in shares if share["alias"] == row["name"] and share["slot"] == slot]
        return tuple(Share(share["version"], share["weight"]) for share in mine)

    served = {share.adapter for change in _since_drop(row["name"], changes) for share in change.shares}
    return Alias(**row, shares=of(_NOW), previous=of(_BEFORE), served=frozenset(served), watch=watch)


def _since_drop(alias: str, changes: list[Change]) -> Iterator[Change]:
    for change in reversed(changes):
        if change.alias == alias and change.kind == "drop":
            return
        if change.alias == alias:
            yield change


def _by_alias(changes: list[Change]) -> dict[str, tuple[Change, ...]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.alias, []).append(change)
    return {alias: tuple(some[-MAX_HISTORY:]) for alias, some in found.items()}


def _row(change: Change) -> dict[str, Any]:
    return {
        "alias": change.alias, "model": change.model, "kind": change.kind, "before": _json(change.before),
        "after": _json(change.shares), "who": change.who, "reason": change.reason, "at": change.at, "gate": change.gate,
        "verdict": change.verdict,
    }  # fmt: skip


def _change(row: Any) -> Change:
    return Change(
        row["alias"], row["model"], row["kind"], _unjson(row["before"]), _unjson(row["after"]), row["who"], row["reason"],
        row["at"], row["gate"], row["verdict"],
    )  # fmt: skip


def _watch(row: Any) -> Watch:
    return Watch(**{name: row[name] for name in Watch.__slots__})


def _verdict(row: Any) -> Verdict:
    reasons = tuple(json.loads(row["document"])["reasons"])
    return Verdict(
        row["digest"], row["candidate"], _unjson(row["live"]), row["base"], row["suite"], row["rule"], row["outcome"], reasons,
        row["who"], row["at"],
    )  # fmt: skip


def _fields(value: Watch | Vote) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _json(shares: Shares) -> str:
    return json.dumps([[share.adapter, share.weight] for share in shares])


def _unjson(text: str) -> Shares:
    return tuple(Share(name, weight) for name, weight in json.loads(text))


def _words(exc: SQLAlchemyError) -> str:
    """The database's own reason, without the statement."""
    return str(getattr(exc, "orig", None) or exc).splitlines()[0]


def _safe(url: str) -> str:
    """Without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "URL"
