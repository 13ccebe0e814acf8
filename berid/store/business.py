"""The business row by row as it is at this moment, for those who look at it: the directory may be a second behind.

Functions that look at one account's rows name the account; those that have none in their signature are the operator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import select

from berid.domain.account import Account, Application, Rules
from berid.domain.routing import Route
from berid.store import Tx, tables
from berid.store.accounts import InternationalRecord, SenderRecord
from berid.store.directory import route_of


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """A route, and whether it is `on` or `off`."""

    route: Route
    state: str


async def accounts(tx: Tx, after_id: int, limit: int) -> list[Account]:
    """All accounts by id."""
    table = tables.account
    found = await tx.execute(select(table).where(table.c.id > after_id).order_by(table.c.id).limit(limit))
    return [_account(row) for row in found]


async def account(tx: Tx, account_id: int) -> Account | None:
    """One account."""
    row = (await tx.execute(select(tables.account).where(tables.account.c.id == account_id))).first()
    return _account(row) if row else None


async def applications(tx: Tx, account_id: int) -> list[Application]:
    """An account's applications, oldest first."""
    table = tables.application
    found = await tx.execute(select(table).where(table.c.account_id == account_id).order_by(table.c.id))
    return [_application(row) for row in found]


async def application(tx: Tx, account_id: int, application_id: int) -> Application | None:
    """One application of an account."""
    table = tables.application
    found = await tx.execute(select(table).where(table.c.id == application_id, table.c.account_id == account_id))
    row = found.first()
    return _application(row) if row else None


async def senders(tx: Tx, state: str, after_id: int, limit: int) -> list[SenderRecord]:
    """Sender names of all accounts by id, of one state unless that is empty."""
    table = tables.sender_name
    query = _senders().where(table.c.id > after_id)
    if state:
        query = query.where(table.c.state == state)
    return [SenderRecord(*row) for row in await tx.execute(query.order_by(table.c.id).limit(limit))]


async def sender(tx: Tx, sender_id: int) -> SenderRecord | None:
    """One sender name, of whichever account."""
    row = (await tx.execute(_senders().where(tables.sender_name.c.id == sender_id))).first()
    return SenderRecord(*row) if row else None


async def internationals(tx: Tx, state: str, after_id: int, limit: int) -> list[InternationalRecord]:
    """Wishes of all accounts to write to other countries by id, of one state unless that is empty."""
    table = tables.international_request
    query = _internationals().where(table.c.id > after_id)
    if state:
        query = query.where(table.c.state == state)
    return [InternationalRecord(*row) for row in await tx.execute(query.order_by(table.c.id).limit(limit))]


async def international(tx: Tx, request_id: int) -> InternationalRecord | None:
    """One wish to write to other countries, of whichever account."""
    row = (await tx.execute(_internationals().where(tables.international_request.c.id == request_id))).first()
    return InternationalRecord(*row) if row else None


async def routes(tx: Tx) -> list[RouteRecord]:
    """All routes in the order in which they are asked, those that are off among them."""
    table = tables.route
    return [
        RouteRecord(route_of(row), row.state)
        for row in await tx.execute(select(table).order_by(table.c.rank, table.c.id))
    ]


def _account(row: Any) -> Account:
    return Account(row.id, row.name, row.state, row.home, row.zone, row.language, _rules(row.rules))


def _application(row: Any) -> Application:
    return Application(row.id, row.account_id, row.name, row.state, frozenset(row.services.split()), _rules(row.rules))


def _rules(text: str) -> Rules:
    return msgspec.json.decode(text, type=Rules)


def _internationals() -> Any:
    return select(*(tables.international_request.c[name] for name in InternationalRecord.__slots__))


def _senders() -> Any:
    return select(*(tables.sender_name.c[name] for name in SenderRecord.__slots__))
