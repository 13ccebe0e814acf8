"""Who waits for whom: accounts beside a large one, codes beside bulk, receivers beside a slow one."""

from __future__ import annotations

import asyncio

from tests.scenarios.conftest import MakeSite
from tests.support.receiver import Hang, Receiver
from tests.support.site import Site

RATE = 100
SOON_MS = 1_000


async def _left_after_ms(site: Site, number: str) -> int:
    """How long after its yes a message was at the carrier."""
    await site.carrier.until(lambda: site.carrier.submits_to(number), 20)
    ((made_ms,),) = await site.ask(
        "SELECT m.created_ms FROM message m JOIN delivery d ON d.message_id = m.id WHERE d.recipient = $1", number
    )
    return int(site.carrier.submits_to(number)[0].at_ms - made_ms)


async def test_backlog_of_one_account_delays_neither_others_nor_codes(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    await site.set_connector(rate=RATE)
    token = await site.add_account("Small")
    await site.berid.start()
    backlog = [f"9665{number:08d}" for number in range(20_001_000, 20_001_000 + 900)]
    await site.accepted(*backlog)
    await site.accepted(*[number.replace("96652", "96653", 1) for number in backlog])
    await site.carrier.until(lambda: site.carrier.counters.submits > RATE // 2, 10)

    mine = [f"96650000{number}" for number in range(1_000, 1_010)]
    for number in mine:
        await site.accepted(number, token=token)
    waits_ms = [await _left_after_ms(site, number) for number in mine]
    assert max(waits_ms) < SOON_MS, waits_ms

    # The large account's own code overtakes its bulk.
    status, answer = await site.call("POST", "/api/v1/otp", {"to": "966500002000", "sender": "Berid"})
    assert status == 201, answer
    assert await _left_after_ms(site, "966500002000") < SOON_MS
    states = await site.states()
    assert states["queued"] > 2 * RATE, "the backlog is gone: nothing was proved"


async def test_receiver_that_hangs_harms_itself_only(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    async with Receiver() as slow:
        slow.always(Hang.FOREVER)
        await site.be_called_back(slow)
        await site.be_called_back()
        await site.berid.start()
        numbers = [f"96650000{number}" for number in range(1_000, 1_200)]
        await asyncio.gather(*(site.accepted(number) for number in numbers))
        await site.receiver.wait_for(len(numbers), 10)
        assert await site.states() == {"delivered": len(numbers)}
        assert slow.count < 20  # a few calls at a time, each until its time limit

        async def only_the_slow_ones_wait() -> bool:
            waiting = await site.ask("SELECT count(*) FROM job WHERE kind = 'callback' AND buried_ms = 0")
            return waiting == [(len(numbers),)]

        await site.until(only_the_slow_ones_wait, 5)
