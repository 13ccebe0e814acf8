"""What Alembic runs to apply the steps: on the connection, and in the transaction, that `berid.store.schema` hands it."""

from __future__ import annotations

from alembic import context

from berid.store.tables import metadata

connection = context.config.attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    on_version_apply=context.config.attributes["on_version_apply"],
)
context.run_migrations()
