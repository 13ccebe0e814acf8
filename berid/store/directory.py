"""Loads the `Directory`: everything that deciding about a request needs to know of the business.

Whoever changes any of these tables calls `bump` in the same transaction; every process compares `version` once a
second and takes a new snapshot when it has risen.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Text, cast, select
from sqlalchemy.dialects import postgresql, sqlite

from berid.domain.account import Account, Application, Rules, SenderName, SenderState, Token
from berid.domain.directory import Directory
from berid.domain.message import ChargeOn
from berid.domain.pricing import PriceList, PriceRow
from berid.domain.report import Endpoint
from berid.domain.routing import ConnectorSettings, Route, UncertainPolicy
from berid.domain.rules import RuleBook
from berid.store import Tx, consent, tables

log = logging.getLogger("berid.store")


class RouteMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions of a route, as stored; empty ones match everything."""

    countries: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    accounts: tuple[int, ...] = ()


async def version(tx: Tx) -> int:
    """The store's version: rises with every change that a process must notice. 0 for a new store."""
    found = (await tx.execute(select(tables.meta.c.value).where(tables.meta.c.key == "version"))).scalar()
    return int(found) if found else 0


async def bump(tx: Tx) -> int:
    """Raise the version, in the transaction of the change, and return it.

    Until that transaction has ended no other can raise it: versions are committed in their order, and none is given twice.
    """
    meta = tables.meta
    statement: Any = (sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert)(meta)
    raised = await tx.execute(
        statement.values(key="version", value="1")
        .on_conflict_do_update(
            index_elements=[meta.c.key], set_={"value": cast(cast(meta.c.value, BigInteger) + 1, Text)}
        )
        .returning(meta.c.value)
    )
    return int(raised.scalar_one())


async def load(tx: Tx, previous: Directory | None = None, *, with_books: bool = True) -> Directory:
    """Read everything. Call it in one read, so that it shows one moment.

    Of the suppression book and the record of consent, which may have millions of entries, only what is newer than `previous` is
    read; without it, all. Who decides about no recipient leaves them out (`with_books` False): they are empty then.
    """
    # Before all else: what is read later may be newer than the version says, and is then read again; never the other way.
    current = await version(tx)
    since = previous.version if previous is not None and previous.version <= current else 0
    known = previous if previous is not None and since else Directory()
    accounts = {row.id: _account(row) for row in await _all(tx, tables.account)}
    applications = {row.id: _application(row) for row in await _all(tx, tables.application)}
    tokens = [_token(row) for row in await _all(tx, tables.token)]
    senders: dict[tuple[int, str, str], list[SenderName]] = {}
    for row in await _all(tx, tables.sender_name):
        senders.setdefault((row.account_id, row.channel, row.name), []).append(_sender(row))
    connectors = {row.id: _connector(row) for row in await _all(tx, tables.connector)}
    routes = sorted(
        (route_of(row) for row in await _all(tx, tables.route) if row.state == "on"),
        key=lambda route: (route.rank, route.id),
    )
    endpoints: dict[int, list[Endpoint]] = {}
    for row in await _all(tx, tables.callback_endpoint):
        endpoints.setdefault(row.account_id, []).append(_endpoint(row))
    return Directory(
        version=current,
        accounts=accounts,
        applications=applications,
        tokens={token.hash: token for token in tokens},
        logins={token.login: token for token in tokens if token.login},
        senders=senders,
        wallets={(row.account_id, row.mode, row.currency): row.id for row in await _all(tx, tables.wallet)},
        prices=await _prices(tx),
        routes=tuple(routes),
        route_by_id={route.id: route for route in routes},
        connectors=connectors,
        endpoints=endpoints,
        endpoint_by_id={endpoint.id: endpoint for found in endpoints.values() for endpoint in found},
        numbers={row.number: (row.account_id, row.application_id) for row in await _all(tx, tables.number)},
        rules=RuleBook(await consent.rule_packs(tx)),
        consent_rules=await consent.consent_rules(tx),
        suppressions=await consent.load_books(tx, known.suppressions, since) if with_books else {},
        consents=await consent.load_consents(tx, known.consents, since) if with_books else {},
    )


async def _all(tx: Tx, table: Any) -> list[Any]:
    return list((await tx.execute(select(table))).all())


def _account(row: Any) -> Account:
    return Account(row.id, row.name, row.state, row.home, row.zone, row.language, _rules(row.rules))


def _application(row: Any) -> Application:
    return Application(row.id, row.account_id, row.name, row.state, frozenset(row.services.split()), _rules(row.rules))


def _rules(text: str) -> Rules:
    return msgspec.json.decode(text, type=Rules)


def _token(row: Any) -> Token:
    return Token(
        row.id,
        row.account_id,
        row.application_id,
        row.kind,
        row.mode,
        row.label,
        row.login,
        row.hash,
        frozenset(row.scopes.split()),
        row.expires_ms,
        row.revoked_ms,
    )


def _sender(row: Any) -> SenderName:
    return SenderName(
        row.id,
        row.account_id,
        row.channel,
        row.name,
        row.country,
        row.category,
        SenderState(row.state),
        row.expires_ms,
    )


def _connector(row: Any) -> ConnectorSettings:
    return ConnectorSettings(
        row.id, row.name, row.channel, row.kind, row.mode, row.state, msgspec.json.decode(row.settings)
    )


def route_of(row: Any) -> Route:
    """The route that a row of table `route` describes."""
    match = msgspec.json.decode(row.match, type=RouteMatch)
    policies = msgspec.json.decode(row.uncertain, type=dict[int, str], strict=False)
    return Route(
        id=row.id,
        name=row.name,
        rank=row.rank,
        mode=row.mode,
        channel=row.channel,
        connectors=tuple(msgspec.json.decode(row.connectors, type=list[int])),
        countries=frozenset(match.countries),
        prefixes=match.prefixes,
        categories=frozenset(match.categories),
        accounts=frozenset(match.accounts),
        uncertain={priority: UncertainPolicy(policy) for priority, policy in policies.items()},
    )


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        row.id,
        row.account_id,
        row.application_id,
        row.kind,
        row.url,
        row.host,
        row.sealed_secret,
        frozenset(row.events.split()),
        row.batch_max,
        row.state,
    )


async def _prices(tx: Tx) -> dict[tuple[int, str], list[PriceList]]:
    """Price lists ready for look-up, by (account, channel) in the order in which they are asked."""
    rows: dict[int, list[PriceRow]] = {}
    for row in await _all(tx, tables.price):
        rows.setdefault(row.price_list_id, []).append(
            PriceRow(row.prefix, row.amount_micros, row.category, row.operator, row.from_ms, row.until_ms)
        )
    lists = {row.id: row for row in await _all(tx, tables.price_list)}
    built: dict[int, PriceList] = {}
    prices: dict[tuple[int, str], list[PriceList]] = {}
    uses = await tx.execute(select(tables.price_use).order_by(tables.price_use.c.account_id, tables.price_use.c.rank))
    for use in uses:
        row = lists.get(use.price_list_id)
        if row is None:
            log.warning("a price list in use does not exist", extra={"price_list": use.price_list_id})
            continue
        if row.id not in built:
            built[row.id] = PriceList(row.id, row.name, row.currency, ChargeOn(row.charge_on), rows.get(row.id, ()))
        prices.setdefault((use.account_id, row.channel), []).append(built[row.id])
    return prices
