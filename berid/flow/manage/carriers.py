"""Ways out and in: connectors with their sealed secrets, routes and why one is chosen, the numbers that people write to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from berid.base.ids import show
from berid.base.phone import country_name, country_of, lenient
from berid.base.secret import Vault
from berid.domain.message import Category
from berid.domain.pricing import Quote, quote
from berid.domain.routing import ConnectorSettings, Route, choose
from berid.flow.manage.office import Office, missing, note, unfit
from berid.flow.manage.people import MODES
from berid.flow.ports import Channel
from berid.store import Tx, accounts, directory

CONNECTOR_STATES = ("on", "paused", "draining", "off")

_SECRET_NAME = re.compile(r"(?:.*_)?(?:password|secret|token|key)")
SEALED = "sealed:"
"""Begins a setting that is sealed."""

SEAL_PURPOSE = "connector"
"""What the vault binds connectors' secrets to."""


async def create_connector(
    office: Office,
    actor: str,
    name: str,
    channel: Channel,
    kind: str,
    mode: str,
    settings: Mapping[str, object],
    state: str = "on",
) -> int:
    """Make a connector and return its id. Its secrets (settings named password, secret, token or key) are sealed.

    Test traffic can only reach connectors of `mode` test: they must lead to simulators. Raises `Refused`, with the channel's own
    words for settings of which no connector could be made.
    """
    if not name.strip():
        raise unfit("name", "a connector needs a name")
    if mode not in MODES:
        raise unfit("mode", "the mode must be test or live")
    _check_state(state)
    _check_settings(channel, kind, settings)
    identifier = office.ids.next()
    connector = ConnectorSettings(
        identifier, name.strip(), channel.name, kind, mode, state, _seal(office.vault, settings)
    )
    async with office.store.transaction() as tx:
        if any(found.name == connector.name for found in (await accounts.connectors(tx)).values()):
            raise unfit("name", f"there is a connector {connector.name!r} already")
        await accounts.add_connector(tx, connector, office.clock.now_ms())
        detail = {"name": connector.name, "channel": channel.name, "kind": kind, "mode": mode}
        await note(office, tx, actor, 0, "connector.create", show("con", identifier), **detail)
    return identifier


async def set_connector_state(office: Office, actor: str, connector_id: int, state: str) -> None:
    """Let a connector be on, paused (keeps its binds, sends nothing), draining (takes nothing new) or off. Raises `Refused`."""
    _check_state(state)
    async with office.store.transaction() as tx:
        if not await accounts.set_connector_state(tx, connector_id, state):
            raise missing("connector")
        await note(office, tx, actor, 0, "connector.state", show("con", connector_id), state=state)


async def update_connector(
    office: Office, actor: str, connector_id: int, channel: Channel, changes: Mapping[str, object]
) -> None:
    """Change some of a connector's settings; None takes one away. It starts again with them within a second.

    Raises `Refused`, and nothing has changed.
    """
    async with office.store.transaction() as tx:
        found = (await accounts.connectors(tx)).get(connector_id)
        if found is None:
            raise missing("connector")
        merged = {**found.settings, **changes}
        settings = {name: value for name, value in merged.items() if value is not None}
        _check_settings(channel, found.kind, settings)
        await accounts.set_connector_settings(tx, connector_id, _seal(office.vault, settings))
        changed = sorted(changes)
        await note(office, tx, actor, 0, "connector.settings", show("con", connector_id), changed=changed)


async def create_route(office: Office, actor: str, route: Route) -> int:
    """Make a route that is on and return its id; that of `route` is ignored. Raises `Refused`."""
    identifier = office.ids.next()
    made = replace(route, id=identifier)
    async with office.store.transaction() as tx:
        if made.name in await accounts.route_states(tx):
            raise unfit("name", f"there is a route {made.name!r} already")
        await _check_route(tx, made)
        await accounts.add_route(tx, made)
        await note(office, tx, actor, 0, "route.create", show("rte", identifier), **_told(made))
    return identifier


async def update_route(office: Office, actor: str, route: Route) -> None:
    """Replace what the route with this id says. Raises `Refused`."""
    async with office.store.transaction() as tx:
        names = {identifier: name for name, (identifier, _) in (await accounts.route_states(tx)).items()}
        if route.id not in names:
            raise missing("route")
        if route.name in (name for identifier, name in names.items() if identifier != route.id):
            raise unfit("name", f"there is a route {route.name!r} already")
        await _check_route(tx, route)
        await accounts.change_route(tx, route)
        await note(office, tx, actor, 0, "route.update", show("rte", route.id), **_told(route))


async def set_route_state(office: Office, actor: str, route_id: int, state: str) -> None:
    """Switch a route on or off. Raises `Refused`."""
    if state not in ("on", "off"):
        raise unfit("state", "a route is on or off")
    async with office.store.transaction() as tx:
        if not await accounts.set_route_state(tx, route_id, state):
            raise missing("route")
        await note(office, tx, actor, 0, "route.state", show("rte", route_id), state=state)


@dataclass(frozen=True, slots=True)
class Considered:
    """One route as it was judged; `why_not` is empty if it takes the delivery."""

    name: str
    rank: int
    why_not: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a message to a number, and why.

    `route` is the name of the first that takes it ("" when none does), `connectors` (name, state) in the order in which they
    are tried, `price` what a unit costs and by which list, None when no list of the account covers the number. `pays` is
    the wallet's currency; empty when the account has no such wallet.
    """

    number: str
    country: str
    routes: tuple[Considered, ...]
    route: str
    connectors: tuple[tuple[str, str], ...]
    price: Quote | None
    price_list: str
    pays: str


async def explain(
    office: Office, number: str, category: str, mode: str, account_id: int, channel: str = "sms"
) -> Explanation:
    """Judge every route for a number as `accept` would, with the price and the connectors. Sends nothing. Raises `Refused`."""
    if mode not in MODES:
        raise unfit("mode", "the mode must be test or live")
    if category not in [each.value for each in Category]:
        raise unfit("category", f"the category must be one of {', '.join(each.value for each in Category)}")
    recipient = lenient(number)
    if recipient is None:
        raise unfit("number", "the number must have its country's code: 966500000000")
    number = recipient
    async with office.store.read() as tx:
        business = await directory.load(tx, with_books=False)
    if account_id not in business.accounts:
        raise missing("account")
    country = country_of(number)
    asked = (mode, channel, number, country, category, account_id)
    route = choose(business.routes, *asked)
    lists = business.price_lists(account_id, channel)
    price = quote(lists, number, category, "", office.clock.now_ms())
    has_wallet = price is not None and (account_id, mode, price.currency) in business.wallets
    return Explanation(
        number=number,
        country=country or "",
        routes=tuple(Considered(each.name, each.rank, each.why_not(*asked)) for each in business.routes),
        route=route.name if route else "",
        connectors=tuple(
            (business.connectors[each].name, business.connectors[each].state)
            for each in (route.connectors if route else ())
            if each in business.connectors
        ),
        price=price,
        price_list=next((each.name for each in lists if price is not None and each.id == price.price_list_id), ""),
        pays=price.currency if price is not None and has_wallet else "",
    )


async def assign_number(
    office: Office, actor: str, number: str, account_id: int, application_id: int = 0, channel: str = "sms"
) -> None:
    """Let what people write to a number or name go to an account (`application_id` 0: to all its applications).

    A number that another account has must be released first. Raises `Refused`.
    """
    if not re.fullmatch(r"[!-~]{1,15}", number):
        raise unfit("number", "a number that people write to is digits, or a short code")
    async with office.store.transaction() as tx:
        if not await accounts.has_account(tx, account_id):
            raise missing("account")
        if application_id and not await accounts.has_application(tx, account_id, application_id):
            raise missing("application")
        owner = await accounts.number_owner(tx, number)
        if owner is not None and owner != account_id:
            raise unfit("number", "this number belongs to another account; release it there first")
        await accounts.assign_number(tx, number, account_id, application_id, channel, office.clock.now_ms())
        await note(office, tx, actor, account_id, "number.assign", number, application=application_id, channel=channel)


async def release_number(office: Office, actor: str, account_id: int, number: str) -> None:
    """Take a number from an account. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if not await accounts.release_number(tx, account_id, number):
            raise missing("number")
        await note(office, tx, actor, account_id, "number.release", number)


def _check_state(state: str) -> None:
    if state not in CONNECTOR_STATES:
        raise unfit("state", f"the state must be one of {', '.join(CONNECTOR_STATES)}")


def _seal(vault: Vault, settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as they are stored: the secrets among them sealed, as the channels open them."""
    return {
        name: SEALED + vault.seal(value, SEAL_PURPOSE)
        if _SECRET_NAME.fullmatch(name) and isinstance(value, str) and value and not value.startswith(SEALED)
        else value
        for name, value in settings.items()
    }


def _check_settings(channel: Channel, kind: str, settings: Mapping[str, object]) -> None:
    try:
        channel.check_settings(kind, dict(settings))
    except ValueError as error:
        raise unfit("settings", str(error)) from None


async def _check_route(tx: Tx, route: Route) -> None:
    """Raise `Refused` unless every connector of a route is of its mode and channel, and its conditions can be met."""
    if not route.name.strip():
        raise unfit("name", "a route needs a name")
    if route.mode not in MODES:
        raise unfit("mode", "the mode must be test or live")
    if not route.connectors:
        raise unfit("connectors", "a route needs a connector")
    known = await accounts.connectors(tx)
    for identifier in route.connectors:
        connector = known.get(identifier)
        if connector is None:
            raise unfit("connectors", f"there is no connector {show('con', identifier)}")
        if (connector.mode, connector.channel) != (route.mode, route.channel):
            what = f"{connector.name} is for {connector.mode} {connector.channel}"
            raise unfit("connectors", f"{what}, the route for {route.mode} {route.channel}")
    for country in route.countries:
        if country_name(country) is None:
            raise unfit("countries", f"{country!r} is not a country; write its two letters, such as SA or TR")
    for prefix in route.prefixes:
        if not re.fullmatch(r"[0-9]{1,15}", prefix):
            raise unfit("prefixes", f"the prefix {prefix!r} is not digits, such as 9665")
    unknown = route.categories - {each.value for each in Category}
    if unknown:
        raise unfit("categories", f"{', '.join(sorted(unknown))} is no category")
    if set(route.uncertain) - {0, 1, 2}:
        raise unfit("uncertain", "the priorities are 0, 1 and 2")


def _told(route: Route) -> dict[str, object]:
    connectors: Sequence[str] = [show("con", identifier) for identifier in route.connectors]
    return {"name": route.name, "rank": route.rank, "mode": route.mode, "connectors": connectors}
