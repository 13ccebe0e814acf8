"""Wallets and their entries: what the office adds to them, what statements show, and the sums that prove them.

The path of a message moves money by its own statements (`HotTx.move_money`), in the same two tables and in the same way: an entry
that is never changed, and the wallet's books moved by its `effect` in the same transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, insert, literal, or_, select, union_all, update

from berid.domain.ledger import EntryKind, effect
from berid.domain.message import FINAL, MoneyState
from berid.domain.spending import Spent
from berid.store import Tx
from berid.store.tables import delivery, ledger_entry, message, spend, wallet


@dataclass(frozen=True, slots=True)
class WalletRecord:
    """The books of one account in one mode and currency, in micros."""

    id: int
    account_id: int
    mode: str
    currency: str
    available_micros: int
    held_micros: int
    spent_micros: int
    credit_limit_micros: int


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """One line of a statement. `actor` and `note` are empty for what the path of a message wrote."""

    id: int
    account_id: int
    wallet_id: int
    kind: str
    amount_micros: int
    message_id: int
    deliveries: int
    at_ms: int
    actor: str
    note: str


class WalletSums(NamedTuple):
    """A wallet's books beside what its entries say they must be, in micros.

    `strays` counts entries that name another account than the wallet's, a kind that does not exist, or an amount that
    only an adjustment may have.
    """

    id: int
    account_id: int
    available: int
    held: int
    spent: int
    entries_available: int
    entries_held: int
    entries_spent: int
    strays: int


class MessageSums(NamedTuple):
    """What the entries of one message in one wallet say, beside what its deliveries say, in micros. Messages that have no
    deliveries any more (they are kept for a time only; money is kept for good) have `state` None."""

    message_id: int
    wallet_id: int
    account_id: int
    state: str | None
    held: int
    charged: int
    released: int
    deliveries_held: int
    deliveries_charged: int
    deliveries_released: int


async def add_wallet(tx: Tx, identifier: int, account_id: int, mode: str, currency: str) -> None:
    """Open an empty wallet."""
    await tx.execute(insert(wallet).values(id=identifier, account_id=account_id, mode=mode, currency=currency))


async def wallets(tx: Tx, account_id: int) -> list[WalletRecord]:
    """An account's wallets, by mode and currency."""
    found = await tx.execute(
        select(*(wallet.c[name] for name in WalletRecord.__slots__))
        .where(wallet.c.account_id == account_id)
        .order_by(wallet.c.mode, wallet.c.currency)
    )
    return [WalletRecord(*row) for row in found]


async def spent(tx: Tx, wallet_ids: Sequence[int], since_day: int) -> Spent:
    """What the messages of these days have cost from these wallets, by application."""
    found = await tx.execute(
        select(spend.c.wallet_id, spend.c.day, spend.c.application_id, spend.c.micros).where(
            spend.c.wallet_id.in_(wallet_ids), spend.c.day >= since_day
        )
    )
    return {(row.wallet_id, row.day, row.application_id): row.micros for row in found}


async def set_credit_limit(tx: Tx, account_id: int, wallet_id: int, limit_micros: int) -> None:
    """Let a wallet's available book go as far below zero."""
    await tx.execute(
        update(wallet)
        .where(wallet.c.id == wallet_id, wallet.c.account_id == account_id)
        .values(credit_limit_micros=limit_micros)
    )


async def enter(tx: Tx, entry: EntryRecord) -> int:
    """Append an entry, move the wallet's books by its effect, and return what is available now, in micros."""
    available, held, spent = effect(EntryKind(entry.kind), entry.amount_micros)
    moved = await tx.execute(
        update(wallet)
        .where(wallet.c.id == entry.wallet_id, wallet.c.account_id == entry.account_id)
        .values(
            available_micros=wallet.c.available_micros + available,
            held_micros=wallet.c.held_micros + held,
            spent_micros=wallet.c.spent_micros + spent,
        )
        .returning(wallet.c.available_micros)
    )
    left: int = moved.scalar_one()
    await tx.execute(insert(ledger_entry).values(**{name: getattr(entry, name) for name in entry.__slots__}))
    return left


async def statement(tx: Tx, account_id: int, wallet_id: int, before_id: int, limit: int) -> list[EntryRecord]:
    """The entries of a wallet, newest first; `before_id` 0 begins at the newest."""
    query = select(*(ledger_entry.c[name] for name in EntryRecord.__slots__)).where(
        ledger_entry.c.wallet_id == wallet_id, ledger_entry.c.account_id == account_id
    )
    if before_id:
        query = query.where(ledger_entry.c.id < before_id)
    return [EntryRecord(*row) for row in await tx.execute(query.order_by(ledger_entry.c.id.desc()).limit(limit))]


async def see_one_moment(tx: Tx) -> None:
    """Make a fresh `store.read()` see one moment of the database however many questions it asks.

    A read on SQLite does so anyhow; PostgreSQL's own rule is a moment for each statement.
    """
    if tx.dialect.name == "postgresql":
        await tx.execution_options(isolation_level="REPEATABLE READ")


async def wallet_sums(tx: Tx) -> AsyncIterator[WalletSums]:
    """Every wallet of every account with its sums, one after the other."""
    entry = ledger_entry.c
    effects = [
        case(*((entry.kind == kind.value, entry.amount_micros * effect(kind, 1)[book]) for kind in EntryKind), else_=0)
        for book in range(3)
    ]
    is_stray = or_(
        entry.kind.not_in([kind.value for kind in EntryKind]),
        and_(entry.kind != EntryKind.ADJUST.value, entry.amount_micros <= 0),
        entry.account_id != wallet.c.account_id,
    )
    sums = (
        select(
            wallet.c.id,
            wallet.c.account_id,
            wallet.c.available_micros,
            wallet.c.held_micros,
            wallet.c.spent_micros,
            *(func.coalesce(func.sum(each), 0) for each in effects),
            func.coalesce(func.sum(case((is_stray, 1), else_=0)), 0),
        )
        .select_from(wallet.outerjoin(ledger_entry, entry.wallet_id == wallet.c.id))
        .group_by(wallet.c.id)
        .order_by(wallet.c.id)
    )
    async for row in await tx.stream(sums):
        yield WalletSums(*(int(value) for value in row))


async def entries_of_no_wallet(tx: Tx) -> list[tuple[int, int, int]]:
    """(account, wallet, sum of the amounts) of entries whose wallet does not exist."""
    found = await tx.execute(
        select(ledger_entry.c.account_id, ledger_entry.c.wallet_id, func.sum(ledger_entry.c.amount_micros))
        .select_from(ledger_entry.outerjoin(wallet, wallet.c.id == ledger_entry.c.wallet_id))
        .where(wallet.c.id.is_(None))
        .group_by(ledger_entry.c.account_id, ledger_entry.c.wallet_id)
    )
    return [(row[0], row[1], int(row[2])) for row in found]


async def unequal_messages(tx: Tx) -> AsyncIterator[MessageSums]:
    """Messages whose entries and deliveries do not say the same, one row for each wallet that is in it.

    One pass over both tables; the database sorts on its own disk, and only what is unequal comes here. A message that is
    still *loading* has its money held before its deliveries are all there, so less than held is not unequal. A message
    that is no longer kept has no deliveries either, and charges and releases make up its hold.
    """
    entry, row = ledger_entry.c, delivery.c
    kinds = (EntryKind.HOLD, EntryKind.CHARGE, EntryKind.RELEASE)
    told: list[ColumnElement[int]] = [_if(entry.kind == kind.value, entry.amount_micros) for kind in kinds]
    shown: list[ColumnElement[int]] = [
        row.price_micros,
        _if(row.money == MoneyState.CHARGED.value, row.price_micros),
        _if(row.money == MoneyState.RELEASED.value, row.price_micros),
    ]
    none: list[ColumnElement[int]] = [literal(0, BigInteger)] * 3
    both = union_all(
        select(entry.message_id, entry.wallet_id, entry.account_id, *_named(told + none)).where(
            entry.kind.in_([kind.value for kind in kinds])
        ),
        select(row.message_id, row.wallet_id, row.account_id, *_named(none + shown)),
    ).subquery()
    sums = [func.sum(both.c[name]) for name in MessageSums._fields[4:]]
    held, charged, released, shown_held, shown_charged, shown_released = sums
    found = (
        select(both.c.message_id, both.c.wallet_id, func.min(both.c.account_id), message.c.state, *sums)
        .select_from(both.outerjoin(message, message.c.id == both.c.message_id))
        .group_by(both.c.message_id, both.c.wallet_id, message.c.state)
        .having(
            case(
                (message.c.state.is_(None), or_(charged + released != held, shown_held > held)),
                else_=or_(
                    case((message.c.state == "loading", shown_held > held), else_=shown_held != held),
                    charged != shown_charged,
                    released != shown_released,
                ),
            )
        )
        .order_by(both.c.message_id)
    )
    async for each in await tx.stream(found):
        yield MessageSums(*each[:4], *(int(value) for value in each[4:]))


async def stuck_money(tx: Tx) -> AsyncIterator[tuple[int, int, int, int]]:
    """(account, wallet, message, price) of deliveries that have ended with their hold still open, or whose money is in a
    state that does not exist."""
    row = delivery.c
    stuck = or_(
        row.money.not_in([state.value for state in MoneyState]),
        and_(row.money == MoneyState.HELD.value, row.state.in_([state.value for state in FINAL])),
    )
    found = select(row.account_id, row.wallet_id, row.message_id, row.price_micros).where(stuck)
    async for each in await tx.stream(found):
        yield each[0], each[1], each[2], each[3]


def _if(condition: ColumnElement[bool], value: ColumnElement[int]) -> ColumnElement[int]:
    return case((condition, value), else_=0)


def _named(columns: Sequence[ColumnElement[int]]) -> list[ColumnElement[int]]:
    return [column.label(name) for name, column in zip(MessageSums._fields[4:], columns, strict=True)]
