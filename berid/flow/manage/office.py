"""What every verb of the office works with, and the two lines that every one of them writes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from berid.base.clock import Clock, SystemClock
from berid.base.ids import IdMaker
from berid.base.secret import Vault, load_key
from berid.config import Config
from berid.domain.errors import RefusalKind, Refused, refused
from berid.flow.ports import Runtime
from berid.store import Store, Tx, accounts, directory, idempotency, open_store, processes, schema


@dataclass(frozen=True, slots=True)
class Office:
    """Where the business is managed: beside a running process, or with none at all.

    `ids` must be of a slot that no other live process holds.
    """

    store: Store
    clock: Clock
    ids: IdMaker
    vault: Vault

    @classmethod
    def of(cls, rt: Runtime) -> Office:
        """The office of a running process."""
        return cls(rt.store, rt.clock, rt.ids, rt.vault)


@asynccontextmanager
async def open_office(config: Config, clock: Clock | None = None) -> AsyncIterator[Office]:
    """The office of a process that does nothing else, such as the command line; a server may run beside it.

    Raises `SchemaOutdated`, `StoreAway`, and ValueError or OSError when the master key cannot be used.
    """
    clock = clock or SystemClock()
    await schema.check(config.database_url)
    vault = Vault(load_key(config.key, config.key_file))
    store = await open_store(config.database_url, clock)
    try:
        name = f"office:{os.getpid()}:{os.urandom(3).hex()}"
        async with store.transaction() as tx:
            slot = await processes.claim_slot(tx, name, clock.now_ms())
            if store.is_sqlite and slot == 0:
                # The server on SQLite takes slot 0 whoever holds it, and it may start at any moment.
                slot = await processes.claim_slot(tx, name, clock.now_ms())
                await processes.leave(tx, 0, name)
            floor = await processes.largest_id(tx)
        try:
            yield Office(store, clock, IdMaker(clock.now_ms, slot, floor), vault)
        finally:
            async with store.transaction() as tx:
                await processes.leave(tx, slot, name)
    finally:
        await store.close()


async def note(office: Office, tx: Tx, actor: str, account_id: int, action: str, subject: str, **detail: Any) -> None:
    """Write down a change of what the directory holds: a line of the audit trail, and a new version for every process.

    `actor` is who did it (`cli:root`, `token:123`), `subject` the public id of what was changed. `detail` holds no secrets.
    """
    await write_down(office, tx, actor, account_id, action, subject, **detail)
    await directory.bump(tx)


async def write_down(
    office: Office, tx: Tx, actor: str, account_id: int, action: str, subject: str, **detail: Any
) -> None:
    """As `note`, for what is not in the directory: no process reads that again."""
    await accounts.add_audit(
        tx,
        accounts.AuditRecord(
            id=office.ids.next(),
            account_id=account_id,
            actor=actor,
            action=action,
            subject=subject,
            detail=msgspec.json.encode(detail).decode() if detail else "",
            at_ms=office.clock.now_ms(),
        ),
    )


@dataclass(frozen=True, slots=True)
class Once:
    """The idempotency key of a request: whose it is, and the hash of all that was asked."""

    application_id: int
    key: str
    body_hash: str


async def first_answer(office: Office, tx: Tx, once: Once | None) -> str | None:
    """What the same request was answered before; None if this is the first time, or if it has no key.

    The first time the key is taken for this transaction, which then keeps its answer by `keep_answer`. Raises `Refused` when the
    key belongs to another request.
    """
    if once is None:
        return None
    found = await idempotency.take(tx, once.application_id, once.key, once.body_hash, office.clock.now_ms())
    if found is None:
        return None
    body_hash, answer = found
    if body_hash != once.body_hash:
        sentence = "this idempotency key was used with another request"
        raise refused(RefusalKind.IDEMPOTENCY_CONFLICT, sentence, "key")
    return answer


async def keep_answer(tx: Tx, once: Once | None, answer: str) -> None:
    """Keep the answer of a request that has a key, in its transaction."""
    if once is not None:
        await idempotency.keep(tx, once.application_id, once.key, answer)


def unfit(field: str, sentence: str) -> Refused:
    """The refusal of a value: which one, and what would be right."""
    return refused(RefusalKind.MALFORMED, sentence, field)


def too_late(sentence: str) -> Refused:
    """The refusal of a step that does not follow from the state of a thing."""
    return refused(RefusalKind.WRONG_STATE, sentence, "state")


def missing(what: str) -> Refused:
    """The refusal to change a thing that the account does not have."""
    return refused(RefusalKind.NOT_FOUND, f"there is no such {what}")
