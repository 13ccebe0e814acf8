"""The operator's ways out: connectors, routes and why one is chosen, price lists.

Secrets of a connector go in and never come out: `secrets` names those that are set.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.manage.people import Mode, Name
from berid.dialects.native.shapes import or_none, read_id, rfc3339
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.domain.message import ChargeOn
from berid.domain.pricing import PriceRow
from berid.domain.routing import ConnectorSettings, Route, UncertainPolicy
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.manage.carriers import SEALED
from berid.flow.ports import Channel
from berid.store import accounts, business

CategoryName = Literal["otp", "transactional", "promotional"]
Setting = bool | int | float | str | list[Any] | dict[str, Any]
ConnectorState = Literal["on", "paused", "draining", "off"]
Uncertain = dict[Literal["0", "1", "2"], UncertainPolicy]
"""What becomes of a delivery whose submit got no answer, by priority; what is left out is as configured for all routes."""

Names = list[str]
Rank = Annotated[int, Meta(ge=0, le=1_000_000)]


class NewConnector(msgspec.Struct, forbid_unknown_fields=True):
    """A connector to make. Which `settings` it needs is its channel's and kind's business."""

    name: Name
    kind: str
    settings: dict[str, Setting]
    channel: str = "sms"
    mode: Mode = "live"
    state: ConnectorState = "on"


class ConnectorChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a connector; what is left out stays. A setting that is null is taken away.

    `paused` keeps the binds and sends nothing, `draining` takes nothing new. New settings make it bind again.
    """

    settings: dict[str, Setting | None] | None = None
    state: ConnectorState | None = None


class AConnector(msgspec.Struct):
    """A connector without its secrets. `health` is `elsewhere` if this process does not run it."""

    id: str
    name: str
    channel: str
    kind: str
    mode: str
    state: str
    health: str
    settings: dict[str, Any]
    secrets: list[str]


class ConnectorList(msgspec.Struct):
    """All connectors."""

    data: list[AConnector]


class NewRoute(msgspec.Struct, forbid_unknown_fields=True):
    """A route to make; lower `rank` is asked first, conditions that are left out match everything.

    `connectors` in order of preference.
    """

    name: Name
    connectors: Names
    rank: Rank = 100
    mode: Mode = "live"
    channel: str = "sms"
    countries: Names = []
    prefixes: Names = []
    categories: list[CategoryName] = []
    accounts: Names = []
    uncertain: Uncertain = {}


class RouteChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a route; what is left out stays."""

    name: Name | None = None
    connectors: Names | None = None
    rank: Rank | None = None
    countries: Names | None = None
    prefixes: Names | None = None
    categories: list[CategoryName] | None = None
    accounts: Names | None = None
    uncertain: Uncertain | None = None
    state: Literal["on", "off"] | None = None


class ARoute(msgspec.Struct):
    """A route."""

    id: str
    name: str
    rank: int
    mode: str
    channel: str
    state: str
    connectors: list[str]
    countries: list[str]
    prefixes: list[str]
    categories: list[str]
    accounts: list[str]
    uncertain: dict[str, str]


class RouteList(msgspec.Struct):
    """All routes in the order in which they are asked."""

    data: list[ARoute]


class RouteQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is not sent: from which account, to which number (digits with the country's code)."""

    number: Annotated[str, Meta(pattern="^[0-9]{4,15}$")]
    account: str
    category: CategoryName = "transactional"
    mode: Mode = "live"
    channel: str = "sms"


class RouteVerdict(msgspec.Struct):
    """One route as it was judged; `why_not` is empty if it takes the message."""

    name: str
    rank: int
    why_not: str


class RouteConnector(msgspec.Struct):
    """A connector of the chosen route."""

    name: str
    state: str


class RouteAnswer(msgspec.Struct):
    """Which way a message would go, and why not another. `route` is empty if none takes it, `price` null if none is set.

    `pays` is the currency of the wallet that would pay; empty if the account has none.
    """

    number: str
    country: str
    route: str
    connectors: list[RouteConnector]
    routes: list[RouteVerdict]
    price: str | None
    price_list: str
    pays: str


class NewPriceList(msgspec.Struct, forbid_unknown_fields=True):
    """A price list to make, empty. It is charged when a message is `sent`, or when it is `delivered`."""

    name: Name
    currency: str
    channel: str = "sms"
    charge_on: ChargeOn = ChargeOn.SENT


class PriceListItem(msgspec.Struct):
    """A price list without its rows."""

    id: str
    name: str
    channel: str
    currency: str
    charge_on: str
    created_at: str


class PriceLists(msgspec.Struct):
    """All price lists, by name."""

    data: list[PriceListItem]


class PriceImport(msgspec.Struct, forbid_unknown_fields=True):
    """What the list is to say, all of it. The first line of the CSV names the columns: prefix and price, and if wanted
    category, operator, from, until. A dry run tells the difference and changes nothing."""

    csv: str
    dry_run: bool = False


class PriceUse(msgspec.Struct, forbid_unknown_fields=True):
    """Who buys by the list (empty: all that have none of their own), and when it is asked: lower ranks first."""

    account: str = ""
    rank: Rank = 100


class PriceUser(msgspec.Struct, forbid_unknown_fields=True):
    """Who no longer buys by the list; empty: all that have none of their own."""

    account: str = ""


class Price(msgspec.Struct):
    """One row of a price list."""

    prefix: str
    price: str
    category: str
    operator: str
    valid_from: str | None
    valid_until: str | None


class PriceRowChange(msgspec.Struct):
    """A row before and after."""

    before: Price
    after: Price


class PriceDifference(msgspec.Struct):
    """What the import has changed, or would change."""

    dry_run: bool
    added: list[Price]
    changed: list[PriceRowChange]
    removed: list[Price]
    unchanged: int


# ── Connectors ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_connectors(call: Call[None, None]) -> ConnectorList:
    """GET /operator/connectors."""
    async with call.rt.store.read() as tx:
        found = await accounts.connectors(tx)
    return ConnectorList([_shown_connector(call, each) for each in found.values()])


async def create_connector(call: Call[NewConnector, None]) -> AConnector:
    """POST /operator/connectors."""
    body = call.body
    identifier = await manage.create_connector(
        Office.of(call.rt),
        call.actor,
        body.name,
        _channel(call, body.channel),
        body.kind,
        body.mode,
        body.settings,
        body.state,
    )
    return _shown_connector(call, await _connector(call, identifier))


async def change_connector(call: Call[ConnectorChange, None]) -> AConnector:
    """PATCH /operator/connectors/{id}."""
    body, identifier, office = call.body, call.path_id("con"), Office.of(call.rt)
    found = await _connector(call, identifier)
    if body.settings is not None:
        channel = _channel(call, found.channel)
        await manage.update_connector(office, call.actor, identifier, channel, body.settings)
    if body.state is not None:
        await manage.set_connector_state(office, call.actor, identifier, body.state)
    return _shown_connector(call, await _connector(call, identifier))


def _channel(call: Call[Any, Any], name: str) -> Channel:
    channel = call.rt.channels.get(name)
    if channel is None:
        raise refused(RefusalKind.MALFORMED, f"there is no channel {name[:40]!r}", "channel")
    return channel


async def _connector(call: Call[Any, Any], identifier: int) -> ConnectorSettings:
    async with call.rt.store.read() as tx:
        found = (await accounts.connectors(tx)).get(identifier)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such connector", "id")
    return found


def _shown_connector(call: Call[Any, Any], each: ConnectorSettings) -> AConnector:
    secrets = sorted(
        name for name, value in each.settings.items() if isinstance(value, str) and value.startswith(SEALED)
    )
    running = call.rt.connectors.get(each.id)
    return AConnector(
        id=show("con", each.id),
        name=each.name,
        channel=each.channel,
        kind=each.kind,
        mode=each.mode,
        state=each.state,
        health=running.health() if running is not None else "elsewhere",
        settings={name: value for name, value in each.settings.items() if name not in secrets},
        secrets=secrets,
    )


# ── Routes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_routes(call: Call[None, None]) -> RouteList:
    """GET /operator/routes."""
    async with call.rt.store.read() as tx:
        return RouteList([_shown_route(each) for each in await business.routes(tx)])


async def create_route(call: Call[NewRoute, None]) -> ARoute:
    """POST /operator/routes."""
    body = call.body
    made = Route(
        id=0,
        name=body.name,
        rank=body.rank,
        mode=body.mode,
        channel=body.channel,
        connectors=_ids("con", body.connectors, "connectors"),
        countries=frozenset(body.countries),
        prefixes=tuple(body.prefixes),
        categories=frozenset(body.categories),
        accounts=frozenset(_ids("acc", body.accounts, "accounts")),
        uncertain=_policies(body.uncertain),
    )
    identifier = await manage.create_route(Office.of(call.rt), call.actor, made)
    return _shown_route(await _route(call, identifier))


async def change_route(call: Call[RouteChange, None]) -> ARoute:
    """PATCH /operator/routes/{id}."""
    body, identifier, office = call.body, call.path_id("rte"), Office.of(call.rt)
    before = (await _route(call, identifier)).route
    changes: dict[str, Any] = {}
    if body.name is not None:
        changes["name"] = body.name
    if body.rank is not None:
        changes["rank"] = body.rank
    if body.connectors is not None:
        changes["connectors"] = _ids("con", body.connectors, "connectors")
    if body.countries is not None:
        changes["countries"] = frozenset(body.countries)
    if body.prefixes is not None:
        changes["prefixes"] = tuple(body.prefixes)
    if body.categories is not None:
        changes["categories"] = frozenset(body.categories)
    if body.accounts is not None:
        changes["accounts"] = frozenset(_ids("acc", body.accounts, "accounts"))
    if body.uncertain is not None:
        changes["uncertain"] = _policies(body.uncertain)
    if changes:
        await manage.update_route(office, call.actor, replace(before, **changes))
    if body.state is not None:
        await manage.set_route_state(office, call.actor, identifier, body.state)
    return _shown_route(await _route(call, identifier))


async def explain_route(call: Call[RouteQuestion, None]) -> RouteAnswer:
    """POST /operator/routes/explain."""
    body = call.body
    found = await manage.explain(
        Office.of(call.rt),
        body.number,
        body.category,
        body.mode,
        read_id("acc", body.account, "account"),
        body.channel,
    )
    return RouteAnswer(
        number=found.number,
        country=found.country,
        route=found.route,
        connectors=[RouteConnector(name, state) for name, state in found.connectors],
        routes=[RouteVerdict(each.name, each.rank, each.why_not) for each in found.routes],
        price=format_micros(found.price.unit_micros) if found.price is not None else None,
        price_list=found.price_list,
        pays=found.pays,
    )


def _ids(prefix: str, texts: Names, field: str) -> tuple[int, ...]:
    return tuple(read_id(prefix, each, field) for each in texts)


def _policies(uncertain: Uncertain) -> dict[int, UncertainPolicy]:
    return {int(priority): policy for priority, policy in uncertain.items()}


async def _route(call: Call[Any, Any], identifier: int) -> business.RouteRecord:
    async with call.rt.store.read() as tx:
        for each in await business.routes(tx):
            if each.route.id == identifier:
                return each
    raise refused(RefusalKind.NOT_FOUND, "there is no such route", "id")


def _shown_route(each: business.RouteRecord) -> ARoute:
    route = each.route
    return ARoute(
        id=show("rte", route.id),
        name=route.name,
        rank=route.rank,
        mode=route.mode,
        channel=route.channel,
        state=each.state,
        connectors=[show("con", identifier) for identifier in route.connectors],
        countries=sorted(route.countries),
        prefixes=list(route.prefixes),
        categories=sorted(route.categories),
        accounts=[show("acc", identifier) for identifier in sorted(route.accounts)],
        uncertain={str(priority): policy.value for priority, policy in sorted(route.uncertain.items())},
    )


# ── Prices ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_price_lists(call: Call[None, None]) -> PriceLists:
    """GET /operator/price-lists."""
    async with call.rt.store.read() as tx:
        return PriceLists([_shown_list(each) for each in await accounts.price_lists(tx)])


async def create_price_list(call: Call[NewPriceList, None]) -> PriceListItem:
    """POST /operator/price-lists."""
    body = call.body
    identifier = await manage.create_price_list(
        Office.of(call.rt), call.actor, body.name, body.channel, body.currency, body.charge_on.value
    )
    async with call.rt.store.read() as tx:
        found = await accounts.price_list(tx, identifier)
    assert found is not None
    return _shown_list(found)


async def import_prices(call: Call[PriceImport, None]) -> PriceDifference:
    """POST /operator/price-lists/{id}/import."""
    body = call.body
    diff = await manage.import_prices(
        Office.of(call.rt), call.actor, call.path_id("prl"), body.csv, is_dry_run=body.dry_run
    )
    return PriceDifference(
        body.dry_run,
        [_price(each) for each in diff.added],
        [PriceRowChange(_price(before), _price(after)) for before, after in diff.changed],
        [_price(each) for each in diff.removed],
        diff.unchanged,
    )


async def use_price_list(call: Call[PriceUse, None]) -> Response:
    """POST /operator/price-lists/{id}/use."""
    account_id = read_id("acc", call.body.account, "account")
    await manage.use_price_list(Office.of(call.rt), call.actor, account_id, call.path_id("prl"), call.body.rank)
    return Response(204)


async def drop_price_list(call: Call[None, PriceUser]) -> Response:
    """DELETE /operator/price-lists/{id}/use."""
    account_id = read_id("acc", call.query.account, "account")
    await manage.drop_price_list(Office.of(call.rt), call.actor, account_id, call.path_id("prl"))
    return Response(204)


def _shown_list(each: accounts.PriceListRecord) -> PriceListItem:
    return PriceListItem(
        show("prl", each.id), each.name, each.channel, each.currency, each.charge_on, rfc3339(each.created_ms)
    )


def _price(row: PriceRow) -> Price:
    return Price(
        row.prefix,
        format_micros(row.amount_micros),
        row.category,
        row.operator,
        or_none(row.from_ms),
        or_none(row.until_ms),
    )


_NOT_FOUND = (RefusalKind.NOT_FOUND,)
_OPERATOR = Scope.OPERATOR

ENDPOINTS = (
    Endpoint("GET", "/operator/connectors", list_connectors, "All connectors", ConnectorList, _OPERATOR),
    Endpoint(
        "POST",
        "/operator/connectors",
        create_connector,
        "Make a connector",
        AConnector,
        _OPERATOR,
        body=NewConnector,
        status=201,
        about="Its secrets are sealed and never shown.",
    ),
    Endpoint(
        "PATCH",
        "/operator/connectors/{id}",
        change_connector,
        "Change a connector's settings or state",
        AConnector,
        _OPERATOR,
        body=ConnectorChange,
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/operator/routes", list_routes, "All routes", RouteList, _OPERATOR),
    Endpoint("POST", "/operator/routes", create_route, "Make a route", ARoute, _OPERATOR, body=NewRoute, status=201),
    Endpoint(
        "PATCH",
        "/operator/routes/{id}",
        change_route,
        "Change a route, or switch it on or off",
        ARoute,
        _OPERATOR,
        body=RouteChange,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/operator/routes/explain",
        explain_route,
        "Which way a message would go, and why",
        RouteAnswer,
        _OPERATOR,
        body=RouteQuestion,
        about="Sends nothing.",
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/operator/price-lists", list_price_lists, "All price lists", PriceLists, _OPERATOR),
    Endpoint(
        "POST",
        "/operator/price-lists",
        create_price_list,
        "Make a price list",
        PriceListItem,
        _OPERATOR,
        body=NewPriceList,
        status=201,
    ),
    Endpoint(
        "POST",
        "/operator/price-lists/{id}/import",
        import_prices,
        "Make a price list say what a CSV file says",
        PriceDifference,
        _OPERATOR,
        body=PriceImport,
        is_bulk=True,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/operator/price-lists/{id}/use",
        use_price_list,
        "Let an account buy by a price list",
        None,
        _OPERATOR,
        body=PriceUse,
        status=204,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "DELETE",
        "/operator/price-lists/{id}/use",
        drop_price_list,
        "Let an account no longer buy by a price list",
        None,
        _OPERATOR,
        query=PriceUser,
        status=204,
        refusals=_NOT_FOUND,
    ),
)
