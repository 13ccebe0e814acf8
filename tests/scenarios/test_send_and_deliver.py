"""A message as its sender writes it, up to the handset and back."""

from __future__ import annotations

import argparse
import shlex

import aiohttp
import msgspec

from berid import demo
from tests.scenarios.conftest import MakeSite


async def test_message_in_each_language_reaches_the_handset_and_its_sender_hears_of_it(
    open_site: MakeSite, store_url: str
) -> None:
    site = await open_site(store_url)
    await site.be_called_back()
    await site.berid.start()
    body = {"recipients": [966500001000], "body": "hello", "sender": demo.SENDER}
    status, answer = await site.call("POST", "/v1/messages", body)
    assert status == 201
    assert (answer["statusCode"], answer["accepted"], answer["rejected"]) == (201, "[966500001000,]", "[]")
    made = await site.accepted("966500001001", text="مرحبا")
    found = await site.until_state(made["id"], "delivered")
    assert [moment["event"] for moment in found["timeline"]][:3] == ["accepted", "sent", "delivered"]
    assert await site.until_settled() == {"delivered": 2}
    texts = [site.carrier.messages_to(f"96650000100{number}")[0].text for number in range(2)]
    assert texts == ["hello", "مرحبا"]
    told = [msgspec.json.decode(request.body) for request in await site.receiver.wait_for(2, 10)]
    assert {event["type"] for event in told} == {"message.delivered"}
    assert {event["data"]["to"] for event in told} == {"966500001000", "966500001001"}
    assert await site.berid.stop() == 0
    await site.check_books()


async def test_curl_line_of_the_demo_works_as_it_is_printed(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    await site.berid.start()
    ready = {
        "base_url": site.berid.url,
        "bearer_token": site.token,
        "api_key": "",
        "smpp": {"host": "127.0.0.1", "port": 1, "system_id": "demo", "password": ""},
    }
    text = demo.welcome(ready).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("curl")]
    assert len(lines) == 3
    for line in lines:
        assert "error" not in await _do(line)
    assert site.carrier.counters.submits <= 2
    assert await site.until_settled() == {"delivered": 2}


_CURL = argparse.ArgumentParser(exit_on_error=False)
"""As much of curl as the demo prints: a machine for our tests need not have it."""
_CURL.add_argument("url")
_CURL.add_argument("-X", dest="method", default="GET")
_CURL.add_argument("-H", dest="headers", action="append", default=[])
_CURL.add_argument("-d", dest="body")


async def _do(line: str) -> dict[str, object]:
    """What a line for curl is answered."""
    said = _CURL.parse_args(shlex.split(line)[1:])
    headers = dict(header.split(": ", 1) for header in said.headers)
    async with (
        aiohttp.ClientSession() as session,
        session.request(said.method, said.url, headers=headers, data=said.body) as answer,
    ):
        assert answer.status in (200, 201), await answer.text()
        found: dict[str, object] = await answer.json()
        return found
