"""What machines ask: alive, ready and why not, figures, and the description of the API."""

import asyncio
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from berid.base.secret import hash_token
from berid.dialects.native import ENDPOINTS, dialect
from berid.dialects.native.openapi import document
from berid.dialects.native.problems import FAILURES, refusals
from berid.dialects.web import make_app
from berid.flow.ports import Connector
from berid.queue.lanes import Lane
from berid.store.hot import HotStore, StoreAway
from berid.store.schema import migrate
from tests.dialects.asgi import call
from tests.dialects.native.conftest import Api, with_directory
from tests.support.builders import CONNECTOR_ID, SECRET, make_runtime

LOCAL = ("127.0.0.1", 5)


class Link:
    """A connector with a health of its own."""

    def __init__(self, health: str) -> None:
        self._health = health

    def health(self) -> str:
        """See `Connector.health`."""
        return self._health


async def test_live_says_only_that_the_loop_runs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> Any:
        raise StoreAway("gone")

    monkeypatch.setattr(HotStore, "do", away)
    for path in ("/health/live", "/health/live/"):
        answer = await call(api.app, "GET", path)
        assert (answer.status, answer.body) == (200, b'{"status":"live"}')


async def test_ready_counts_what_is_not_as_it_should_be(api: Api) -> None:
    links = {CONNECTOR_ID: Link("up"), 9: Link("down: refused"), 10: Link("degraded: 1 of 2")}
    api.rt.connectors = cast("dict[int, Connector]", links)
    lane: Lane[Any] = Lane("c8", 10)
    api.rt.lanes["c8"] = lane
    answer = await call(api.app, "GET", "/health/ready")
    assert (answer.status, answer.json) == (
        200,
        {
            "status": "ready",
            "store": "ok",
            "connectors": {"up": 1, "down": 1, "degraded": 1},
            "waiting": 0,
        },
    )
    near = await call(api.app, "GET", "/health/ready", client=LOCAL)
    assert near.json["details"] == {"carrier": "up", "9": "down: refused", "10": "degraded: 1 of 2"}


async def test_process_that_starts_or_stops_is_not_ready(api: Api) -> None:
    answer = await call(make_app(api.rt, lambda: False), "GET", "/health/ready")
    assert (answer.status, answer.json["status"]) == (503, "not ready")
    assert answer.json["why"] == ["the process is starting or stopping"]


async def test_process_without_store_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> Any:
        raise StoreAway("gone")

    monkeypatch.setattr(HotStore, "do", away)
    answer = await call(api.app, "GET", "/health/ready")
    why = ["the store takes nothing that is to be kept"]
    assert (answer.status, answer.json["store"], answer.json["why"]) == (503, "away", why)


async def test_process_whose_disk_is_full_is_not_ready_until_there_is_room(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/berid.db"
    await migrate(url)
    async with make_runtime(url) as rt:
        rt.dialects["native"] = dialect
        app = make_app(rt, lambda: True)
        writer = (await rt.store.hot._driver.connect()).pid
        soft, hard = resource.prlimit(writer, resource.RLIMIT_FSIZE)
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (0, hard))
        full = await call(app, "GET", "/health/ready")
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (soft, hard))
        assert (full.status, full.json["store"]) == (503, "away")
        assert (await call(app, "GET", "/health/ready")).status == 200


async def test_store_that_hangs_is_away_in_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berid.dialects.native.service.STORE_S", 0.5)
    async with api.rt.store.transaction():  # the hot path waits for it on SQLite only
        answer = await call(api.app, "GET", "/health/ready")
    assert answer.status == (503 if api.rt.store.is_sqlite else 200)


async def test_readiness_leaves_nothing_behind(api: Api) -> None:
    await asyncio.gather(*(call(api.app, "GET", "/health/ready") for _ in range(3)))
    assert await api.count("message") == await api.count("parked_report") == 0


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        (LOCAL, {}, 200),
        (LOCAL, {"x-forwarded-for": "203.0.113.9"}, 404),
        (("203.0.113.9", 5), {}, 404),
    ],
)
async def test_figures_are_for_this_machine_only(
    api: Api, client: tuple[str, int], headers: dict[str, str], status: int
) -> None:
    await api.send()
    answer = await call(api.app, "GET", "/metrics", headers=headers, client=client)
    assert answer.status == status
    if status == 200:
        assert answer.headers["content-type"].startswith("text/plain")
        assert b'berid_accepted_total{channel="sms",dialect="native",mode="test"} 1.0' in answer.body
        assert b"berid_accept_seconds_count 1.0" in answer.body
    else:
        assert answer.json["code"] == "path_unknown"


# ── The description ────────────────────────────────────────────────────────────────────────────────────────────────────


def described() -> Any:
    """The document, decoded."""
    return msgspec.json.decode(document(ENDPOINTS))


async def test_description_is_served(api: Api) -> None:
    answer = await call(api.app, "GET", "/openapi.json")
    assert (answer.status, answer.json["openapi"]) == (200, "3.1.0")
    assert answer.json == described()


def test_every_endpoint_is_described_with_every_answer_it_may_give() -> None:
    paths = described()["paths"]
    codes = {kind.value for kind in refusals} | {code for code, _ in FAILURES.values()}
    for each in ENDPOINTS:
        operation = paths["/api/v1" + each.path][each.method.lower()]
        assert operation["summary"]
        assert str(each.status) in operation["responses"]
        assert ("requestBody" in operation) == (each.body is not None)
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                named = {word.strip("`.") for word in answer["description"].removeprefix("One of: ").split(", ")}
                assert named
                assert named <= codes
        for status in ("400", "401", "403", "405", "408", "413", "500", "503"):
            assert status in operation["responses"], (each.path, status)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for path in described()["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ENDPOINTS)


def test_every_reference_leads_somewhere() -> None:
    text = document(ENDPOINTS).decode()
    schemas = described()["components"]["schemas"]
    references = {piece.split('"')[0] for piece in text.split('"$ref":"#/components/schemas/')[1:]}
    assert references <= schemas.keys()
    assert "NewMessage" in references
    assert "MessageQuery" not in schemas


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        (
            "get",
            "/messages",
            ["limit", "cursor", "state", "channel", "from", "to", "number", "application", "reference"],
        ),
        ("post", "/messages", ["Idempotency-Key"]),
        ("post", "/callbacks/{id}/events/{event}/replay", ["id", "event"]),
    ],
)
def test_parameters_are_described(method: str, path: str, names: list[str]) -> None:
    operation = described()["paths"]["/api/v1" + path][method]
    assert [each["name"] for each in operation["parameters"]] == names


def test_descriptions_are_plain_paragraphs() -> None:
    for schema in described()["components"]["schemas"].values():
        assert "\n    " not in schema.get("description", "")


async def test_answers_have_the_fields_that_are_described(api: Api) -> None:
    said = await api.send()
    schemas = described()["components"]["schemas"]
    detail = (await api("GET", f"/messages/{said['id']}")).json
    problem = (await api("GET", "/messages/msg_1")).json
    for name, body in (("AcceptedMessage", said), ("MessageDetail", detail), ("Problem", problem)):
        assert set(schemas[name]["required"]) <= body.keys() <= schemas[name]["properties"].keys()


async def test_every_endpoint_wants_a_token(api: Api) -> None:
    for each in ENDPOINTS:
        path = each.path.replace("{id}", "1").replace("{event}", "1")
        answer = await api(each.method, path, {}, token=None)
        assert (answer.status, answer.json["code"]) == (401, "token_missing"), path


async def test_every_endpoint_with_a_right_refuses_those_without(api: Api) -> None:
    token = api.rt.directory.tokens[hash_token(SECRET)]
    with_directory(api.rt, tokens={token.hash: replace(token, scopes=frozenset())})
    said: dict[str, Any] = {"send_at": 1, "from": 1, "to": 2, "url": "https://a.example/"}
    for each in ENDPOINTS:
        if each.scope is None or each.accepts:
            continue
        path = each.path.replace("{id}", "1").replace("{event}", "1")
        answer = await api(each.method, path, said)
        assert (answer.status, answer.json["code"]) == (403, "scope_missing"), path


async def test_what_a_refusal_points_at_is_there(api: Api) -> None:
    refusal = await call(api.app, "GET", "/api/v1/messages")
    page, _, code = refusal.json["docs"].partition("#")
    answer = await call(api.app, "GET", page)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    assert f"## {code}\n" in answer.body.decode()


async def test_bare_address_says_where_things_are_and_they_are_there(api: Api) -> None:
    answer = await call(api.app, "GET", "/")
    assert answer.status == 200
    for name in ("openapi", "errors", "ready"):
        assert (await call(api.app, "GET", answer.json[name])).status == 200
