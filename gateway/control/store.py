"""The durable state: versions, aliases, their history, pins. SQLite, or PostgreSQL by URL; one writer, one transaction per change.

    meta              schema version
    adapter_versions  one row per version            adapter_pins   versions that stay loaded
    aliases           one row per alias              alias_shares   what each serves now (slot 0) and would roll back to (slot 1)
    alias_changes     who moved an alias when, from what to what; never deleted

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
from gateway.control.desired import MAX_HISTORY, Alias, Change, Desired, Shares, Version
from gateway.control.failpoints import failpoint
from gateway.exits import CommandError
from gateway.snapshot import Share

SCHEMA = 1
BUSY_TIMEOUT_MS = 5000
T = TypeVar("T")
_NOW, _BEFORE = 0, 1

metadata = sa.MetaData()
_meta = sa.Table("meta", metadata, sa.Column("key", sa.String(64), primary_key=True), sa.Column("value", sa.Text))
_versions = sa.Table(
    "adapter_versions", metadata,
    sa.Column("name", sa.String(160), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("base_digest", sa.String(80), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("has_served", sa.Boolean, nullable=False),
)  # fmt: skip
_pins = sa.Table(
    "adapter_pins", metadata,
    sa.Column("version", sa.ForeignKey("adapter_versions.name", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
_aliases = sa.Table(
    "aliases", metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("gate", sa.String(32), nullable=False),
    sa.Column("previous_gate", sa.String(32), nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
)  # fmt: skip
_shares = sa.Table(
    "alias_shares", metadata,
    sa.Column("alias", sa.ForeignKey("aliases.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.ForeignKey("adapter_versions.name"), nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
)  # fmt: skip
_changes = sa.Table(
    "alias_changes", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alias", sa.String(128), nullable=False, index=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("gate", sa.String(32), nullable=False),
)  # fmt: skip

MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (metadata.create_all,)
"""Number n takes a database from schema n to n + 1, inside one transaction."""


class StoreUnusable(CommandError):
    """The store cannot be opened; the message says what to do."""


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
            _migrate(engine, where)
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
        await self._run(lambda: self._write(sa.delete(_versions).where(_versions.c.name == version)))

    async def pin(self, version: str, is_pinned: bool) -> None:
        drop = sa.delete(_pins).where(_pins.c.version == version)
        make = [sa.insert(_pins).values(version=version)] if is_pinned else []
        await self._run(lambda: self._write(drop, *make))

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

    def _add(self, version: Version) -> None:
        told = {
            "digest": version.digest, "model": version.model, "base_digest": version.base_digest, "rank": version.rank,
            "size_bytes": version.size_bytes, "who": version.who, "created": version.created,
        }  # fmt: skip
        with self._engine.begin() as connection:
            known = connection.execute(sa.update(_versions).where(_versions.c.name == version.name).values(told))
            if not known.rowcount:
                connection.execute(sa.insert(_versions).values(name=version.name, has_served=False, **told))
            failpoint("publish.recording")
        failpoint("publish.recorded")

    def _move(self, change: Change, alias: Alias | None) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_shares).where(_shares.c.alias == change.alias))
            if alias is None:
                connection.execute(sa.delete(_aliases).where(_aliases.c.name == change.alias))
            else:
                _put_alias(connection, alias)
            failpoint("alias.moving")
            names = [share.adapter for share in change.shares]
            connection.execute(sa.update(_versions).where(_versions.c.name.in_(names)).values(has_served=True))
            connection.execute(sa.insert(_changes).values(_row(change)))
        failpoint("alias.moved")

    def _load(self) -> Desired:
        with self._engine.begin() as connection:
            pins = set(connection.execute(sa.select(_pins.c.version)).scalars())
            rows = connection.execute(sa.select(_versions).order_by(_versions.c.created, _versions.c.name)).mappings()
            versions = {row["name"]: Version(**row, is_pinned=row["name"] in pins) for row in rows}
            changes = [
                _change(row) for row in connection.execute(sa.select(_changes).order_by(_changes.c.id)).mappings()
            ]
            shares = list(connection.execute(sa.select(_shares).order_by(_shares.c.position)).mappings())
            aliases = connection.execute(sa.select(_aliases).order_by(_aliases.c.created, _aliases.c.name)).mappings()
            return Desired(versions, {row["name"]: _alias(row, shares, changes) for row in aliases}, _by_alias(changes))


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


def _migrate(engine: sa.Engine, where: str) -> None:
    """To the present schema, each step whole or not at all. Raises StoreUnusable for a newer one."""
    with engine.begin() as connection:
        found = _schema(connection)
        if found > SCHEMA:
            raise StoreUnusable(
                f"store {where}: written by a newer forgegate (schema {found}, this one knows {SCHEMA}): start that one, or set "
                "FORGEGATE_HOME to another folder"
            )
        for step in MIGRATIONS[found:]:
            step(connection)
        if found < SCHEMA:
            connection.execute(sa.delete(_meta).where(_meta.c.key == "schema"))
            connection.execute(sa.insert(_meta).values(key="schema", value=str(SCHEMA)))


def _schema(connection: sa.Connection) -> int:
    if not sa.inspect(connection).has_table(_meta.name):
        return 0
    return int(connection.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema")).scalar() or 0)


def _put_alias(connection: sa.Connection, alias: Alias) -> None:
    told = {"model": alias.model, "gate": alias.gate, "previous_gate": alias.previous_gate, "created": alias.created}
    if not connection.execute(sa.update(_aliases).where(_aliases.c.name == alias.name).values(told)).rowcount:
        connection.execute(sa.insert(_aliases).values(name=alias.name, **told))
    for slot, shares in ((_NOW, alias.shares), (_BEFORE, alias.previous)):
        for position, share in enumerate(shares):
            row = {"alias": alias.name, "slot": slot, "position": position, "version": share.adapter}
            connection.execute(sa.insert(_shares).values(weight=share.weight, **row))


def _alias(row: Any, shares: list[Any], changes: list[Change]) -> Alias:
    def of(slot: int) -> Shares:
        mine = [share for share in shares if share["alias"] == row["name"] and share["slot"] == slot]
        return tuple(Share(share["version"], share["weight"]) for share in mine)

    served = {share.adapter for change in _since_drop(row["name"], changes) for share in change.shares}
    return Alias(**row, shares=of(_NOW), previous=of(_BEFORE), served=frozenset(served))


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
    }  # fmt: skip


def _change(row: Any) -> Change:
    return Change(
        row["alias"], row["model"], row["kind"], _unjson(row["before"]), _unjson(row["after"]), row["who"], row["reason"],
        row["at"], row["gate"],
    )  # fmt: skip


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
