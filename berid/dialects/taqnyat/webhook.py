"""The provider's delivery webhook: one JSON object a call, received only if the answer is the pass phrase.

The provider documents no field names; its clients read `messageId`, `status` and `recipient`, so those are written. Beside
them go our signature's headers (`base.webhook`): the pass phrase proves the receiver to us, the signature proves us to him.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest

import msgspec

from berid.base import webhook
from berid.base.ids import read
from berid.domain.message import State
from berid.domain.report import Endpoint
from berid.flow.endpoints import secrets_of
from berid.flow.manage.people import digest_phrase
from berid.flow.notify import event_id
from berid.flow.ports import Runtime, Tell

PAUSES_S = (30, 120)
"""The pauses after the first and the second try; there is no fourth try, by the provider's rule of three."""

STATUS: dict[State, str] = {
    State.SCHEDULED: "pending",
    State.HELD: "pending",
    State.QUEUED: "pending",
    State.SENDING: "pending",
    State.UNCERTAIN: "pending",
    State.SENT: "sent",
    State.DELIVERED: "delivered",
    State.READ: "delivered",
    State.UNDELIVERED: "undelivered",
    State.EXPIRED: "expired",
    State.REJECTED: "rejected",
    State.FAILED: "failed",
    State.CANCELLED: "deleted",
}
"""The word for every state of a delivery."""

_encode = msgspec.json.Encoder().encode


class _Event(msgspec.Struct):
    """What is read of an event's frozen data: a delivery's, or a message's from a person."""

    type: str
    message_id: str = ""
    state: State | None = None
    to: str = ""
    sender: str = ""
    reference: str = ""
    text: str = ""
    sender_number: str = msgspec.field(name="from", default="")


_decode = msgspec.json.Decoder(_Event).decode


def render(rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
    """One event as an object, several as a list of them, with the signature. See `Dialect.render`."""
    told = [_render_one(tell) for tell in tells]
    body = _encode(told[0] if len(told) == 1 else told)
    headers = webhook.sign(secrets_of(rt, endpoint), event_id(tells[0]), rt.clock.now_ms() // 1000, body)
    return body, {"content-type": "application/json", **headers}


def _render_one(tell: Tell) -> dict[str, object]:
    event = _decode(tell.payload)
    if event.state is not None:
        return {
            "messageId": read("msg", event.message_id),
            "status": STATUS[event.state],
            "recipient": event.to,
            "sender": event.sender,
            "smsId": event.reference,
        }
    return {"event": event.type, "from": event.sender_number, "recipient": event.to, "body": event.text}


def is_told(rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
    """Whether the answer is the pass phrase of the endpoint's application; without one, any answer of success will do."""
    application = rt.directory.applications.get(endpoint.application_id)
    account = rt.directory.accounts.get(endpoint.account_id)
    phrase = (application.rules.pass_phrase if application else "") or (account.rules.pass_phrase if account else "")
    if not phrase:
        return 200 <= status < 300
    return status < 300 and compare_digest(digest_phrase(rt.vault, body.decode(errors="replace")), phrase)
