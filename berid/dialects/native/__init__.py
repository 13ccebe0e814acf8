"""Our own JSON API, version 1, under `/api/v1`; and how its callbacks are told.

A callback is a POST of JSON, signed by the Standard Webhooks scheme with every secret that the endpoint has at that moment. One
event comes as itself, with its `id`, `type`, `created_at` and `data`; an endpoint that takes batches gets `{"events": [...]}`,
even of one. The `id` stays the same at every try: receivers drop repeats by it. Any answer from 200 to 299 counts as received.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from berid.base import webhook
from berid.dialects.native import (
    account,
    callbacks,
    history,
    inbound,
    manage,
    messages,
    otp,
    problems,
    requests,
    service,
)
from berid.dialects.native.endpoint import Endpoint as ApiEndpoint
from berid.dialects.native.shapes import metadata_of, or_none, rfc3339
from berid.dialects.web import Route
from berid.domain.errors import RefusalKind
from berid.domain.report import EVENT_OF_STATE, Endpoint
from berid.flow.endpoints import secrets_of
from berid.flow.notify import event_id
from berid.flow.ports import Runtime, Tell

ENDPOINTS: tuple[ApiEndpoint, ...] = (
    *messages.ENDPOINTS,
    *history.ENDPOINTS,
    *inbound.ENDPOINTS,
    *account.ENDPOINTS,
    *callbacks.ENDPOINTS,
    *otp.ENDPOINTS,
    *requests.ENDPOINTS,
    *manage.ENDPOINTS,
)
"""All of the API. A module with more of it is named here."""

_INNER = frozenset({"type", "created_ms", "dialect", "total", "options"})
"""Members of an event's data that are said elsewhere, or are no receiver's business."""

_OF_STATES = frozenset(EVENT_OF_STATE.values())


class _Outcome(msgspec.Struct, gc=False):
    """What is told of an event about a delivery (`Changes.payload`)."""

    delivery_id: str
    message_id: str
    channel: str
    mode: str
    to: str
    sender: str
    state: str
    reason: str
    units: int
    reference: str
    accepted_ms: int
    sent_ms: int
    options: dict[str, str] = {}


class _Delivery(msgspec.Struct, gc=False):
    """The same as the receiver reads it, in this order."""

    delivery_id: str
    message_id: str
    channel: str
    mode: str
    to: str
    sender: str
    state: str
    reason: str
    units: int
    reference: str
    accepted_at: str | None
    sent_at: str | None
    metadata: dict[str, str]


class _Event(msgspec.Struct, gc=False):
    """One event as the receiver reads it."""

    id: str
    type: str
    created_at: str
    data: _Delivery | dict[str, Any]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_outcome = msgspec.json.Decoder(_Outcome).decode


class NativeDialect:
    """The dialect object; see `web.HttpDialect`."""

    name = "native"
    refusals: Mapping[RefusalKind, problems.Words] = problems.refusals

    def routes(self, rt: Runtime) -> Sequence[Route]:
        """The API, and what machines ask of the process."""
        return [*(endpoint.route(rt) for endpoint in ENDPOINTS), *service.routes(rt, ENDPOINTS)]

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """See `ports.Dialect.render`. A batch has an id of its own, the same for the same events."""
        if endpoint.batch_max > 1:
            identifier = "bat_" + hashlib.sha256(b",".join(b"%d" % tell.callback_id for tell in tells)).hexdigest()[:32]
            body = _encode({"id": identifier, "type": "batch", "events": [_event(tell) for tell in tells]})
        else:
            identifier = event_id(tells[0])
            body = _encode(_event(tells[0]))
        signed = webhook.sign(secrets_of(rt, endpoint), identifier, rt.clock.now_ms() // 1000, body)
        return body, {"content-type": "application/json", **signed}

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """See `ports.Dialect.is_told`."""
        return 200 <= status < 300


def _event(tell: Tell) -> _Event:
    data = _delivery(tell.payload) if tell.event in _OF_STATES else _other(tell.payload)
    return _Event(event_id(tell), tell.event, rfc3339(tell.created_ms), data)


def _delivery(text: str) -> _Delivery:
    told = _decode_outcome(text)
    return _Delivery(
        told.delivery_id,
        told.message_id,
        told.channel,
        told.mode,
        told.to,
        told.sender,
        told.state,
        told.reason,
        told.units,
        told.reference,
        or_none(told.accepted_ms),
        or_none(told.sent_ms),
        metadata_of(told.options) if told.options else {},
    )


def _other(text: str) -> dict[str, Any]:
    payload = _decode(text)
    data: dict[str, Any] = {}
    for name, value in payload.items():
        if name.endswith("_ms") and name not in _INNER:
            data[name.removesuffix("_ms") + "_at"] = or_none(value)
        elif name not in _INNER:
            data[name] = value
    if "delivery_id" in payload:
        data["metadata"] = metadata_of(payload.get("options", {}))
    return data


dialect = NativeDialect()
