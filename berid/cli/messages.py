"""Commands that speak to a running installation by its API, like any customer: send, and look what became of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from cyclopts import App, Parameter

from berid.base import ids
from berid.cli.here import TOKEN_ENV, URL_ENV, At, Failed, Here

TIMEOUT_S = 40
"""How long one call may take in all: longer than the platform's own limit, so that its answer is seen."""

message = App(name="message", help=f"Messages of the account whose token is in {TOKEN_ENV}.")


async def send(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    to: Annotated[list[str], Parameter(consume_multiple=True, negative=())],
    sender: str,
    category: Literal["transactional", "promotional"] = "transactional",
    send_at: str = "",
    reference: str = "",
    key: str = "",
    at: At,
) -> None:
    """Send a message through the installation at BERID_URL, with the token in BERID_TOKEN.

    Parameters
    ----------
    text
        What it says; - for standard input.
    to
        The recipients' numbers.
    sender
        The sender name.
    category
        What it is for.
    send_at
        When it leaves, RFC 3339 with an offset; now if left out.
    reference
        Your own word for it, shown with it everywhere.
    key
        An idempotency key: the same command with the same key sends once.
    """
    wanted: dict[str, Any] = {"to": to, "text": sys.stdin.read() if text == "-" else text, "sender": sender}
    wanted |= {"category": category, "reference": reference}
    if send_at:
        wanted["send_at"] = send_at
    headers = {"Idempotency-Key": key} if key else {}
    accepted = await _call(at, "POST", "/messages", wanted, headers)
    if at.is_json:
        at.show_one(accepted)
        return
    at.say(
        f"{accepted['id']} is {accepted['state']}: {accepted['total']} recipients, {accepted['units']} units, "
        f"{accepted['cost']} {accepted['currency']}; {accepted['balance']} left."
    )
    left_out = [_kept(each, ("to", "detail")) for each in accepted["refused"]]
    if left_out:
        at.show(left_out, "")


@message.command(name="list")
async def list_messages(*, limit: int = 20, state: str = "", number: str = "", reference: str = "", at: At) -> None:
    """List messages, newest first.

    Parameters
    ----------
    limit
        How many.
    state
        Only those with a delivery in this state.
    number
        Only those to this number.
    reference
        Only those with this reference.
    """
    asked = {"limit": str(limit), "state": state, "number": number, "reference": reference}
    query = urlencode({name: value for name, value in asked.items() if value})
    found = (await _call(at, "GET", f"/messages?{query}"))["data"]
    at.show(found if at.is_json else map(_in_short, found), "There are no messages.")


@message.command(name="show")
async def show_message(identifier: str, /, *, at: At) -> None:
    """Show a message with its deliveries and their history.

    Parameters
    ----------
    identifier
        Its id, such as msg_230480168747039.
    """
    found = await _call(at, "GET", f"/messages/{_message(identifier)}")
    if at.is_json:
        at.show_one(found)
        return
    timeline = found.pop("timeline")
    deliveries = found.pop("deliveries")
    at.show_one({name: _word(value) for name, value in found.items()})
    at.show([_kept(each, ("id", "to", "state", "reason", "price", "sent_at", "ended_at")) for each in deliveries], "")
    at.show([{name: _word(value) for name, value in each.items()} for each in timeline], "")


@message.command(name="cancel")
async def cancel_message(identifier: str, /, *, at: At) -> None:
    """Cancel what has not left yet, and get its price back.

    Parameters
    ----------
    identifier
        Its id, such as msg_230480168747039.
    """
    done = await _call(at, "POST", f"/messages/{_message(identifier)}/cancel", {})
    at.say(
        f"{done['cancelled']} cancelled, {done['too_late']} too late, {done['refunded']} {done['currency']} refunded.",
        **done,
    )


async def _call(
    at: Here, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer of the installation. Raises `Failed` in its words when it is not a yes."""
    token = at.env.get(TOKEN_ENV, "")
    if not token:
        raise Failed(
            f"there is no token in {TOKEN_ENV}",
            f"set it to a token, and {URL_ENV} if the platform is elsewhere",
        )
    url = at.env.get(URL_ENV, "") or f"http://{at.config.http.host}:{at.config.http.port}"
    given = {"Authorization": f"Bearer {token}", **(headers or {})}
    if body is not None:
        given["Content-Type"] = "application/json"
    data = msgspec.json.encode(body) if body is not None else None
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, f"{url.rstrip('/')}/api/v1{path}", data=data, headers=given) as answer,
        ):
            text = await answer.read()
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise Failed(f"{url} gives no answer: {why}", f"is berid serving there? {URL_ENV} says where to look") from None
    try:
        read = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Failed(f"{url} answered {status} and not as Berid does", f"look at {URL_ENV}") from None
    if status >= 400:
        reasons = read.get("errors") or [read]
        told = "; ".join(dict.fromkeys(each.get("detail") or each.get("title", "") for each in reasons))
        raise Failed(told or f"the answer was {status}", read.get("fix", ""))
    return read


def _message(text: str) -> str:
    found = ids.read("msg", text)
    if found is None:
        raise Failed(f"{text!r} is not the id of a message", "berid message list shows them")
    return quote(ids.show("msg", found))


def _in_short(found: Mapping[str, Any]) -> dict[str, Any]:
    return _kept(found, ("id", "created_at", "sender", "state", "total", "cost", "currency", "reference"))


def _kept(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: found[name] for name in names if name in found}


def _word(value: object) -> object:
    """A value of the answer in one cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(str(_word(each)) for each in value)
    return value
