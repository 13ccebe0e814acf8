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
from typing import Any

import msgspec

from berid.base.ids import read
from berid.domain.message import State
from berid.domain.report import EVENT_OF_STATE, INBOUND_EVENT, VERIFIED_EVENT, Endpoint
from berid.flow.endpoints import TEST_EVENT, secrets_of
from berid.flow.notify import event_id
from berid.flow.ports import Runtime, Tell

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
    if tell.event == VERIFIED_EVENT:
        data = {
            "sms_id": read("dlv", event.delivery_id),
            "status": event.state,
            "rapor_id": read("msg", event.message_id),
            "mobile": event.to,
            "otp_id": read("otp", event.otp_id),
        }
    elif event.delivery_id:
        data = {
            "sms_id": read("dlv", event.delivery_id),
            "status": event.state,
            "reason": event.reason,
            "rapor_id": read("msg", event.message_id),
            "mobile": event.to,
            "title": event.sender,
            "number_of_sms": event.units,
        }
    elif event.text or event.sender_number:
        data = {"mobile": event.sender_number, "sentto": event.to, "text": event.text, "status": "received"}
    else:
        data = {"status": "ok", "mode": event.mode}
    return {"event_type": EVENTS[tell.event], "timestamp": tell.created_ms // 1000, "data": data}
