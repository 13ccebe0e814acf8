"""Commands about the ways out: connectors, routes, and the jobs on their way."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from berid import channels
from berid.base.ids import show
from berid.base.money import format_micros
from berid.cli.here import At, Failed, account_id, facts_of
from berid.domain.routing import Route
from berid.flow import manage
from berid.flow.manage.carriers import SEALED
from berid.flow.ports import Channel
from berid.store import Tx, accounts, work
from berid.store import business as stored

Mode = Literal["test", "live"]
Many = Parameter(consume_multiple=True, negative=())

connector = App(name="connector", help="Links to carriers.")
route = App(name="route", help="Which connectors carry what, and why.")
job = App(name="job", help="Work that waits, or was set aside for a person.")


@connector.command(name="list")
async def list_connectors(*, at: At) -> None:
    """List all connectors. Secrets are not shown."""
    async with at.read() as tx:
        found = (await accounts.connectors(tx)).values()
    rows = []
    for each in found:
        settings = {name: "***" if str(value).startswith(SEALED) else value for name, value in each.settings.items()}
        rows.append({**facts_of(each, "con"), "settings": settings})
    at.show(rows, "There are no connectors. Make one: berid connector add NAME --set host=… --set system_id=…")


@connector.command(name="add")
async def add_connector(
    name: str,
    /,
    *,
    channel: str = "sms",
    kind: str = "smpp",
    mode: Mode = "live",
    settings: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    set: Annotated[list[str], Parameter(negative=())] = [],  # noqa: A002, B006
    off: bool = False,
    at: At,
) -> None:
    """Make a connector. A running platform opens its binds within a second.

    Parameters
    ----------
    name
        What people call it.
    channel
        sms.
    kind
        smpp.
    mode
        live, or test for a link to a simulator.
    settings
        A TOML file with its settings, - for standard input: the place for a password, which others can see on a
        command line.
    set
        NAME=VALUE, as in TOML; text needs no quotes unless it looks like a number. May be given many times.
    off
        Do not switch it on yet.
    """
    given = _settings(settings, set)
    async with at.office() as office:
        made = await manage.create_connector(
            office, at.actor, name, _channel(channel), kind, mode, given, "off" if off else "on"
        )
    at.say(f"Connector {name} is {show('con', made)}.", id=show("con", made))


@connector.command(name="set")
async def change_connector(
    name: str,
    /,
    *changes: str,
    settings: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    at: At,
) -> None:
    """Change settings of a connector. It binds again with them.

    Parameters
    ----------
    name
        Its id or its name.
    changes
        NAME=VALUE, as in TOML.
    settings
        A TOML file with the changes, - for standard input.
    """
    async with at.office() as office:
        async with office.store.read() as tx:
            identifier = await _connector(tx, name)
            owner = (await accounts.connectors(tx))[identifier]
        await manage.update_connector(
            office, at.actor, identifier, _channel(owner.channel), _settings(settings, list(changes))
        )
    at.say(f"{name} has new settings.", id=show("con", identifier))


@connector.command(name="pause")
async def pause_connector(name: str, /, *, at: At) -> None:
    """Keep the binds of a connector and send nothing through it; what is meant for it waits.

    Parameters
    ----------
    name
        Its id or its name.
    """
    await _set_state(at, name, "paused")


@connector.command(name="drain")
async def drain_connector(name: str, /, *, at: At) -> None:
    """Let a connector finish what it has and take nothing new.

    Parameters
    ----------
    name
        Its id or its name.
    """
    await _set_state(at, name, "draining")


@connector.command(name="resume")
async def resume_connector(name: str, /, *, at: At) -> None:
    """Switch a connector on again.

    Parameters
    ----------
    name
        Its id or its name.
    """
    await _set_state(at, name, "on")


@connector.command(name="off")
async def stop_connector(name: str, /, *, at: At) -> None:
    """Close the binds of a connector.

    Parameters
    ----------
    name
        Its id or its name.
    """
    await _set_state(at, name, "off")


@route.command(name="list")
async def list_routes(*, at: At) -> None:
    """List all routes in the order in which they are asked."""
    async with at.read() as tx:
        found = await stored.routes(tx)
        names = {each.id: each.name for each in (await accounts.connectors(tx)).values()}
    rows = []
    for each in found:
        facts = facts_of(each.route, "rte")
        facts["connectors"] = [names.get(identifier, show("con", identifier)) for identifier in each.route.connectors]
        facts["accounts"] = [show("acc", owner) for owner in sorted(each.route.accounts)]
        facts["uncertain"] = {str(key): policy.value for key, policy in sorted(each.route.uncertain.items())}
        rows.append({**facts, "state": each.state})
    at.show(rows, "There are no routes. Make one: berid route add NAME --connector NAME")


@route.command(name="add")
async def add_route(
    name: str,
    /,
    *,
    connector: Annotated[list[str], Many],
    rank: int = 100,
    mode: Mode = "live",
    channel: str = "sms",
    country: Annotated[list[str], Many] = [],  # noqa: B006
    prefix: Annotated[list[str], Many] = [],  # noqa: B006
    category: Annotated[list[Literal["otp", "transactional", "promotional"]], Many] = [],  # noqa: B006
    account: Annotated[list[str], Many] = [],  # noqa: B006
    at: At,
) -> None:
    """Make a route. Conditions that are left out match everything.

    Parameters
    ----------
    name
        What people call it.
    connector
        The connectors, by id or name, in order of preference.
    rank
        Its place in the order; lower is asked first.
    mode
        live or test, as its connectors.
    channel
        sms.
    country
        Countries that it serves, two letters each.
    prefix
        Beginnings of the numbers that it serves, with the country's code.
    category
        Kinds of messages that it takes.
    account
        Accounts that may use it.
    """
    async with at.office() as office:
        async with office.store.read() as tx:
            made = Route(
                id=0,
                name=name,
                rank=rank,
                mode=mode,
                channel=channel,
                connectors=tuple([await _connector(tx, each) for each in connector]),
                countries=frozenset(country),
                prefixes=tuple(prefix),
                categories=frozenset(category),
                accounts=frozenset([await account_id(tx, each) for each in account]),
            )
        identifier = await manage.create_route(office, at.actor, made)
    at.say(f"Route {name} is {show('rte', identifier)}.", id=show("rte", identifier))


@route.command(name="state")
async def set_route_state(name: str, state: Literal["on", "off"], /, *, at: At) -> None:
    """Switch a route on or off.

    Parameters
    ----------
    name
        Its id or its name.
    state
        on or off.
    """
    async with at.office() as office:
        async with office.store.read() as tx:
            known = await accounts.route_states(tx)
        identifier = next(
            (found for each, (found, _) in known.items() if name in (each, str(found), show("rte", found))), None
        )
        if identifier is None:
            raise Failed(f"there is no route {name!r}", "berid route list shows all")
        await manage.set_route_state(office, at.actor, identifier, state)
    at.say(f"{name} is {state}.", id=show("rte", identifier), state=state)


@route.command(name="explain")
async def explain_route(
    number: str,
    account: str,
    /,
    *,
    category: Literal["otp", "transactional", "promotional"] = "transactional",
    mode: Mode = "live",
    channel: str = "sms",
    at: At,
) -> int:
    """Say which way a message would go, what it would cost, and why not another. Sends nothing.

    Parameters
    ----------
    number
        The recipient, with the country's code.
    account
        The account's id or name.
    category
        The kind of message.
    mode
        live or test.
    channel
        sms.
    """
    async with at.office_of(account) as (office, owner):
        found = await manage.explain(office, number, category, mode, owner, channel)
    routes: list[dict[str, object]] = [
        {
            "rank": each.rank,
            "route": each.name,
            "verdict": each.why_not or ("taken" if each.name == found.route else "would"),
        }
        for each in found.routes
    ]
    price = format_micros(found.price.unit_micros) if found.price else ""
    summary: dict[str, object] = {
        "number": found.number,
        "country": found.country,
        "route": found.route,
        "connectors": [f"{name} ({state})" for name, state in found.connectors],
        "price_of_a_unit": f"{price} {found.price.currency}" if found.price else "",
        "price_list": found.price_list,
        "prefix": found.price.prefix if found.price else "",
        "pays": found.pays,
    }
    if at.is_json:
        at.show_one({**summary, "routes": routes})
    else:
        at.show(routes, f"There are no routes for {mode} messages at all.")
        at.show_one(summary)
    return 0 if found.route and found.pays else 1


@job.command(name="list")
async def list_jobs(*, buried: bool = False, lane: str = "", after: int = 0, limit: int = 100, at: At) -> None:
    """List jobs that wait or are being done.

    Parameters
    ----------
    buried
        Those that were set aside: late schedules, what a restored backup held, and callbacks that were given up.
    lane
        Only this lane: c and a connector's number, or h and a callback's host.
    after
        Begin behind this job.
    limit
        How many.
    """
    async with at.read() as tx:
        found = await work.jobs(tx, buried=buried, lane=lane, after_id=after, limit=limit)
    rows = [{**facts_of(each, ""), "id": each.id} for each in found]
    at.show(rows, "Nothing was set aside." if buried else "Nothing waits.")


@job.command(name="revive")
async def revive_jobs(identifier: list[int], /, *, at: At) -> None:
    """Do now what was set aside: all of these jobs, or none.

    Parameters
    ----------
    identifier
        The jobs, as berid job list --buried shows them.
    """
    async with at.office() as office:
        await manage.revive_jobs(office, at.actor, identifier)
    at.say(f"{len(identifier)} will be done now.", revived=identifier)


@job.command(name="cancel")
async def cancel_jobs(identifier: list[int], /, *, at: At) -> None:
    """Give jobs up. Deliveries that have not left are cancelled and their money is released.

    Parameters
    ----------
    identifier
        The jobs, as berid job list shows them.
    """
    async with at.runtime() as rt:
        count = await manage.cancel_jobs(rt, at.actor, identifier)
    left = "" if count == len(identifier) else "; the others have just left"
    at.say(f"{count} of {len(identifier)} given up{left}.", cancelled=count)


async def _set_state(at: At, name: str, state: str) -> None:
    async with at.office() as office:
        async with office.store.read() as tx:
            identifier = await _connector(tx, name)
        await manage.set_connector_state(office, at.actor, identifier, state)
    at.say(f"{name} is {state}.", id=show("con", identifier), state=state)


async def _connector(tx: Tx, text: str) -> int:
    for each in (await accounts.connectors(tx)).values():
        if text in (each.name, show("con", each.id), str(each.id)):
            return each.id
    raise Failed(f"there is no connector {text!r}", "berid connector list shows all")


def _channel(name: str) -> Channel:
    known = channels.discover()
    if name not in known:
        raise Failed(f"there is no channel {name!r}", f"the channels are {', '.join(known)}")
    return known[name]


def _settings(file: Path | None, given: list[str]) -> dict[str, object]:
    """The settings of a file and of NAME=VALUE arguments, which win. Values are TOML's; what is none is text."""
    found: dict[str, object] = {}
    if file is not None:
        try:
            found = tomllib.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
        except OSError as error:
            raise Failed(f"{file} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise Failed(f"{file} is not TOML: {error}") from None
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Failed(f"{each!r} does not say what to set", "write NAME=VALUE")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found
