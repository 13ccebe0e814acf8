"""The way out to one application: what is to be told waits here for room in the window of any of its binds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from berid.base.clock import Clock
from berid.wire.smpp.codes import CommandStatus, status_name
from berid.wire.smpp.pdu import EncodeError, Pdu

if TYPE_CHECKING:
    from berid.dialects.smpp.bind import Bind

PLACE_S = 10.0
"""How long something waits for room in a window before it goes back to its queue on disk. With the time for an answer
it is so short that a whole lane of a customer who does not answer passes by before its leases run out."""

_RECEIVED = frozenset((0, int(CommandStatus.ESME_RX_P_APPN), int(CommandStatus.ESME_RX_R_APPN)))
"""The answers after which nothing is tried again. With the last two the customer says that he has it, and will not want
it later either (section 5.1.3)."""


class Sending:
    """One PDU on its way to the customer, and what comes of it: "" when he has it, words when he refused it or did not
    answer, None when it never left."""

    __slots__ = ("future", "is_sent", "pdu")

    def __init__(self, pdu: Pdu) -> None:
        self.pdu = pdu
        self.is_sent = False
        self.future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: str | None) -> None:
        """Say what came of it; only the first word counts."""
        if not self.future.done():
            self.future.set_result(outcome)

    def answered(self, status: int) -> None:
        """Take the customer's answer."""
        self.settle("" if status in _RECEIVED else f"answered {status_name(status)}")


class Outlet:
    """All binds of one application that can receive, and what waits for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._binds: list[Bind] = []
        self._waiting: deque[Sending] = deque()

    @property
    def is_open(self) -> bool:
        """Whether there is a bind."""
        return bool(self._binds)

    def add(self, bind: Bind) -> None:
        """Use another bind."""
        self._binds.append(bind)
        self.pump()

    def remove(self, bind: Bind) -> None:
        """Use a bind no more. Without any, what waits goes back to its queue on disk."""
        if bind in self._binds:
            self._binds.remove(bind)
        if not self._binds:
            while self._waiting:
                self._waiting.popleft().settle(None)

    async def send(self, pdus: Sequence[Pdu]) -> list[str | None]:
        """Send PDUs over whatever binds have room, and return what came of each (see `Sending`)."""
        sendings = [Sending(pdu) for pdu in pdus]
        if not self._binds:
            return [None for _ in sendings]
        self._waiting.extend(sendings)
        self.pump()
        if sendings:
            await asyncio.wait([sending.future for sending in sendings], timeout=PLACE_S)
        for sending in sendings:
            if not sending.is_sent:
                sending.settle(None)
        # What has been sent gets an answer, a time-out of its engine, or the end of its connection.
        return [await sending.future for sending in sendings]

    def pump(self) -> None:
        """Put on the wire what fits the windows, each bind's share in one write."""
        waiting = self._waiting
        if not waiting:
            return
        now_s = self._clock.ticks_s()
        touched: set[Bind] = set()
        while waiting and self._binds:
            bind = max(self._binds, key=_room)
            if not _room(bind):
                break
            sending = waiting.popleft()
            if sending.future.done():
                continue
            try:
                bind.session.submit(bind.fit(sending.pdu), now_s, sending)
            except EncodeError as error:
                sending.settle(f"cannot be carried: {error}")
                continue
            sending.is_sent = True
            touched.add(bind)
        for bind in touched:
            bind.flush()


def _room(bind: Bind) -> int:
    """How much a bind takes now; nothing once the customer has begun to unbind."""
    return bind.session.room if bind.is_receiver else 0
