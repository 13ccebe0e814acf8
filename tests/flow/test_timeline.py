"""What is told of a delivery afterwards, line by line and in order, whichever way it went: on both stores, the operator's details
included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from berid.dialects.native import shapes
from berid.domain.errors import Permanent, Temporary, Uncertain
from berid.domain.message import DeliveryReport, Outgoing, Sent, State
from berid.domain.report import EVENT_OF_STATE, Endpoint
from berid.domain.routing import UncertainPolicy
from berid.flow.accept import accept
from berid.flow.cancel import cancel
from berid.flow.changes import Changes
from berid.flow.dispatch import LEASE, RECORD, START, _Done, _Intent, _Refill
from berid.flow.ports import Outcome, Runtime
from berid.flow.settle import settle
from berid.flow.sweep import Sweeper, recover_connector
from berid.store import messages
from berid.store.hot import HotTx, Tracked, Verb
from tests.support.builders import (
    ACCOUNT_ID,
    CONNECTOR_ID,
    ROUTE_ID,
    START_MS,
    FakeClock,
    make_caller,
    make_outgoing,
    make_runtime,
    make_submission,
)
from tests.support.database import ask

NUMBER = "966501234567"
OTHER_ID = 88
"""Another connector of the route."""

NO_RECEIPT_MS = 259_200_000
"""After three days, a whole number of hours, no receipt is expected any more."""


class Course:
    """One delivery on its way; a second passes before each step."""

    def __init__(self, rt: Runtime, clock: FakeClock) -> None:
        self.rt = rt
        self.clock = clock
        self._attempt = 0
        self._begun: tuple[Outgoing, Tracked] | None = None
        self._delivery_id = 0
        self._message_id = 0

    async def accept(self, **changes: object) -> None:
        accepted = await accept(self.rt, make_caller(self.rt), make_submission(NUMBER, **changes))
        self._message_id, self._delivery_id = accepted.message_id, accepted.deliveries[0].id

    async def lease(self) -> None:
        """What a dispatcher does before anything starts."""
        ask = _Refill(f"c{CONNECTOR_ID}", [9, 9, 9], [-1, -1, -1], self._now_ms, self.rt.slot)
        await self.rt.store.hot.do(LEASE, [ask])

    async def begin(self, connector_id: int = CONNECTOR_ID) -> None:
        """The intent."""
        await self.clock.advance(1)
        outgoing = make_outgoing(NUMBER, delivery_id=self._delivery_id, attempt=self._attempt)
        self._attempt += 1
        started = (await self.rt.store.hot.do(START, [_Intent(connector_id, [outgoing], self._now_ms)]))[0]
        self._begun = outgoing, started[self._delivery_id]

    async def end(self, outcome: Outcome, late_s: float = 0) -> None:
        """The outcome, written so much later than it came."""
        assert self._begun is not None
        outgoing, row = self._begun
        at_ms = self._now_ms
        await self.clock.advance(late_s)
        await self.rt.store.hot.do(RECORD, [_Done(self.rt, outgoing, row.connector_id, outcome, at_ms, row)])

    async def submit(self, outcome: Outcome, connector_id: int = CONNECTOR_ID) -> None:
        await self.begin(connector_id)
        await self.end(outcome)

    async def reports(self, *states: State, keys: str = "k", code: str = "000") -> None:
        """Receipts in one batch, the first for the first key and so on, or all for the only one; they came 100 ms ago."""
        await self.clock.advance(1)
        told = [
            DeliveryReport(CONNECTOR_ID, keys[place % len(keys)], state, self._now_ms - 100, code, "", NUMBER)
            for place, state in enumerate(states)
        ]
        await settle(self.rt, told)

    async def sweep(self, after_s: float) -> None:
        await self.clock.advance(after_s)
        await Sweeper(self.rt).once()

    async def read(self) -> None:
        """A person has read it, as other channels than SMS tell after the delivery."""
        await self.clock.advance(1)

        async def run(tx: HotTx, ids: list[int]) -> list[Exception | None]:
            changes = Changes(self.rt, self._now_ms)
            for row in await tx.tracked(ids):
                changes.advance(row, State.READ)
            await changes.write(tx)
            return [None for _ in ids]

        await self.rt.store.hot.do(Verb("test", 30, run), [self._delivery_id])

    async def cancel(self) -> None:
        async with self.rt.store.read() as tx:
            owner = await messages.find(tx, ACCOUNT_ID, "test", self._message_id)
        assert owner is not None
        await cancel(self.rt, ACCOUNT_ID, [owner])

    async def timeline(self) -> list[tuple[Any, ...]]:
        """(seconds since the start, what, the details, or of what a callback tells)."""
        async with self.rt.store.read() as tx:
            found = await messages.find_delivery(tx, ACCOUNT_ID, "test", self._delivery_id)
            assert found is not None
            moments = await shapes.read_timeline(tx, found[1], [found[0]])
        return [
            (*_second(moment.at), moment.event, moment.callback.type if moment.callback else moment.detail)
            for moment in moments
        ]

    @property
    def _now_ms(self) -> int:
        return self.clock.now_ms()


def _second(at: str) -> tuple[float]:
    minutes, seconds = at.removesuffix("Z").split(":")[-2:]
    start_s = START_MS / 1000 % 3600
    return (round((int(minutes) * 60 + float(seconds) - start_s) % 3600, 3),)


@pytest.fixture
async def course(store_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Course]:
    """A course of an account that is told of everything."""
    monkeypatch.setattr(shapes, "_OURS_ONLY", ())
    clock = FakeClock()
    async with make_runtime(store_url, clock=clock) as rt:
        events = frozenset(EVENT_OF_STATE.values())
        endpoint = Endpoint(9, ACCOUNT_ID, 0, "native", "https://a.example/", "a.example", "", events, 100, "on")
        route = replace(rt.directory.routes[0], uncertain={1: UncertainPolicy.RESEND})
        rt.directory = replace(
            rt.directory,
            endpoints={ACCOUNT_ID: (endpoint,)},
            endpoint_by_id={9: endpoint},
            routes=(route,),
            route_by_id={ROUTE_ID: route},
        )
        yield Course(rt, clock)


def sent(*keys: str) -> Sent:
    return Sent(tuple(key.upper() for key in keys or "k"), keys or ("k",))


def _sent_line(at_s: float, attempt: int = 1, ids: str = "K", connector_id: int = CONNECTOR_ID) -> tuple[Any, ...]:
    return at_s, "sent", {"connector": connector_id, "carrier_ids": ids, "attempt": attempt}


def _told(at_s: float, what: str) -> tuple[Any, ...]:
    return at_s, "callback", f"message.{what}"


def _receipt(at_s: float, kind: str, **more: Any) -> tuple[Any, ...]:
    at_ms = START_MS + int(at_s * 1000) - 100
    return at_s, kind, {"connector": CONNECTOR_ID, "code": "000", "at_ms": at_ms} | more


async def ordinary(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.DELIVERED)


async def unusual_code(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.DELIVERED, code="017")


async def only_sent(course: Course) -> None:
    await course.accept()
    await course.submit(sent())


async def second_connector(course: Course) -> None:
    await course.accept()
    await course.submit(Temporary("ESME_RTHROTTLED"))
    await course.submit(sent("x"), OTHER_ID)


async def second_try(course: Course) -> None:
    await course.accept()
    await course.submit(Temporary("link_down"))
    await course.submit(sent())
    await course.reports(State.DELIVERED)


async def resent(course: Course) -> None:
    await course.accept()
    await course.submit(Uncertain("no_response"))
    await course.submit(sent())
    await course.reports(State.DELIVERED)


async def undelivered_then_delivered(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.UNDELIVERED, code="001")
    await course.reports(State.DELIVERED)


async def expired_then_delivered(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.sweep(NO_RECEIPT_MS / 1000 + 60)
    await course.reports(State.DELIVERED)


async def read(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.DELIVERED)
    await course.read()


async def read_unheard_of(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.READ)


async def contradicted(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.DELIVERED)
    course.rt.recent_keys.clear()
    await course.reports(State.UNDELIVERED)


async def interim(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.SENT)
    await course.reports(State.DELIVERED)


async def interim_and_end_at_once(course: Course) -> None:
    await course.accept()
    await course.submit(sent())
    await course.reports(State.SENT, State.DELIVERED)


async def receipt_first(course: Course) -> None:
    await course.accept()
    await course.begin()
    await course.reports(State.DELIVERED)
    await course.end(sent())


async def receipt_instead_of_response(course: Course) -> None:
    await course.accept()
    await course.lease()
    await course.begin()
    await recover_connector(course.rt, CONNECTOR_ID)


async def doubt_lifted(course: Course) -> None:
    _wait(course)
    await course.accept()
    await course.submit(Uncertain("no_response"))
    await course.reports(State.DELIVERED)


async def doubt_lifted_in_steps(course: Course) -> None:
    _wait(course)
    await course.accept()
    await course.submit(Uncertain("no_response"))
    await course.reports(State.SENT)
    await course.reports(State.DELIVERED)


async def in_parts(course: Course) -> None:
    await course.accept(text="x" * 200)
    await course.submit(sent("a", "b"))
    await course.reports(State.DELIVERED, keys="b")
    await course.reports(State.DELIVERED, keys="a")


async def in_parts_at_once(course: Course) -> None:
    await course.accept(text="x" * 200)
    await course.submit(sent("a", "b"))
    await course.reports(State.DELIVERED, State.DELIVERED, keys="ab")


async def without_id(course: Course) -> None:
    await course.accept()
    await course.submit(Sent(("",), ()))


async def written_late(course: Course) -> None:
    await course.accept()
    await course.begin()
    await course.end(sent(), late_s=30)
    await course.reports(State.DELIVERED)


async def rejected(course: Course) -> None:
    await course.accept()
    await course.submit(Permanent("ESME_RINVDSTADR"))


async def cancelled(course: Course) -> None:
    await course.accept()
    await course.cancel()


def _wait(course: Course) -> None:
    route = replace(course.rt.directory.routes[0], uncertain={1: UncertainPolicy.WAIT})
    course.rt.directory = replace(course.rt.directory, routes=(route,), route_by_id={ROUTE_ID: route})


def _doubt(at_s: float, code: str = "no_response", policy: str = "resend") -> tuple[Any, ...]:
    return at_s, "uncertain", {"connector": CONNECTOR_ID, "code": code, "policy": policy, "attempt": 1}


SENT_PART = [_sent_line(1.0), _told(1.0, "sent")]
DELIVERED_PART = [_receipt(2.0, "delivered"), _told(2.0, "delivered")]

COURSES: list[tuple[Callable[[Course], Awaitable[None]], list[tuple[Any, ...]]]] = [
    (ordinary, [*SENT_PART, *DELIVERED_PART]),
    (unusual_code, [*SENT_PART, _receipt(2.0, "delivered", code="017"), _told(2.0, "delivered")]),
    (only_sent, SENT_PART),
    (
        second_connector,
        [
            (1.0, "retry", {"connector": CONNECTOR_ID, "code": "ESME_RTHROTTLED", "attempt": 1}),
            _sent_line(2.0, 2, "X", OTHER_ID),
            _told(2.0, "sent"),
        ],
    ),
    (
        second_try,
        [
            (1.0, "retry", {"connector": CONNECTOR_ID, "code": "link_down", "attempt": 1}),
            _sent_line(2.0, 2),
            _told(2.0, "sent"),
            _receipt(3.0, "delivered"),
            _told(3.0, "delivered"),
        ],
    ),
    (
        resent,
        [
            _doubt(1.0),
            _told(1.0, "uncertain"),
            _sent_line(2.0, 2),
            _told(2.0, "sent"),
            _receipt(3.0, "delivered"),
            _told(3.0, "delivered"),
        ],
    ),
    (
        undelivered_then_delivered,
        [
            *SENT_PART,
            _receipt(2.0, "undelivered", code="001"),
            _told(2.0, "undelivered"),
            _receipt(3.0, "delivered", was="undelivered"),
            _told(3.0, "delivered"),
        ],
    ),
    (
        expired_then_delivered,
        [
            *SENT_PART,
            (61.0, "expired", {}),
            _told(61.0, "expired"),
            _receipt(62.0, "delivered", was="expired", at_ms=START_MS + NO_RECEIPT_MS + 61_900),
            _told(62.0, "delivered"),
        ],
    ),
    (read, [*SENT_PART, *DELIVERED_PART, (3.0, "read", {}), _told(3.0, "read")]),
    (read_unheard_of, [*SENT_PART, _receipt(2.0, "read"), _told(2.0, "read")]),
    (
        contradicted,
        [*SENT_PART, *DELIVERED_PART],
    ),
    (
        interim,
        [
            *SENT_PART,
            _receipt(2.0, "report_ignored", state="sent"),
            _receipt(3.0, "delivered"),
            _told(3.0, "delivered"),
        ],
    ),
    (
        interim_and_end_at_once,
        [
            *SENT_PART,
            _receipt(2.0, "report_ignored", state="sent"),
            _receipt(2.0, "delivered"),
            _told(2.0, "delivered"),
        ],
    ),
    (
        receipt_first,
        [
            _sent_line(2.0),
            _told(2.0, "sent"),
            _receipt(2.0, "delivered"),
            _told(2.0, "delivered"),
        ],
    ),
    (receipt_instead_of_response, [_doubt(1.0, "process_ended"), _told(1.0, "uncertain")]),
    (doubt_lifted, [_doubt(1.0, policy="wait"), _told(1.0, "uncertain"), *DELIVERED_PART]),
    (
        doubt_lifted_in_steps,
        [
            _doubt(1.0, policy="wait"),
            _told(1.0, "uncertain"),
            _receipt(2.0, "sent"),
            _told(2.0, "sent"),
            _receipt(3.0, "delivered"),
            _told(3.0, "delivered"),
        ],
    ),
    (
        in_parts,
        [
            _sent_line(1.0, ids="A,B"),
            _told(1.0, "sent"),
            _receipt(2.0, "part_delivered", part=1),
            _receipt(3.0, "delivered", part=0),
            _told(3.0, "delivered"),
        ],
    ),
    (
        in_parts_at_once,
        [
            _sent_line(1.0, ids="A,B"),
            _told(1.0, "sent"),
            _receipt(2.0, "part_delivered", part=0),
            _receipt(2.0, "delivered", part=1),
            _told(2.0, "delivered"),
        ],
    ),
    (without_id, [_sent_line(1.0, ids=""), _told(1.0, "sent")]),
    (written_late, [_sent_line(31.0), _told(31.0, "sent"), _receipt(32.0, "delivered"), _told(32.0, "delivered")]),
    (
        rejected,
        [
            (1.0, "rejected", {"connector": CONNECTOR_ID, "code": "ESME_RINVDSTADR", "attempt": 1}),
            _told(1.0, "rejected"),
        ],
    ),
    (cancelled, [(0.0, "cancelled", {}), _told(0.0, "cancelled")]),
]


@pytest.mark.parametrize(("go", "expected"), COURSES, ids=lambda each: getattr(each, "__name__", ""))
async def test_every_course_is_told_as_it_was(
    course: Course, go: Callable[[Course], Awaitable[None]], expected: list[tuple[Any, ...]]
) -> None:
    await go(course)
    first, *others = await course.timeline()
    assert first == (0.0, "accepted", {})
    assert others == expected


async def test_ordinary_course_writes_no_line(course: Course, store_url: str) -> None:
    await ordinary(course)
    assert await ask(store_url, "SELECT count(*) FROM event") == [(0,)]


async def test_callbacks_are_found_although_the_clock_was_set_back(course: Course) -> None:
    await course.accept()
    course.clock.set_by(-3_600)
    await course.submit(sent())
    await course.reports(State.DELIVERED)
    told = [what for _, event, what in await course.timeline() if event == "callback"]
    assert told == ["message.sent", "message.delivered"]
