"""Callback endpoints in use: changing them, their secrets in turn, telling them an event again, and trying them out.

`flow.manage.callbacks` makes them. An endpoint's `sealed_secret` holds its secret, and while it changes the old one behind
it, with the time at which that one ends; `secrets_of` reads both.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from berid.base.ids import first_id_at, show
from berid.base.webhook import new_secret
from berid.domain.report import Endpoint
from berid.flow.manage.callbacks import BATCH_MAX, EVENTS, SECRET_PURPOSE
from berid.flow.manage.office import Office, missing, note, unfit
from berid.flow.ports import Runtime
from berid.net import NetError
from berid.store import Tx, binds, callbacks

TEST_EVENT = "callback.test"
"""The event that an owner sends himself; told whatever events the endpoint asks for."""

REPLAY_MAX = 10_000
"""Events that one call tells again at most; the rest by calling again."""

OVERLAP_MAX_S = 7 * 86_400
"""How long an old secret may go on beside the new one."""


def secrets_of(rt: Runtime, endpoint: Endpoint) -> list[str]:
    """What a call to an endpoint is signed with now, the newest first. Raises `secret.Unreadable`."""
    current, _, old = rt.vault.open(endpoint.sealed_secret, SECRET_PURPOSE).partition(" ")
    secret, _, until_ms = old.partition("@")
    return [current, secret] if secret and int(until_ms) > rt.clock.now_ms() else [current]


async def change_endpoint(
    rt: Runtime,
    actor: str,
    account_id: int,
    endpoint_id: int,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    batch_max: int | None = None,
    state: str | None = None,
    description: str | None = None,
) -> None:
    """Change what is given and leave the rest. Raises `Refused` for a value that does not fit, and NOT_FOUND."""
    values: dict[str, str | int] = {}
    if url is not None:
        try:
            rt.http.check_url(url)
        except NetError as error:
            raise unfit("url", str(error)) from None
        values |= {"url": url, "host": urlsplit(url).netloc.lower()}
    if events is not None:
        if not events or set(events) - EVENTS:
            unknown = ", ".join(sorted(set(events) - EVENTS))
            raise unfit("events", f"there is no event {unknown}" if unknown else "an endpoint wants at least one event")
        values["events"] = " ".join(sorted(set(events)))
    if batch_max is not None:
        if not 1 <= batch_max <= BATCH_MAX:
            raise unfit("batch_max", f"a call carries 1 to {BATCH_MAX} events")
        values["batch_max"] = batch_max
    if state is not None:
        if state not in ("on", "off"):
            raise unfit("state", "an endpoint is on or off")
        values["state"] = state
    if description is not None:
        values["description"] = description
    if not values:
        return
    office = Office.of(rt)
    async with rt.store.transaction() as tx:
        found = await callbacks.endpoint(tx, account_id, endpoint_id)
        if found is not None and found.kind == binds.KIND and url is not None:
            raise unfit("url", "this endpoint is the customer's own binds; their receipts go nowhere else")
        if not await callbacks.change_endpoint(tx, account_id, endpoint_id, **values):
            raise missing("callback endpoint")
        changed = sorted(values.keys() - {"host"})
        await note(office, tx, actor, account_id, "callback.change", show("cbe", endpoint_id), changed=changed)


async def rotate_secret(rt: Runtime, actor: str, account_id: int, endpoint_id: int, overlap_s: int) -> str:
    """Give an endpoint a new secret and return it, not to be shown again. For `overlap_s` calls are signed with the old one too.

    Raises `Refused` with NOT_FOUND, or MALFORMED for an overlap that is too long.
    """
    if not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise unfit("overlap_s", f"secrets overlap by 0 to {OVERLAP_MAX_S} seconds")
    secret = new_secret()
    office = Office.of(rt)
    async with rt.store.transaction() as tx:
        sealed = await callbacks.sealed_secret(tx, account_id, endpoint_id)
        if sealed is None:
            raise missing("callback endpoint")
        both = secret
        if overlap_s:
            old = rt.vault.open(sealed, SECRET_PURPOSE).partition(" ")[0]
            both = f"{secret} {old}@{rt.clock.now_ms() + overlap_s * 1000}"
        kept = rt.vault.seal(both, SECRET_PURPOSE)
        await callbacks.change_endpoint(tx, account_id, endpoint_id, sealed_secret=kept)
        subject = show("cbe", endpoint_id)
        await note(office, tx, actor, account_id, "callback.rotate_secret", subject, overlap_s=overlap_s)
    return secret


async def remove_endpoint(rt: Runtime, actor: str, account_id: int, endpoint_id: int) -> None:
    """Remove an endpoint; it is told nothing more. Raises `Refused` with NOT_FOUND."""
    office = Office.of(rt)
    async with rt.store.transaction() as tx:
        if not await callbacks.remove_endpoint(tx, account_id, endpoint_id):
            raise missing("callback endpoint")
        await note(office, tx, actor, account_id, "callback.remove", show("cbe", endpoint_id))


async def tell_one_again(rt: Runtime, account_id: int, endpoint_id: int, callback_id: int) -> int:
    """Tell an endpoint one event again, under the same id. Returns 0 if it is being told just now. Raises NOT_FOUND."""
    async with rt.store.transaction() as tx:
        lane = await _lane(tx, account_id, endpoint_id)
        if await callbacks.callback_of(tx, account_id, endpoint_id, callback_id) is None:
            raise missing("event")
        told = await callbacks.tell_again(tx, account_id, lane, [callback_id], rt.clock.now_ms())
    _wake(rt, lane, account_id)
    return told


async def tell_again(
    rt: Runtime, account_id: int, endpoint_id: int, since_ms: int, until_ms: int, is_failed: bool
) -> tuple[int, int | None]:
    """Tell an endpoint again the events from `since_ms` to before `until_ms`, or those of them that failed.

    Returns how many will be told, and from which id to go on when there were more than REPLAY_MAX. Raises NOT_FOUND.
    """
    since_id, until_id = first_id_at(since_ms), first_id_at(until_ms)
    async with rt.store.transaction() as tx:
        lane = await _lane(tx, account_id, endpoint_id)
        ids = await callbacks.select_between(tx, account_id, endpoint_id, since_id, until_id, is_failed, REPLAY_MAX + 1)
        told = await callbacks.tell_again(tx, account_id, lane, ids[:REPLAY_MAX], rt.clock.now_ms())
    _wake(rt, lane, account_id)
    return told, ids[REPLAY_MAX] if len(ids) > REPLAY_MAX else None


async def try_out(rt: Runtime, account_id: int, endpoint_id: int, mode: str) -> int:
    """Send an endpoint a test event by the ordinary way and return the event's id. Raises NOT_FOUND."""
    now_ms = rt.clock.now_ms()
    callback_id = rt.ids.next()
    payload = msgspec.json.encode({"type": TEST_EVENT, "created_ms": now_ms, "mode": mode}).decode()
    async with rt.store.transaction() as tx:
        lane = await _lane(tx, account_id, endpoint_id)
        await callbacks.add_callback(tx, account_id, callback_id, endpoint_id, TEST_EVENT, payload, now_ms)
        await callbacks.tell_again(tx, account_id, lane, [callback_id], now_ms)
    _wake(rt, lane, account_id)
    return callback_id


async def _lane(tx: Tx, account_id: int, endpoint_id: int) -> str:
    found = await callbacks.endpoint(tx, account_id, endpoint_id)
    if found is None:
        raise missing("callback endpoint")
    return f"h{urlsplit(found.url).netloc.lower()}"


def _wake(rt: Runtime, lane_name: str, account_id: int) -> None:
    """Let a lane that this process serves look into the table; one that it does not is found by the notifier."""
    lane = rt.lanes.get(lane_name)
    if lane is not None:
        lane.spill(1, account_id)
