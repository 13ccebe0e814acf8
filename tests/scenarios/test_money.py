"""Money and keys when everybody asks at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tests.scenarios.conftest import MakeSite

PRICE = 26_000


async def test_balance_for_fifty_accepts_exactly_fifty_of_two_hundred(open_site: MakeSite, store_url: str) -> None:
    site = await open_site(store_url)
    token = await site.add_account("Poor", riyals=2)
    await site.berid.start()
    enough = 2_000_000 // PRICE
    answers = await asyncio.gather(*(site.send(f"96650000{number}", token=token) for number in range(1_000, 1_200)))
    assert Counter(status for status, _ in answers) == {201: enough, 402: 200 - enough}
    assert {answer["code"] for status, answer in answers if status == 402} == {"balance_short"}
    assert await site.until_settled() == {"delivered": enough}
    assert site.carrier.counters.submits == enough
    await site.check_books()

    # The same for one key: a hundred ask, one message is sent, and everybody hears of it.
    answers = await asyncio.gather(*(site.send("966500002000", key="order-1") for _ in range(100)))
    assert Counter(status for status, _ in answers) == {201: 100}
    assert len({answer["id"] for _, answer in answers}) == 1
    await site.until_state(answers[0][1]["id"], "delivered")
    assert len(site.carrier.submits_to("966500002000")) == 1
    status, _ = await site.send("966500002000", text="another text", key="order-1")
    assert status == 409

    # And a plan: cancelled, it gives its money back and never leaves; kept, it leaves at its time.
    at_ms = int(time.time() * 1000) + 1_500
    kept = await site.accepted("966500003000", send_at=at_ms)
    dropped = await site.accepted("966500003001", send_at=at_ms)
    status, cancelled = await site.call("POST", f"/api/v1/messages/{dropped['id']}/cancel", {})
    assert (status, cancelled["cancelled"], cancelled["refunded"]) == (200, 1, "0.026")
    await site.until_state(kept["id"], "delivered")
    (submitted,) = site.carrier.submits_to("966500003000")
    assert at_ms <= submitted.at_ms < at_ms + 2_000
    assert site.carrier.submits_to("966500003001") == []
    assert await site.state(dropped["id"]) == "cancelled"
    await site.check_books()
