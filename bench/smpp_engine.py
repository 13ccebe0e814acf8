"""How many messages a second the SMPP engine carries, alone: no store, no product, nothing kept on disk.

`python -m bench.smpp_engine` starts a carrier in a second process, binds to it over loopback and submits,
always `--window` requests ahead. Each run is done without and with a delivery receipt for every message. CPU is
what the kernel counts for each process, start-up left out. On a machine that does other work at the same time
the messages per second say little; the CPU per message still says something.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from berid.wire.smpp import receipt
from berid.wire.smpp.codes import EsmClass, MessageState
from berid.wire.smpp.pdu import BindTransceiver, BindTransceiverResp, DeliverSm, SubmitSm
from berid.wire.smpp.session import Request, Response, Role, Session, SessionSettings

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0
"""A run that takes longer is broken, not slow: 200,000 messages at a tenth of the expected speed take 50 s."""


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Carrier(asyncio.Protocol):
    """Answers every submit at once and, if asked to, sends a receipt for it within its own window."""

    def __init__(self, window: int, done: asyncio.Future[float]) -> None:
        self.session = Session(SessionSettings(Role.SMSC, window=window, max_unanswered=10_000), 0.0)
        self.receipts: deque[DeliverSm] = deque()
        self.number = 0
        self.done = done
        self.started_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's does not say that it is one
        self.started_at = cpu_s()

    def data_received(self, data: bytes) -> None:
        session = self.session
        for event in session.receive(data, 0.0):
            if isinstance(event, Request):
                pdu = event.pdu
                if isinstance(pdu, SubmitSm):
                    self.number += 1
                    message_id = f"{self.number:x}"
                    session.respond(event.sequence, 0, message_id)
                    if pdu.registered_delivery:
                        self.receipts.append(make_receipt(message_id, pdu))
                elif isinstance(pdu, BindTransceiver):
                    session.respond_with(event.sequence, BindTransceiverResp("bench"))
        for _ in range(min(session.room, len(self.receipts))):
            session.submit(self.receipts.popleft(), 0.0)
        output = session.take_output()
        if output:
            self.transport.write(output)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(cpu_s() - self.started_at)


def make_receipt(message_id: str, pdu: SubmitSm) -> DeliverSm:
    return DeliverSm(
        source_addr_ton=1,
        source_addr_npi=1,
        source_addr=pdu.destination_addr,
        dest_addr_ton=pdu.source_addr_ton,
        destination_addr=pdu.source_addr,
        esm_class=EsmClass.TYPE_RECEIPT,
        short_message=receipt.build(
            message_id,
            MessageState.DELIVERED,
            submit_digits="2611221430",
            done_digits="2611221432",
            quote=pdu.short_message,
        ),
        tlvs=receipt.build_tlvs(message_id, MessageState.DELIVERED),
    )


class Client(asyncio.Protocol):
    """Submits `count` messages, always as many ahead as the window takes, and reads and answers every receipt."""

    def __init__(self, window: int, count: int, wants_receipts: bool, done: asyncio.Future[None]) -> None:
        self.session = Session(SessionSettings(Role.ESME, window=window, max_unanswered=10_000), 0.0)
        self.left = count
        self.answers = count
        self.receipts = count if wants_receipts else 0
        self.registered_delivery = 1 if wants_receipts else 0
        self.done = done
        self.next_number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's does not say that it is one
        self.session.bind(BindTransceiver("bench", "bench"), 0.0)
        self.transport.write(self.session.take_output())

    def data_received(self, data: bytes) -> None:
        session = self.session
        for event in session.receive(data, 0.0):
            if isinstance(event, Request):
                assert isinstance(event.pdu, DeliverSm)
                assert receipt.is_receipt(event.pdu)
                assert receipt.parse(event.pdu).state is MessageState.DELIVERED
                self.receipts -= 1
                session.respond(event.sequence)
            elif isinstance(event, Response):
                assert event.status == 0
                if event.token is not None:
                    self.answers -= 1
        for _ in range(min(session.room, self.left)):
            self.submit()
        output = session.take_output()
        if output:
            self.transport.write(output)
        if not self.answers and not self.receipts and not self.done.done():
            self.done.set_result(None)

    def submit(self) -> None:
        self.left -= 1
        self.next_number += 1
        pdu = SubmitSm(
            source_addr_ton=5,
            source_addr="BERID",
            dest_addr_ton=1,
            dest_addr_npi=1,
            destination_addr="966501234567",
            validity_period="000000000500000R",
            registered_delivery=self.registered_delivery,
            short_message=b"Your code is 123456. Do not give it to anyone, not even to us.",
        )
        self.session.submit(pdu, 0.0, self.next_number)


def run_carrier(pipe: Connection, window: int) -> None:
    """The second process: serve one connection, then send back the CPU seconds it took."""

    async def serve() -> float:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[float] = loop.create_future()
        server = await loop.create_server(lambda: Carrier(window, done), LOOPBACK, 0)
        pipe.send(server.sockets[0].getsockname()[1])
        async with asyncio.timeout(PATIENCE_S):
            used = await done
        server.close()
        return used

    pipe.send(uvloop.run(serve()))


async def run_client(port: int, window: int, count: int, wants_receipts: bool) -> tuple[float, float]:
    """Return (seconds, CPU seconds of this process) for the run."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    cpu = cpu_s()
    begin = time.perf_counter()
    transport, _ = await loop.create_connection(lambda: Client(window, count, wants_receipts, done), LOOPBACK, port)
    async with asyncio.timeout(PATIENCE_S):
        await done
    seconds = time.perf_counter() - begin
    used = cpu_s() - cpu
    transport.close()
    return seconds, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="messages per run (default 200,000)")
    parser.add_argument("--window", type=int, default=100, help="requests without an answer, each way (default 100)")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{options.messages:,} messages, window {options.window}, one bind, loopback, uvloop")
    print(f"{'':12}{'messages/s':>12}{'CPU µs per message':>22}")
    print(f"{'':12}{'':>12}{'client':>11}{'carrier':>11}")
    for name, wants_receipts in (("submit", False), ("+ receipt", True)):
        ours, theirs = context.Pipe()
        carrier = context.Process(target=run_carrier, args=(theirs, options.window), daemon=True)
        carrier.start()
        port = ours.recv()
        seconds, client_cpu = uvloop.run(run_client(port, options.window, options.messages, wants_receipts))
        carrier_cpu = ours.recv()
        carrier.join(PATIENCE_S)
        per_message = 1e6 / options.messages
        rate = options.messages / seconds
        print(f"{name:12}{rate:12,.0f}{client_cpu * per_message:11.1f}{carrier_cpu * per_message:11.1f}")


if __name__ == "__main__":
    main()
