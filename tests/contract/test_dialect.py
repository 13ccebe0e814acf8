"""What every dialect must do, run over each one that is found."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from berid import dialects
from berid.dialects.web import Group, Request, Response, Web, make_app
from berid.domain.errors import Refusal, RefusalKind
from berid.flow.ports import Runtime
from berid.store.hot import StoreAway
from tests.dialects.asgi import call
from tests.support.builders import SECRET, FakeClock, make_runtime

SPOKEN = dialects.discover()
FOUND: dict[str, Any] = {**SPOKEN.dialects, **SPOKEN.listeners}
WITH_DOORS = list(SPOKEN.dialects)
FAILURES = (404, 405, 408, 413, 500)


@pytest.fixture
async def rt(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime that speaks every dialect."""
    async with make_runtime(tmp_path, clock=FakeClock()) as runtime:
        runtime.dialects.update(SPOKEN.dialects)
        yield runtime


def groups(rt: Runtime, name: str) -> list[Group]:
    """The groups of a dialect's routes."""
    return list({id(route.group): route.group for route in FOUND[name].routes(rt)}.values())


async def request(rt: Runtime) -> Request:
    """Some request, as a group gets it."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {"method": "POST", "path": "/", "headers": [], "query_string": b"", "client": None, "scheme": "http"}
    made = Request(Web(rt, [], lambda: True), scope, receive)
    made.id = "req_1"
    return made


@pytest.mark.parametrize("name", FOUND)
def test_folder_and_dialect_have_one_name(name: str) -> None:
    assert FOUND[name].name == name
    assert FOUND[name].__class__.__module__.startswith(f"berid.dialects.{name}")


@pytest.mark.parametrize("name", FOUND)
def test_every_refusal_has_its_answer(name: str) -> None:
    missing = [kind.name for kind in RefusalKind if kind not in FOUND[name].refusals]
    assert missing == [], f"give each of them its place in the table of {name}"
    assert not set(FOUND[name].refusals) - set(RefusalKind)


@pytest.mark.parametrize("kind", RefusalKind)
@pytest.mark.parametrize("name", WITH_DOORS)
async def test_every_refusal_can_be_worded(rt: Runtime, name: str, kind: RefusalKind) -> None:
    for group in groups(rt, name):
        answer = group.refuse(await request(rt), [Refusal(kind, "why", "field", 2.5)])
        assert isinstance(answer, Response)
        assert isinstance(answer.body, bytes)
        assert 200 <= answer.status < 600


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("name", WITH_DOORS)
async def test_every_failure_can_be_worded(rt: Runtime, name: str, status: int) -> None:
    for group in groups(rt, name):
        answer = group.fail(await request(rt), status)
        assert isinstance(answer, Response)
        assert isinstance(answer.body, bytes)


@pytest.mark.parametrize("name", WITH_DOORS)
async def test_refusals_are_told_without_our_words_for_secrets(rt: Runtime, name: str) -> None:
    for group in groups(rt, name):
        for kind in RefusalKind:
            assert SECRET.encode() not in group.refuse(await request(rt), [Refusal(kind)]).body


@pytest.mark.parametrize("name", WITH_DOORS)
async def test_store_that_is_away_is_told_in_the_dialects_own_words(rt: Runtime, name: str) -> None:
    """Not with the words for a crash: whoever hears them must know that the same request may be sent again."""
    for group in groups(rt, name):
        away = group.refuse(await request(rt), [Refusal(RefusalKind.STORE_AWAY)])
        crash = group.fail(await request(rt), 500)
        assert (away.status, away.body) != (crash.status, crash.body)
        assert away.body


@pytest.mark.parametrize("name", WITH_DOORS)
async def test_store_that_goes_away_in_a_handler_is_no_crash(
    rt: Runtime, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreAway("gone")

    monkeypatch.setattr("berid.store.hot.HotStore.do", away)
    app = make_app(rt, lambda: True)
    for route in FOUND[name].routes(rt):
        path = re.sub(r"\{\w+\}", "1", route.path)
        host = next(iter(route.group.hosts), "api.example")
        headers = {"authorization": f"Bearer {SECRET}", "host": host}
        answer = await call(app, route.methods[0], path, b"{}", headers)
        assert answer.status != 500, path


@pytest.mark.parametrize("name", WITH_DOORS)
async def test_every_path_answers_with_and_without_slash_and_refuses_other_methods(rt: Runtime, name: str) -> None:
    app = make_app(rt, lambda: True)
    for route in FOUND[name].routes(rt):
        path = re.sub(r"\{\w+\}", "1", route.path)
        headers = {"host": next(iter(route.group.hosts), "api.example")}
        for form in (path, path.rstrip("/") + "/"):
            answer = await call(app, "PROPFIND", form, headers=headers)
            assert answer.headers["allow"], form
            assert "location" not in answer.headers


async def test_all_dialects_fit_beside_one_another(rt: Runtime) -> None:
    assert make_app(rt, lambda: True)
