"""The fake carrier over a real socket, its time held in the hand."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import smpplib.client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from berid.base import text as texts
from berid.channels.sms import simulator
from berid.channels.sms.simulator import MOODS, Binds, Carrier, CarrierSettings, HandsetMessage
from berid.wire.smpp import receipt
from berid.wire.smpp.codes import CommandStatus, EsmClass, MessageState, Tag
from berid.wire.smpp.pdu import (
    Address,
    BindReceiver,
    BindTransceiver,
    BindTransmitter,
    CancelSm,
    DataSm,
    DeliverSm,
    Pdu,
    QuerySm,
    ReplaceSm,
    SubmitMulti,
    SubmitSm,
    SubmitSmResp,
)
from berid.wire.smpp.receipt import IdForm, match_key
from berid.wire.smpp.session import Closed, Event, Request, Response, Role, Session, SessionSettings
from berid.wire.smpp.udh import read_content

PATIENCE_S = 5.0
NUMBER = "966501234567"


class ManualClock:
    """A clock that stands still until `advance`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return 1_795_358_000_000 + round(self.now_s * 1_000)

    def ticks_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.now_s + seconds, asyncio.get_running_loop().create_future())
        self.sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            if sleeper in self.sleepers:
                self.sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for sleeper in [sleeper for sleeper in self.sleepers if sleeper[0] <= self.now_s]:
            self.sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)

    def has_sleeper(self) -> bool:
        return any(not future.done() for _, future in self.sleepers)


class Client(asyncio.Protocol):
    """A bind of a customer of this carrier. Answers every deliver_sm, unless told not to."""

    def __init__(self, window: int) -> None:
        self.session = Session(SessionSettings(Role.ESME, window=window, max_unanswered=100_000), 0.0)
        self.delivered: list[DeliverSm] = []
        self.waiting: list[Request] = []
        self.answer_with: int | None = 0
        self.responses: dict[int, Response] = {}
        self.is_lost = False
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for event in self.session.receive(data, 0.0):
            self.on_event(event)
        self.write()
        self.changed.set()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Request) and isinstance(event.pdu, DeliverSm):
            self.delivered.append(event.pdu)
            if self.answer_with is None:
                self.waiting.append(event)
            else:
                self.session.respond(event.sequence, self.answer_with)
        elif isinstance(event, Response):
            self.responses[event.sequence] = event
        elif isinstance(event, Closed):
            self.write()
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.changed.set()

    def write(self) -> None:
        output = self.session.take_output()
        if output:
            self.transport.write(output)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def submit(self, pdu: Pdu) -> int:
        sequence = self.session.submit(pdu, 0.0, pdu)
        self.write()
        return sequence

    async def ask(self, pdu: Pdu) -> Response:
        """Submit and wait for the response."""
        return await self.response(self.submit(pdu))

    async def response(self, sequence: int) -> Response:
        await self.until(lambda: sequence in self.responses)
        return self.responses[sequence]

    def receipts(self) -> list[receipt.Receipt]:
        return [receipt.parse(pdu) for pdu in self.delivered if receipt.is_receipt(pdu)]

    def texts(self) -> list[str]:
        """What handsets sent, part by part."""
        return [
            texts.decode(read_content(pdu).body, pdu.data_coding, read_content(pdu).header)
            for pdu in self.delivered
            if not receipt.is_receipt(pdu)
        ]


Bind = BindTransceiver | BindReceiver | BindTransmitter


class Scene:
    """A carrier with its clock, and the clients that a test connects."""

    def __init__(self, settings: CarrierSettings | None = None) -> None:
        self.clock = ManualClock()
        self.shown: list[HandsetMessage] = []
        self.carrier = Carrier(settings or CarrierSettings(), self.clock, self.shown.append)
        self.clients: list[Client] = []

    async def connect(self, bind: Bind | None = None, window: int = 1_000, tls: ssl.SSLContext | None = None) -> Client:
        """A connection that is bound, if the carrier accepts the bind."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Client(window), "127.0.0.1", self.carrier.port, ssl=tls)
        self.clients.append(client)
        sequence = client.session.bind(bind or BindTransceiver("berid", "secret"), 0.0)
        client.write()
        await client.response(sequence)
        return client

    async def pass_time(self, seconds: float) -> None:
        """Let the carrier's clock go on, and wait until the carrier has done what was due."""
        async with asyncio.timeout(PATIENCE_S):
            await self.carrier_sleeps()
            self.clock.advance(seconds)
            await self.carrier_sleeps()

    async def carrier_sleeps(self) -> None:
        while not self.clock.has_sleeper():
            await asyncio.sleep(0)


@asynccontextmanager
async def scene_of(settings: CarrierSettings | None = None) -> AsyncIterator[Scene]:
    scene = Scene(settings)
    await scene.carrier.start()
    try:
        yield scene
    finally:
        for client in scene.clients:
            client.transport.abort()
        await scene.carrier.stop()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with scene_of() as made:
        yield made


def submit(number: str = NUMBER, text: bytes = b"hello", registered_delivery: int = 1) -> SubmitSm:
    return SubmitSm(
        source_addr_ton=5,
        source_addr="BERID",
        dest_addr_ton=1,
        dest_addr_npi=1,
        destination_addr=number,
        registered_delivery=registered_delivery,
        short_message=text,
    )


def id_of(response: Response) -> str:
    assert response.status == 0
    assert isinstance(response.pdu, SubmitSmResp)
    return response.pdu.message_id


# Binding


@pytest.mark.parametrize(
    ("bind", "status"),
    [
        (BindTransceiver("berid", "secret"), 0),
        (BindReceiver("berid", "secret"), 0),
        (BindTransmitter("berid", "secret"), 0),
        (BindTransceiver("berid", "wrong"), CommandStatus.ESME_RINVPASWD),
        (BindTransceiver("nobody", "secret"), CommandStatus.ESME_RINVSYSID),
    ],
)
async def test_a_bind_needs_a_known_name_and_its_password(bind: Bind, status: int) -> None:
    async with scene_of(CarrierSettings(accounts={"berid": "secret"})) as scene:
        client = await scene.connect(bind)
        assert [response.status for response in client.responses.values()] == [status]
        assert scene.carrier.binds == ({"berid": Binds(1, 1)} if status == 0 else {})


async def test_without_accounts_anyone_may_bind(scene: Scene) -> None:
    await scene.connect(BindTransceiver("anyone", ""))
    assert scene.carrier.binds == {"anyone": Binds(1, 1)}


async def test_binds_are_counted_now_and_at_most(scene: Scene) -> None:
    first = await scene.connect()
    await scene.connect()
    await scene.connect(BindTransmitter("other"))
    assert scene.carrier.binds == {"berid": Binds(2, 2), "other": Binds(1, 1)}
    first.transport.close()
    await scene.carrier.until(lambda: scene.carrier.binds["berid"].now == 1)
    await scene.connect()
    assert scene.carrier.binds["berid"] == Binds(2, 2)


async def test_an_unbind_is_answered_and_the_link_closed(scene: Scene) -> None:
    client = await scene.connect()
    client.session.unbind(0.0)
    client.write()
    await client.until(lambda: client.is_lost)
    assert scene.carrier.binds["berid"].now == 0


async def test_a_client_may_come_over_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.check_hostname = False
    scene = Scene()
    await scene.carrier.start(tls=server)
    try:
        client = await scene.connect(tls=trust)
        assert id_of(await client.ask(submit()))
        client.transport.abort()
    finally:
        await scene.carrier.stop()


def self_signed(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carrier")])
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3))
        .sign(key, hashes.SHA256())
    )
    path = folder / "carrier.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


# Messages to handsets


async def test_a_message_is_accepted_and_its_receipt_comes_within_a_second(scene: Scene) -> None:
    client = await scene.connect()
    message_id = id_of(await client.ask(submit()))
    assert client.delivered == []
    assert scene.carrier.messages_to(NUMBER) == []
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    (told,) = client.receipts()
    assert (told.message_id, told.state, told.error) == (message_id, MessageState.DELIVERED, "000")
    assert told.done_digits == "2611221450"
    (pdu,) = client.delivered
    assert (pdu.source_addr, pdu.destination_addr, pdu.dest_addr_ton) == (NUMBER, "BERID", 5)
    (message,) = scene.carrier.messages_to(NUMBER)
    assert (message.text, message.sender, message.system_id) == ("hello", "BERID", "berid")
    assert [part.message_id for part in message.parts] == [message_id]
    assert message.at_ms == scene.clock.now_ms()
    assert scene.shown == [message]


async def test_every_message_has_an_id_of_its_own_also_after_a_restart(scene: Scene) -> None:
    client = await scene.connect()
    ids = {id_of(await client.ask(submit())) for _ in range(5)}
    assert len(ids) == 5
    assert all(any(letter in "abcdef" for letter in message_id) for message_id in ids)
    scene.clock.advance(0.001)
    later = Carrier(clock=scene.clock)
    await later.start()
    scene.carrier, first = later, scene.carrier
    other = await scene.connect()
    assert id_of(await other.ask(submit())) not in ids
    await later.stop()
    scene.carrier = first


@pytest.mark.parametrize(
    ("registered_delivery", "digits", "comes"),
    [
        (0, "4567", False),
        (1, "4567", True),
        (2, "4567", False),
        (3, "4567", True),
        (1, "0022", True),
        (2, "0022", True),
        (3, "0022", False),
        (0, "0022", False),
    ],
)
async def test_a_receipt_comes_only_if_it_was_asked_for(
    scene: Scene, registered_delivery: int, digits: str, comes: bool
) -> None:
    client = await scene.connect()
    await client.ask(submit(f"96650123{digits}", registered_delivery=registered_delivery))
    await scene.pass_time(5)
    scene.carrier.send_mo(NUMBER, "BERID", "end of what comes")
    await client.until(client.texts)
    assert len(client.receipts()) == comes
    assert scene.carrier.counters.receipts == comes


async def test_a_long_message_is_put_together_on_the_handset(scene: Scene) -> None:
    client = await scene.connect()
    text = "Türkçe ve العربية " * 20
    parts = texts.encode_parts(text, texts.analyse(text), 7)
    assert len(parts) > 2
    for part in reversed(parts):
        pdu = submit(text=part.udh + part.data)
        pdu.esm_class = int(EsmClass.UDHI)
        pdu.data_coding = part.data_coding
        await client.ask(pdu)
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: scene.carrier.messages)
    (message,) = scene.carrier.messages_to(NUMBER)
    assert message.text == text
    numbers = [part.number for part in message.parts]
    assert len(numbers) == len(parts)
    assert numbers == sorted(numbers, reverse=True)
    assert len(scene.carrier.submits_to(NUMBER)) == len(parts)


async def test_parts_by_sar_and_a_payload_are_understood(scene: Scene) -> None:
    client = await scene.connect()
    for number, text in ((1, b"one "), (2, b"two")):
        pdu = submit(text=text)
        pdu.tlvs = {
            Tag.SAR_MSG_REF_NUM: b"\0\1",
            Tag.SAR_TOTAL_SEGMENTS: b"\2",
            Tag.SAR_SEGMENT_SEQNUM: bytes((number,)),
        }
        await client.ask(pdu)
    await client.ask(DataSm(destination_addr=NUMBER, source_addr="BERID", tlvs={Tag.MESSAGE_PAYLOAD: b"x" * 1_000}))
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: len(scene.carrier.messages) == 2)
    assert [message.text for message in scene.carrier.messages_to(NUMBER)] == ["one two", "x" * 1_000]


async def test_a_broken_header_is_shown_as_it_is(scene: Scene) -> None:
    client = await scene.connect()
    pdu = submit(text=b"\x7fabc")
    pdu.esm_class = int(EsmClass.UDHI)
    await client.ask(pdu)
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: scene.carrier.messages)
    assert scene.carrier.messages_to(NUMBER)[0].text == "àabc"


async def test_messages_whose_parts_never_come_together_are_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "_HALF_DONE", 2)
    client = await scene.connect()

    async def send(reference: int, number: int) -> None:
        pdu = submit(text=bytes((5, 0, 3, reference, 2, number)) + b"half")
        pdu.esm_class = int(EsmClass.UDHI)
        await client.ask(pdu)
        await scene.pass_time(0.2)
        await scene.carrier.until(lambda: scene.carrier.counters.arrived == scene.carrier.counters.accepted)

    for reference in (1, 2, 3):
        await send(reference, 1)
    await send(1, 2)
    assert list(scene.carrier.messages) == []
    await send(3, 2)
    assert [message.text for message in scene.carrier.messages] == ["halfhalf"]


async def test_the_log_forgets_the_oldest() -> None:
    async with scene_of(CarrierSettings(log_size=3)) as scene:
        client = await scene.connect()
        for number in range(5):
            await client.ask(submit(text=f"text {number}".encode()))
        await scene.pass_time(0.2)
        await scene.carrier.until(lambda: scene.carrier.counters.arrived == 5)
        assert [message.text for message in scene.carrier.messages] == ["text 2", "text 3", "text 4"]
        assert len(scene.carrier.submits) == 3


async def test_what_was_submitted_is_remembered_with_its_answer(scene: Scene) -> None:
    client = await scene.connect()
    message_id = id_of(await client.ask(submit()))
    await client.ask(submit("966501230002"))
    client.submit(submit("966501230010"))
    await scene.carrier.until(lambda: len(scene.carrier.submits) == 3)
    assert [(entry.system_id, entry.status, entry.message_id) for entry in scene.carrier.submits] == [
        ("berid", 0, message_id),
        ("berid", CommandStatus.ESME_RINVDSTADR, ""),
        ("berid", None, ""),
    ]
    assert scene.carrier.submits[0].at_ms == scene.clock.now_ms()


# How the carrier is set


async def test_responses_and_receipts_are_delayed_as_set() -> None:
    async with scene_of(CarrierSettings(response_delay_s=2.0, receipt_delay_s=3.0)) as scene:
        client = await scene.connect()
        sequence = client.submit(submit())
        await scene.carrier.until(lambda: scene.carrier.submits)
        await scene.pass_time(1.9)
        (entry,) = scene.carrier.submits
        assert entry.status is None
        await scene.pass_time(0.1)
        assert id_of(await client.response(sequence))
        assert entry.status == 0
        await scene.pass_time(2.9)
        assert not scene.carrier.counters.receipts
        await scene.pass_time(0.1)
        await client.until(client.receipts)


@pytest.mark.parametrize(
    ("id_form", "receipt_id_form"),
    [
        (IdForm.HEX, IdForm.HEX),
        (IdForm.HEX, IdForm.DECIMAL),
        (IdForm.DECIMAL, IdForm.HEX),
        (IdForm.DECIMAL, IdForm.DECIMAL),
    ],
)
async def test_ids_are_written_as_set(id_form: IdForm, receipt_id_form: IdForm) -> None:
    async with scene_of(CarrierSettings(id_form=id_form, receipt_id_form=receipt_id_form)) as scene:
        client = await scene.connect()
        message_id = id_of(await client.ask(submit()))
        await scene.pass_time(0.2)
        await client.until(client.receipts)
        (told,) = client.receipts()
        assert message_id.isdigit() == (id_form is IdForm.DECIMAL)
        assert told.message_id.isdigit() == (receipt_id_form is IdForm.DECIMAL)
        assert match_key(message_id, id_form) == match_key(told.message_id, receipt_id_form)


@pytest.mark.parametrize(("has_text", "has_tlvs"), [(True, False), (False, True), (True, True)])
async def test_receipts_say_it_in_text_or_parameters_as_set(has_text: bool, has_tlvs: bool) -> None:
    async with scene_of(CarrierSettings(has_text_receipts=has_text, has_tlv_receipts=has_tlvs)) as scene:
        client = await scene.connect()
        message_id = id_of(await client.ask(submit()))
        await scene.pass_time(0.2)
        await client.until(client.receipts)
        (pdu,) = client.delivered
        assert bool(pdu.short_message) == has_text
        assert bool(pdu.tlvs) == has_tlvs
        assert client.receipts()[0].message_id == message_id
        assert client.receipts()[0].state is MessageState.DELIVERED


async def test_the_sender_s_own_reference_comes_back_in_the_receipt(scene: Scene) -> None:
    client = await scene.connect()
    pdu = submit()
    pdu.tlvs = {Tag.USER_MESSAGE_REFERENCE: b"\x12\x34"}
    await client.ask(pdu)
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    assert client.delivered[0].tlvs[Tag.USER_MESSAGE_REFERENCE] == b"\x12\x34"


async def test_submits_above_the_rate_are_throttled() -> None:
    async with scene_of(CarrierSettings(rate_per_s=5)) as scene:
        client = await scene.connect()
        statuses = [(await client.ask(submit())).status for _ in range(8)]
        assert statuses == [0] * 5 + [CommandStatus.ESME_RTHROTTLED] * 3
        await scene.pass_time(0.5)
        statuses = [(await client.ask(submit())).status for _ in range(4)]
        assert statuses == [0] * 2 + [CommandStatus.ESME_RTHROTTLED] * 2
        assert scene.carrier.counters.throttled == 5


@pytest.mark.parametrize(
    ("pdu", "status"),
    [
        (QuerySm("a1"), CommandStatus.ESME_RQUERYFAIL),
        (CancelSm(message_id="a1"), CommandStatus.ESME_RCANCELFAIL),
        (ReplaceSm("a1"), CommandStatus.ESME_RREPLACEFAIL),
        (SubmitMulti(destinations=(Address(1, 1, NUMBER),)), CommandStatus.ESME_RSUBMITFAIL),
    ],
)
async def test_what_it_does_not_offer_is_refused(scene: Scene, pdu: Pdu, status: int) -> None:
    client = await scene.connect()
    assert (await client.ask(pdu)).status == status


# Moods


async def test_0002_is_refused(scene: Scene) -> None:
    client = await scene.connect()
    assert (await client.ask(submit("905321230002"))).status == CommandStatus.ESME_RINVDSTADR
    await scene.pass_time(100)
    assert scene.carrier.counters.arrived == 0


@pytest.mark.parametrize(("digits", "seconds"), [("0006", 60), ("0023", 90)])
async def test_slow_numbers_are_delivered_in_their_time(scene: Scene, digits: str, seconds: int) -> None:
    client = await scene.connect()
    await client.ask(submit(f"96650123{digits}"))
    await scene.pass_time(seconds - 0.1)
    assert scene.carrier.counters.arrived == 0
    await scene.pass_time(0.1)
    await client.until(client.receipts)
    (told,) = client.receipts()
    assert (told.state, told.error) == (MessageState.DELIVERED, "000")


async def test_0023_tells_of_the_absence_to_those_who_asked(scene: Scene) -> None:
    client = await scene.connect()
    await client.ask(submit("966501230023", registered_delivery=0x11))
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    (told,) = client.receipts()
    assert (told.state, told.error, told.is_final) == (MessageState.ENROUTE, "027", False)
    await scene.pass_time(90)
    await client.until(lambda: len(client.receipts()) == 2)
    assert client.receipts()[1].state is MessageState.DELIVERED


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        ("966501230007", "OK"),
        ("905321230008", "RET"),
        ("966501230008", "إيقاف"),
        ("971501230008", "STOP"),
        ("+905321230008", "RET"),
    ],
)
async def test_some_owners_write_back_after_the_receipt(scene: Scene, number: str, reply: str) -> None:
    client = await scene.connect()
    await client.ask(submit(number))
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    assert client.texts() == []
    await scene.pass_time(simulator.REPLY_AFTER_S)
    await client.until(client.texts)
    assert client.texts() == [reply]
    answer = client.delivered[-1]
    assert (answer.source_addr, answer.destination_addr) == (number, "BERID")
    assert answer.esm_class == 0


async def test_0010_is_never_answered_and_nothing_comes_of_it(scene: Scene) -> None:
    client = await scene.connect()
    sequence = client.submit(submit("966501230010"))
    assert id_of(await client.ask(submit()))
    await scene.pass_time(1_000)
    await client.until(client.receipts)
    assert sequence not in client.responses
    assert len(client.receipts()) == 1
    assert scene.carrier.messages_to("966501230010") == []


async def test_0011_is_delivered_without_a_receipt(scene: Scene) -> None:
    client = await scene.connect()
    await client.ask(submit("966501230011"))
    await scene.pass_time(1_000)
    await scene.carrier.until(lambda: scene.carrier.messages)
    assert scene.carrier.messages_to("966501230011")[0].text == "hello"
    assert scene.carrier.counters.receipts == 0


async def test_0012_is_reported_three_times(scene: Scene) -> None:
    client = await scene.connect()
    message_id = id_of(await client.ask(submit("966501230012")))
    await scene.pass_time(0.2)
    await client.until(lambda: len(client.delivered) == 3)
    assert [told.message_id for told in client.receipts()] == [message_id] * 3
    assert len(scene.carrier.messages) == 1


async def test_0013_is_reported_before_it_is_answered(scene: Scene) -> None:
    client = await scene.connect()
    sequence = client.submit(submit("966501230013"))
    await client.until(client.receipts)
    assert sequence not in client.responses
    await scene.pass_time(simulator.RESPONSE_AFTER_RECEIPT_S)
    message_id = id_of(await client.response(sequence))
    assert client.receipts()[0].message_id == message_id
    assert len(client.receipts()) == 1


@pytest.mark.parametrize("form", [IdForm.HEX, IdForm.DECIMAL])
async def test_0014_is_reported_with_its_id_in_the_other_form(form: IdForm) -> None:
    async with scene_of(CarrierSettings(id_form=form, receipt_id_form=form)) as scene:
        client = await scene.connect()
        message_id = id_of(await client.ask(submit("966501230014")))
        await scene.pass_time(0.2)
        await client.until(client.receipts)
        (told,) = client.receipts()
        assert told.message_id != message_id
        assert match_key(told.message_id, IdForm.EITHER) == match_key(message_id, IdForm.EITHER)


async def test_0015_is_throttled_three_times_and_then_taken_and_so_again(scene: Scene) -> None:
    client = await scene.connect()
    for text in (b"first", b"second", b"first"):
        statuses = [(await client.ask(submit("966501230015", text))).status for _ in range(4)]
        assert statuses == [CommandStatus.ESME_RTHROTTLED] * 3 + [0]
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: len(scene.carrier.messages) == 3)
    assert scene.carrier.counters.throttled == 9


async def test_0016_drops_the_link_once_and_the_message_is_taken(scene: Scene) -> None:
    client = await scene.connect()
    number = "966501230016"
    sequence = client.submit(submit(number))
    await client.until(lambda: client.is_lost)
    assert sequence not in client.responses
    assert client.session.lost() == [submit(number)]
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: scene.carrier.messages_to(number))
    again = await scene.connect()
    await again.until(again.receipts)
    assert id_of(await again.ask(submit(number))) != again.receipts()[0].message_id
    await scene.pass_time(0.2)
    await scene.carrier.until(lambda: len(scene.carrier.messages_to(number)) == 2)
    again.submit(submit(number))
    await again.until(lambda: again.is_lost)


async def test_0016_ends_only_its_own_link_and_what_came_behind_it_is_not_taken(scene: Scene) -> None:
    other = await scene.connect()
    client = await scene.connect()
    client.session.submit(submit("966501230016"), 0.0)
    client.session.submit(submit(), 0.0)
    client.write()
    await client.until(lambda: client.is_lost)
    assert scene.carrier.submits_to(NUMBER) == []
    assert id_of(await other.ask(submit()))


@pytest.mark.parametrize(
    ("digits", "state", "error"),
    [("0022", MessageState.UNDELIVERABLE, "001"), ("0024", MessageState.EXPIRED, "027")],
)
async def test_some_numbers_are_never_reached(scene: Scene, digits: str, state: MessageState, error: str) -> None:
    client = await scene.connect()
    await client.ask(submit(f"90532123{digits}"))
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    (told,) = client.receipts()
    assert (told.state, told.error, told.is_final) == (state, error, True)
    assert list(scene.carrier.messages) == []


async def test_every_mood_has_words_for_people() -> None:
    assert set(MOODS) == {
        *("0002", "0006", "0007", "0008", "0010", "0011", "0012", "0013", "0014", "0015", "0016"),
        *("0022", "0023", "0024"),
    }
    assert all(mood.about.endswith(".") for mood in MOODS.values())


# Messages from handsets


@pytest.mark.parametrize(
    ("text", "coding", "parts"),
    [("OK", 0, 1), ("{€}" * 40, 0, 2), ("إيقاف", 8, 1), ("نعم " * 40, 8, 3), ("", 0, 1)],
)
async def test_a_message_from_a_handset_comes_in_as_many_parts_as_it_takes(
    scene: Scene, text: str, coding: int, parts: int
) -> None:
    client = await scene.connect()
    scene.carrier.send_mo(NUMBER, "5500", text)
    await client.until(lambda: len(client.delivered) == parts)
    assert "".join(client.texts()) == text
    assert {pdu.data_coding for pdu in client.delivered} == {coding}
    contents = [read_content(pdu) for pdu in client.delivered]
    assert [(content.number, content.total) for content in contents] == [(n + 1, parts) for n in range(parts)]
    assert len({content.reference for content in contents}) == 1
    assert client.delivered[0].destination_addr == "5500"


async def test_two_long_messages_have_two_references(scene: Scene) -> None:
    client = await scene.connect()
    for _ in range(2):
        scene.carrier.send_mo(NUMBER, "5500", "x" * 200)
    await client.until(lambda: len(client.delivered) == 4)
    assert len({read_content(pdu).reference for pdu in client.delivered}) == 2


async def test_a_message_from_a_handset_goes_to_the_account_that_is_named(scene: Scene) -> None:
    first = await scene.connect(BindTransceiver("first"))
    second = await scene.connect(BindTransceiver("second"))
    with pytest.raises(ValueError, match="which account"):
        scene.carrier.send_mo(NUMBER, "5500", "hello")
    scene.carrier.send_mo(NUMBER, "5500", "hello", "second")
    await second.until(second.texts)
    assert first.delivered == []


async def test_without_any_account_there_is_nobody_to_send_to() -> None:
    with pytest.raises(ValueError, match="which account"):
        Carrier().send_mo(NUMBER, "5500", "hello")


# Delivering, again if need be


async def test_what_has_no_receiver_waits_for_one(scene: Scene) -> None:
    sender = await scene.connect(BindTransmitter("berid"))
    message_id = id_of(await sender.ask(submit()))
    await scene.pass_time(0.2)
    scene.carrier.send_mo(NUMBER, "5500", "hello")
    await scene.carrier.until(lambda: scene.carrier.counters.receipts)
    receiver = await scene.connect(BindReceiver("berid"))
    await receiver.until(lambda: len(receiver.delivered) == 2)
    assert {told.message_id for told in receiver.receipts()} == {message_id}
    assert receiver.texts() == ["hello"]
    assert sender.delivered == []


async def test_only_so_much_waits_and_the_oldest_goes() -> None:
    async with scene_of(CarrierSettings(accounts={"berid": "secret"}, kept=3)) as scene:
        for number in range(5):
            scene.carrier.send_mo(NUMBER, "5500", f"text {number}")
        client = await scene.connect()
        await client.until(lambda: len(client.texts()) == 3)
        assert client.texts() == ["text 2", "text 3", "text 4"]
        assert scene.carrier.counters.dropped == 2


async def test_what_was_not_answered_comes_again_on_the_next_link_in_its_order(scene: Scene) -> None:
    client = await scene.connect()
    client.answer_with = None
    for number in range(4):
        scene.carrier.send_mo(NUMBER, "5500", f"text {number}")
    await client.until(lambda: len(client.texts()) == 4)
    client.session.respond(client.waiting[1].sequence)
    client.write()
    await scene.carrier.until(lambda: scene.carrier.counters.answered == 1)
    client.transport.abort()
    await scene.carrier.until(lambda: not scene.carrier.binds["berid"].now)
    scene.carrier.send_mo(NUMBER, "5500", "text 4")
    again = await scene.connect()
    await again.until(lambda: len(again.texts()) == 4)
    assert again.texts() == ["text 0", "text 2", "text 3", "text 4"]
    await scene.carrier.until(lambda: scene.carrier.counters.answered == 5)
    assert scene.carrier.counters.repeated == 3


async def test_what_is_not_answered_in_time_comes_again_on_the_same_link() -> None:
    async with scene_of(CarrierSettings(answer_timeout_s=10.0)) as scene:
        client = await scene.connect()
        client.answer_with = None
        scene.carrier.send_mo(NUMBER, "5500", "hello")
        await client.until(lambda: len(client.texts()) == 1)
        await scene.pass_time(10)
        await client.until(lambda: len(client.texts()) == 2)


async def test_what_is_refused_for_now_comes_again_and_what_is_refused_for_good_does_not(scene: Scene) -> None:
    client = await scene.connect()
    client.answer_with = CommandStatus.ESME_RX_T_APPN
    scene.carrier.send_mo(NUMBER, "5500", "hello")
    await scene.carrier.until(lambda: scene.carrier.counters.repeated == 1)
    client.answer_with = CommandStatus.ESME_RX_P_APPN
    await scene.pass_time(simulator.RETRY_AFTER_S)
    await scene.carrier.until(lambda: scene.carrier.counters.dropped == 1)
    await scene.pass_time(1_000)
    assert len(client.delivered) == 2


async def test_a_receipt_that_no_deliver_sm_can_carry_is_given_up_and_others_come(scene: Scene) -> None:
    client = await scene.connect()
    await client.ask(DataSm(destination_addr="9" * 60, source_addr="BERID", registered_delivery=1))
    message_id = id_of(await client.ask(submit()))
    await scene.pass_time(0.2)
    await client.until(client.receipts)
    assert [told.message_id for told in client.receipts()] == [message_id]
    assert scene.carrier.counters.dropped == 1


async def test_a_silent_link_is_dropped_and_what_it_had_goes_to_another(scene: Scene) -> None:
    client = await scene.connect()
    client.transport.pause_reading()
    scene.carrier.send_mo(NUMBER, "5500", "hello")
    for _ in range(3):
        await scene.pass_time(31)
    await scene.carrier.until(lambda: not scene.carrier.binds["berid"].now)
    other = await scene.connect()
    await other.until(other.texts)
    assert other.texts() == ["hello"]


async def test_no_link_gets_more_than_its_window_and_links_share_the_work() -> None:
    async with scene_of(CarrierSettings(window=3)) as scene:
        clients = [await scene.connect() for _ in range(2)]
        for client in clients:
            client.answer_with = None
        for number in range(10):
            scene.carrier.send_mo(NUMBER, "5500", f"text {number}")
        for client in clients:
            await client.until(lambda client=client: len(client.delivered) == 3)
        clients[0].session.respond(clients[0].waiting[0].sequence)
        clients[0].write()
        await clients[0].until(lambda: len(clients[0].delivered) == 4)
        assert len(clients[1].delivered) == 3


# Stopping and starting


async def test_what_the_carrier_holds_outlives_a_stop(scene: Scene) -> None:
    client = await scene.connect()
    message_id = id_of(await client.ask(submit()))
    await scene.carrier.stop()
    await client.until(lambda: client.is_lost)
    assert scene.carrier.port == 0
    scene.clock.advance(5)
    await scene.carrier.start()
    again = await scene.connect()
    await again.until(again.receipts)
    assert again.receipts()[0].message_id == message_id


async def test_a_carrier_that_stops_unbinds(scene: Scene) -> None:
    client = await scene.connect()
    events: list[Event] = []
    client.on_event = events.append  # type: ignore[method-assign]
    await scene.carrier.stop()
    await client.until(lambda: client.is_lost)
    assert [type(event) for event in events] == [Closed]


async def test_a_stop_does_not_wait_for_a_client_that_does_not_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "STOP_PATIENCE_S", 0.01)
    await stuck_client(scene)
    async with asyncio.timeout(PATIENCE_S):
        await scene.carrier.stop()
    assert scene.carrier.binds["berid"].now == 0


async def test_a_fault_in_what_watches_the_handsets_is_told_and_not_swallowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(message: HandsetMessage) -> None:
        raise RuntimeError("no screen")

    scene = Scene()
    scene.carrier = Carrier(clock=scene.clock, on_message=fail)
    await scene.carrier.start()
    client = await scene.connect()
    await client.ask(submit())
    await scene.carrier_sleeps()
    scene.clock.advance(0.2)
    with pytest.raises(RuntimeError, match="no screen"):
        await scene.carrier.stop()
    assert "the fake carrier has stopped delivering" in caplog.text


async def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    carrier = Carrier()
    await carrier.stop()
    await carrier.start()
    await carrier.stop()
    await carrier.stop()


async def test_waiting_for_what_never_comes_ends(scene: Scene) -> None:
    with pytest.raises(TimeoutError):
        await scene.carrier.until(lambda: False, 0.01)


# A client that is not ours


async def test_a_client_made_by_others_binds_submits_and_gets_its_receipt() -> None:
    carrier = Carrier(CarrierSettings(accounts={"berid": "secret"}, receipt_delay_s=0.0))
    await carrier.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            answered, delivered = await asyncio.to_thread(talk_with_smpplib, carrier.port)
    finally:
        await carrier.stop()
    (message_id,) = answered
    (text,) = delivered
    assert text.startswith(f"id:{message_id} sub:001 dlvrd:001 ".encode())
    assert [message.text for message in carrier.messages_to(NUMBER)] == ["hello"]
    assert carrier.counters.answered == 1


def talk_with_smpplib(port: int) -> tuple[list[str], list[bytes]]:
    """One message from bind to unbind. Returns the ids that submits were answered with and the receipts' texts."""
    answered: list[str] = []
    delivered: list[bytes] = []
    client = smpplib.client.Client("127.0.0.1", port, timeout=PATIENCE_S, allow_unknown_opt_params=True)
    client.set_message_sent_handler(lambda pdu: answered.append(pdu.message_id.decode()))
    client.set_message_received_handler(lambda pdu: delivered.append(pdu.short_message))
    client.connect()
    client.bind_transceiver(system_id="berid", password="secret")
    client.send_message(
        source_addr_ton=5,
        source_addr="BERID",
        dest_addr_ton=1,
        dest_addr_npi=1,
        destination_addr=NUMBER,
        short_message=b"hello",
        registered_delivery=True,
    )
    while not (answered and delivered):
        client.read_once()
    client.unbind()
    client.disconnect()
    return answered, delivered


# Hostile clients, and speed


async def test_a_client_that_talks_nonsense_is_closed_and_others_are_not_disturbed(scene: Scene) -> None:
    good = await scene.connect()
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.carrier.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: carrier\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert len(answer) == 16
    writer.close()
    await writer.wait_closed()
    assert id_of(await good.ask(submit()))


async def test_a_connection_that_never_binds_is_closed(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.carrier.port)
    await scene.carrier.until(lambda: scene.carrier._links)
    await scene.pass_time(20)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()
    await writer.wait_closed()


STUCK = 15_000
"""Submits whose responses, some 36 octets each, are more than the buffers between the two ends hold."""


async def stuck_client(scene: Scene) -> Client:
    """A client that submits many messages and reads no answer, so that the carrier cannot write."""
    client = await scene.connect(window=STUCK)
    (link,) = scene.carrier._links
    link.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    client.transport.pause_reading()
    for _ in range(STUCK):
        client.session.submit(submit(registered_delivery=0), 0.0)
    client.write()
    await scene.carrier.until(lambda: link.is_paused)
    return client


async def test_a_client_that_does_not_read_is_not_read_from_until_it_reads(scene: Scene) -> None:
    client = await stuck_client(scene)
    assert scene.carrier.counters.accepted < STUCK
    client.transport.resume_reading()
    await scene.carrier.until(lambda: scene.carrier.counters.accepted == STUCK)
    await client.until(lambda: len(client.responses) == STUCK + 1)


async def test_ten_thousand_messages_each_have_one_response_and_one_receipt() -> None:
    async with scene_of(CarrierSettings(log_size=20_000)) as scene:
        client = await scene.connect()
        ids = []
        for _ in range(20):
            sequences = [client.session.submit(submit(), 0.0) for _ in range(500)]
            client.write()
            ids += [id_of(await client.response(sequence)) for sequence in sequences]
            scene.clock.advance(0.1)
        await scene.pass_time(1)
        await client.until(lambda: len(client.delivered) == 10_000)
        assert sorted(told.message_id for told in client.receipts()) == sorted(ids)
        assert len(set(ids)) == 10_000
        assert len(scene.carrier.messages) == 10_000
        assert scene.carrier.counters.dropped == 0
