"""Money that accounts ask for: top-up requests, and the credit by which a product is tried.

Functions that take an account name it in their query; the others are the operator's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from berid.store import Tx
from berid.store.tables import topup_request, trial_claim, trial_offer


@dataclass(frozen=True, slots=True)
class TopupRecord:
    """A top-up request. `submitted_ms` is when the account last said all that was asked; `decided_ms` 0 while it is open.

    `asked_by` and `handled_by` are actors as the audit trail has them; `entry_id` is what the yes entered, of `approved_micros`.
    """

    id: int
    account_id: int
    wallet_id: int
    mode: str
    currency: str
    amount_micros: int
    method: str
    reference: str
    note: str
    state: str
    reason: str
    approved_micros: int
    entry_id: int
    asked_by: str
    handled_by: str
    created_ms: int
    submitted_ms: int
    decided_ms: int


@dataclass(frozen=True, slots=True)
class OpenTopups:
    """The open requests of one wallet: how many, and since when the oldest waits for the operator (0: none does)."""

    wallet_id: int
    count: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class OfferRecord:
    """What the operator gives to whoever tries a product."""

    product: str
    currency: str
    amount_micros: int
    changed_ms: int


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """That an account has had its trial credit."""

    account_id: int
    product: str
    entry_id: int
    at_ms: int


_COLUMNS = [topup_request.c[name] for name in TopupRecord.__slots__]


async def add(tx: Tx, record: TopupRecord) -> None:
    """Insert a request."""
    await tx.execute(insert(topup_request).values(**{name: getattr(record, name) for name in record.__slots__}))


async def topup(tx: Tx, topup_id: int, *, is_locked: bool = False) -> TopupRecord | None:
    """One request, of whichever account; `is_locked`: nobody else changes it before this transaction ends."""
    query = select(*_COLUMNS).where(topup_request.c.id == topup_id)
    row = (await tx.execute(query.with_for_update() if is_locked else query)).first()
    return TopupRecord(*row) if row else None


async def topups_of(tx: Tx, account_id: int, mode: str, before_id: int, limit: int) -> list[TopupRecord]:
    """An account's requests for wallets of a mode, newest first; `before_id` 0 begins at the newest."""
    query = select(*_COLUMNS).where(topup_request.c.account_id == account_id, topup_request.c.mode == mode)
    if before_id:
        query = query.where(topup_request.c.id < before_id)
    return [TopupRecord(*row) for row in await tx.execute(query.order_by(topup_request.c.id.desc()).limit(limit))]


async def topups(tx: Tx, states: Collection[str], wallet_id: int, after_id: int, limit: int) -> list[TopupRecord]:
    """Requests of all accounts by id, in one of these states; of one wallet unless `wallet_id` is 0."""
    query = select(*_COLUMNS).where(topup_request.c.id > after_id, topup_request.c.state.in_(states))
    if wallet_id:
        query = query.where(topup_request.c.wallet_id == wallet_id)
    return [TopupRecord(*row) for row in await tx.execute(query.order_by(topup_request.c.id).limit(limit))]


async def open_topups(tx: Tx, account_id: int, waiting: Collection[str]) -> dict[int, OpenTopups]:
    """The open requests of an account by wallet. `waiting` are the states in which it is the operator's turn."""
    table = topup_request
    rows = await tx.execute(
        select(
            table.c.wallet_id,
            func.count(),
            func.coalesce(func.min(table.c.submitted_ms).filter(table.c.state.in_(waiting)), 0),
        )
        .where(table.c.account_id == account_id, table.c.decided_ms == 0)
        .group_by(table.c.wallet_id)
    )
    return {row[0]: OpenTopups(*row) for row in rows}


async def change(tx: Tx, topup_id: int, **values: Any) -> None:
    """Change some columns of a request that this transaction has locked."""
    await tx.execute(update(topup_request).where(topup_request.c.id == topup_id).values(**values))


async def set_offer(tx: Tx, record: OfferRecord) -> None:
    """Make an offer for a product, in place of the one before."""
    values = {name: getattr(record, name) for name in record.__slots__}
    statement: Any = (sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert)(trial_offer)
    await tx.execute(statement.values(**values).on_conflict_do_update(index_elements=["product"], set_=values))


async def drop_offer(tx: Tx, product: str) -> bool:
    """Offer nothing any more for a product; False if nothing was."""
    return bool((await tx.execute(delete(trial_offer).where(trial_offer.c.product == product))).rowcount)


async def offers(tx: Tx) -> list[OfferRecord]:
    """All offers, by product."""
    query = select(*(trial_offer.c[name] for name in OfferRecord.__slots__)).order_by(trial_offer.c.product)
    return [OfferRecord(*row) for row in await tx.execute(query)]


async def add_claim(tx: Tx, record: ClaimRecord) -> None:
    """Say that an account has had its trial credit. The account's key sees to it that this is said once."""
    await tx.execute(insert(trial_claim).values(**{name: getattr(record, name) for name in record.__slots__}))


async def claim_of(tx: Tx, account_id: int) -> ClaimRecord | None:
    """The trial credit that an account has had."""
    query = select(*(trial_claim.c[name] for name in ClaimRecord.__slots__))
    row = (await tx.execute(query.where(trial_claim.c.account_id == account_id))).first()
    return ClaimRecord(*row) if row else None
