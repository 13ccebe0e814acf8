"""Whether the database has the shape that this program needs, and giving it that shape.

`check` at every start, `migrate` when the operator says so. The steps are Alembic's, in `migrations/versions/`; both databases
change their schema inside a transaction, so that a step that fails leaves the database as it was.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from berid.store import make_engine, sqlite_path
from berid.store.hot import StoreAway

MIGRATIONS = Path(__file__).parent / "migrations"

MIGRATION_LOCK = 0x6265726964
"""The key of PostgreSQL's advisory lock under which steps are applied; any number that nobody else uses ("berid")."""


class SchemaOutdated(Exception):
    """The database has not the schema of this program. `found` is its last step ("" when it is empty), `needed` ours."""

    def __init__(self, found: str, needed: str, is_newer: bool) -> None:
        self.found = found
        self.needed = needed
        what_to_do = "it was made by a newer release: run that one" if is_newer else "run berid migrate"
        super().__init__(f"the database is at step {found or 'none'}, this program needs step {needed}: {what_to_do}")


async def migrate(url: str) -> list[str]:
    """Apply the steps that the database lacks, all or none, and return their numbers in order.

    Makes the file of a SQLite database, and its folder, if there is none. Two processes may call it at once: the second
    waits, and finds nothing to do. Raises `StoreAway` when the database cannot be reached and `SchemaOutdated` when it
    is newer than this program.
    """
    if url.startswith("sqlite"):
        path = sqlite_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Whoever may read the file may read every message: it is the owner's alone from its first byte.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    applied: list[str] = []
    async with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            await connection.execution_options(berid_write=True)
        async with connection.begin():
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            await connection.run_sync(_upgrade, applied)
    return applied


async def check(url: str) -> None:
    """Raise `SchemaOutdated` unless the database is at the last step, and `StoreAway` if it cannot be reached."""
    needed = newest_step()
    if url.startswith("sqlite") and not sqlite_path(url).exists():
        raise SchemaOutdated("", needed, is_newer=False)  # connecting would make the file
    async with connected(url) as connection:
        found = await connection.run_sync(current_step)
    if found != needed:
        raise SchemaOutdated(found, needed, is_newer=bool(found) and found not in known_steps())


def newest_step() -> str:
    """The number of the last step that this program has."""
    step = _script().get_current_head()
    assert step is not None
    return step


def current_step(connection: Connection) -> str:
    """The number of the last step that a database has had; "" if it had none."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def _upgrade(connection: Connection, applied: list[str]) -> None:
    """Run the steps on a connection whose transaction the caller opened and ends."""
    found = current_step(connection)
    if found and found not in known_steps():
        raise SchemaOutdated(found, newest_step(), is_newer=True)
    config = _config()
    config.attributes["connection"] = connection
    config.attributes["on_version_apply"] = _recorder(applied)
    command.upgrade(config, "head")


def _recorder(applied: list[str]) -> Callable[..., None]:
    def record(*, step: Any, **_rest: Any) -> None:
        applied.append(step.up_revision_id)

    return record


def _config() -> Config:
    config = Config()
    # ConfigParser reads a percent sign as the start of a reference.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def known_steps() -> set[str]:
    """The numbers of all steps that this program has."""
    return {step.revision for step in _script().walk_revisions()}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection of its own, for use without a store. Raises `StoreAway`."""
    engine = make_engine(url)
    try:
        try:
            connection = await engine.connect()
        except (OSError, DBAPIError) as error:
            raise StoreAway(f"the database cannot be reached: {error}") from error
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()
