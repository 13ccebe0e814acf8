"""One customer's connection: bytes to the engine, its events to the verbs, and the answers back in one write a read.

All submits of one read are accepted side by side, so that they share one commit, and are answered together when it is
on disk.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from berid.dialects.smpp.asked import cancel_message, query_message
from berid.dialects.smpp.codes import status_of
from berid.dialects.smpp.outlet import Outlet, Sending
from berid.dialects.smpp.submit import Unfit, read_multi, read_submit, unsuccessful
from berid.domain.account import Caller
from berid.domain.errors import Refused
from berid.domain.message import Accepted, Submission
from berid.flow.accept import accept
from berid.store.hot import StoreAway
from berid.wire.smpp.codes import INTERFACE_VERSION_34, CommandStatus, Tag
from berid.wire.smpp.pdu import (
    Address,
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    CancelSm,
    CancelSmResp,
    DataSm,
    DeliverSm,
    Pdu,
    QuerySm,
    SubmitMulti,
    SubmitMultiResp,
    SubmitSm,
    Unsuccessful,
    put_uint,
)
from berid.wire.smpp.session import (
    Closed,
    Event,
    Request,
    Response,
    Role,
    Session,
    SessionSettings,
    State,
    TimedOut,
    Unreadable,
)

if TYPE_CHECKING:
    from berid.dialects.smpp.server import Server

log = logging.getLogger("berid.smpp")

RESPONSE_TIMEOUT_S = 20.0
"""How long a customer may take to answer a receipt. Its job is leased for longer than it waits here and for this."""

ENQUIRE_S = 30.0
"""A bind that says nothing for so long is asked whether it is there; without an answer it is closed."""

BIND_TIMEOUT_S = 10.0
"""How long a connection may stand without a bind."""

SYSTEM_ID = "berid"
"""What we call ourselves in a bind's answer."""

_RESPONSES = {
    BindReceiver: BindReceiverResp,
    BindTransmitter: BindTransmitterResp,
    BindTransceiver: BindTransceiverResp,
}
_SUBMITS = frozenset((SubmitSm, DataSm, SubmitMulti))
_BOUND = frozenset((State.BOUND_TX, State.BOUND_RX, State.BOUND_TRX))

_Submit = SubmitSm | DataSm | SubmitMulti


class _Asked:
    """One submit on its way through `accept`; the last two are of a submit_multi."""

    __slots__ = ("failed", "pdu", "sequence", "submission", "written")

    def __init__(
        self,
        sequence: int,
        pdu: _Submit,
        submission: Submission,
        failed: Sequence[Unsuccessful] = (),
        written: dict[str, list[Address]] | None = None,
    ) -> None:
        self.sequence = sequence
        self.pdu = pdu
        self.submission = submission
        self.failed = failed
        self.written = written or {}


class Bind(asyncio.Protocol):
    """A connection from its first byte to its last; bound as `caller` once that is not None."""

    def __init__(self, server: Server) -> None:
        rt = server.rt
        self._server = server
        self._clock = rt.clock
        window = rt.config.smpp.window
        settings = SessionSettings(
            Role.SMSC,
            window=window,
            max_unanswered=window,
            response_timeout_s=RESPONSE_TIMEOUT_S,
            enquire_interval_s=ENQUIRE_S,
            bind_timeout_s=BIND_TIMEOUT_S,
        )
        self.session = Session(settings, rt.clock.ticks_s())
        self.caller: Caller | None = None
        self.address = ""
        self.account_id = 0
        """Whose limit this bind counts against; 0 before it has shown a password."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the connection is gone."""
        self._transport: asyncio.Transport | None = None
        self._outlet: Outlet | None = None
        self._knows_tlvs = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewell: CommandStatus | None = None
        self._calm: asyncio.Event | None = None

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol.connection_made`."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]).partition("%")[0] if peer else ""
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._server.welcome(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        server = self._server
        server.follow_directory()
        now_s = self._clock.ticks_s()
        submits: list[Request] = []
        has_room = False
        for event in self.session.receive(data, now_s):
            if type(event) is Request:
                if type(event.pdu) in _SUBMITS:
                    submits.append(event)
                else:
                    self._on_request(event.sequence, event.pdu)
            else:
                has_room = self._on_event(event) or has_room
        if submits:
            self._take(submits)
        self.flush()
        if has_room and self._outlet is not None:
            self._outlet.pump()
        self._see_calm()

    def pause_writing(self) -> None:
        """Called when the customer does not read what we write: then we do not read either, which bounds our memory."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called when he reads again."""
        assert self._transport is not None
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol.connection_lost`. What was accepted stays so, answered or not."""
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.remove(self)
        for sending in cast("list[Sending]", [*self.session.lost(), *self.session.unsent()]):
            sending.settle("the bind was lost before the answer came")
        self._server.forget(self)
        if self.caller is not None:
            login = self.caller.token.login
            log.info("unbound", extra={"login": login, "address": self.address, "why": str(exc or "closed")})
        if not self.ended.done():
            self.ended.set_result(None)
        self._see_calm()

    # What the server asks of it

    @property
    def is_receiver(self) -> bool:
        """Whether it can be sent receipts now."""
        return (
            self._farewell is None
            and self.caller is not None
            and self.session.state in (State.BOUND_RX, State.BOUND_TRX)
        )

    def flush(self) -> None:
        """Write what the engine has for the customer, at once."""
        output = self.session.take_output()
        if output and self._transport is not None:
            self._transport.write(output)

    def tick(self, now_s: float) -> None:
        """Do what time asks for."""
        has_room = False
        for event in self.session.tick(now_s):
            has_room = self._on_event(event) or has_room
        self.flush()
        if has_room and self._outlet is not None:
            self._outlet.pump()
        self._see_calm()

    @property
    def is_leaving(self) -> bool:
        """Whether it takes nothing more."""
        return self._farewell is not None

    def take_no_more(self, status: CommandStatus) -> None:
        """From now on refuse what is submitted, with `status`, and send no more receipts; `leave` is to follow."""
        self._farewell = status
        if self._outlet is not None:
            self._outlet.remove(self)

    async def leave(self, patience_s: float) -> None:
        """Unbind in good order: what was submitted is answered, receipts under way are waited for, then the customer's
        answer to our unbind; each for no longer than `patience_s`."""
        self._calm = asyncio.Event()
        self._see_calm()
        await _within(patience_s, self._calm.wait())
        if self.session.state in _BOUND:
            self.session.unbind(self._clock.ticks_s())
            self.flush()
            await _within(patience_s, asyncio.shield(self.ended))
        if self._transport is not None and not self.ended.done():
            self._transport.close()
            await _within(patience_s, asyncio.shield(self.ended))
            self._transport.abort()
            await self.ended

    # Inside

    def _see_calm(self) -> None:
        if self._calm is not None and not self._tasks and not self.session.in_flight:
            self._calm.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a request of a bind failed", exc_info=task.exception())
        self._see_calm()

    def _on_event(self, event: Event) -> bool:
        """Everything that is not a request; True if the window may have got room."""
        if type(event) is Response:
            cast("Sending", event.token).answered(event.status)
            return True
        if isinstance(event, TimedOut | Unreadable):
            cast("Sending", event.token).settle("the answer did not come, or could not be read")
            return True
        if isinstance(event, Closed):
            self.flush()
            if self._transport is not None:
                self._transport.close()
        return False

    def _on_request(self, sequence: int, pdu: Pdu) -> None:
        if isinstance(pdu, BindReceiver | BindTransmitter | BindTransceiver):
            self._spawn(self._bind(sequence, pdu))
        elif isinstance(pdu, QuerySm):
            self._spawn(self._query(sequence, pdu))
        elif isinstance(pdu, CancelSm):
            self._spawn(self._cancel(sequence, pdu))
        else:
            # replace_sm is all that is left: an accepted message is not changed any more.
            self.session.respond(sequence, CommandStatus.ESME_RREPLACEFAIL)

    async def _bind(self, sequence: int, pdu: BindReceiver | BindTransmitter | BindTransceiver) -> None:
        status, caller = await self._server.admit(self, pdu)
        if caller is None:
            self.session.respond(sequence, status)
            self.flush()
            return
        self._knows_tlvs = pdu.interface_version >= INTERFACE_VERSION_34
        tlvs: dict[int, bytes] = {}
        if self._knows_tlvs:
            put_uint(tlvs, Tag.SC_INTERFACE_VERSION, INTERFACE_VERSION_34)
        if self._farewell is not None or not self.session.respond_with(
            sequence, _RESPONSES[type(pdu)](SYSTEM_ID, tlvs)
        ):
            return
        self.caller = caller
        self.flush()
        kind = self.session.state.value
        log.info("bound", extra={"login": caller.token.login, "address": self.address, "as": kind})
        if self.is_receiver:
            self._outlet = self._server.open_outlet(self, caller)

    def fit(self, pdu: Pdu) -> Pdu:
        """The PDU as this customer can read it: one who bound with a version before 3.4 gets no optional parameters (section
        3.4.2), unless one holds the whole text."""
        if self._knows_tlvs or not (isinstance(pdu, DeliverSm) and pdu.short_message):
            return pdu
        return msgspec.structs.replace(pdu, tlvs={})

    def _take(self, requests: Sequence[Request]) -> None:
        """Read the submits of one read, and send what can be read on its way."""
        caller, server = self.caller, self._server
        status = self._farewell or (CommandStatus.ESME_RINVBNDSTS if caller is None else None)
        if status is not None or caller is None:
            for request in requests:
                self.session.respond(request.sequence, status or CommandStatus.ESME_RINVBNDSTS)
            return
        home = caller.account.home
        has_otp = "otp" in caller.application.services
        now_ms = self._clock.now_ms()
        asked: list[_Asked] = []
        for request in requests:
            pdu = request.pdu
            try:
                if isinstance(pdu, SubmitMulti):
                    asked.append(_Asked(request.sequence, pdu, *read_multi(pdu, home, now_ms, has_otp)))
                else:
                    submit = cast("SubmitSm | DataSm", pdu)
                    asked.append(_Asked(request.sequence, submit, read_submit(submit, home, now_ms, has_otp)))
            except Unfit as unfit:
                server.rt.metrics.refused(unfit.kind.value, caller.dialect)
                self.session.respond(request.sequence, unfit.status)
        if asked:
            self._spawn(self._accept(caller, asked))

    async def _accept(self, caller: Caller, asked: list[_Asked]) -> None:
        rt = self._server.rt
        outcomes: Sequence[Accepted | BaseException]
        if len(asked) == 1:  # most reads of a customer who has little to say; another task would cost as much again
            try:
                outcomes = [await accept(rt, caller, asked[0].submission)]
            except Exception as error:
                outcomes = [error]
        else:
            works = [accept(rt, caller, each.submission) for each in asked]
            outcomes = await asyncio.gather(*works, return_exceptions=True)
        for each, outcome in zip(asked, outcomes, strict=True):
            self._answer(each, outcome)
        self.flush()

    def _answer(self, asked: _Asked, outcome: Accepted | BaseException) -> None:
        session, sequence = self.session, asked.sequence
        if isinstance(outcome, Accepted):
            if isinstance(asked.pdu, SubmitMulti):
                session.respond_with(sequence, _multi_response(asked, outcome))
            else:
                session.respond(sequence, 0, str(outcome.deliveries[0].id))
        elif isinstance(outcome, Refused):
            session.respond(sequence, status_of(outcome.refusals))
        else:
            if not isinstance(outcome, StoreAway):
                log.error("a submit failed", exc_info=outcome)
            session.respond(sequence, CommandStatus.ESME_RSYSERR)

    async def _query(self, sequence: int, pdu: QuerySm) -> None:
        await self._ask(sequence, lambda caller: query_message(self._server.rt, caller, pdu))

    async def _cancel(self, sequence: int, pdu: CancelSm) -> None:
        async def work(caller: Caller) -> CancelSmResp:
            await cancel_message(self._server.rt, caller, pdu)
            return CancelSmResp()

        await self._ask(sequence, work)

    async def _ask(self, sequence: int, work: Callable[[Caller], Coroutine[Any, Any, Pdu]]) -> None:
        """Answer a question about an accepted message with what `work` gives, or with its refusal."""
        caller = self.caller
        if caller is None or self._farewell is not None:
            self.session.respond(sequence, self._farewell or CommandStatus.ESME_RINVBNDSTS)
        else:
            try:
                self.session.respond_with(sequence, await work(caller))
            except Unfit as unfit:
                self.session.respond(sequence, unfit.status)
            except Refused as refused:
                self.session.respond(sequence, status_of(refused.refusals))
            except StoreAway:
                self.session.respond(sequence, CommandStatus.ESME_RSYSERR)
        self.flush()


def _multi_response(asked: _Asked, accepted: Accepted) -> SubmitMultiResp:
    failed = [
        *asked.failed,
        *(unsuccessful(asked.written[number].pop(), refusal.kind) for number, refusal in accepted.refused),
    ]
    return SubmitMultiResp(str(accepted.message_id), tuple(failed))


async def _within(seconds: float, wait: Any) -> None:
    """Wait for something, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return
