"""Callback endpoints: where the account is told of its messages, what it was told, and telling it again.

What is told, and how it is signed, is in `native/__init__.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import made_ms, show
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import (
    Event,
    read_cursor,
    read_id,
    read_moment,
    rfc3339,
    show_event,
    write_cursor,
)
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.flow import endpoints
from berid.flow.manage.callbacks import BATCH_MAX, EVENTS, create_endpoint
from berid.flow.manage.office import Office
from berid.store import callbacks
from berid.store.callbacks import EndpointRecord

EventName = Annotated[str, Meta(extra_json_schema={"enum": sorted(EVENTS)})]
"""Checked where endpoints are made, with a sentence that names the event."""
BatchMax = Annotated[int, Meta(ge=1, le=BATCH_MAX)]
Description = Annotated[str, Meta(max_length=255)]


class NewCallback(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint to be told of `events`. Unless some are named: of every end of a message and every message received; of kind
    `turkeysms`, of every message sent as well, and of none received.

    With a `batch_max` above 1 up to so many events come in one call, as `{"events": […]}`. `application` limits it to the
    messages of one application. `kind` is the shape in which events are told: ours, or one of the providers'.
    """

    url: Annotated[str, Meta(max_length=2048)]
    kind: Literal["native", "taqnyat", "turkeysms"] = "native"
    events: list[EventName] = []
    batch_max: BatchMax = 1
    application: str = ""
    description: Description = ""


class CallbackChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of an endpoint; what is left out stays. An endpoint that is `off` is told nothing."""

    url: Annotated[str, Meta(max_length=2048)] | None = None
    events: Annotated[list[EventName], Meta(min_length=1)] | None = None
    batch_max: BatchMax | None = None
    state: Literal["on", "off"] | None = None
    description: Description | None = None


class NewSecret(msgspec.Struct, forbid_unknown_fields=True):
    """For how long calls are signed with the old secret as well, so that the receiver can change at any moment between."""

    overlap_s: Annotated[int, Meta(ge=0, le=endpoints.OVERLAP_MAX_S)] = 86_400


class Replay(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which events to tell again: those made from `from` to before `to`, unless `failed_only` is false only failed ones."""

    since: str | int
    until: str | int
    failed_only: bool = True


class LogQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which events of an endpoint to list."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: str = ""
    state: Literal["failed"] | None = None


class Callback(msgspec.Struct):
    """A callback endpoint. `kind` says in whose shape it is told: `native` is ours."""

    id: str
    url: str
    kind: str
    events: list[str]
    batch_max: int
    state: str
    application: str | None
    description: str
    created_at: str


class CreatedCallback(Callback):
    """A new endpoint, with the secret by which its calls are signed (Standard Webhooks). It is not shown again."""

    secret: str


class CallbackList(msgspec.Struct):
    """All endpoints of the account."""

    data: list[Callback]


class Secret(msgspec.Struct):
    """The new secret; it is not shown again."""

    secret: str


class EventList(msgspec.Struct):
    """Some events of an endpoint, newest first."""

    data: list[Event]
    next: str | None


class Replayed(msgspec.Struct):
    """How many events will be told again. With `next_from` there were more: call again from that time."""

    replayed: int
    next_from: str | None


class TestEvent(msgspec.Struct):
    """The event that is on its way to the endpoint; see the log for what came of it."""

    event: str


async def list_callbacks(call: Call[None, None]) -> CallbackList:
    """GET /callbacks."""
    async with call.rt.store.read() as tx:
        return CallbackList([_shown(each) for each in await callbacks.endpoints(tx, call.caller.account.id)])


async def create(call: Call[NewCallback, None]) -> CreatedCallback:
    """POST /callbacks."""
    body, rt, account_id = call.body, call.rt, call.caller.account.id
    endpoint_id, secret = await create_endpoint(
        Office.of(rt),
        call.actor,
        account_id,
        read_id("app", body.application, "application"),
        body.url,
        body.events,
        body.batch_max,
        body.description,
        kind=body.kind,
        allowed_networks=rt.config.net.allowed_networks,
    )
    made = await _find(call, endpoint_id)
    return CreatedCallback(**msgspec.structs.asdict(made), secret=secret)


async def get(call: Call[None, None]) -> Callback:
    """GET /callbacks/{id}."""
    return await _find(call, call.path_id("cbe"))


async def change(call: Call[CallbackChange, None]) -> Callback:
    """PATCH /callbacks/{id}."""
    endpoint_id = call.path_id("cbe")
    changes = msgspec.structs.asdict(call.body)
    await endpoints.change_endpoint(call.rt, call.actor, call.caller.account.id, endpoint_id, **changes)
    return await _find(call, endpoint_id)


async def remove(call: Call[None, None]) -> Response:
    """DELETE /callbacks/{id}."""
    await endpoints.remove_endpoint(call.rt, call.actor, call.caller.account.id, call.path_id("cbe"))
    return Response(204)


async def rotate(call: Call[NewSecret, None]) -> Secret:
    """POST /callbacks/{id}/rotate-secret."""
    endpoint_id = call.path_id("cbe")
    return Secret(
        await endpoints.rotate_secret(call.rt, call.actor, call.caller.account.id, endpoint_id, call.body.overlap_s)
    )


async def log(call: Call[None, LogQuery]) -> EventList:
    """GET /callbacks/{id}/events."""
    query, account_id = call.query, call.caller.account.id
    endpoint_id, before_id = call.path_id("cbe"), read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        if await callbacks.endpoint(tx, account_id, endpoint_id) is None:
            raise _no_endpoint()
        found = await callbacks.log(tx, account_id, endpoint_id, before_id, query.limit + 1, query.state == "failed")
        shown = found[: query.limit]
        tries = await callbacks.tries(tx, account_id, [each.id for each in shown])
    data = [show_event(each, tries[each.id]) for each in shown]
    return EventList(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


async def replay_one(call: Call[None, None]) -> Replayed:
    """POST /callbacks/{id}/events/{event}/replay."""
    told = await endpoints.tell_one_again(
        call.rt, call.caller.account.id, call.path_id("cbe"), call.path_id("evt", "event")
    )
    return Replayed(told, None)


async def replay(call: Call[Replay, None]) -> Replayed:
    """POST /callbacks/{id}/replay."""
    body = call.body
    told, next_id = await endpoints.tell_again(
        call.rt,
        call.caller.account.id,
        call.path_id("cbe"),
        read_moment(body.since, "from"),
        read_moment(body.until, "to"),
        body.failed_only,
    )
    return Replayed(told, rfc3339(made_ms(next_id)) if next_id is not None else None)


async def try_out(call: Call[None, None]) -> TestEvent:
    """POST /callbacks/{id}/test."""
    caller = call.caller
    return TestEvent(show("evt", await endpoints.try_out(call.rt, caller.account.id, call.path_id("cbe"), caller.mode)))


async def _find(call: Call[Any, None], endpoint_id: int) -> Callback:
    async with call.rt.store.read() as tx:
        found = await callbacks.endpoint(tx, call.caller.account.id, endpoint_id)
    if found is None:
        raise _no_endpoint()
    return _shown(found)


def _no_endpoint() -> Exception:
    return refused(RefusalKind.NOT_FOUND, "there is no such callback endpoint", "id")


def _shown(record: EndpointRecord) -> Callback:
    return Callback(
        id=show("cbe", record.id),
        url=record.url,
        kind=record.kind,
        events=record.events.split(),
        batch_max=record.batch_max,
        state=record.state,
        application=show("app", record.application_id) if record.application_id else None,
        description=record.description,
        created_at=rfc3339(record.created_ms),
    )


_NOT_FOUND = (RefusalKind.NOT_FOUND,)

ENDPOINTS = (
    Endpoint("GET", "/callbacks", list_callbacks, "The account's callback endpoints", CallbackList, Scope.CALLBACKS),
    Endpoint(
        "POST",
        "/callbacks",
        create,
        "Make a callback endpoint",
        CreatedCallback,
        Scope.CALLBACKS,
        body=NewCallback,
        status=201,
        about="The address is judged again at every call: private networks are refused unless the operator allows them.",
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/callbacks/{id}", get, "One callback endpoint", Callback, Scope.CALLBACKS, refusals=_NOT_FOUND),
    Endpoint(
        "PATCH",
        "/callbacks/{id}",
        change,
        "Change a callback endpoint",
        Callback,
        Scope.CALLBACKS,
        body=CallbackChange,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "DELETE",
        "/callbacks/{id}",
        remove,
        "Remove a callback endpoint",
        None,
        Scope.CALLBACKS,
        status=204,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/callbacks/{id}/rotate-secret",
        rotate,
        "Give a callback endpoint a new secret",
        Secret,
        Scope.CALLBACKS,
        body=NewSecret,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/callbacks/{id}/events",
        log,
        "What an endpoint was told, with every try",
        EventList,
        Scope.CALLBACKS,
        query=LogQuery,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/callbacks/{id}/events/{event}/replay",
        replay_one,
        "Tell one event again",
        Replayed,
        Scope.CALLBACKS,
        status=202,
        about="The event keeps its id. `replayed` is 0 when it is being told at this moment.",
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/callbacks/{id}/replay",
        replay,
        "Tell the events of a time again",
        Replayed,
        Scope.CALLBACKS,
        body=Replay,
        status=202,
        refusals=(*_NOT_FOUND, RefusalKind.SCHEDULE_DATE_INVALID, RefusalKind.SCHEDULE_TIME_INVALID),
    ),
    Endpoint(
        "POST",
        "/callbacks/{id}/test",
        try_out,
        "Send an endpoint a test event",
        TestEvent,
        Scope.CALLBACKS,
        status=202,
        about="It goes the ordinary way, signed and recorded, whatever events the endpoint asks for.",
        refusals=_NOT_FOUND,
    ),
)
