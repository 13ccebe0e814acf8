"""The provider's V4 webhooks: five events, signed with the secret of the endpoint.

    {"event_type": "sms.delivered", "timestamp": 1790000000, "data": {"sms_id": 1000007721, "status": "delivered", …}}

`X-TurkeySMS-Signature` is `sha256=` and the HMAC-SHA256 of the body in hexadecimal, keyed with the secret as it was shown;
`X-TurkeySMS-Timestamp` is the second in which the call was made. While an endpoint changes its secret,
`X-TurkeySMS-Signature-Previous` is made with the old one. `X-Berid-Event` stays the same at every try: receivers drop repeats
by it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from berid.base.ids import read, show
from berid.dialects.turkeysms.calls import NAME
from berid.domain.account import Caller
from berid.domain.message import State
from berid.domain.report import EVENT_OF_STATE, INBOUND_EVENT, Endpoint
from berid.flow.changes import Changes
from berid.flow.endpoints import TEST_EVENT, secrets_of
from berid.flow.notify import event_id
from berid.flow.ports import Runtime, Tell
from berid.store.hot import HotTx, Verb

VERIFIED_EVENT = "otp.verified"
"""A person has typed the right code. Told to every endpoint of this kind, whatever else it asks for."""

EVENTS: dict[str, str] = {
    **dict.fromkeys(EVENT_OF_STATE.values(), "sms.failed"),
    EVENT_OF_STATE[State.SENT]: "sms.sent",
    EVENT_OF_STATE[State.DELIVERED]: "sms.delivered",
    EVENT_OF_STATE[State.READ]: "sms.delivered",
    EVENT_OF_STATE[State.UNCERTAIN]: "sms.uncertain",
    EVENT_OF_STATE[State.HELD]: "sms.held",
    INBOUND_EVENT: "sms.received",
    TEST_EVENT: "key.test",
    VERIFIED_EVENT: VERIFIED_EVENT,
}
"""The provider's name for each of our events. `sms.uncertain`, `sms.held` and `sms.received` are ours: the provider has no such
events, and only endpoints that ask for them get them."""

_encode = msgspec.json.Encoder().encode


class _Event(msgspec.Struct):
    """What is read of an event's frozen data: a delivery's, a code's, a message's from a person, or a test's."""

    delivery_id: str = ""
    message_id: str = ""
    otp_id: str = ""
    state: str = ""
    reason: str = ""
    to: str = ""
    sender: str = ""
    units: int = 0
    mode: str = ""
    text: str = ""
    sender_number: str = msgspec.field(name="from", default="")


_decode = msgspec.json.Decoder(_Event).decode


def render(rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
    """One event as an object, several as a list of them, with the signature. See `Dialect.render`."""
    told = [_render_one(tell) for tell in tells]
    body = _encode(told[0] if len(told) == 1 else told)
    current, *previous = secrets_of(rt, endpoint)
    headers = {
        "content-type": "application/json",
        "x-turkeysms-signature": _sign(current, body),
        "x-turkeysms-timestamp": str(rt.clock.now_ms() // 1000),
        "x-berid-event": event_id(tells[0]),
    }
    if previous:
        headers["x-turkeysms-signature-previous"] = _sign(previous[0], body)
    return body, headers


def _sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def _render_one(tell: Tell) -> dict[str, Any]:
    event = _decode(tell.payload)
    data: dict[str, Any]
    if event.delivery_id:
        data = {
            "sms_id": read("dlv", event.delivery_id),
            "status": event.state,
            "reason": event.reason,
            "rapor_id": read("msg", event.message_id),
            "mobile": event.to,
            "title": event.sender,
            "number_of_sms": event.units,
        }
        if event.otp_id:
            data["otp_id"] = read("otp", event.otp_id)
    elif event.text or event.sender_number:
        data = {"mobile": event.sender_number, "sentto": event.to, "text": event.text, "status": "received"}
    else:
        data = {"status": "ok", "mode": event.mode}
    return {"event_type": EVENTS[tell.event], "timestamp": tell.created_ms // 1000, "data": data}


# ── A verified code ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Verified:
    rt: Runtime
    account_id: int
    application_id: int
    delivery_id: int
    payload: str
    changes: Changes | None = None


async def tell_verified(
    rt: Runtime, caller: Caller, otp_id: int, delivery_id: int, message_id: int, number: str
) -> None:
    """Tell the caller's endpoints of this kind that a code was verified. Raises `StoreAway`."""
    if not _endpoints(rt, caller.account.id, caller.application.id):
        return
    payload = {
        "type": VERIFIED_EVENT,
        "delivery_id": show("dlv", delivery_id),
        "message_id": show("msg", message_id),
        "otp_id": show("otp", otp_id),
        "state": "verified",
        "to": number,
        "mode": caller.mode,
    }
    item = _Verified(rt, caller.account.id, caller.application.id, delivery_id, _encode(payload).decode())
    await rt.store.hot.do(VERIFIED, [item])


def _endpoints(rt: Runtime, account_id: int, application_id: int) -> list[Endpoint]:
    return [
        endpoint
        for endpoint in rt.directory.endpoints.get(account_id, ())
        if endpoint.kind == NAME and endpoint.state == "on" and endpoint.application_id in (0, application_id)
    ]


async def _tell(tx: HotTx, items: list[_Verified]) -> list[Exception | None]:
    changes = items[0].changes = Changes(items[0].rt, items[0].rt.clock.now_ms())
    for item in items:
        for endpoint in _endpoints(item.rt, item.account_id, item.application_id):
            changes.tell(endpoint.id, endpoint.lane, item.account_id, item.delivery_id, VERIFIED_EVENT, item.payload)
    await changes.write(tx)
    return [None for _ in items]


def _after(items: list[_Verified]) -> None:
    if items[0].changes is not None:
        items[0].changes.push()


def _undo(items: list[_Verified]) -> None:
    if items[0].changes is not None:
        items[0].changes.withdraw()
        items[0].changes = None


VERIFIED: Verb[_Verified, None] = Verb("otp_verified", 45, _tell, after=_after, undo=_undo)
