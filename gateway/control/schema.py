"""The tables of the store, and how a database of an older forgegate becomes one of this.

meta              schema version
adapter_versions  one row per version            adapter_pins   versions that stay loaded
aliases           one row per alias              alias_shares   what each serves now (slot 0) and would roll back to (slot 1)
alias_changes     who moved an alias when, from what to what, by which verdict; never deleted
alias_watches     when an alias goes back by itself
verdicts          what evaluations found, by the digest of their documents; never deleted
votes             which of two answers somebody preferred
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from gateway.exits import CommandError

metadata = sa.MetaData()
meta = sa.Table("meta", metadata, sa.Column("key", sa.String(64), primary_key=True), sa.Column("value", sa.Text))
versions = sa.Table(
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
pins = sa.Table(
    "adapter_pins", metadata,
    sa.Column("version", sa.ForeignKey("adapter_versions.name", ondelete="CASCADE"), primary_key=True),
)  # fmt: skip
aliases = sa.Table(
    "aliases", metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("gate", sa.String(32), nullable=False),
    sa.Column("previous_gate", sa.String(32), nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
)  # fmt: skip
shares = sa.Table(
    "alias_shares", metadata,
    sa.Column("alias", sa.ForeignKey("aliases.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.ForeignKey("adapter_versions.name"), nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
)  # fmt: skip
changes = sa.Table(
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
    sa.Column("verdict", sa.Text, nullable=False, server_default=""),
)  # fmt: skip
watches = sa.Table(
    "alias_watches", metadata,
    sa.Column("alias", sa.ForeignKey("aliases.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("max_error_share", sa.Float(53), nullable=False),
    sa.Column("max_ttft_ratio", sa.Float(53), nullable=False),
    sa.Column("min_requests", sa.Integer, nullable=False),
    sa.Column("window_s", sa.Float(53), nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
)  # fmt: skip
verdicts = sa.Table(
    "verdicts", metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("candidate", sa.String(160), nullable=False, index=True),
    sa.Column("live", sa.Text, nullable=False),
    sa.Column("base", sa.String(160), nullable=False),
    sa.Column("suite", sa.String(80), nullable=False),
    sa.Column("rule", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(32), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
)  # fmt: skip
votes = sa.Table(
    "votes", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("session", sa.String(128), nullable=False),
    sa.Column("candidate", sa.String(160), nullable=False, index=True),
    sa.Column("live", sa.String(160), nullable=False),
    sa.Column("prompt_digest", sa.String(80), nullable=False),
    sa.Column("choice", sa.String(16), nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.UniqueConstraint("session", "prompt_digest", "candidate", "live", name="one_vote"),
)  # fmt: skip


class StoreUnusable(CommandError):
    """The store cannot be opened; the message says what to do."""


def _add_gate(connection: sa.Connection) -> None:
    """Verdicts, votes, watches. A database that was made just now has them."""
    metadata.create_all(connection)
    if "verdict" not in {column["name"] for column in sa.inspect(connection).get_columns(changes.name)}:
        connection.execute(sa.text("ALTER TABLE alias_changes ADD COLUMN verdict TEXT NOT NULL DEFAULT ''"))


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (metadata.create_all, _add_gate)
"""Number n takes a database from schema n to n + 1, inside one transaction."""
SCHEMA = len(MIGRATIONS)


def migrate(engine: sa.Engine, where: str) -> None:
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
            connection.execute(sa.delete(meta).where(meta.c.key == "schema"))
            connection.execute(sa.insert(meta).values(key="schema", value=str(SCHEMA)))


def _schema(connection: sa.Connection) -> int:
    if not sa.inspect(connection).has_table(meta.name):
        return 0
    return int(connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar() or 0)
