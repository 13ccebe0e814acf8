"""What the steps lack of `tables.py`, as the body of the step that would add it: `python -m berid.store.migrations.draft`.

It applies all steps to an empty SQLite database, compares that with the tables, and prints Alembic's operations. They are a
draft: what a rename would be is a drop and an add, and the condition of a partial index is not compared (the tests do that).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from berid.store import make_engine
from berid.store.schema import migrate
from berid.store.tables import metadata


async def draft() -> str:
    """The operations that are missing, as Python code; `pass` and a comment if none is."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/draft.db"
        await migrate(url)
        engine = make_engine(url)
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(_compare)
        finally:
            await engine.dispose()


def _compare(connection: Connection) -> str:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    upgrade = produce_migrations(context, metadata).upgrade_ops
    assert upgrade is not None
    return render_python_code(upgrade, render_as_batch=True)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(draft()) + "\n")
