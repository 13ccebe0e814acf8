"""The request log: what is written of a request, what is not, and who may read it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid import dialects
from berid.base.secret import hash_token
from berid.config import Config
from berid.dialects import requests
from berid.dialects.requests import RequestLog, redact_parameters
from berid.dialects.web import Web, make_app
from berid.domain.account import Account, Application, Rules
from berid.flow.ports import Runtime
from berid.flow.retention import forget_all
from berid.store.hot import StoreAway
from tests.dialects.asgi import Answer, call
from tests.support.builders import SECRET, FakeClock, make_runtime
from tests.support.database import ask

GOOD = b'{"to":"966501234567","text":"hello","sender":"Berid"}'
OTHER, OPERATOR = "bt_other", "bt_operator"
OTHER_ACCOUNT = 900
DAY_S = 86_400


@dataclass
class Desk:
    """The doors with their log."""

    rt: Runtime
    app: Web
    log: RequestLog
    clock: FakeClock
    url: str

    async def ask(
        self, method: str, target: str, body: bytes = b"", token: str | None = SECRET, **headers: str
    ) -> Answer:
        """One request, and what it left is written."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        answer = await call(self.app, method, target, body, given)
        await self.clock.advance(0.001)
        await self.log.write()
        return answer

    async def lines(self, query: str = "", token: str = SECRET, path: str = "/requests") -> list[Any]:
        """What the API lists."""
        answer = await call(self.app, "GET", f"/api/v1{path}{query}", headers={"authorization": f"Bearer {token}"})
        assert answer.status == 200, answer.body
        found: list[Any] = answer.json["data"]
        return found

    async def count(self) -> int:
        """How many lines there are."""
        return int((await ask(self.url, "SELECT count(*) FROM request_log"))[0][0])


async def open_desk(url: str, takes: Any) -> AsyncIterator[Desk]:
    """The doors of every dialect; two accounts, and a token of the operator."""
    clock = FakeClock()
    async with make_runtime(url, clock=clock, config=Config(database_url=url, request_log=takes)) as rt:
        rt.dialects.update(dialects.discover().dialects)
        token = rt.directory.tokens[hash_token(SECRET)]
        others = Account(OTHER_ACCOUNT, "Other", "active", "SA", "Asia/Riyadh", "en", Rules())
        application = Application(OTHER_ACCOUNT + 1, OTHER_ACCOUNT, "Other", "active", frozenset(["sms"]), Rules())
        more = {
            hash_token(OTHER): replace(token, id=901, account_id=OTHER_ACCOUNT, application_id=OTHER_ACCOUNT + 1),
            hash_token(OPERATOR): replace(token, id=902, scopes=frozenset(["operator"])),
        }
        rt.directory = replace(
            rt.directory,
            accounts={**rt.directory.accounts, OTHER_ACCOUNT: others},
            applications={**rt.directory.applications, OTHER_ACCOUNT + 1: application},
            tokens={**rt.directory.tokens, **more},
        )
        log = RequestLog(rt)
        yield Desk(rt, make_app(rt, lambda: True, requests=log), log, clock, url)


@pytest.fixture
async def desk(store_url: str) -> AsyncIterator[Desk]:
    """The log as it is unless somebody sets it otherwise."""
    async for made in open_desk(store_url, "refused"):
        yield made


@pytest.fixture
async def desk_of_all(store_url: str) -> AsyncIterator[Desk]:
    """The log of everything."""
    async for made in open_desk(store_url, "all"):
        yield made


async def test_refused_request_is_told_with_all_that_helps(desk: Desk) -> None:
    answer = await desk.ask(
        "POST", "/api/v1/messages?api_key=hidden&x=1", b'{"to":"1","text":"hello"}', user_agent="curl/8"
    )
    (line,) = await desk.lines()
    assert line.pop("id").startswith("rql_")
    assert line.pop("ms") >= 0
    assert line == {
        "at": "2026-09-21T14:13:20.000Z",
        "request_id": answer.headers["x-request-id"],
        "account": "acc_1",
        "application": "app_2",
        "mode": "test",
        "method": "POST",
        "path": "/api/v1/messages",
        "dialect": "native",
        "status": 422,
        "kinds": ["sender_missing", "recipient_invalid"],
        "address": "198.51.100.7",
        "agent": "curl/8",
        "message": "",
        "parameters": {"api_key": "text of 6", "to": "text of 1", "text": "text of 5", "others": 1},
    }


async def test_accepted_message_is_found_among_the_messages_instead(desk: Desk) -> None:
    assert (await desk.ask("POST", "/api/v1/messages", GOOD)).status == 201
    assert await desk.count() == 0


async def test_everything_is_logged_if_asked_for_with_the_message_that_was_made(desk_of_all: Desk) -> None:
    desk = desk_of_all
    sent = (await desk.ask("POST", "/api/v1/messages", GOOD)).json
    taqnyat = b'{"recipients":"966501234567","body":"hello","sender":"Berid"}'
    answer = (await desk.ask("POST", "/v1/messages", taqnyat)).json
    found = {line["path"]: line for line in await desk.lines()}
    assert (found["/api/v1/messages"]["message"], found["/api/v1/messages"]["status"]) == (sent["id"], 201)
    assert found["/v1/messages"]["message"] == f"msg_{answer['messageId']}"
    assert [line["path"] for line in await desk.lines(f"?message={sent['id']}")] == ["/api/v1/messages"]


async def test_refusal_that_answers_200_is_one(desk: Desk) -> None:
    answer = await desk.ask("GET", "/api/v3/bakiye_sorgulama/add-content?api_key=wrong&response_type=json", token=None)
    assert answer.status == 200
    (line,) = await desk.lines(token=OPERATOR, path="/operator/requests")
    assert (line["dialect"], line["status"], line["kinds"]) == ("turkeysms", 200, ["token_invalid"])
    assert line["parameters"] == {"api_key": "text of 5", "response_type": "json"}


@pytest.mark.parametrize(
    ("method", "target", "path", "status"),
    [
        ("GET", "/api/v1/messages/msg_0123456789abcdef", "/api/v1/messages/{id}", 404),
        ("GET", "/api/v1/0123456789abcdef", "/api/v1/*", 404),
        ("GET", "/api/v3/rapor/0123456789abcdef", "/api/v3/rapor/*", 404),
        ("PUT", "/api/v1/messages/0123456789abcdef", "/api/v1/messages/{id}", 405),
        ("GET", "/wp-login.php", "/*", 404),
    ],
)
async def test_path_is_ours_and_never_the_callers(desk: Desk, method: str, target: str, path: str, status: int) -> None:
    assert (await desk.ask(method, target)).status == status
    assert await ask(desk.url, "SELECT path, status FROM request_log") == [(path, status)]


async def test_what_machines_ask_all_the_time_is_left_out(desk_of_all: Desk) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        await desk_of_all.ask("GET", path)
    assert await desk_of_all.count() == 0


async def test_account_sees_its_own_of_its_tokens_mode_and_the_operator_all(desk: Desk) -> None:
    for token in (SECRET, OTHER, "bt_nobody"):
        await desk.ask("POST", "/api/v1/messages", b"{}", token=token)
    assert [line["account"] for line in await desk.lines()] == ["acc_1"]
    assert [line["account"] for line in await desk.lines(token=OTHER)] == ["acc_900"]
    everyone = await desk.lines(token=OPERATOR, path="/operator/requests")
    assert [line["account"] for line in everyone] == ["", "acc_900", "acc_1"]
    named = await desk.lines("?account=acc_900", token=OPERATOR, path="/operator/requests")
    assert [line["account"] for line in named] == ["acc_900"]
    await ask(desk.url, "UPDATE request_log SET mode = 'live' WHERE account_id = 1")
    assert await desk.lines() == []
    answer = await desk.ask("GET", "/api/v1/operator/requests")
    assert answer.status == 403


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 4),
        ("?limit=1", 1),
        ("?status=422", 1),
        ("?status=400", 2),
        ("?kind=malformed", 2),
        ("?kind=sender_missing", 1),
        ("?kind=no_route", 0),
        ("?method=post", 2),
        ("?path=/api/v1/balance", 1),
        ("?path=/api/v1/messages&status=422", 1),
        ("?dialect=taqnyat", 0),
        ("?application=app_2", 4),
        ("?application=app_3", 0),
        ("?request_id=mine", 1),
        ("?from=2026-09-21T14:13:20Z", 4),
        ("?from=2026-09-21T15:00:00Z", 0),
        ("?to=2026-09-21T14:13:20Z", 0),
    ],
)
async def test_list_is_narrowed(desk: Desk, query: str, found: int) -> None:
    await desk.ask("POST", "/api/v1/messages", b"{")
    await desk.ask("POST", "/api/v1/messages", b"{}")
    await desk.ask("GET", "/api/v1/messages?limit=x", x_request_id="mine")
    await desk.ask("DELETE", "/api/v1/balance")
    assert len(await desk.lines(query)) == found


async def test_list_goes_on_through_windows_without_a_find(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berid.store.requests.WINDOW", 3)
    for place in range(10):
        await desk.ask("POST" if place else "DELETE", "/api/v1/balance")
    found, cursor, calls = [], "", 0
    while cursor is not None:
        target = f"/api/v1/requests?method=DELETE&cursor={cursor}"
        answer = await call(desk.app, "GET", target, headers={"authorization": f"Bearer {SECRET}"})
        found += answer.json["data"]
        cursor, calls = answer.json["next"], calls + 1
    assert [line["method"] for line in found] == ["DELETE"]
    assert calls == 4


async def test_room_is_bounded_and_what_finds_none_is_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "WAITING_MAX", 3)
    for _ in range(5):
        await call(desk.app, "POST", "/api/v1/messages", b"{", {"authorization": f"Bearer {SECRET}"})
    await desk.log.write()
    assert await desk.count() == 3
    assert b'berid_dropped_total{what="request_log"} 2.0' in desk.rt.metrics.render()


async def test_strangers_do_not_push_customers_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "STRANGERS_MAX", 2)
    for _ in range(5):
        await call(desk.app, "POST", "/api/v1/messages", b"{")
    await desk.ask("POST", "/api/v1/messages", b"{")
    assert await ask(desk.url, "SELECT account_id, count(*) FROM request_log GROUP BY 1 ORDER BY 1") == [(0, 2), (1, 1)]
    assert b'berid_dropped_total{what="request_log"} 3.0' in desk.rt.metrics.render()


async def test_crowd_of_strangers_alone_writes_no_empty_batch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "STRANGERS_MAX", 2)
    monkeypatch.setattr(requests, "BATCH_MAX", 2)
    for _ in range(5):
        await call(desk.app, "POST", "/api/v1/messages", b"{")
    await desk.log.write()
    assert await desk.count() == 2
    assert b'berid_dropped_total{what="request_log"} 3.0' in desk.rt.metrics.render()


async def test_lines_wait_while_the_store_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Any) -> Any:
        raise StoreAway("gone")

    with monkeypatch.context() as patch:
        patch.setattr("berid.store.Store.transaction", away)
        await desk.ask("POST", "/api/v1/messages", b"{")
    assert await desk.count() == 0
    await desk.log.write()
    assert await desk.count() == 1


async def test_line_that_cannot_be_written_ends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(requests, "redact_parameters", broken)
        await desk.ask("POST", "/api/v1/messages", b"{")
    await desk.ask("POST", "/api/v1/messages", b"{")
    assert await desk.count() == 1


async def test_what_waits_is_written_by_itself(desk: Desk) -> None:
    task = asyncio.create_task(desk.log.run())
    await asyncio.sleep(0)
    await call(desk.app, "POST", "/api/v1/messages", b"{")
    await desk.clock.advance(requests.WRITE_S)
    async with asyncio.timeout(5):
        while not await desk.count():
            await asyncio.sleep(0.01)
    task.cancel()


async def test_lines_are_kept_for_their_time_and_no_longer(desk: Desk) -> None:
    await desk.ask("POST", "/api/v1/messages", b"{")
    await desk.clock.advance(desk.rt.config.retention.requests_days * DAY_S - 60)
    assert (await forget_all(desk.rt))["request log"] == 0
    await desk.clock.advance(120)
    assert (await forget_all(desk.rt))["request log"] == 1
    assert await desk.count() == 0


@pytest.mark.parametrize(
    ("query", "body", "shown"),
    [
        (b"", None, {}),
        (b"api_key=abc&sms_lang=1", b"", {"api_key": "text of 3", "sms_lang": "1"}),
        (b"", b'{"text":"a","to":["1","2"],"sms_lang":2}', {"text": "text of 1", "to": "list of 2", "sms_lang": 2}),
        (b"", b'{"metadata":{"a":"b"}}', {"metadata": "object of 1"}),
        (b"", b'{"code":123456,"reference":null}', {"code": "number", "reference": "nothing"}),
        (b"unknown=1&0123456789abcdef", b"", {"others": 2}),
        (b"sender=" + b"x" * 31, b"", {"sender": "text of 31"}),
        (b"", b'{"sender":["x"],"limit":1000000000000000000000}', {"sender": "list of 1", "limit": "number"}),
        (b"a=%ff", b"{}", {}),
        (b"", b'{"text":', {}),
    ],
)
def test_parameters_are_shown_by_what_they_are(query: bytes, body: bytes | None, shown: dict[str, object]) -> None:
    assert redact_parameters(query, body, "") == shown


async def test_long_requests_are_told_without_parameters(desk: Desk) -> None:
    await desk.ask("POST", "/api/v1/messages", b'{"text":"' + b"x" * 5_000 + b'"}')
    assert (await desk.lines())[0]["parameters"] == {}


@given(
    st.binary(max_size=100), st.one_of(st.none(), st.binary(max_size=200)), st.sampled_from(["", "application/json"])
)
def test_any_bytes_can_be_redacted_and_encoded(query: bytes, body: bytes | None, content_type: str) -> None:
    assert msgspec.json.encode(redact_parameters(query, body, content_type))
