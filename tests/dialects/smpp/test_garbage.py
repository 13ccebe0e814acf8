"""Peers who do not speak SMPP, or badly: each harms himself alone."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from berid.wire.smpp.codes import CommandId, CommandStatus
from berid.wire.smpp.pdu import HEADER_BYTES, PACK_HEADER, UNPACK_HEADER, BindTransceiver, SubmitSm, encode
from tests.dialects.smpp.world import LOGIN, PASSWORD, Customer
from tests.support.builders import SENDER

S = CommandStatus
BIND = encode(BindTransceiver(LOGIN, PASSWORD), 1)
SUBMIT = encode(
    SubmitSm(source_addr=SENDER, dest_addr_ton=1, destination_addr="966501234567", short_message=b"hello"), 2
)


async def talk(customer: Customer, *chunks: bytes, wanted: int = 0) -> list[tuple[int, ...]]:
    """Send bytes and read (command, status, sequence) of the answers: `wanted` of them, or all until the other side
    closes.

    A chunk that is a proper bind is answered before the next one is sent.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", customer.port)
    answers: list[tuple[int, ...]] = []

    async def read() -> None:
        length, *answer = UNPACK_HEADER(await reader.readexactly(HEADER_BYTES))
        await reader.readexactly(length - HEADER_BYTES)
        answers.append(tuple(answer))

    try:
        for chunk in chunks:
            writer.write(chunk)
            if chunk == BIND:
                await asyncio.wait_for(read(), 10)
            else:
                await asyncio.sleep(0.002)
        while not wanted or len(answers) < wanted:
            await asyncio.wait_for(read(), 10)
        return answers
    except (asyncio.IncompleteReadError, ConnectionError):
        return answers
    finally:
        writer.close()


async def assert_well(customer: Customer) -> None:
    """A proper customer is still served."""
    answers = await talk(customer, BIND, SUBMIT, wanted=2)
    assert [status for _, status, _ in answers] == [0, 0]


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS hello at the plain port
        PACK_HEADER(15, CommandId.BIND_TRANSCEIVER, 0, 1),
        PACK_HEADER(0xFFFFFFFF, CommandId.SUBMIT_SM, 0, 1),
        PACK_HEADER(70_001, CommandId.SUBMIT_SM, 0, 9),
    ],
    ids=["http", "tls", "short", "huge", "long"],
)
async def test_stream_that_makes_no_sense_is_refused_and_closed(customer: Customer, octets: bytes) -> None:
    *_, last = await talk(customer, octets)
    assert last[:2] == (CommandId.GENERIC_NACK, S.ESME_RINVCMDLEN)
    await assert_well(customer)


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (PACK_HEADER(16, 0x0777, 0, 5), (CommandId.GENERIC_NACK, S.ESME_RINVCMDID, 5)),
        (SUBMIT[:-3].replace(struct.pack(">I", len(SUBMIT)), struct.pack(">I", len(SUBMIT) - 3), 1),
         (CommandId.SUBMIT_SM_RESP, S.ESME_RINVMSGLEN, 2)),
        (PACK_HEADER(20, CommandId.SUBMIT_SM, 0, 7) + b"\0\0\0\0", (CommandId.SUBMIT_SM_RESP, S.ESME_RINVCMDLEN, 7)),
        (PACK_HEADER(17, CommandId.DELIVER_SM, 0, 8) + b"\0", (CommandId.DELIVER_SM_RESP, S.ESME_RINVBNDSTS, 8)),
        (BIND, (CommandId.BIND_TRANSCEIVER_RESP, S.ESME_RALYBND, 1)),
        (PACK_HEADER(16, CommandId.OUTBIND, 0, 9), (CommandId.GENERIC_NACK, S.ESME_RINVBNDSTS, 9)),
    ],
    ids=["unknown command", "cut off", "short body", "wrong way", "bound already", "outbind"],
)  # fmt: skip
async def test_bad_pdu_is_refused_and_the_bind_stands(
    customer: Customer, frame: bytes, answer: tuple[int, int, int]
) -> None:
    answers = await talk(customer, BIND, frame, SUBMIT, wanted=3)
    assert answers[1] == answer
    assert answers[2][:2] == (CommandId.SUBMIT_SM_RESP, S.ESME_ROK)


async def test_responses_that_nobody_waits_for_are_ignored(customer: Customer) -> None:
    strays = b"".join(
        PACK_HEADER(17, command, 0, sequence) + b"\0"
        for sequence, command in enumerate((CommandId.DELIVER_SM_RESP, CommandId.SUBMIT_SM_RESP, CommandId.UNBIND_RESP))
    )
    assert [answer[1] for answer in await talk(customer, BIND, strays, SUBMIT, wanted=2)] == [0, 0]


async def test_pdus_that_come_in_any_pieces_are_read(customer: Customer) -> None:
    octets = BIND + SUBMIT
    pieces = [octets[at : at + 7] for at in range(0, len(octets), 7)]
    answers = await talk(customer, *pieces, wanted=2)
    assert sorted(answer[0] for answer in answers) == [CommandId.SUBMIT_SM_RESP, CommandId.BIND_TRANSCEIVER_RESP]


async def test_submits_before_the_bind_is_answered_are_refused(customer: Customer) -> None:
    answers = await talk(customer, BIND + SUBMIT, wanted=2)
    assert sorted(answer[:2] for answer in answers) == [
        (CommandId.SUBMIT_SM_RESP, S.ESME_RINVBNDSTS),
        (CommandId.BIND_TRANSCEIVER_RESP, S.ESME_ROK),
    ]
    assert await customer.rows("SELECT id FROM message") == []


@pytest.mark.parametrize("seed", range(20))
async def test_random_octets_harm_nobody_else(customer: Customer, seed: int) -> None:
    chance = random.Random(seed)
    commands = [int(command) for command in CommandId]
    chunks = [BIND] if seed % 2 else []
    for sequence in range(30):
        body = chance.randbytes(chance.randrange(80))
        chunks.append(
            PACK_HEADER(HEADER_BYTES + len(body), chance.choice(commands), chance.randrange(3), sequence) + body
        )
    chunks.append(PACK_HEADER(3, 0, 0, 0))  # nothing can be read after this, so that the connection ends
    chunks.append(chance.randbytes(500))
    assert await talk(customer, *chunks[:1], b"".join(chunks[1:]))
    await assert_well(customer)


async def test_address_with_many_idle_connections_gets_no_more(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berid.dialects.smpp.server.UNBOUND_PER_ADDRESS", 3)
    bound = await customer.bind()
    idle = [await customer.connect() for _ in range(3)]
    assert await (await customer.connect()).end() is None
    assert not bound.closed.done()
    assert await idle[0].bind() == 0
    await customer.bind()


async def test_customer_who_does_not_read_is_read_no_more(customer: Customer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", customer.port, limit=1)
    while not customer.rt.binds._connections:
        await asyncio.sleep(0.002)
    (bind,) = customer.rt.binds._connections
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    unknown = PACK_HEADER(16, 0x0777, 0, 5) * 1_000
    async with asyncio.timeout(20):
        while bind._transport.is_reading():
            writer.write(unknown)  # each is answered
            await asyncio.sleep(0.001)
    assert bind._transport.get_write_buffer_size() < 500_000
    await assert_well(customer)
    writer.transport.abort()
