"""Who must not be written to, who has agreed to be, and the rules that say when that matters; and what the rules have held.

Changes carry the store's version (`directory.bump`, called first in the same transaction: its row lock puts the changes of all
processes in one order). So a process reads again only what is newer than the directory that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from berid.domain.message import State
from berid.domain.rules import RulePack
from berid.domain.suppression import (
    Book,
    BookMaker,
    Books,
    Consent,
    Consents,
    ConsentType,
    Reason,
    RecipientType,
    Status,
    Suppression,
)
from berid.store import Tx, tables

LOAD = 10_000
"""Rows of one step in which books are read: some 20 ms, between which other work gets its turn."""

K = TypeVar("K")

_CURRENT: ColumnElement[bool] = literal_column("is_current = 1", Boolean)
"""As the partial indexes have it."""


# ── The suppression book ──────────────────────────────────────────────────────────────────────────────────────────────


async def suppressions_of(tx: Tx, account_id: int, recipients: Sequence[str]) -> dict[tuple[str, str], Suppression]:
    """The entries of some recipients, by recipient and channel. Up to a thousand of them at a time."""
    table = tables.suppression
    rows = await tx.execute(
        _entries().where(
            table.c.account_id == account_id, table.c.recipient.in_(set(recipients)), table.c.removed_ms == 0
        )
    )
    return {(row.recipient, row.channel): _suppression(row) for row in rows}


async def suppressions(tx: Tx, account_id: int, after: tuple[str, str], limit: int) -> list[Suppression]:
    """Up to `limit` entries of an account behind `after` (recipient and channel), in the order of these."""
    table = tables.suppression
    rows = await tx.execute(
        _entries()
        .where(
            table.c.account_id == account_id,
            table.c.removed_ms == 0,
            tuple_(table.c.recipient, table.c.channel) > after,
        )
        .order_by(table.c.recipient, table.c.channel)
        .limit(limit)
    )
    return [_suppression(row) for row in rows]


async def put_suppressions(tx: Tx, account_id: int, entries: Sequence[Suppression], version: int) -> None:
    """Write entries in place of whatever there is for the same recipient and channel."""
    table = tables.suppression
    values = [
        {
            "account_id": account_id,
            "recipient": entry.recipient,
            "channel": entry.channel,
            "reason": entry.reason.value,
            "source": entry.source,
            "all_traffic": int(entry.all_traffic),
            "at_ms": entry.at_ms,
            "removed_ms": 0,
            "version": version,
        }
        for entry in entries
    ]
    keys = [column.name for column in table.primary_key]
    statement = _insert(tx, table)
    changed = {name: statement.excluded[name] for name in table.c.keys() if name not in keys}  # noqa: SIM118
    if values:
        await tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), values)


async def remove_suppression(tx: Tx, account_id: int, recipient: str, channel: str, now_ms: int, version: int) -> bool:
    """Take an entry out; False if there is none."""
    table = tables.suppression
    gone = await tx.execute(
        update(table)
        .where(
            table.c.account_id == account_id,
            table.c.recipient == recipient,
            table.c.channel == channel,
            table.c.removed_ms == 0,
        )
        .values(removed_ms=now_ms, version=version)
    )
    return bool(gone.rowcount)


async def load_books(tx: Tx, before: Books, since: int) -> Books:
    """The suppression books of all accounts: those `before`, with what has changed after the version `since`."""
    table = tables.suppression
    query = select(
        table.c.account_id, table.c.channel, table.c.recipient, table.c.all_traffic, table.c.removed_ms
    ).where(table.c.version > since)
    if not since:
        query = query.where(table.c.removed_ms == 0)
    found = _Found(before)
    async for page in (await tx.stream(query.execution_options(yield_per=LOAD))).partitions():
        for account_id, channel, recipient, all_traffic, removed_ms in page:
            found.add(account_id, channel, recipient, 0 if removed_ms else 1 + all_traffic)
        found.turn_page()
    return found.books()


# ── The record of consent ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """One line of the record. `is_current`: nothing was said after it."""

    id: int
    consent: Consent
    recorded_ms: int
    is_current: bool


async def consent_statuses(
    tx: Tx, account_id: int, recipients: Sequence[str]
) -> dict[tuple[str, str, str, str], Status]:
    """What recipients said last, by recipient, type, brand and recipient type. Up to a thousand of them at a time."""
    table = tables.consent
    rows = await tx.execute(
        select(table.c.recipient, table.c.type, table.c.brand, table.c.recipient_type, table.c.status).where(
            table.c.account_id == account_id, table.c.recipient.in_(set(recipients)), _CURRENT
        )
    )
    return {(row[0], row[1], row[2], row[3]): Status(row[4]) for row in rows}


async def add_consents(
    tx: Tx, account_id: int, consents: Mapping[int, Consent], recorded_ms: int, version: int
) -> None:
    """Append records by id, of different keys each; they become current in place of those before them."""
    table = tables.consent
    keys = ("recipient", "type", "brand", "recipient_type")
    values = [
        {
            "id": identifier,
            "account_id": account_id,
            "brand": consent.brand,
            "type": consent.type.value,
            "recipient": consent.recipient,
            "recipient_type": consent.recipient_type.value,
            "status": consent.status.value,
            "source": consent.source,
            "consent_ms": consent.consent_ms,
            "recorded_ms": recorded_ms,
            "is_current": 1,
            "version": version,
        }
        for identifier, consent in consents.items()
    ]
    if not values:
        return
    await tx.execute(
        update(table)
        .where(
            table.c.account_id == account_id, _CURRENT, *(table.c[name] == bindparam(f"its_{name}") for name in keys)
        )
        .values(is_current=0),
        [{f"its_{name}": row[name] for name in keys} for row in values],
    )
    await tx.execute(insert(table), values)


async def consents(
    tx: Tx, account_id: int, before_id: int, limit: int, recipient: str = "", is_current: bool = False
) -> list[ConsentRecord]:
    """Up to `limit` records older than `before_id` (0: from the newest), newest first; of one recipient, or current ones only,
    if asked."""
    table = tables.consent
    query = select(table).where(table.c.account_id == account_id)
    if before_id:
        query = query.where(table.c.id < before_id)
    if recipient:
        query = query.where(table.c.recipient == recipient)
    if is_current:
        query = query.where(_CURRENT)
    return [_consent(row) for row in await tx.execute(query.order_by(table.c.id.desc()).limit(limit))]


async def load_consents(tx: Tx, before: Consents, since: int) -> Consents:
    """Who has agreed, for all accounts: as `before`, with what has changed after the version `since`."""
    table = tables.consent
    query = select(
        table.c.account_id, table.c.type, table.c.brand, table.c.recipient_type, table.c.recipient, table.c.status
    ).where(table.c.version > since, _CURRENT)
    if not since:
        query = query.where(table.c.status == Status.ONAY.value)
    found = _Found(before)
    async for page in (await tx.stream(query.execution_options(yield_per=LOAD))).partitions():
        for account_id, kind, brand, recipient_type, recipient, status in page:
            found.add(account_id, (kind, brand, recipient_type), recipient, int(status == Status.ONAY.value))
        found.turn_page()
    return found.books()


# ── Rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def add_rule_pack(tx: Tx, pack: RulePack, made_ms: int) -> int:
    """Append a pack of the operator's, and return its version within the country."""
    table = tables.rule_pack
    last = (await tx.execute(select(func.max(table.c.version)).where(table.c.country == pack.country))).scalar() or 0
    await tx.execute(
        insert(table).values(
            country=pack.country,
            version=last + 1,
            body=msgspec.json.encode(pack).decode(),
            from_ms=pack.from_ms,
            made_ms=made_ms,
        )
    )
    return last + 1


async def rule_packs(tx: Tx) -> list[RulePack]:
    """The operator's packs, in the order in which they were set."""
    table = tables.rule_pack
    rows = await tx.execute(select(table.c.body).order_by(table.c.country, table.c.version))
    return [msgspec.json.decode(row[0], type=RulePack) for row in rows]


async def set_consent_rule(tx: Tx, account_id: int, country: str, is_required: bool | None) -> None:
    """Say whether an account asks for consent in a country; None leaves it to the country's pack."""
    table = tables.consent_rule
    await tx.execute(table.delete().where(table.c.account_id == account_id, table.c.country == country))
    if is_required is not None:
        await tx.execute(insert(table).values(account_id=account_id, country=country, is_required=int(is_required)))


async def consent_rules(tx: Tx) -> dict[int, dict[str, bool]]:
    """Where accounts differ from the packs, by account and country."""
    found: dict[int, dict[str, bool]] = {}
    for row in await tx.execute(select(tables.consent_rule)):
        found.setdefault(row.account_id, {})[row.country] = bool(row.is_required)
    return found


# ── What is held ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Held:
    """A delivery that is held. `due_ms` is when its job is planned, 0 if it has none yet (its message is still spread out)."""

    id: int
    reason: str
    expires_ms: int
    due_ms: int
    planned_ms: int
    """When its message was to be sent, by the customer's wish; 0 for at once."""


async def held(tx: Tx, account_id: int, message_id: int, limit: int) -> list[Held]:
    """The first `limit` deliveries of a message that are held, locked."""
    delivery, message, job = tables.delivery, tables.message, tables.job
    rows = await tx.execute(
        select(
            delivery.c.id, delivery.c.reason, delivery.c.expires_ms, func.coalesce(job.c.due_ms, 0), message.c.due_ms
        )
        .select_from(
            message.join(
                delivery,
                and_(
                    delivery.c.id.between(message.c.first_id, message.c.last_id),
                    delivery.c.message_id == message.c.id,
                ),
            ).outerjoin(job, job.c.id == delivery.c.id)
        )
        .where(message.c.id == message_id, message.c.account_id == account_id, delivery.c.state == State.HELD.value)
        .order_by(delivery.c.id)
        .limit(limit)
        .with_for_update(of=delivery)
    )
    return [Held(*row) for row in rows]


async def let_go(
    tx: Tx,
    account_id: int,
    released: Sequence[tuple[Held, State, int, int]],
    events: Sequence[Mapping[str, Any]],
    reason: str,
) -> None:
    """Put held deliveries into another state, with a new validity and a new time for their jobs: (delivery, state, expires_ms,
    due_ms). `events` are the lines of their journals."""
    delivery, job = tables.delivery, tables.job
    await tx.execute(
        update(delivery)
        .where(delivery.c.id == bindparam("its_id"), delivery.c.account_id == account_id)
        .values(state=bindparam("its_state"), reason=reason, expires_ms=bindparam("its_expires_ms")),
        [
            {"its_id": each.id, "its_state": state.value, "its_expires_ms": expires_ms}
            for each, state, expires_ms, _ in released
        ],
    )
    await tx.execute(
        update(job)
        .where(job.c.id == bindparam("its_id"), job.c.account_id == account_id)
        .values(due_ms=bindparam("its_due_ms"), buried_ms=0, why=""),
        [{"its_id": each.id, "its_due_ms": due_ms} for each, _, _, due_ms in released],
    )
    await tx.execute(insert(tables.event), events)


# ── Helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _insert(tx: Tx, table: Any) -> Any:
    """An INSERT that can say what to do about rows that exist."""
    return sqlite.insert(table) if tx.dialect.name == "sqlite" else postgresql.insert(table)


def _entries() -> Select[Any]:
    table = tables.suppression
    return select(
        table.c.recipient, table.c.channel, table.c.reason, table.c.source, table.c.all_traffic, table.c.at_ms
    )


def _suppression(row: Any) -> Suppression:
    return Suppression(row.recipient, row.channel, Reason(row.reason), row.source, bool(row.all_traffic), row.at_ms)


def _consent(row: Any) -> ConsentRecord:
    consent = Consent(
        brand=row.brand,
        recipient=row.recipient,
        recipient_type=RecipientType(row.recipient_type),
        type=ConsentType(row.type),
        status=Status(row.status),
        source=row.source,
        consent_ms=row.consent_ms,
    )
    return ConsentRecord(row.id, consent, row.recorded_ms, bool(row.is_current))


class _Found(Generic[K]):
    """Puts rows that were read into books by account and key: new ones, or `before` with changes."""

    def __init__(self, before: Mapping[int, Mapping[K, Book]]) -> None:
        self._before = before
        self._changed: dict[int, dict[K, Book]] | None = None
        self._changes: dict[tuple[int, K], dict[str, int]] = {}
        self._makers: dict[tuple[int, K], BookMaker] = {}

    def add(self, account_id: int, key: K, recipient: str, found: int) -> None:
        """One row; `found` is what `Book.find` is to answer."""
        if self._before:
            self._changes.setdefault((account_id, key), {})[recipient] = found
        elif found:
            maker = self._makers.get((account_id, key))
            if maker is None:
                maker = self._makers[account_id, key] = BookMaker()
            maker.add(recipient, found)

    def turn_page(self) -> None:
        """Apply the changes. A book that becomes empty is dropped, so that asking for it costs nothing."""
        if not self._changes:
            return
        if self._changed is None:
            self._changed = {account_id: dict(mine) for account_id, mine in self._before.items()}
        for (account_id, key), changes in self._changes.items():
            mine = self._changed.setdefault(account_id, {})
            book = mine.get(key, _EMPTY).changed(changes)
            if len(book):
                mine[key] = book
                continue
            mine.pop(key, None)
            if not mine:
                del self._changed[account_id]
        self._changes = {}

    def books(self) -> Mapping[int, Mapping[K, Book]]:
        """All of them; the very ones from before if nothing has changed."""
        if self._before:
            return self._before if self._changed is None else self._changed
        made: dict[int, dict[K, Book]] = {}
        for (account_id, key), maker in self._makers.items():
            made.setdefault(account_id, {})[key] = maker.book()
        return made


_EMPTY = Book()
