"""Whatever cannot be read is refused at every door in that door's own words: never a crash, nothing charged, nothing stored.

The requests are made from the OpenAPI documents, so that a new operation is swept by itself.
"""

from typing import Any

import jsonschema_rs
import msgspec
import pytest

from berid.dialects.web import Web, make_app
from tests.dialects.asgi import Answer, call
from tests.security.house import House
from tests.security.knock import KEYS, Knock, knocks

UNREADABLE = {
    "half an object": b'{"to":',
    "a list of two": b'[{"to":"a"},{"to":"b"}]',
    "not UTF-8": b'{"to":"\xff"}',
    "half a surrogate pair": b'{"to":"\\ud800"}',
    "half a surrogate pair in bytes": b'{"to":"\xed\xa0\x80"}',
    "a NUL": b'{"to":"a\\u0000"}',
    "deep nesting": b'{"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number without end": b'{"to":1' + b"0" * 5_000 + b"}",
    "a number beyond all bounds": b'{"to":1e999}',
    "no number": b'{"to":NaN}',
    "more than an object": b'{"to":"a"} {"to":"b"}',
}
"""Bodies that nobody can read."""

UNREADABLE_QUERIES = ("to=%00", "to=%ff", "to=%ED%A0%80", "to=a%C3")
"""Queries that nobody can read."""

ODD_VALUES: dict[str, Any] = {
    "true": True,
    "an object": {"a": {"b": []}},
    "a list of lists": [[[]]],
    "a large number": 10**18,
    "a number below": -(10**15),
    "a fraction": 1e300,
    "nothing": None,
    "a long text": "ş" * 200_000,
    "controls": "\x01\x02\x1f\x7f",
    "no character": "\ufffe\uffff",
    "a right-to-left override": "\u202e\u2066",
}
"""Values that fit hardly anywhere. Some fit somewhere, so a refusal is not asked for."""

TEN_MEGABYTES = b'{"to":"' + b"5" * 10_000_000 + b'"}'

WORDS = {"native": "malformed", "turkeysms": "TS-1033"}
"""How a dialect calls what it cannot read. Taqnyat's API has no such word: there it is told by the status."""


def check(house: House, knock: Knock, answer: Answer, template: str, what: str) -> None:
    """The answer must be one that the document of the dialect describes."""
    document = house.documents[knock.dialect]
    where = f"{knock.method} {knock.path}: {what}: {answer.status} {answer.body[:200]!r}"
    responses = document["paths"][template][knock.method.lower()]["responses"]
    assert answer.status != 500, where
    assert str(answer.status) in responses, where
    kind = answer.headers.get("content-type", "").partition(";")[0]
    content = responses[str(answer.status)].get("content", {})
    assert kind in content or answer.status == 204, where
    if kind.endswith("json") and answer.body and "schema" in content[kind]:
        schema = {**content[kind]["schema"], "components": document["components"]}
        assert jsonschema_rs.is_valid(schema, answer.json), where


def is_unread(knock: Knock, answer: Answer) -> bool:
    """Whether an answer says, in its dialect's words, that the request could not be read."""
    if knock.dialect == "taqnyat":
        return (
            answer.status >= 400
            or (knock.path == "/verify.php" and b"success" not in answer.body)
            or answer.body in (b"6", b"1")
        )
    return WORDS[knock.dialect].encode() in answer.body


async def ask(app: Web, knock: Knock) -> Answer:
    """Knock without a socket in between."""
    headers = {"content-type": "application/json", **knock.headers}
    return await call(app, knock.method, knock.target, knock.body, headers)


@pytest.fixture
async def app(house: House) -> Web:
    """The doors, without sockets."""
    return make_app(house.app.rt, lambda: True)


async def test_what_nobody_can_read_is_refused_at_every_door(house: House, app: Web) -> None:
    await house.hush()
    for template, knock in knocks(house):
        if knock.fields is None:
            continue
        before = await house.counts()
        if knock.in_query:
            broken = {query: knock.but(fields=None, query=query) for query in UNREADABLE_QUERIES}
        else:
            broken = {what: knock.but(raw=body) for what, body in UNREADABLE.items()}
        for what, each in broken.items():
            answer = await ask(app, each)
            check(house, each, answer, template, what)
            assert is_unread(each, answer), f"{each.method} {each.path}: {what}: {answer.status} {answer.body[:200]!r}"
        assert await house.counts() == before, knock.path


async def test_values_that_fit_nowhere_break_no_door(house: House, app: Web) -> None:
    await house.hush()
    for template, knock in knocks(house):
        if knock.fields is None or knock.in_query:
            continue
        before = await house.counts()
        for what, value in ODD_VALUES.items():
            odd = {name: given if name in KEYS else value for name, given in knock.fields.items()}
            check(house, knock, await ask(app, knock.but(fields=odd)), template, what)
            twice = knock.but(raw=knock.body[:-1] + b"," + msgspec.json.encode(odd)[1:])
            check(house, knock, await ask(app, twice), template, f"{what}, after the right one")
        assert await house.counts() == before, knock.path
        await house.settle()
        await house.hush()


async def test_odd_labels_lengths_and_escapes_break_no_door(house: House, app: Web) -> None:
    await house.hush()
    for template, knock in knocks(house):
        before = await house.counts()
        odd = {
            "ten megabytes": knock.but(raw=TEN_MEGABYTES, fields=None),
            "XML": knock.but(raw=b"<to>1</to>", headers=knock.headers | {"content-type": "text/xml"}, fields=None),
            "a broken multipart form": knock.but(
                raw=b"--x", headers=knock.headers | {"content-type": "multipart/form-data; boundary=y"}, fields=None
            ),
            "a broken escape": knock.but(fields=None, query="to=%zz&%=%&x=%u0041"),
            "a name without end": knock.but(fields=None, query="a" * 60_000 + "=1"),
        }
        for what, each in odd.items():
            check(house, each, await ask(app, each), template, what)
        # What takes no parameters may well be done: it passes over those that are odd.
        assert knock.fields is None or await house.counts() == before, knock.path
        await house.settle()
        await house.hush()
