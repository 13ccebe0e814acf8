"""Carriers as they are: reports that come early, often or never, submits without an answer, links that break, "too fast"."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from berid.domain.routing import UncertainPolicy
from tests.scenarios.conftest import MakeSite
from tests.support.site import Site

PRICE = 26_000


async def _history(site: Site, message_id: str) -> list[str]:
    """What is told of a message of one delivery, without what its customer was told."""
    _, found = await site.call("GET", f"/api/v1/messages/{message_id}")
    return [moment["event"] for moment in found["timeline"] if moment["event"] not in ("accepted", "callback")]


async def _money(site: Site) -> tuple[Any, ...]:
    """Held and spent of the account's test wallet."""
    ((held, spent),) = await site.ask(
        "SELECT held_micros, spent_micros FROM wallet WHERE account_id = $1 AND mode = 'test' AND currency = 'SAR'",
        site.account_id,
    )
    return held, spent


ENDS = [
    ("966500000002", 1, "rejected"),
    ("966500000012", 1, "delivered"),
    ("966500000013", 1, "delivered"),
    ("966500000014", 1, "delivered"),
    ("966500000015", 4, "delivered"),
    ("966500000022", 1, "undelivered"),
    ("966500000024", 1, "expired"),
    ("966500000016", 1, "delivered"),  # the last: its link breaks, and with it whatever else is under way there
]
"""Numbers, how often the carrier sees a submit to each, and how each ends."""


async def test_every_message_ends_once_is_paid_once_and_told_once(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    await site.be_called_back()
    await site.berid.start()
    made = {number: (await site.accepted(number))["id"] for number, _, _ in ENDS[:-1]}
    for number, submits, state in ENDS:
        if number not in made:
            made[number] = (await site.accepted(number))["id"]
        await site.until_state(made[number], state, timeout_s=15)
        assert len(site.carrier.submits_to(number)) == submits, number
    # Were there a second report or callback to come, this one's would come after it.
    after = await site.accepted("966500001000")
    await site.until_state(after["id"], "delivered", timeout_s=15)
    requests = await site.receiver.wait_for(len(ENDS) + 1, 10)
    told = [msgspec.json.decode(request.body) for request in requests]
    assert sorted((event["data"]["message_id"], event["type"]) for event in told) == sorted(
        [(made[number], f"message.{state}") for number, _, state in ENDS] + [(after["id"], "message.delivered")]
    )
    for number, _, state in ENDS:
        assert (await _history(site, made[number])).count(state) == 1, number
    assert await _money(site) == (0, PRICE * len(ENDS))  # the refused one cost nothing, the last one did
    await site.check_books()


async def test_sent_without_a_report_expires_and_stays_paid(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url, {"BERID_VALIDITY_NO_RECEIPT_S": "3600"})
    await site.berid.start()
    made = await site.accepted("966500000011")
    await site.until_state(made["id"], "sent")
    assert await site.berid.stop() == 0
    for table in ("delivery", "carrier_ref"):
        await site.ask(f"UPDATE {table} SET sent_ms = sent_ms - 3600000")
    await site.berid.start()  # looks for such deliveries at its start and every minute
    found = await site.until_state(made["id"], "expired")
    assert found["deliveries"][0]["reason"] == "no_receipt"
    assert await _money(site) == (0, PRICE)


@pytest.mark.parametrize("policy", [UncertainPolicy.WAIT, UncertainPolicy.FAIL, UncertainPolicy.RESEND])
async def test_submit_without_a_response_is_uncertain_and_then_as_the_route_says(
    open_site: MakeSite, sqlite_url: str, policy: UncertainPolicy
) -> None:
    site = await open_site(sqlite_url)
    await site.set_connector(response_timeout_s=0.5)
    await site.change_route(uncertain={1: policy})
    await site.berid.start()
    number = "966500000010"
    made = await site.accepted(number, valid_for_s=4)
    if policy is UncertainPolicy.WAIT:
        await site.until_state(made["id"], "uncertain", timeout_s=3)
    await site.until_state(made["id"], "failed", timeout_s=12)
    kinds = await _history(site, made["id"])
    submits = len(site.carrier.submits_to(number))
    assert list(dict.fromkeys(kinds)) == ["uncertain", "failed"]
    assert kinds.count("uncertain") == submits
    assert (submits > 1) == (policy is UncertainPolicy.RESEND)
    assert await _money(site) == (0, 0)
    await site.check_books()
