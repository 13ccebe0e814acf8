"""The rows behind the directory, as the office writes them: accounts, applications, tokens, sender names, prices, routes,
connectors, numbers, callback endpoints, and the audit trail of all that.

Writing functions return whether there was such a row. Whoever calls them also calls `directory.bump` in the same
transaction. Every function that touches what belongs to an account takes the account and names it in its query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Table, delete, func, insert, select, update

from berid.domain.account import Account, Application, Rules, SenderName, SenderState, Token
from berid.domain.pricing import PriceRow
from berid.domain.report import Endpoint
from berid.domain.routing import ConnectorSettings, Route
from berid.store import Tx, tables
from berid.store.directory import RouteMatch

BATCH = 500
"""Rows of one INSERT: SQLite of old allows 32,766 bound values in a statement."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as its owner may see it. `hint` is its first and last characters; the secret itself is nowhere."""

    id: int
    account_id: int
    application_id: int
    kind: str
    mode: str
    label: str
    hint: str
    login: str
    scopes: str
    created_ms: int
    expires_ms: int
    revoked_ms: int


@dataclass(frozen=True, slots=True)
class SenderRecord:
    """A sender name with its history in short: `reason` is what the last decision gave."""

    id: int
    account_id: int
    channel: str
    name: str
    country: str
    category: str
    state: str
    reason: str
    created_ms: int
    updated_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class PriceListRecord:
    """A price list without its rows."""

    id: int
    name: str
    channel: str
    currency: str
    charge_on: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class InternationalRecord:
    """An account's wish to write to other countries: some by their codes, or all of them ("").

    `asked_by` and `handled_by` are actors as the audit trail has them; `decided_ms` is 0 while it is open.
    """

    id: int
    account_id: int
    countries: str
    purpose: str
    monthly_volume: int
    state: str
    reason: str
    asked_by: str
    handled_by: str
    created_ms: int
    decided_ms: int


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who did what to which thing, and when. `detail` is a JSON object without secrets."""

    id: int
    account_id: int
    actor: str
    action: str
    subject: str
    detail: str
    at_ms: int


async def add_account(tx: Tx, account: Account, created_ms: int) -> None:
    """Insert an account."""
    await tx.execute(
        insert(tables.account).values(
            id=account.id,
            name=account.name,
            state=account.state,
            home=account.home,
            zone=account.zone,
            language=account.language,
            rules=_json(account.rules),
            created_ms=created_ms,
        )
    )


async def has_account(tx: Tx, account_id: int) -> bool:
    """Whether there is such an account."""
    return await _is_there(tx, tables.account, id=account_id)


async def locked_account(tx: Tx, account_id: int) -> Account | None:
    """An account that nobody else changes before this transaction ends: what is decided by its rules, or counted, holds."""
    query = select(tables.account).where(tables.account.c.id == account_id).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    rules = msgspec.json.decode(row.rules, type=Rules)
    return Account(row.id, row.name, row.state, row.home, row.zone, row.language, rules)


async def account_named(tx: Tx, name: str) -> int | None:
    """The id of the oldest account of that name."""
    found = await tx.execute(select(func.min(tables.account.c.id)).where(tables.account.c.name == name))
    identifier: int | None = found.scalar()
    return identifier


async def set_account_state(tx: Tx, account_id: int, state: str) -> bool:
    """Put an account into a state."""
    return await _change(tx, tables.account, {"id": account_id}, {"state": state})


async def set_account_rules(tx: Tx, account_id: int, rules: Rules) -> bool:
    """Replace an account's rules."""
    return await _change(tx, tables.account, {"id": account_id}, {"rules": _json(rules)})


async def add_application(tx: Tx, application: Application, created_ms: int) -> None:
    """Insert an application."""
    await tx.execute(
        insert(tables.application).values(
            id=application.id,
            account_id=application.account_id,
            name=application.name,
            state=application.state,
            services=" ".join(sorted(application.services)),
            rules=_json(application.rules),
            created_ms=created_ms,
        )
    )


async def locked_application(tx: Tx, account_id: int, application_id: int) -> Application | None:
    """An application that nobody else changes before this transaction ends."""
    table = tables.application
    query = select(table).where(table.c.id == application_id, table.c.account_id == account_id).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    rules = msgspec.json.decode(row.rules, type=Rules)
    return Application(row.id, row.account_id, row.name, row.state, frozenset(row.services.split()), rules)


async def has_application(tx: Tx, account_id: int, application_id: int) -> bool:
    """Whether the account has such an application."""
    return await _is_there(tx, tables.application, id=application_id, account_id=account_id)


async def set_application_state(tx: Tx, account_id: int, application_id: int, state: str) -> bool:
    """Put an application into a state."""
    keys = {"id": application_id, "account_id": account_id}
    return await _change(tx, tables.application, keys, {"state": state})


async def set_services(tx: Tx, account_id: int, application_id: int, services: Sequence[str]) -> bool:
    """Replace the channels that an application may use."""
    keys = {"id": application_id, "account_id": account_id}
    return await _change(tx, tables.application, keys, {"services": " ".join(sorted(services))})


async def set_application_rules(tx: Tx, account_id: int, application_id: int, rules: Rules) -> bool:
    """Replace an application's rules."""
    keys = {"id": application_id, "account_id": account_id}
    return await _change(tx, tables.application, keys, {"rules": _json(rules)})


async def add_token(tx: Tx, token: Token, hint: str, created_ms: int) -> None:
    """Insert a token, by its hash."""
    await tx.execute(
        insert(tables.token).values(
            id=token.id,
            account_id=token.account_id,
            application_id=token.application_id,
            kind=token.kind,
            mode=token.mode,
            label=token.label,
            hint=hint,
            login=token.login,
            hash=token.hash,
            scopes=" ".join(sorted(token.scopes)),
            created_ms=created_ms,
            expires_ms=token.expires_ms,
            revoked_ms=token.revoked_ms,
        )
    )


async def tokens(tx: Tx, account_id: int) -> list[TokenRecord]:
    """An account's tokens, oldest first."""
    found = await tx.execute(
        select(*_columns(tables.token, TokenRecord))
        .where(tables.token.c.account_id == account_id)
        .order_by(tables.token.c.id)
    )
    return [TokenRecord(*row) for row in found]


async def token(tx: Tx, account_id: int, token_id: int) -> TokenRecord | None:
    """One token of an account."""
    table = tables.token
    found = await tx.execute(
        select(*_columns(table, TokenRecord)).where(table.c.id == token_id, table.c.account_id == account_id)
    )
    row = found.first()
    return TokenRecord(*row) if row else None


async def has_login(tx: Tx, login: str) -> bool:
    """Whether an SMPP system_id is taken, by whichever account: they share one listener."""
    return await _is_there(tx, tables.token, login=login)


async def set_token_hash(tx: Tx, account_id: int, token_id: int, hashed: str) -> bool:
    """Give a token another secret."""
    return await _change(tx, tables.token, {"id": token_id, "account_id": account_id}, {"hash": hashed})


async def set_token_expiry(tx: Tx, account_id: int, token_id: int, expires_ms: int) -> bool:
    """Say when a token ends by itself."""
    return await _change(tx, tables.token, {"id": token_id, "account_id": account_id}, {"expires_ms": expires_ms})


async def revoke_token(tx: Tx, account_id: int, token_id: int, now_ms: int) -> bool:
    """End a token that has not been revoked before."""
    keys = {"id": token_id, "account_id": account_id, "revoked_ms": 0}
    return await _change(tx, tables.token, keys, {"revoked_ms": now_ms})


async def add_sender(tx: Tx, sender: SenderName, now_ms: int) -> None:
    """Insert a sender name."""
    await tx.execute(
        insert(tables.sender_name).values(
            id=sender.id,
            account_id=sender.account_id,
            channel=sender.channel,
            name=sender.name,
            country=sender.country,
            category=sender.category,
            state=sender.state.value,
            created_ms=now_ms,
            updated_ms=now_ms,
            expires_ms=sender.expires_ms,
        )
    )


async def senders(tx: Tx, account_id: int) -> list[SenderRecord]:
    """An account's sender names, oldest first."""
    table = tables.sender_name
    found = await tx.execute(
        select(*_columns(table, SenderRecord)).where(table.c.account_id == account_id).order_by(table.c.id)
    )
    return [SenderRecord(*row) for row in found]


async def sender(tx: Tx, account_id: int, sender_id: int) -> SenderRecord | None:
    """One sender name of an account."""
    table = tables.sender_name
    found = await tx.execute(
        select(*_columns(table, SenderRecord)).where(table.c.id == sender_id, table.c.account_id == account_id)
    )
    row = found.first()
    return SenderRecord(*row) if row else None


async def has_sender(tx: Tx, account_id: int, channel: str, name: str, country: str, category: str) -> bool:
    """Whether the account has asked for exactly this name before."""
    return await _is_there(
        tx,
        tables.sender_name,
        account_id=account_id,
        channel=channel,
        name=name,
        country=country,
        category=category,
    )


async def set_sender_state(
    tx: Tx,
    account_id: int,
    sender_id: int,
    before: SenderState,
    state: SenderState,
    reason: str,
    expires_ms: int,
    now_ms: int,
) -> bool:
    """Move a sender name from the state `before` to `state`; False if it is no longer in `before`."""
    return await _change(
        tx,
        tables.sender_name,
        {"id": sender_id, "account_id": account_id, "state": before.value},
        {"state": state.value, "reason": reason, "expires_ms": expires_ms, "updated_ms": now_ms},
    )


async def add_price_list(tx: Tx, record: PriceListRecord) -> None:
    """Insert a price list without rows."""
    await tx.execute(insert(tables.price_list).values(**{name: getattr(record, name) for name in record.__slots__}))


async def price_lists(tx: Tx) -> list[PriceListRecord]:
    """All price lists, by name."""
    table = tables.price_list
    found = await tx.execute(select(*_columns(table, PriceListRecord)).order_by(table.c.name, table.c.channel))
    return [PriceListRecord(*row) for row in found]


async def price_list(tx: Tx, price_list_id: int) -> PriceListRecord | None:
    """One price list."""
    table = tables.price_list
    found = await tx.execute(select(*_columns(table, PriceListRecord)).where(table.c.id == price_list_id))
    row = found.first()
    return PriceListRecord(*row) if row else None


async def price_rows(tx: Tx, price_list_id: int) -> dict[int, PriceRow]:
    """The rows of a price list by id."""
    table = tables.price
    found = await tx.execute(
        select(
            table.c.id,
            table.c.prefix,
            table.c.amount_micros,
            table.c.category,
            table.c.operator,
            table.c.from_ms,
            table.c.until_ms,
        ).where(table.c.price_list_id == price_list_id)
    )
    return {row[0]: PriceRow(*row[1:]) for row in found}


async def add_price_rows(tx: Tx, price_list_id: int, rows: Mapping[int, PriceRow]) -> None:
    """Insert rows, by id, into a price list."""
    values = [
        {
            "id": identifier,
            "price_list_id": price_list_id,
            "prefix": row.prefix,
            "operator": row.operator,
            "category": row.category,
            "amount_micros": row.amount_micros,
            "from_ms": row.from_ms,
            "until_ms": row.until_ms,
        }
        for identifier, row in rows.items()
    ]
    if values:
        await tx.execute(insert(tables.price), values)


async def remove_price_rows(tx: Tx, price_list_id: int, identifiers: Sequence[int]) -> None:
    """Delete rows of a price list."""
    table = tables.price
    for start in range(0, len(identifiers), BATCH):
        page = identifiers[start : start + BATCH]
        await tx.execute(delete(table).where(table.c.price_list_id == price_list_id, table.c.id.in_(page)))


async def use_price_list(tx: Tx, account_id: int, price_list_id: int, rank: int) -> None:
    """Let an account (0: all that name none) buy by a list, at a place in the order."""
    keys = {"account_id": account_id, "price_list_id": price_list_id}
    if not await _change(tx, tables.price_use, keys, {"rank": rank}):
        await tx.execute(insert(tables.price_use).values(**keys, rank=rank))


async def drop_price_list(tx: Tx, account_id: int, price_list_id: int) -> bool:
    """Let an account no longer buy by a list."""
    table = tables.price_use
    gone = await tx.execute(
        delete(table).where(table.c.account_id == account_id, table.c.price_list_id == price_list_id)
    )
    return bool(gone.rowcount)


async def price_uses(tx: Tx, price_list_id: int) -> list[tuple[int, int]]:
    """(account, rank) of everybody who buys by a list."""
    table = tables.price_use
    found = await tx.execute(
        select(table.c.account_id, table.c.rank)
        .where(table.c.price_list_id == price_list_id)
        .order_by(table.c.account_id)
    )
    return [(row[0], row[1]) for row in found]


async def add_route(tx: Tx, route: Route) -> None:
    """Insert a route that is on."""
    await tx.execute(insert(tables.route).values(id=route.id, **_route_values(route)))


async def change_route(tx: Tx, route: Route) -> bool:
    """Replace everything a route says; whether it is on stays."""
    return await _change(tx, tables.route, {"id": route.id}, _route_values(route))


async def set_route_state(tx: Tx, route_id: int, state: str) -> bool:
    """Switch a route `on` or `off`."""
    return await _change(tx, tables.route, {"id": route_id}, {"state": state})


async def route_states(tx: Tx) -> dict[str, tuple[int, str]]:
    """(id, state) of every route, those that are off among them, by name."""
    found = await tx.execute(select(tables.route.c.name, tables.route.c.id, tables.route.c.state))
    return {row[0]: (row[1], row[2]) for row in found}


async def add_connector(tx: Tx, connector: ConnectorSettings, created_ms: int) -> None:
    """Insert a connector."""
    await tx.execute(
        insert(tables.connector).values(
            id=connector.id,
            name=connector.name,
            channel=connector.channel,
            kind=connector.kind,
            mode=connector.mode,
            state=connector.state,
            settings=_json(connector.settings),
            created_ms=created_ms,
        )
    )


async def connectors(tx: Tx) -> dict[int, ConnectorSettings]:
    """All connectors by id, secrets sealed."""
    table = tables.connector
    found = await tx.execute(
        select(
            table.c.id, table.c.name, table.c.channel, table.c.kind, table.c.mode, table.c.state, table.c.settings
        ).order_by(table.c.id)
    )
    return {row[0]: ConnectorSettings(*row[:6], msgspec.json.decode(row[6])) for row in found}


async def set_connector_state(tx: Tx, connector_id: int, state: str) -> bool:
    """Put a connector into a state."""
    return await _change(tx, tables.connector, {"id": connector_id}, {"state": state})


async def set_connector_settings(tx: Tx, connector_id: int, settings: Mapping[str, object]) -> bool:
    """Replace a connector's settings."""
    return await _change(tx, tables.connector, {"id": connector_id}, {"settings": _json(settings)})


async def assign_number(
    tx: Tx, number: str, account_id: int, application_id: int, channel: str, created_ms: int
) -> None:
    """Give a number that people write to to an account, or to another application of it."""
    values = {"account_id": account_id, "application_id": application_id, "channel": channel}
    if not await _change(tx, tables.number, {"number": number}, values):
        await tx.execute(insert(tables.number).values(number=number, created_ms=created_ms, **values))


async def number_owner(tx: Tx, number: str) -> int | None:
    """The account that has a number."""
    found = await tx.execute(select(tables.number.c.account_id).where(tables.number.c.number == number))
    owner: int | None = found.scalar()
    return owner


async def release_number(tx: Tx, account_id: int, number: str) -> bool:
    """Take a number from an account."""
    table = tables.number
    gone = await tx.execute(delete(table).where(table.c.number == number, table.c.account_id == account_id))
    return bool(gone.rowcount)


async def add_endpoint(tx: Tx, endpoint: Endpoint, description: str, created_ms: int) -> None:
    """Insert a callback endpoint."""
    await tx.execute(
        insert(tables.callback_endpoint).values(
            id=endpoint.id,
            account_id=endpoint.account_id,
            application_id=endpoint.application_id,
            kind=endpoint.kind,
            url=endpoint.url,
            host=endpoint.host,
            sealed_secret=endpoint.sealed_secret,
            events=" ".join(sorted(endpoint.events)),
            batch_max=endpoint.batch_max,
            state=endpoint.state,
            description=description,
            created_ms=created_ms,
        )
    )


async def add_international(tx: Tx, record: InternationalRecord) -> None:
    """Insert a wish to write to other countries."""
    values = {name: getattr(record, name) for name in record.__slots__}
    await tx.execute(insert(tables.international_request).values(**values))


async def internationals(tx: Tx, account_id: int) -> list[InternationalRecord]:
    """An account's wishes to write to other countries, newest first."""
    table = tables.international_request
    query = select(*_columns(table, InternationalRecord)).where(table.c.account_id == account_id)
    return [InternationalRecord(*row) for row in await tx.execute(query.order_by(table.c.id.desc()))]


async def decide_international(
    tx: Tx, account_id: int, request_id: int, state: str, reason: str, handled_by: str, now_ms: int
) -> bool:
    """Put an account's open wish into its last state; False if it is not open."""
    keys = {"id": request_id, "account_id": account_id, "decided_ms": 0}
    values = {"state": state, "reason": reason, "handled_by": handled_by, "decided_ms": now_ms}
    return await _change(tx, tables.international_request, keys, values)


async def add_audit(tx: Tx, record: AuditRecord) -> None:
    """Append a line to the audit trail."""
    await tx.execute(insert(tables.audit).values(**{name: getattr(record, name) for name in record.__slots__}))


async def audit(tx: Tx, account_id: int, before_id: int, limit: int) -> list[AuditRecord]:
    """An account's audit trail (0: the installation's), newest first; `before_id` 0 begins at the newest."""
    table = tables.audit
    query = select(*_columns(table, AuditRecord)).where(table.c.account_id == account_id)
    if before_id:
        query = query.where(table.c.id < before_id)
    return [AuditRecord(*row) for row in await tx.execute(query.order_by(table.c.id.desc()).limit(limit))]


async def _change(tx: Tx, table: Table, keys: Mapping[str, object], values: Mapping[str, object]) -> bool:
    changed = await tx.execute(update(table).where(*_matches(table, keys)).values(**values))
    return bool(changed.rowcount)


async def _is_there(tx: Tx, table: Table, **keys: object) -> bool:
    found = await tx.execute(select(func.count()).select_from(table).where(*_matches(table, keys)))
    return bool(found.scalar())


def _matches(table: Table, keys: Mapping[str, object]) -> list[Any]:
    return [table.c[name] == value for name, value in keys.items()]


def _columns(table: Table, record: Any) -> list[Any]:
    """The columns that fill a record, in its order."""
    return [table.c[name] for name in record.__slots__]


def _route_values(route: Route) -> dict[str, object]:
    match = RouteMatch(
        tuple(sorted(route.countries)),
        route.prefixes,
        tuple(sorted(route.categories)),
        tuple(sorted(route.accounts)),
    )
    return {
        "name": route.name,
        "rank": route.rank,
        "mode": route.mode,
        "channel": route.channel,
        "match": _json(match),
        "connectors": _json(route.connectors),
        "uncertain": _json({str(priority): policy.value for priority, policy in route.uncertain.items()}),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
