"""The steps and the tables: both must describe the same database, on both databases."""

import asyncio
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from berid.store import make_engine
from berid.store.hot import HOT_COLUMNS, StoreAway
from berid.store.migrations.draft import draft
from berid.store.schema import MIGRATIONS, SchemaOutdated, check, migrate, newest_step
from berid.store.tables import metadata


@pytest.fixture
def store_url(empty_store_url: str) -> str:
    """A database of its own, without tables."""
    return empty_store_url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection whose changes are committed at the end."""
    engine = make_engine(url)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def ask(url: str, question: str) -> list[tuple[Any, ...]]:
    """All rows that a query gives."""
    async with connected(url) as connection:
        return [tuple(row) for row in await connection.execute(text(question))]


SQLITE_SHAPE = """
SELECT t.name, 'column', c.name, c.type || ' ' || c."notnull" || ' ' || c.pk || ' ' || coalesce(c.dflt_value, '-')
FROM pragma_table_list t JOIN pragma_table_info(t.name) c WHERE t.schema = 'main'
UNION ALL
SELECT t.name, 'table', '', CASE t.wr WHEN 1 THEN 'without rowid' ELSE '' END FROM pragma_table_list t WHERE t.schema = 'main'
UNION ALL
SELECT tbl_name, 'index', name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL
UNION ALL
SELECT tbl_name, 'text', name, sql FROM sqlite_master WHERE type = 'table'
"""

POSTGRES_SHAPE = """
SELECT table_name::text, 'column', column_name::text,
       data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '-') || ' ' || is_identity
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT tablename::text, 'index', indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT conrelid::regclass::text, 'constraint', conname::text, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""


async def shape(url: str) -> set[tuple[Any, ...]]:
    """Everything that the database itself knows of its tables: columns, defaults, keys, indexes with their conditions."""
    rows = await ask(url, SQLITE_SHAPE if url.startswith("sqlite") else POSTGRES_SHAPE)
    found = set()
    for table, kind, name, told in rows:
        if table == "alembic_version" or table.startswith("sqlite_"):
            continue
        if kind == "text":  # the names of constraints stand nowhere else; the order of columns does not matter
            names = re.findall(r"CONSTRAINT (\w+) (.*?\))", told)
            found |= {(table, "constraint", *named) for named in names}
        else:
            found.add((table, kind, name, re.sub(r"\s+", " ", told)))
    return found


async def test_steps_and_tables_make_the_same_database(store_url: str) -> None:
    await migrate(store_url)
    by_steps = await shape(store_url)
    async with connected(store_url) as connection:
        await connection.run_sync(_drop_everything)
        await connection.run_sync(metadata.create_all)
    by_tables = await shape(store_url)
    assert by_steps - by_tables == set()
    assert by_tables - by_steps == set()
    assert len(by_tables) > len(metadata.tables) * 4


def _drop_everything(connection: Connection) -> None:
    metadata.drop_all(connection)


async def test_alembic_sees_no_difference_between_steps_and_tables(store_url: str) -> None:
    await migrate(store_url)
    async with connected(store_url) as connection:
        differences = await connection.run_sync(_differences)
    assert differences == []


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True, "compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_draft_of_a_next_step_is_empty() -> None:
    assert [line.strip() for line in (await draft()).splitlines() if "#" not in line] == ["pass"]


async def test_empty_database_is_outdated_until_it_is_migrated(store_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="run berid migrate") as caught:
        await check(store_url)
    assert (caught.value.found, caught.value.needed) == ("", newest_step())
    applied = await migrate(store_url)
    assert applied[0] == "0001"
    assert applied[-1] == newest_step()
    await check(store_url)


async def test_checking_an_absent_file_does_not_make_it(tmp_path: Path) -> None:
    with pytest.raises(SchemaOutdated):
        await check(f"sqlite:///{tmp_path}/absent.db")
    assert list(tmp_path.iterdir()) == []


async def test_migrating_twice_applies_nothing_the_second_time(store_url: str) -> None:
    await migrate(store_url)
    assert await migrate(store_url) == []


async def test_two_processes_that_migrate_at_once_apply_each_step_once(store_url: str) -> None:
    applied = await asyncio.gather(migrate(store_url), migrate(store_url))
    assert sorted(applied) == [[], await _all_steps()]
    await check(store_url)


async def _all_steps() -> list[str]:
    steps = [step.revision for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    return steps[::-1]


async def test_database_stamped_with_the_last_step_is_left_alone(store_url: str) -> None:
    async with connected(store_url) as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        await connection.execute(text(f"INSERT INTO alembic_version VALUES ('{newest_step()}')"))
    assert await migrate(store_url) == []
    await check(store_url)


async def test_database_of_a_newer_release_is_neither_used_nor_changed(store_url: str) -> None:
    await migrate(store_url)
    async with connected(store_url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = await shape(store_url)
    for action in (check, migrate):
        with pytest.raises(SchemaOutdated, match="newer release") as caught:
            await action(store_url)
        assert caught.value.found == "9999"
    assert await shape(store_url) == before


async def test_step_that_fails_leaves_the_database_as_it_was(store_url: str) -> None:
    async with connected(store_url) as connection:
        await connection.execute(text("CREATE TABLE audit (id INTEGER)"))  # in the way of the first step's last table
    before = await shape(store_url)
    with pytest.raises(Exception, match="already exists"):
        await migrate(store_url)
    assert await shape(store_url) == before


async def test_file_and_folder_are_made_for_the_owner_alone_and_in_wal_mode(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/100%/berid.db"
    await migrate(url)
    path = tmp_path / "new" / "100%" / "berid.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await ask(url, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("action", [check, migrate])
async def test_database_that_cannot_be_reached_is_away(action: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreAway):
        await action(f"postgresql://nobody@/none?host={tmp_path}")


def test_every_step_says_when_it_runs() -> None:
    for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions():
        assert re.match(r"(Pre|Post): ", step.doc), f"step {step.revision} begins with neither Pre: nor Post:"


def test_hot_columns_are_the_tables_columns() -> None:
    for table, columns in HOT_COLUMNS.items():
        known = {column.name for column in metadata.tables[table].columns}
        assert set(columns) <= known
        rest = [column for column in metadata.tables[table].columns if column.name not in columns]
        assert all(column.server_default is not None for column in rest)
