"""Idempotency keys of requests that run in an ordinary transaction. Those of messages are in the same table, see `HotTx`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from berid.store import Tx, tables


async def take(tx: Tx, application_id: int, key: str, body_hash: str, now_ms: int) -> tuple[str, str] | None:
    """Take a key for the request of this transaction, and return None; or (hash, answer) of the request that has it already.

    While another transaction has taken the key and has not ended, this waits for it.
    """
    table = tables.idempotency
    statement: Any = (sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert)(table)
    values = {"application_id": application_id, "key": key, "body_hash": body_hash, "created_ms": now_ms}
    taken = await tx.execute(statement.values(**values).on_conflict_do_nothing())
    if taken.rowcount:
        return None
    query = select(table.c.body_hash, table.c.answer)
    found = await tx.execute(query.where(table.c.application_id == application_id, table.c.key == key))
    row = found.one()
    return row.body_hash, row.answer


async def keep(tx: Tx, application_id: int, key: str, answer: str) -> None:
    """Keep the answer for whoever asks again with a key that this transaction has taken."""
    table = tables.idempotency
    await tx.execute(
        update(table).where(table.c.application_id == application_id, table.c.key == key).values(answer=answer)
    )
