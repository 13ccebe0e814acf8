"""The SMPP connector: one configured link to a carrier, over one or several binds.

The engine in `wire.smpp.session` speaks the protocol; here are the sockets, the pace, and what becomes of every part.

What is handed over by `send` waits in two queues, priority 0 and the others, and leaves when the windows of the binds and
the pace allow. An outcome is told exactly once for each delivery:

| what happened to its parts | outcome |
|---|---|
| all accepted | `Sent` |
| one refused for good | `Permanent`, at once; parts that have not left do not leave any more |
| not one accepted or in doubt, and the carrier said "not now" | `Temporary`: the flow tries elsewhere or later |
| the same, and it said "too fast" for longer than RETRY_FOR_S | `Throttled` |
| not one has left, and the last bind broke, or the connector stops | `Temporary` |
| one left and got no answer: the link broke or the response timeout passed | `Uncertain`, when the others are settled |

A delivery in several parts of which some are accepted must not be given back, for it would be sent again as a whole and
doubled in part. So what the carrier said "not now" to is tried again here, and waits for a bind if there is none, for up
to RETRY_FOR_S; what cannot be sent then makes the delivery `Permanent` with the carrier's last word.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import cast

import msgspec

from berid.base import failpoint
from berid.channels.sms.settings import ErrorClass, SmppSettings, make_tls, read_settings
from berid.channels.sms.translate import Submit, Translator
from berid.domain.errors import Permanent, SendFailure, Temporary, Throttled, Uncertain
from berid.domain.message import DeliveryReport, Outgoing, Sent
from berid.domain.routing import ConnectorSettings
from berid.flow.inbound import REPEAT_S, InboundSms, receive
from berid.flow.pace import Pace
from berid.flow.ports import Report, Runtime
from berid.flow.settle import settle
from berid.store.hot import StoreAway
from berid.wire.smpp.codes import CommandStatus, status_name
from berid.wire.smpp.pdu import (
    BindReceiver,
    BindTransceiver,
    BindTransmitter,
    DataSm,
    DataSmResp,
    DeliverSm,
    EncodeError,
    PackedSubmit,
    SubmitSmResp,
)
from berid.wire.smpp.receipt import is_receipt
from berid.wire.smpp.session import (
    Closed,
    CloseReason,
    Event,
    Request,
    Response,
    Role,
    Session,
    SessionSettings,
    State,
    TimedOut,
    Unreadable,
    WrongState,
)

log = logging.getLogger("berid.smpp")

RESERVE = 10
"""One in so many places of the window is kept for priority 0."""

AHEAD_S = 0.1
"""How much of its rate a connector takes over before it may write it: the commit of an intent takes a while, and the pace
must not wait for it."""

RETRY_FOR_S = 60.0
"""How long the connector itself tries again what the carrier puts off."""

RETRY_FIRST_S, RETRY_LAST_S = 0.25, 5.0
"""The waits between these tries: doubling from the first to the last, and a little at random."""

RECONNECT_FIRST_S, RECONNECT_LAST_S = 0.5, 30.0
"""The waits before a broken bind is made anew: doubling while no bind gets a part accepted, half as long to half as long
again at random, so that a carrier that comes back does not meet everybody at once."""

CONNECT_S = 10.0
"""How long name look-up, connection and TLS may take together."""

STOP_S = 10.0
"""How long `stop` waits for outstanding answers at most; the response timeout, if that is shorter."""

LEAVE_S = 2.0
"""How long it then waits for the answer to its unbind."""

SILENT_SUBMITS = 3
"""So many submits in a row without a response: the carrier is there, but it does not serve. The bind is given up, so that
routes take their next connector."""

STORE_AWAY_FIRST_S, STORE_AWAY_LAST_S = 0.1, 5.0
"""The waits before reports are given to the store again that did not take them."""

ANSWER_LATE_S = 2.0
"""A carrier that has waited so long for our answer may be about to repeat; none is known that waits for less than five."""

_TAKEN = (SubmitSmResp, DataSmResp)
_DELIVERED = (DeliverSm, DataSm)
"""What a carrier brings us."""

_ROK = int(CommandStatus.ESME_ROK)
_TRY_AGAIN = int(CommandStatus.ESME_RX_T_APPN)
_MAY_SUBMIT = (State.BOUND_TX, State.BOUND_TRX)
_BOUND = (State.BOUND_TX, State.BOUND_RX, State.BOUND_TRX)
_VERSIONS = {"3.4": 0x34, "5.0": 0x50}


class Mode(Enum):
    """What one bind is for."""

    TRANSCEIVER = "transceiver"
    TRANSMITTER = "transmitter"
    RECEIVER = "receiver"


_BIND_PDUS: dict[Mode, type[BindTransceiver | BindTransmitter | BindReceiver]] = {
    Mode.TRANSCEIVER: BindTransceiver,
    Mode.TRANSMITTER: BindTransmitter,
    Mode.RECEIVER: BindReceiver,
}
_MODES = {
    "transceiver": (Mode.TRANSCEIVER,),
    "transmitter": (Mode.TRANSMITTER,),
    "receiver": (Mode.RECEIVER,),
    "pair": (Mode.TRANSMITTER, Mode.RECEIVER),
}


class _Flight(msgspec.Struct, eq=False):
    """One delivery on its way through this connector."""

    outgoing: Outgoing
    report: Report
    pdus: list[Submit | PackedSubmit]
    ids: list[str]
    """The carrier's, part by part."""
    left: int
    """Parts that are neither accepted nor in doubt."""
    flying: int = 0
    """Parts that wait for their answer."""
    accepted: int = 0
    doubt: str = ""
    """Why parts are in doubt, if any are."""
    code: str = ""
    """The carrier's last word on a part that it put off."""
    put_off_s: float = 0.0
    """When it first put one off."""
    refusals: int = 0
    """How often it put one off."""
    is_over: bool = False
    """Its outcome has been told; what is left of it in the queues is nothing any more."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of it is, or may be, at the carrier."""
        return bool(self.accepted or self.doubt or self.flying)


_Token = tuple[_Flight, int, float]
"""What a submit carries through the session: the delivery, which part, and when it was written."""

_BINDING = object()
"""The token of a bind."""


class SmppConnector:
    """See `Connector`. `settings.settings` are those of `SmppSettings`; raises ValueError for unfit ones.

    Opens `binds` connections (twice as many for pairs) and never more.
    """

    def __init__(self, rt: Runtime, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.rt = rt
        self.smpp: SmppSettings = read_settings(settings.settings, rt.vault)
        self.tls = make_tls(self.smpp)
        self.ticks = rt.clock.ticks_s
        self.translator = Translator(settings.id, self.smpp)
        self.pace = Pace(self.smpp.rate, self.ticks())
        self.pace.begin_full(self.ticks())
        self._classes: dict[int, ErrorClass] = {}
        self._open: set[_Bind] = set()
        """Every connection."""
        self._binds: list[_Bind] = []
        """Those that are bound, of whatever mode."""
        self._wanted = self.smpp.binds * len(_MODES[self.smpp.bind_type])
        self._keepers: list[asyncio.Task[None]] = []
        self._urgent: deque[tuple[_Flight, int]] = deque()
        self._bulk: deque[tuple[_Flight, int]] = deque()
        self._put_off: list[tuple[float, int, _Flight, int]] = []
        """A heap of parts to be tried again: (when, a number to tell ties apart, delivery, part)."""
        self._numbers = itertools.count()
        self._reserved = 0
        self._turn = 0
        self._timer: asyncio.Handle | None = None
        self._timer_due_s = 0.0
        self._wakes: list[Callable[[], None]] = []
        self._progress = asyncio.Event()
        self._is_stopping = False
        self._trouble = "not connected yet"
        self._answers_in_doubt_s = self.ticks()

    # What the dispatcher uses

    async def start(self) -> None:
        """See `Connector.start`."""
        loop = asyncio.get_running_loop()
        for number in range(self.smpp.binds):
            for mode in _MODES[self.smpp.bind_type]:
                name = f"smpp-{self.settings.name}-{mode.value}-{number + 1}"
                keeper = loop.create_task(self._keep(mode), name=name)
                keeper.add_done_callback(_say_why)
                self._keepers.append(keeper)

    async def stop(self) -> None:
        """See `Connector.stop`. What has not left is given back at once, what has is waited for; then the binds end."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._give_back_unbegun("stopping")
        await self._until(
            lambda: not (self._urgent or self._bulk or any(bind.is_busy for bind in self._binds)),
            min(STOP_S, self.smpp.response_timeout_s),
        )
        for flight in self._take_waiting():
            self._give_up(flight)
        for bind in list(self._binds):
            bind.leave("stopping", is_urgent=True)
        await self._until(lambda: not self._binds, min(LEAVE_S, self.smpp.response_timeout_s))
        for keeper in self._keepers:
            keeper.cancel()  # which cuts what is still open
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._until(lambda: not self._open, LEAVE_S)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_up(self) -> bool:
        """See `Connector.is_up`."""
        return not self._is_stopping and bool(self._live())

    def health(self) -> str:
        """See `Connector.health`. A connector that only receives is up when its receivers are."""
        up = sum(not bind.is_leaving for bind in self._binds)
        if up == self._wanted:
            return "up"
        is_some = self.is_up or (up > 0 and self.smpp.bind_type == "receiver")
        if not is_some:
            return f"down: {self._trouble}"
        return f"degraded: {up} of {self._wanted} binds, {self._trouble}"

    def room(self) -> tuple[int, int]:
        """See `Connector.room`. A tenth of the window, and as much again of what may be taken ahead, is for priority 0."""
        live = self._live()
        if not live:
            return 0, 0
        free = sum([bind.room for bind in live])
        urgent, bulk = self.pace.room(self.ticks())
        speed = self.pace.speed
        ahead = max(1, int(min(speed, 1e6) * AHEAD_S))
        held = self._reserved + len(self._urgent) + len(self._bulk) + len(self._put_off)
        total = max(0, min(free, urgent + 2 * ahead) - held)
        others = max(0, min(free - self._kept(live), bulk + ahead) - held)
        return total, max(0, total - others)

    def reserve(self, parts: int) -> None:
        """See `Connector.reserve`."""
        self._reserved += parts

    def give_back(self, parts: int) -> None:
        """See `Connector.give_back`."""
        self._reserved = max(0, self._reserved - parts)
        self._wake()

    def on_room(self, wake: Callable[[], None]) -> None:
        """See `Connector.on_room`."""
        self._wakes.append(wake)

    def send(self, parcel: Sequence[Outgoing], report: Report) -> None:
        """See `Connector.send`."""
        self._reserved = max(0, self._reserved - sum([outgoing.parts for outgoing in parcel]))
        if not self.is_up:
            code = "stopping" if self._is_stopping else "link_down"
            for outgoing in parcel:
                report(outgoing, Temporary(code))
            return
        pack, now_ms = self.translator.pack, self.rt.clock.now_ms()
        for outgoing in parcel:
            try:
                pdus = pack(outgoing, now_ms)
            except ValueError as error:
                report(outgoing, Permanent("cannot_encode", str(error)))
                continue
            parts = len(pdus)
            flight = _Flight(outgoing, report, pdus, [""] * parts, parts)
            queue = self._bulk if outgoing.priority else self._urgent
            for part in range(parts):
                queue.append((flight, part))
        self.pump(self.ticks())

    # Out

    def pump(self, now_s: float) -> None:
        """Write what windows and pace allow, with one write for each bind."""
        if self._put_off and self._put_off[0][0] <= now_s:
            self._bring_back(now_s)
        if self._urgent or self._bulk:
            live = self._live()
            if live:
                self._write(live, now_s)
        if self._urgent or self._bulk or self._put_off:
            self._arm(now_s)

    def _write(self, live: list[_Bind], now_s: float) -> None:
        pace = self.pace
        free = sum([bind.room for bind in live])
        count, _ = pace.room(now_s)
        urgent = self._submit(self._urgent, min(free, count), live, now_s) if self._urgent else 0
        if urgent:
            pace.written(urgent, is_bulk=False)
        bulk = 0
        if self._bulk:
            _, count = pace.room(now_s)
            bulk = self._submit(self._bulk, min(free - urgent - self._kept(live), count), live, now_s)
            pace.written(bulk, is_bulk=True)
        if urgent or bulk:
            self.rt.metrics.submitted(self.settings.id, urgent + bulk)
            if failpoint.armed:
                failpoint.hit("smpp.submit.before_write")
            for bind in live:
                bind.flush()
            if failpoint.armed:
                failpoint.hit("smpp.submit.after_write")
            self._wake()

    def _submit(self, queue: deque[tuple[_Flight, int]], most: int, live: list[_Bind], now_s: float) -> int:
        """Give up to `most` parts to the binds, each a run of them in its turn, for they have room; how many it was."""
        done = 0
        share = -(-min(most, len(queue)) // len(live))
        bind = live[self._turn % len(live)]
        run = min(share, bind.room)
        while queue and done < most:
            flight, part = queue.popleft()
            if flight.is_over:
                continue
            while not run:
                self._turn += 1
                bind = live[self._turn % len(live)]
                run = min(share, bind.room)
            try:
                bind.session.submit(flight.pdus[part], now_s, (flight, part, now_s))
            except EncodeError as error:
                self._end(flight, Permanent("cannot_encode", str(error)))
                continue
            flight.flying += 1
            run -= 1
            done += 1
        self._turn += 1
        return done

    def _live(self) -> list[_Bind]:
        """The binds that may submit now: none while the connector may be another process's."""
        return [bind for bind in self._binds if bind.may_submit] if self.rt.holds(self.settings.id) else []

    def _kept(self, live: list[_Bind]) -> int:
        """How much of their windows is for priority 0 only."""
        window = self.smpp.window * len(live)
        return max(1, window // RESERVE) if window > 1 else 0

    def _arm(self, now_s: float) -> None:
        """Come back when the pace may have room again, or a part is to be tried again."""
        wait_s = self.pace.wait_s(now_s) if self._urgent or self._bulk else 1.0
        if self._put_off:
            wait_s = min(wait_s, max(0.001, self._put_off[0][0] - now_s))
        loop = asyncio.get_running_loop()
        due_s = loop.time() + wait_s
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return
            self._timer.cancel()
        # Kept beside the handle: for a moment that has passed already uvloop gives one that does not know it.
        self._timer_due_s = due_s
        self._timer = loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.pump(self.ticks())

    def _bring_back(self, now_s: float) -> None:
        """Put parts whose time has come in front of their queue, with the validity that is left."""
        now_ms = self.rt.clock.now_ms()
        is_live = bool(self._live())
        while self._put_off and self._put_off[0][0] <= now_s:
            _, _, flight, part = heapq.heappop(self._put_off)
            if flight.is_over:
                continue
            if flight.outgoing.expires_ms <= now_ms:
                self._give_up(flight)
            elif not is_live:
                self._try_later(flight, part, now_s)
            else:
                flight.pdus = self.translator.pack(flight.outgoing, now_ms)
                queue = self._bulk if flight.outgoing.priority else self._urgent
                queue.appendleft((flight, part))

    # What became of a part

    def on_response(self, bind: _Bind, event: Response, now_s: float) -> None:
        """The carrier's answer to one part."""
        token: _Token = event.token
        flight, part, sent_s = token
        flight.flying -= 1
        if flight.is_over:
            return
        if event.status:
            self._on_refusal(bind, flight, part, event.status, sent_s, now_s)
            return
        pdu = event.pdu
        assert isinstance(pdu, _TAKEN)
        bind.has_worked = True
        flight.ids[part] = pdu.message_id
        flight.accepted += 1
        flight.left -= 1
        if not flight.left:
            self._conclude(flight)

    def _on_refusal(self, bind: _Bind, flight: _Flight, part: int, status: int, sent_s: float, now_s: float) -> None:
        kind = self._classes.get(status)
        if kind is None:
            kind = self._classes[status] = self.smpp.class_of(status)
        code = status_name(status)
        if kind == "permanent":
            self._end(flight, Permanent(code))
            return
        flight.code = code
        flight.refusals += 1
        if kind == "throttled":
            self.pace.throttled(sent_s)
        elif kind == "connector":
            bind.leave(f"the carrier answers {code}")
        if kind != "throttled" and not flight.has_begun:
            self._end(flight, Temporary(code))
        else:
            self._try_later(flight, part, now_s)

    def on_doubt(self, token: _Token, why: str) -> None:
        """A part left us, and no answer that can be read came, or will come."""
        flight, _part, _sent_s = token
        flight.flying -= 1
        flight.doubt = flight.doubt or why
        flight.left -= 1
        if not flight.left and not flight.is_over:
            self._conclude(flight)

    def _conclude(self, flight: _Flight) -> None:
        """Tell the outcome of a delivery whose parts are all accepted or in doubt."""
        if flight.doubt:
            self._end(flight, Uncertain(flight.doubt))
            return
        key_of = self.translator.key_of
        if len(flight.ids) == 1:
            key = key_of(flight.ids[0])
            keys: tuple[str, ...] = (key,) if key else ()
        else:
            # A carrier that gives its parts one id sends one receipt; one without an id cannot be matched at all.
            keys = tuple(dict.fromkeys([key for key in map(key_of, flight.ids) if key]))
        flight.is_over = True
        flight.report(flight.outgoing, Sent(tuple(flight.ids), keys))

    def _try_later(self, flight: _Flight, part: int, now_s: float) -> None:
        """Keep a part for another try, or give its delivery up when that has gone on for too long."""
        flight.put_off_s = flight.put_off_s or now_s
        wait_s = min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** min(flight.refusals, 10)) * random.uniform(0.8, 1.2)  # noqa: S311
        if self._is_stopping or now_s + wait_s > flight.put_off_s + RETRY_FOR_S:
            self._give_up(flight)
            return
        heapq.heappush(self._put_off, (now_s + wait_s, next(self._numbers), flight, part))

    def _give_up(self, flight: _Flight) -> None:
        """End a delivery whose remaining parts cannot be sent from here."""
        code = flight.code or "link_down"
        if flight.accepted:
            self._end(flight, Permanent(code, "the carrier took a part of the message and not the rest"))
        elif flight.doubt or flight.flying:
            self._end(flight, Uncertain(flight.doubt or code))
        elif flight.code:
            self._end(flight, Throttled(code))
        else:
            self._end(flight, Temporary(code))

    def _end(self, flight: _Flight, failure: SendFailure) -> None:
        if not flight.is_over:
            flight.is_over = True
            flight.report(flight.outgoing, failure)

    def _give_back_unbegun(self, code: str) -> None:
        """Give back deliveries of which nothing has left, and keep the others waiting."""
        for queue in (self._urgent, self._bulk):
            kept = []
            for flight, part in queue:
                if flight.has_begun:
                    kept.append((flight, part))
                else:
                    self._end(flight, Temporary(code))
            queue.clear()
            queue.extend(kept)
        for _, _, flight, _ in self._put_off:
            if not flight.has_begun:
                self._end(flight, Temporary(flight.code or code))

    def _wait_for_bind(self, now_s: float) -> None:
        """There is no way out: only deliveries that have left in part wait for one, and those without hope do not."""
        self._give_back_unbegun("link_down")
        waiting = [*self._urgent, *self._bulk]
        self._urgent.clear()
        self._bulk.clear()
        for flight, part in waiting:
            if flight.is_over:
                continue
            if flight.doubt and not flight.flying:
                self._end(flight, Uncertain(flight.doubt))
            else:
                flight.code = flight.code or "link_down"
                self._try_later(flight, part, now_s)

    def _take_waiting(self) -> list[_Flight]:
        """Take everything that waits out of queues and heap."""
        waiting = [flight for flight, _ in (*self._urgent, *self._bulk)] + [flight for _, _, flight, _ in self._put_off]
        self._urgent.clear()
        self._bulk.clear()
        self._put_off.clear()
        return waiting

    # Binds

    async def _keep(self, mode: Mode) -> None:
        """Hold one bind: make it, wait until it ends, make it anew after a pause."""
        pause_s = RECONNECT_FIRST_S
        while not self._is_stopping:
            bind = await self._connect(mode)
            if bind is not None:
                try:
                    await asyncio.shield(bind.ended)
                finally:
                    bind.transport.abort()
                if bind.has_worked:
                    pause_s = RECONNECT_FIRST_S
            await self.rt.clock.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311
            pause_s = min(RECONNECT_LAST_S, pause_s * 2)

    async def _connect(self, mode: Mode) -> _Bind | None:
        """A connection on which the bind is under way, or None."""
        smpp = self.smpp
        bind = _Bind(self, mode)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: bind,
                    smpp.host,
                    smpp.port,
                    ssl=self.tls,
                    server_hostname=(smpp.tls_server_name or smpp.host) if self.tls is not None else None,
                )
        except TimeoutError:
            self.on_trouble(f"no connection within {CONNECT_S:.0f} s")
            return None
        except (OSError, UnicodeError) as error:  # ssl.SSLError is the one; the other is a host that is no name
            self.on_trouble(f"cannot connect: {getattr(error, 'strerror', None) or error}")
            return None
        self._open.add(bind)
        return bind

    def on_trouble(self, why: str) -> None:
        """Remember, and say once, why a bind is not there."""
        level = logging.DEBUG if why == self._trouble or self._is_stopping else logging.WARNING
        log.log(level, "a bind is down", extra={"connector": self.settings.name, "why": why})
        self._trouble = why

    def on_bound(self, bind: _Bind) -> None:
        """A bind is ready."""
        log.info("bound", extra={"connector": self.settings.name, "mode": bind.mode.value})
        self._binds.append(bind)
        self.answers_in_doubt()
        if len(self._binds) == self._wanted:
            self._trouble = "connecting"
        self.pump(self.ticks())
        self._wake()

    def on_gone(self, bind: _Bind, uncertain: list[_Token], unsent: list[_Token]) -> None:
        """The connection of a bind, or of one that was not bound yet, has ended."""
        self._open.discard(bind)
        if bind in self._binds:
            self._binds.remove(bind)
            self.answers_in_doubt()
        now_s = self.ticks()
        self.pace.lost(len(uncertain), now_s)
        for token in uncertain:
            self.on_doubt(token, "link_lost")
        if unsent:
            self.pace.answered(len(unsent), now_s)
            for flight, part, _ in reversed(unsent):
                flight.flying -= 1
                (self._bulk if flight.outgoing.priority else self._urgent).appendleft((flight, part))
        self.on_change(now_s)

    def answers_in_doubt(self) -> None:
        """From now on the carrier may repeat what it has delivered, for want of our answer."""
        self._answers_in_doubt_s = self.ticks()

    def on_change(self, now_s: float) -> None:
        """A bind has ceased to submit: the others take over, or there is none."""
        if self.is_up:
            self.pump(now_s)
        elif not self._live():
            self._wait_for_bind(now_s)
            if self._put_off:
                self._arm(now_s)
        self._wake()

    def on_answers(self, now_s: float) -> None:
        """There may be room: parts were answered, or are waited for no longer, or a line is free again."""
        self.pump(now_s)
        self._wake()

    def on_progress(self) -> None:
        """Something that `stop` may wait for has ended."""
        self._progress.set()

    def _wake(self) -> None:
        self._progress.set()
        for wake in self._wakes:
            wake()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until `condition` holds, but not longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._progress.clear()
                    await self._progress.wait()

    # In

    async def take_in(self, requests: Sequence[Request]) -> list[int]:
        """Settle the reports and take the messages that came together; the status to answer each with.

        When this returns what it says yes to is on disk. Raises `StoreAway`.
        """
        now_ms = self.rt.clock.now_ms()
        in_doubt = self.ticks() - self._answers_in_doubt_s < REPEAT_S
        reports: list[DeliveryReport] = []
        messages: list[InboundSms] = []
        for request in requests:
            pdu = request.pdu
            assert isinstance(pdu, _DELIVERED)
            if is_receipt(pdu):
                reports.append(self.translator.read_receipt(pdu, now_ms))
            else:
                messages.append(self.translator.read_message(pdu, now_ms, in_doubt))
        try:
            if reports:
                await settle(self.rt, reports)
            if messages:
                await receive(self.rt, messages)
        except StoreAway:
            raise
        except Exception:
            log.exception("what a carrier delivered could not be taken", extra={"connector": self.settings.name})
            if len(requests) == 1:
                return [_TRY_AGAIN]
            self.answers_in_doubt()  # some of them may be on disk
            # One of them spoils the others: each alone, so that only that one comes again.
            return [status for request in requests for status in await self.take_in([request])]
        return [_ROK] * len(requests)


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a bind is held no longer", exc_info=task.exception())


class _Bind(asyncio.Protocol):
    """One connection and its conversation."""

    def __init__(self, connector: SmppConnector, mode: Mode) -> None:
        smpp = connector.smpp
        self.mode = mode
        self.session = Session(
            SessionSettings(
                Role.ESME,
                window=smpp.window,
                response_timeout_s=smpp.response_timeout_s,
                enquire_interval_s=smpp.enquire_link_s,
            ),
            connector.ticks(),
        )
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended."""
        self.has_worked = False
        """Whether a part was accepted on it."""
        self.is_leaving = False
        self.may_submit = False
        self._connector = connector
        self._is_paused = False
        self._silent_submits = 0
        self._inbox: list[Request] = []
        self._taking: asyncio.Task[None] | None = None
        # Time-outs need no precision: a twentieth of the shortest of them, a second at most.
        self._tick_s = min(1.0, smpp.response_timeout_s / 20, smpp.enquire_link_s / 20)
        self._ticker: asyncio.TimerHandle | None = None

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bind at once."""
        self.transport = cast(asyncio.Transport, transport)
        smpp = self._connector.smpp
        pdu = _BIND_PDUS[self.mode](
            system_id=smpp.system_id,
            password=smpp.password,
            system_type=smpp.system_type,
            interface_version=_VERSIONS[smpp.interface_version],
            addr_ton=smpp.addr_ton,
            addr_npi=smpp.addr_npi,
            address_range=smpp.address_range,
        )
        self.session.bind(pdu, self._connector.ticks(), _BINDING)
        self.flush()
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Take what came: answers, reports, messages; then write what that made room for."""
        connector = self._connector
        now_s = connector.ticks()
        answered = 0
        last: Response | None = None
        for event in self.session.receive(data, now_s):
            if type(event) is Response:
                if event.token is _BINDING:
                    self._on_bind_response(event)
                else:
                    answered += 1
                    last = event
                    connector.on_response(self, event, now_s)
            elif type(event) is Request:
                if isinstance(event.pdu, _DELIVERED):
                    self._inbox.append(event)
            else:
                self._on_other(event, now_s)
        if last is not None:
            self._silent_submits = 0
            connector.pace.answered(answered, now_s)
            connector.rt.metrics.response_took(connector.settings.id, now_s - last.token[2])
        if self._inbox and self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_in())
        self._look(now_s)
        if answered:
            connector.on_answers(now_s)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what is still open."""
        self.may_submit = False
        if self._ticker is not None:
            self._ticker.cancel()
        if not self.is_leaving:
            why = "the carrier closed the connection" if exc is None else f"the connection broke: {exc}"
            self._connector.on_trouble(why)
        uncertain = self.session.lost()
        self._connector.on_gone(self, uncertain, self.session.unsent())
        self.ended.set_result(None)

    def pause_writing(self) -> None:
        """The line is slower than we are, or the carrier does not read: nothing more is submitted here until it does."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_paused = False
        self._connector.on_answers(self._connector.ticks())

    # What the connector calls

    @property
    def room(self) -> int:
        """How many more parts this bind takes now."""
        return 0 if self._is_paused else self.session.room

    @property
    def is_busy(self) -> bool:
        """Whether answers are outstanding, either way."""
        return bool(self.session.in_flight or self._taking is not None)

    def flush(self) -> None:
        """Write what the session has to say, in one go."""
        output = self.session.take_output()
        if output:
            self.transport.write(output)

    def leave(self, why: str, is_urgent: bool = False) -> None:
        """Submit nothing more; unbind when everything is answered, or at once if it `is_urgent`."""
        if not self.is_leaving:
            self.is_leaving = True
            self._connector.on_trouble(why)
        if is_urgent:
            self._unbind()
        self._look(self._connector.ticks())

    # Inside

    def _look(self, now_s: float) -> None:
        """See whether this bind may submit, and tell the connector when that ends."""
        state = self.session.state
        if self.is_leaving and not self.session.in_flight and state in _BOUND:
            self._unbind()
        could = self.may_submit
        self.may_submit = state in _MAY_SUBMIT and not self.is_leaving and not self.transport.is_closing()
        if could and not self.may_submit:
            self._connector.on_change(now_s)

    def _unbind(self) -> None:
        with suppress(WrongState):
            self.session.unbind(self._connector.ticks())
        self.flush()

    def _on_bind_response(self, event: Response) -> None:
        if event.status:
            self._fail(f"the bind was refused: {status_name(event.status)}")
            return
        self._look(self._connector.ticks())
        self._connector.on_bound(self)

    def _on_other(self, event: Event, now_s: float) -> None:
        """Everything that is neither an answer nor a request."""
        connector = self._connector
        if isinstance(event, TimedOut | Unreadable):
            if event.token is _BINDING:
                self._fail(
                    "the bind was not answered" if isinstance(event, TimedOut) else "the bind's answer is broken"
                )
                return
            connector.pace.answered(1, now_s)
            if isinstance(event, TimedOut):
                self._silent_submits += 1
                connector.on_doubt(event.token, "no_response")
            else:
                connector.on_doubt(event.token, "unreadable_response")
        elif isinstance(event, Closed):
            self._on_closed(event)
        else:
            # A response that came too late, or something that the session has refused already.
            log.debug("%s", type(event).__name__, extra={"connector": connector.settings.name})

    def _on_closed(self, event: Closed) -> None:
        if not self.is_leaving:
            self.is_leaving = True
            self._connector.on_trouble(f"the conversation ended: {event.reason.value}")
        self.flush()
        if event.reason in (CloseReason.SILENT, CloseReason.UNBIND_TIMED_OUT):
            self.transport.abort()
        else:
            self.transport.close()
            # A peer that does not read would keep the connection from closing.
            asyncio.get_running_loop().call_later(LEAVE_S, self.transport.abort)

    def _fail(self, why: str) -> None:
        self.is_leaving = True
        self._connector.on_trouble(why)
        self.transport.abort()

    def _tick(self) -> None:
        now_s = self._connector.ticks()
        if self.session.next_tick <= now_s:
            in_flight = self.session.in_flight
            for event in self.session.tick(now_s):
                self._on_other(event, now_s)
            if self._silent_submits >= SILENT_SUBMITS and not self.is_leaving:
                self.leave(f"{self._silent_submits} submits had no response")
            self._look(now_s)
            if self.session.in_flight < in_flight:
                self._connector.on_answers(now_s)
            self.flush()
        if not self.transport.is_closing():
            self._ticker = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    async def _take_in(self) -> None:
        """Settle what came, batch after batch, and answer each batch in one write once it is on disk."""
        wait_s = STORE_AWAY_FIRST_S
        batch: list[Request] = []
        begun_s = 0.0
        try:
            while (batch or self._inbox) and not self.transport.is_closing():
                if not batch:
                    batch, self._inbox = self._inbox, []
                    begun_s = self._connector.ticks()
                try:
                    statuses = await self._connector.take_in(batch)
                except StoreAway as error:
                    # The carrier waits for its answers, and once its window is full delivers nothing more.
                    log.warning("the store is away; reports wait", extra={"count": len(batch), "why": str(error)})
                    self._connector.answers_in_doubt()
                    await self._connector.rt.clock.sleep(wait_s)
                    wait_s = min(STORE_AWAY_LAST_S, wait_s * 2)
                    continue
                wait_s = STORE_AWAY_FIRST_S
                for request, status in zip(batch, statuses, strict=True):
                    self.session.respond(request.sequence, status)
                batch = []
                if self._connector.ticks() - begun_s > ANSWER_LATE_S:
                    self._connector.answers_in_doubt()
                if failpoint.armed:
                    failpoint.hit("smpp.deliver.before_response")
                self.flush()
                if failpoint.armed:
                    failpoint.hit("smpp.deliver.after_response")
        finally:
            self._taking = None
            self._connector.on_progress()
