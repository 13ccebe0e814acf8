"""The fake carrier: a real SMPP server whose handsets exist only here. It serves the demo and the tests.

    carrier = Carrier(CarrierSettings(accounts={"berid": "secret"}))
    await carrier.start()
    ...                                  # bind to carrier.port, submit
    await carrier.until(lambda: carrier.messages_to("966501234567"))
    carrier.send_mo("966501234567", "BERID", "STOP")
    await carrier.stop()

How it treats a message depends on the last four digits of the number, in any country: see `MOODS`. Any other
number takes its message and reports DELIVRD after `receipt_delay_s`.

It behaves as carriers do where that is unpleasant: what it has to deliver (receipts, messages from handsets)
waits until a receiver is bound, and what was not answered when a link ended is delivered again on the next.
What it holds outlives `stop` and comes back with the next `start`; a new object begins with nothing.
"""

import asyncio
import heapq
import logging
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec

from berid.base import text as texts
from berid.base.clock import Clock, SystemClock
from berid.wire.smpp import receipt
from berid.wire.smpp.codes import (
    CommandId,
    CommandStatus,
    EsmClass,
    MessageState,
    RegisteredDelivery,
    Tag,
    TypeOfNumber,
)
from berid.wire.smpp.pdu import (
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    DataSm,
    DeliverSm,
    EncodeError,
    SubmitSm,
    put_uint,
)
from berid.wire.smpp.receipt import IdForm
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
from berid.wire.smpp.udh import Content, HeaderError, read_content

_log = logging.getLogger(__name__)

REPLY_AFTER_S = 0.5
"""How long after delivery the owner of a handset answers (moods 0007 and 0008)."""
RESPONSE_AFTER_RECEIPT_S = 0.3
"""How long the response is held back when the receipt goes first (mood 0013)."""
RETRY_AFTER_S = 1.0
"""When a deliver_sm is tried again that was refused for now, or had no room."""
STOP_PATIENCE_S = 1.0
"""How long `stop` waits for connections to end by themselves; the far side may not be reading."""

# Plain numbers for what is looked at with every message: an IntFlag makes a new member for each "&".
_UDHI = int(EsmClass.UDHI)
_RECEIPT = int(EsmClass.TYPE_RECEIPT)
_RECEIPT_MASK = int(RegisteredDelivery.RECEIPT_MASK)
_INTERMEDIATE = int(RegisteredDelivery.INTERMEDIATE)
_USER_MESSAGE_REFERENCE = int(Tag.USER_MESSAGE_REFERENCE)

_TICKS_PER_S = 100
"""Everything that is due in the same hundredth of a second is done at once, with one write for each link."""
_HALF_DONE = 1_000
"""How many messages may miss parts, and how many submits are remembered for moods 0015 and 0016."""
_NEVER_ANSWERED = 100_000
"""How many submits of one link may wait for a response; mood 0010 leaves every one of its own waiting."""
_TEMPORARY = frozenset(
    int(status)
    for status in (
        CommandStatus.ESME_RSYSERR,
        CommandStatus.ESME_RMSGQFUL,
        CommandStatus.ESME_RTHROTTLED,
        CommandStatus.ESME_RX_T_APPN,
    )
)
"""Answers to a deliver_sm after which a carrier tries again. After any other no it gives up."""

OPT_OUT_WORDS = {"90": "RET", "966": "إيقاف"}
"""What the owner of a handset writes to be left alone, by country; elsewhere STOP."""


@dataclass(frozen=True, slots=True)
class Mood:
    """How one kind of number behaves."""

    about: str
    """One line for people."""
    status: int = 0
    """Status of the submit response."""
    is_answered: bool = True
    state: MessageState | None = MessageState.DELIVERED
    """What the receipt says; None: there is never a receipt."""
    error: int = 0
    """The network's error code in the receipt."""
    after_s: float | None = None
    """Time from response to receipt; None: as set for the carrier."""
    receipts: int = 1
    receipt_goes_first: bool = False
    is_other_id_form: bool = False
    throttled_times: int = 0
    """How often the same submit is throttled before it is taken."""
    drops_link: bool = False
    """The link ends when this submit is first seen, without a response; the message is taken all the same."""
    reply: str = ""
    """What the owner writes back."""
    opts_out: bool = False
    """The owner writes back the opt-out word of the country."""


_ABSENT = 27  # absent subscriber, 3GPP TS 29.002 section 17.6.6
_UNKNOWN_SUBSCRIBER = 1

PLAIN = Mood("Accepted, and delivered within a second.")

MOODS: Mapping[str, Mood] = {
    "0002": Mood("The submit is refused: invalid destination.", status=CommandStatus.ESME_RINVDSTADR),
    "0006": Mood("Delivered after 60 seconds.", after_s=60.0),
    "0007": Mood("Delivered, then the owner answers OK.", reply="OK"),
    "0008": Mood("Delivered, then the owner opts out, in the words of the country.", opts_out=True),
    "0010": Mood("No response to the submit, ever, and nothing after it.", is_answered=False, state=None),
    "0011": Mood("Accepted and delivered, but never a receipt.", state=None),
    "0012": Mood("The receipt comes three times.", receipts=3),
    "0013": Mood("The receipt comes before the response.", receipt_goes_first=True),
    "0014": Mood("The receipt writes the id in another form than the response.", is_other_id_form=True),
    "0015": Mood("Throttled three times, then accepted.", throttled_times=3),
    "0016": Mood("The link drops after the bytes of the submit; the message is taken.", drops_link=True),
    "0022": Mood("Not delivered.", state=MessageState.UNDELIVERABLE, error=_UNKNOWN_SUBSCRIBER),
    "0023": Mood("Out of coverage, then delivered after 90 seconds.", after_s=90.0, error=_ABSENT),
    "0024": Mood("Expired before it could be delivered.", state=MessageState.EXPIRED, error=_ABSENT),
}
"""Moods by the last four digits of the destination."""


@dataclass(frozen=True, slots=True)
class CarrierSettings:
    """How the carrier behaves towards everyone."""

    accounts: Mapping[str, str] = field(default_factory=dict)
    """Passwords by system_id. Empty: anyone may bind."""
    system_id: str = "carrier"
    """Its own name, in bind responses."""
    response_delay_s: float = 0.0
    receipt_delay_s: float = 0.2
    """From response to receipt, where the mood has no time of its own."""
    id_form: IdForm = IdForm.HEX
    """How responses write message ids: HEX or DECIMAL. In HEX there is always a letter in them."""
    receipt_id_form: IdForm = IdForm.HEX
    """How receipts write them. Mood 0014 takes the other one of the two."""
    has_text_receipts: bool = True
    """Receipts say it in their text."""
    has_tlv_receipts: bool = True
    """Receipts say it in optional parameters."""
    rate_per_s: float = 0.0
    """Submits per second and account; what is above is throttled. 0: no limit."""
    window: int = 100
    """Most deliver_sm without an answer on one link."""
    answer_timeout_s: float = 30.0
    """How long a deliver_sm may go without an answer before it is delivered again."""
    log_size: int = 10_000
    """How many submits, and how many messages, are remembered; the oldest go first."""
    kept: int = 100_000
    """How many deliver_sm wait for a receiver of one account; the oldest go first."""


class Submitted(msgspec.Struct, gc=False):
    """One submit_sm as it came in; or a data_sm, which is treated the same."""

    at_ms: int
    system_id: str
    pdu: SubmitSm | DataSm
    status: int | None = None
    """Of the response; None as long as there is none."""
    message_id: str = ""
    """As the response writes it."""
    number: int = 0
    """The message id as a number."""


class HandsetMessage(msgspec.Struct, gc=False):
    """A whole message on a handset: its parts are together."""

    at_ms: int
    """When the last part arrived."""
    parts: tuple[Submitted, ...]
    """In their order in the text."""

    @property
    def system_id(self) -> str:
        """Whose message it is."""
        return self.parts[0].system_id

    @property
    def sender(self) -> str:
        """Whom the handset names as the sender."""
        return self.parts[0].pdu.source_addr

    @property
    def number(self) -> str:
        """The handset's number, as it was submitted."""
        return self.parts[0].pdu.destination_addr

    @property
    def text(self) -> str:
        """What the handset shows."""
        return "".join([_text_of(part.pdu) for part in self.parts])


class Binds(NamedTuple):
    """How many binds one system_id has now, and the most it ever had at once."""

    now: int
    most: int


@dataclass(slots=True)
class Counters:
    """What has happened since the object was made."""

    submits: int = 0
    """submit_sm and data_sm seen, refused ones and repetitions included."""
    accepted: int = 0
    refused: int = 0
    throttled: int = 0
    arrived: int = 0
    """Parts that reached a handset."""
    receipts: int = 0
    """Receipts made, each repetition of mood 0012 included, redelivery not."""
    mos: int = 0
    """Parts of messages from handsets."""
    answered: int = 0
    """deliver_sm answered with yes."""
    repeated: int = 0
    """deliver_sm put back to be delivered again."""
    dropped: int = 0
    """deliver_sm given up: refused for good, too many waiting, or an address too long for it."""


class _Account:
    """What belongs to one system_id: its links and what waits for them."""

    __slots__ = ("allowance", "links", "most_links", "outbox", "refilled_at", "system_id", "turn")

    def __init__(self, system_id: str, kept: int, now: float, rate_per_s: float) -> None:
        self.system_id = system_id
        self.links: list[_Link] = []
        self.most_links = 0
        self.outbox: deque[DeliverSm] = deque(maxlen=kept)
        self.turn = 0
        self.allowance = rate_per_s
        self.refilled_at = now

    def may_submit(self, now: float, rate_per_s: float) -> bool:
        """Take one submit out of the allowance of a second; False if it is used up."""
        self.allowance = min(rate_per_s, self.allowance + (now - self.refilled_at) * rate_per_s)
        self.refilled_at = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


class Carrier:
    """An SMPP server with handsets behind it. See the module's text.

    `clock` is what every delay runs by; `on_message` is called with each message that reaches a handset.
    """

    def __init__(
        self,
        settings: CarrierSettings | None = None,
        clock: Clock | None = None,
        on_message: Callable[[HandsetMessage], None] | None = None,
    ) -> None:
        self.settings = settings or CarrierSettings()
        self.counters = Counters()
        self.submits: deque[Submitted] = deque(maxlen=self.settings.log_size)
        """What was submitted, oldest first."""
        self.messages: deque[HandsetMessage] = deque(maxlen=self.settings.log_size)
        """What reached handsets, oldest first."""
        self.port = 0
        """Where it listens, while it does."""
        self._clock = clock or SystemClock()
        self._on_message = on_message
        self._accounts: dict[str, _Account] = {}
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._half_done: OrderedDict[tuple[object, ...], dict[int, Submitted]] = OrderedDict()
        self._sightings: OrderedDict[tuple[object, ...], int] = OrderedDict()
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        # Ids go on from the time, so that a restarted carrier never gives one out again; the A in front puts
        # a letter in every hexadecimal id, so that the two forms cannot be taken for each other.
        self._last_number = (0xA << 68) | (self._clock.now_ms() << 24)
        self._last_reference = 0
        # What is due, by hundredth of a second: one entry in the heap for each, however much is due in it. A
        # message that is to arrive stands there by itself, anything else as a function with its arguments.
        self._due: dict[int, list[Submitted | tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        self._due_ticks: list[int] = []
        self._sleeping_until = 0
        self._wake = asyncio.Event()
        self._timers: asyncio.Task[None] | None = None

    # What tests and pages use

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen; `port` 0 takes a free one, which is then in `self.port`. Raises OSError if it is taken."""
        assert self._server is None, "started already"
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), host, port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self._timers = asyncio.create_task(self._run_timers())

    async def stop(self) -> None:
        """Unbind and close every link, and stop listening. What waits to be delivered is kept for the next `start`."""
        if self._server is None or self._timers is None:
            return
        self._server.close()
        for link in list(self._links):
            link.leave(self._clock.ticks_s())
        with suppress(TimeoutError):
            await self.until(lambda: not self._links, STOP_PATIENCE_S)
        for link in list(self._links):
            link.transport.abort()
        await self._server.wait_closed()
        self._server = None
        self.port = 0
        self._timers.cancel()
        with suppress(asyncio.CancelledError):
            await self._timers
        self._timers = None

    @property
    def binds(self) -> dict[str, Binds]:
        """Binds by system_id."""
        return {name: Binds(len(account.links), account.most_links) for name, account in self._accounts.items()}

    def submits_to(self, number: str) -> list[Submitted]:
        """What was submitted to a number, refused or not, oldest first."""
        return [submitted for submitted in self.submits if submitted.pdu.destination_addr == number]

    def messages_to(self, number: str) -> list[HandsetMessage]:
        """What reached the handset of a number, oldest first."""
        return [message for message in self.messages if message.number == number]

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait until `condition` holds; it is looked at whenever something has happened here.

        `timeout_s` runs by the event loop, not by the carrier's clock. Raises TimeoutError.
        """
        if condition():
            return
        entry = (condition, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await entry[1]
        finally:
            self._waiting.remove(entry)

    def send_mo(self, sender: str, to: str, text: str, system_id: str | None = None) -> None:
        """Send a message from a handset to `to`, in as many parts as it takes; GSM alphabet if it can, else UCS-2.

        It goes to a receiver of `system_id`, or waits for one. Without `system_id` there must be one account only.
        Raises ValueError if there are several or none, or if the text cannot be sent.
        """
        if system_id is None:
            names = set(self.settings.accounts) | set(self._accounts)
            if len(names) != 1:
                raise ValueError(f"which account? There are {len(names)}")
            (system_id,) = names
        account = self._account(system_id)
        self._last_reference = (self._last_reference + 1) % 256
        encoding = texts.analyse(text)
        for part in texts.encode_parts(text, encoding, self._last_reference):
            self.counters.mos += 1
            self._put(
                account,
                DeliverSm(
                    source_addr_ton=TypeOfNumber.INTERNATIONAL,
                    source_addr_npi=1,
                    source_addr=sender,
                    dest_addr_ton=TypeOfNumber.UNKNOWN if to.isdigit() else TypeOfNumber.ALPHANUMERIC,
                    dest_addr_npi=1 if to.isdigit() else 0,
                    destination_addr=to,
                    esm_class=int(EsmClass.UDHI) if part.udh else 0,
                    data_coding=part.data_coding,
                    short_message=part.udh + part.data,
                ),
            )
        self._flush(account, self._clock.ticks_s())

    # What links tell

    def _on_data(self, link: "_Link", data: bytes) -> None:
        """Take what a link has read."""
        now = self._clock.ticks_s()
        self._handle(link, link.session.receive(data, now), now)
        self._look()

    def _on_lost(self, link: "_Link") -> None:
        """Take back what a link had not delivered when it ended."""
        self._links.discard(link)
        account = link.account
        if account is not None:
            with suppress(ValueError):
                account.links.remove(link)
            again = cast(list[DeliverSm], link.session.lost() + link.session.unsent())
            self.counters.repeated += len(again)
            self._put_back(account, again)
            self._flush(account, self._clock.ticks_s())
        self._look()

    def _handle(self, link: "_Link", events: list[Event], now: float) -> None:
        for event in events:
            kind = type(event)
            if kind is Request:
                if not link.is_gone:
                    self._on_request(link, cast(Request, event), now)
            elif kind is Response:
                self._on_answer(link, cast(Response, event))
            elif kind is TimedOut or kind is Unreadable:
                token = cast(TimedOut | Unreadable, event).token
                self.counters.repeated += 1
                assert link.account is not None
                self._put_back(link.account, [cast(DeliverSm, token)])
            elif kind is Closed:
                link.write()
                if cast(Closed, event).reason is CloseReason.SILENT:
                    link.drop()  # nobody would read what close() first tries to write
                else:
                    link.transport.close()
        if link.account is not None:
            self._flush(link.account, now)
        link.write()

    def _on_request(self, link: "_Link", request: Request, now: float) -> None:
        pdu = request.pdu
        if isinstance(pdu, SubmitSm | DataSm):
            self._on_submit(link, request.sequence, pdu, now)
        elif isinstance(pdu, BindTransceiver | BindReceiver | BindTransmitter):
            self._on_bind(link, request.sequence, pdu)
        else:
            link.session.respond(request.sequence, _REFUSALS[pdu.command_id])

    def _on_bind(self, link: "_Link", sequence: int, pdu: BindTransceiver | BindReceiver | BindTransmitter) -> None:
        accounts = self.settings.accounts
        if accounts and pdu.system_id not in accounts:
            link.session.respond(sequence, CommandStatus.ESME_RINVSYSID)
            return
        if accounts and pdu.password != accounts[pdu.system_id]:
            link.session.respond(sequence, CommandStatus.ESME_RINVPASWD)
            return
        tlvs: dict[int, bytes] = {}
        put_uint(tlvs, Tag.SC_INTERFACE_VERSION, 0x34)
        link.session.respond_with(sequence, _BIND_RESPONSES[pdu.command_id](self.settings.system_id, tlvs))
        account = self._account(pdu.system_id)
        link.account = account
        account.links.append(link)
        account.most_links = max(account.most_links, len(account.links))

    def _on_answer(self, link: "_Link", response: Response) -> None:
        if response.status == 0:
            self.counters.answered += 1
        elif response.status in _TEMPORARY:
            account = link.account
            assert account is not None
            self.counters.repeated += 1
            pdu = cast(DeliverSm, response.token)
            self._after(RETRY_AFTER_S, (self._put_back, (account, [pdu])))
        else:
            self.counters.dropped += 1

    # From submit to handset

    def _on_submit(self, link: "_Link", sequence: int, pdu: SubmitSm | DataSm, now: float) -> None:
        counters = self.counters
        settings = self.settings
        account = link.account
        assert account is not None
        counters.submits += 1
        submitted = Submitted(self._clock.now_ms(), account.system_id, pdu)
        self.submits.append(submitted)
        mood = MOODS.get(pdu.destination_addr[-4:], PLAIN)
        sightings = self._sighted(pdu) if mood.throttled_times or mood.drops_link else 0
        is_over_rate = settings.rate_per_s > 0 and not account.may_submit(now, settings.rate_per_s)
        if is_over_rate or sightings < mood.throttled_times:
            counters.throttled += 1
            submitted.status = int(CommandStatus.ESME_RTHROTTLED)
            link.session.respond(sequence, submitted.status)
            return
        if mood.status:
            counters.refused += 1
            submitted.status = mood.status
            link.session.respond(sequence, mood.status)
            return
        if not mood.is_answered:
            return
        self._forget_sightings(pdu, mood, sightings)
        counters.accepted += 1
        self._last_number += 1
        submitted.number = self._last_number
        submitted.message_id = _written(submitted.number, settings.id_form)
        wait_s = settings.response_delay_s
        if mood.receipt_goes_first:
            self._arrive(submitted)
            wait_s += RESPONSE_AFTER_RECEIPT_S
        else:
            after_s = settings.receipt_delay_s if mood.after_s is None else mood.after_s
            self._at(now + wait_s + after_s, submitted)
            if mood.error and mood.state is MessageState.DELIVERED and pdu.registered_delivery & _INTERMEDIATE:
                self._at(now + wait_s + settings.receipt_delay_s, (self._report_absence, (submitted,)))
        if mood.drops_link and sightings == 0:
            link.drop()
        elif wait_s:
            self._at(now + wait_s, (self._respond, (link, sequence, submitted)))
        else:
            submitted.status = 0
            link.session.respond(sequence, 0, submitted.message_id)

    def _sighted(self, pdu: SubmitSm | DataSm) -> int:
        """How often this very submit was seen before."""
        key = (pdu.source_addr, pdu.destination_addr, pdu.content)
        sightings = self._sightings.get(key, 0)
        self._sightings[key] = sightings + 1
        if len(self._sightings) > _HALF_DONE:
            self._sightings.popitem(last=False)
        return sightings

    def _forget_sightings(self, pdu: SubmitSm | DataSm, mood: Mood, sightings: int) -> None:
        """After the mood has had its way, the same text is treated as new again."""
        if sightings and sightings >= mood.throttled_times:
            self._sightings.pop((pdu.source_addr, pdu.destination_addr, pdu.content), None)

    def _respond(self, link: "_Link", sequence: int, submitted: Submitted) -> None:
        if link.session.respond(sequence, 0, submitted.message_id):
            submitted.status = 0

    def _arrive(self, submitted: Submitted) -> None:
        """Bring a message to its handset, or not, and report what the submit asked for."""
        pdu = submitted.pdu
        mood = MOODS.get(pdu.destination_addr[-4:], PLAIN)
        state = mood.state
        if state is None or state is MessageState.DELIVERED:
            self.counters.arrived += 1
            self._show(submitted)
        if state is not None and _wants_receipt(pdu, state):
            error = 0 if state is MessageState.DELIVERED else mood.error
            for _ in range(mood.receipts):
                self._report(submitted, mood, state, error, _RECEIPT)
        if mood.reply or mood.opts_out:
            reply = mood.reply or _opt_out_word(pdu.destination_addr)
            arguments = (pdu.destination_addr, pdu.source_addr, reply, submitted.system_id)
            self._after(REPLY_AFTER_S, (self.send_mo, arguments))

    def _report_absence(self, submitted: Submitted) -> None:
        mood = MOODS[submitted.pdu.destination_addr[-4:]]
        self._report(submitted, mood, MessageState.ENROUTE, mood.error, int(EsmClass.TYPE_INTERMEDIATE))

    def _report(self, submitted: Submitted, mood: Mood, state: MessageState, error: int, esm_class: int) -> None:
        """Put a receipt into the outbox. It goes from the handset's number to the sender (appendix B)."""
        settings = self.settings
        pdu = submitted.pdu
        form = settings.receipt_id_form
        if mood.is_other_id_form:
            form = IdForm.DECIMAL if form is IdForm.HEX else IdForm.HEX
        message_id = submitted.message_id if form is settings.id_form else _written(submitted.number, form)
        tlvs = receipt.build_tlvs(message_id, state, error=error or None) if settings.has_tlv_receipts else {}
        # The sender's own reference comes back in the receipt (section 4.6.1): it names the message even to
        # a sender who never got the response.
        reference = pdu.tlvs.get(_USER_MESSAGE_REFERENCE)
        if reference is not None:
            tlvs[_USER_MESSAGE_REFERENCE] = reference
        short_message = b""
        if settings.has_text_receipts:
            short_message = receipt.build(
                message_id,
                state,
                submit_digits=_date_digits(submitted.at_ms // 60_000),
                done_digits=_date_digits(self._clock.now_ms() // 60_000),
                error=error,
            )
        self.counters.receipts += 1
        self._put(
            self._accounts[submitted.system_id],
            DeliverSm(
                source_addr_ton=pdu.dest_addr_ton,
                source_addr_npi=pdu.dest_addr_npi,
                source_addr=pdu.destination_addr,
                dest_addr_ton=pdu.source_addr_ton,
                dest_addr_npi=pdu.source_addr_npi,
                destination_addr=pdu.source_addr,
                esm_class=esm_class,
                short_message=short_message,
                tlvs=tlvs,
            ),
        )

    def _show(self, submitted: Submitted) -> None:
        """Show a message on its handset, when all its parts are there."""
        parts: tuple[Submitted, ...] = (submitted,)
        pdu = submitted.pdu
        if pdu.tlvs or pdu.esm_class & _UDHI:
            content = _content_of(pdu)
            if content.is_part:
                key = (submitted.system_id, pdu.source_addr, pdu.destination_addr, content.reference, content.total)
                have = self._half_done.setdefault(key, {})
                have[content.number] = submitted
                if len(have) < content.total:
                    if len(self._half_done) > _HALF_DONE:
                        self._half_done.popitem(last=False)
                    return
                del self._half_done[key]
                parts = tuple(have[number] for number in sorted(have))
        message = HandsetMessage(self._clock.now_ms(), parts)
        self.messages.append(message)
        if self._on_message is not None:
            self._on_message(message)

    # Delivering to the binds

    def _account(self, system_id: str) -> _Account:
        account = self._accounts.get(system_id)
        if account is None:
            account = _Account(system_id, self.settings.kept, self._clock.ticks_s(), self.settings.rate_per_s)
            self._accounts[system_id] = account
        return account

    def _put(self, account: _Account, pdu: DeliverSm) -> None:
        if len(account.outbox) == account.outbox.maxlen:
            self.counters.dropped += 1
        account.outbox.append(pdu)

    def _put_back(self, account: _Account, pdus: list[DeliverSm]) -> None:
        """Put what was not answered in front of what waits; where there is no room for both, the older go."""
        room = self.settings.kept - len(account.outbox)
        self.counters.dropped += max(0, len(pdus) - room)
        account.outbox.extendleft(reversed(pdus[max(0, len(pdus) - room) :]))

    def _flush(self, account: _Account, now: float) -> None:
        """Give the receivers as much as their windows take, each in its turn."""
        outbox = account.outbox
        links = account.links
        for _ in range(len(links)):
            if not outbox:
                return
            account.turn = (account.turn + 1) % len(links)
            link = links[account.turn]
            session = link.session
            if link.is_gone or link.is_paused or session.state not in _RECEIVING:
                continue
            for _ in range(min(session.room, len(outbox))):
                pdu = outbox.popleft()
                try:
                    session.submit(pdu, now, pdu)
                except EncodeError:  # a receipt for a data_sm, whose addresses may be longer than deliver_sm's
                    self.counters.dropped += 1
            link.write()

    # Time

    def _after(self, seconds: float, entry: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
        self._at(self._clock.ticks_s() + seconds, entry)

    def _at(self, when: float, entry: Submitted | tuple[Callable[..., None], tuple[Any, ...]]) -> None:
        tick = round(when * _TICKS_PER_S)
        due = self._due.get(tick)
        if due is not None:
            due.append(entry)
            return
        self._due[tick] = [entry]
        heapq.heappush(self._due_ticks, tick)
        if tick < self._sleeping_until:
            self._wake.set()

    async def _run_timers(self) -> None:
        """Do what is due, hundredth by hundredth, and once a second let every session see to its time-outs."""
        try:
            await self._run_timers_for_ever()
        except Exception:
            _log.exception("the fake carrier has stopped delivering")
            raise

    async def _run_timers_for_ever(self) -> None:
        sessions_due = 0
        while True:
            self._wake.clear()
            now = self._clock.ticks_s()
            ticks = int(now * _TICKS_PER_S + 0.01)  # a float may fall short of its hundredth by a hair
            if ticks >= sessions_due:
                sessions_due = ticks + _TICKS_PER_S
                self._tick_sessions(now)
            while self._due_ticks and self._due_ticks[0] <= ticks:
                for entry in self._due.pop(heapq.heappop(self._due_ticks)):
                    if isinstance(entry, Submitted):
                        self._arrive(entry)
                    else:
                        function, arguments = entry
                        function(*arguments)
            for account in self._accounts.values():
                self._flush(account, now)
            for link in self._links:
                link.write()
            self._look()
            self._sleeping_until = min(self._due_ticks[0], sessions_due) if self._due_ticks else sessions_due
            await self._sleep(self._sleeping_until / _TICKS_PER_S - now)

    async def _sleep(self, seconds: float) -> None:
        """Sleep by the clock, or less if something earlier turns up."""
        waits: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._clock.sleep(seconds)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _tick_sessions(self, now: float) -> None:
        for link in list(self._links):
            if link.session.next_tick <= now:
                self._handle(link, link.session.tick(now), now)

    def _look(self) -> None:
        """Let those who wait see whether what they wait for has come."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)


class _Link(asyncio.Protocol):
    """One connection: moves bytes between transport and session, and knows whether it may."""

    def __init__(self, carrier: Carrier) -> None:
        settings = carrier.settings
        self.carrier = carrier
        self.account: _Account | None = None
        self.is_gone = False
        self.is_paused = False
        self.session = Session(
            SessionSettings(
                Role.SMSC,
                window=settings.window,
                response_timeout_s=settings.answer_timeout_s,
                max_unanswered=_NEVER_ANSWERED,
            ),
            carrier._clock.ticks_s(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.carrier._links.add(self)

    def data_received(self, data: bytes) -> None:
        if not self.is_gone:
            self.carrier._on_data(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.carrier._on_lost(self)

    def pause_writing(self) -> None:
        # A client that does not read its answers is not listened to either, or they would pile up here.
        self.is_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_paused = False
        self.transport.resume_reading()

    def write(self) -> None:
        output = self.session.take_output()
        if output and not self.is_gone:
            self.transport.write(output)

    def drop(self) -> None:
        """End the connection at once, as a cable that is pulled."""
        self.is_gone = True
        self.transport.abort()

    def leave(self, now: float) -> None:
        """Unbind, if bound, and close."""
        with suppress(WrongState):
            self.session.unbind(now)
        self.write()
        self.transport.close()


_RECEIVING = (State.BOUND_RX, State.BOUND_TRX)

_BIND_RESPONSES = {
    int(CommandId.BIND_RECEIVER): BindReceiverResp,
    int(CommandId.BIND_TRANSMITTER): BindTransmitterResp,
    int(CommandId.BIND_TRANSCEIVER): BindTransceiverResp,
}

# What this carrier does not offer.
_REFUSALS = {
    int(CommandId.SUBMIT_MULTI): CommandStatus.ESME_RSUBMITFAIL,
    int(CommandId.QUERY_SM): CommandStatus.ESME_RQUERYFAIL,
    int(CommandId.CANCEL_SM): CommandStatus.ESME_RCANCELFAIL,
    int(CommandId.REPLACE_SM): CommandStatus.ESME_RREPLACEFAIL,
}


def _written(number: int, form: IdForm) -> str:
    return f"{number:x}" if form is IdForm.HEX else str(number)


def _wants_receipt(pdu: SubmitSm | DataSm, state: MessageState) -> bool:
    asked = pdu.registered_delivery & _RECEIPT_MASK
    if asked == RegisteredDelivery.RECEIPT:
        return True
    if asked == RegisteredDelivery.RECEIPT_ON_FAILURE:
        return state is not MessageState.DELIVERED
    return asked == RegisteredDelivery.RECEIPT_ON_SUCCESS and state is MessageState.DELIVERED


@lru_cache(maxsize=16)
def _date_digits(minute: int) -> str:
    """YYMMDDhhmm in UTC, of a minute since 1970."""
    return f"{datetime.fromtimestamp(minute * 60, UTC):%y%m%d%H%M}"


def _content_of(pdu: SubmitSm | DataSm) -> Content:
    try:
        return read_content(pdu)
    except HeaderError:
        return Content(pdu.content)


def _text_of(pdu: SubmitSm | DataSm) -> str:
    content = _content_of(pdu)
    return texts.decode(content.body, pdu.data_coding, content.header)


def _opt_out_word(number: str) -> str:
    digits = number.lstrip("+").removeprefix("00")
    for prefix, word in OPT_OUT_WORDS.items():
        if digits.startswith(prefix):
            return word
    return "STOP"
