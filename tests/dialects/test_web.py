"""The web door: who answers for which path, what goes wrong on the way, and how tolerantly parameters are read."""

import logging
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.base.ids import IdMaker
from berid.config import Config, Http
from berid.dialects.reading import Unreadable, read_fields
from berid.dialects.web import Group, Request, Response, Route, Web
from berid.domain.errors import Refusal, RefusalKind, Refused
from berid.store.hot import StoreAway
from berid.trace import Trace
from tests.dialects.asgi import Answer, call

NOW_MS = 1_790_000_000_000


def group(name: str, *prefixes: str, hosts: Sequence[str] = ()) -> Group:
    """A group that says its own name and what went wrong."""

    def refuse(_: Request, refusals: Sequence[Refusal]) -> Response:
        words = ",".join(refusal.kind.value for refusal in refusals)
        return Response(422, f"{name} refuses {words}".encode(), b"text/plain")

    def fail(_: Request, status: int) -> Response:
        return Response(status, f"{name} fails {status}".encode(), b"text/plain")

    return Group(name, prefixes, refuse, fail, frozenset(hosts))


API = group("api", "/api/v1")


async def echo(request: Request) -> Response:
    """Says how it was reached."""
    body = {"method": request.method, "path": request.path, "params": dict(request.params), "address": request.address}
    return Response(200, msgspec.json.encode(body))


async def fields(request: Request) -> Response:
    """Says what it read."""
    return Response(200, msgspec.json.encode(await request.fields()))


def web(*routes: Route, pages: Any = None, **http: Any) -> Web:
    """The application with these routes and `http` settings."""
    rt: Any = SimpleNamespace(config=Config(http=Http(**http)), ids=IdMaker(lambda: NOW_MS), trace=Trace())
    return Web(rt, routes, lambda: True, pages)


# ── Finding the handler ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", ["/voiceSend.php", "/voiceSend.php/", "/voiceSend.php?a=1", "/voiceSend.php/?a=1"])
async def test_path_is_answered_with_and_without_slash_and_never_redirected(target: str) -> None:
    answer = await call(web(Route(("POST",), "/voiceSend.php", echo, API)), "POST", target)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("target", "params"),
    [
        ("/api/v1/messages/msg_5", {"id": "msg_5"}),
        ("/api/v1/messages/msg_5/", {"id": "msg_5"}),
        ("/api/v1/messages/a%20b", {"id": "a b"}),
        ("/api/v1/messages/7/deliveries/9", {"id": "7", "delivery": "9"}),
        ("/api/v1/messages/batch", {}),
        ("/api/v1/messages/batch/deliveries/9", {"id": "batch", "delivery": "9"}),
        ("/api/v1/messages/{}", {"id": "{}"}),
    ],
)
async def test_parameters_stand_for_one_segment_and_own_names_go_first(target: str, params: dict[str, str]) -> None:
    app = web(
        Route(("GET",), "/api/v1/messages/{id}", echo, API),
        Route(("GET",), "/api/v1/messages/batch", echo, API),
        Route(("GET",), "/api/v1/messages/batch/{id}/x", echo, API),
        Route(("GET",), "/api/v1/messages/{id}/deliveries/{delivery}", echo, API),
    )
    answer = await call(app, "GET", target)
    assert (answer.status, answer.json["params"]) == (200, params)


@pytest.mark.parametrize(
    "target", ["/api/v1/messages", "/api/v1/messages//", "/api/v1/messages/1/2", "/api/v1", "/api/v1//1"]
)
async def test_parameter_matches_nothing_less_and_nothing_more(target: str) -> None:
    answer = await call(web(Route(("GET",), "/api/v1/messages/{id}", echo, API)), "GET", target)
    assert (answer.status, answer.body) == (404, b"api fails 404")


def test_two_routes_for_one_path_and_method_are_a_mistake() -> None:
    one = Route(("GET", "POST"), "/x", echo, API)
    with pytest.raises(ValueError, match="POST /x/"):
        web(one, Route(("POST",), "/x/", echo, API))


async def test_wrong_method_is_answered_by_the_group_with_allow() -> None:
    app = web(Route(("POST",), "/api/v1/messages", echo, API), Route(("GET",), "/api/v1/messages", echo, API))
    answer = await call(app, "DELETE", "/api/v1/messages/")
    assert (answer.status, answer.body) == (405, b"api fails 405")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_tells_the_methods_and_allows_no_other_origin() -> None:
    answer = await call(
        web(Route(("POST",), "/x", echo, API)), "OPTIONS", "/x", headers={"origin": "https://a.example"}
    )
    assert (answer.status, answer.body, answer.headers["allow"]) == (204, b"", "OPTIONS, POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_head_is_answered_as_get_without_the_body() -> None:
    app = web(Route(("GET",), "/x", echo, API))
    full, head = await call(app, "GET", "/x"), await call(app, "HEAD", "/x")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(full.body) + 1  # HEAD is a letter longer than GET


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/api/v1/nothing", b"api fails 404"),
        ("/api/v1", b"api fails 404"),
        ("/api/v1/wide/nothing", b"wide fails 404"),
        ("/mailSend.php", b"php fails 404"),
        ("/mailSend.php/", b"php fails 404"),
    ],
)
async def test_unknown_path_is_answered_by_the_group_with_the_longest_prefix(target: str, said: bytes) -> None:
    app = web(
        Route(("GET",), "/api/v1/a", echo, API),
        Route(("GET",), "/api/v1/wide/a", echo, group("wide", "/api/v1/wide/")),
        Route(("GET",), "/voiceSend.php", echo, group("php", "/voiceSend.php", "/mailSend.php")),
    )
    answer = await call(app, "GET", target)
    assert (answer.status, answer.body) == (404, said)


@pytest.mark.parametrize("target", ["/", "/api/v10/x", "/mailSend.phpx"])
async def test_path_of_nobody_is_a_json_problem(target: str) -> None:
    app = web(Route(("GET",), "/api/v1/a", echo, group("api", "/api/v1", "/mailSend.php")))
    answer = await call(app, "GET", target)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["request_id"] == answer.headers["x-request-id"]


async def test_path_of_nobody_goes_to_the_pages_with_the_callers_real_address() -> None:
    async def pages(scope: Any, _: Any, send: Any) -> None:
        body = f"{scope['path']} {scope['client'][0]} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": body})

    app = web(Route(("GET",), "/api/v1/a", echo, API), pages=pages, trusted_proxies=(ip_network("198.51.100.7/32"),))
    forwarded = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "x-request-id": "mine"}
    answer = await call(app, "GET", "/people", headers=forwarded)
    assert answer.body == b"/people 203.0.113.9 https"
    assert answer.headers["x-request-id"] == "mine"
    assert (await call(app, "GET", "/api/v1/b")).body == b"api fails 404"


HOST_ROUTES = (
    Route(("POST",), "/sms/send", fields, group("root", "", hosts=["api.turkeysms.example"])),
    Route(("GET",), "/sms/{id}", echo, group("root", "", hosts=["api.turkeysms.example"])),
    Route(("GET",), "/health/live", echo, group("health", "/health")),
)


@pytest.mark.parametrize(
    ("host", "method", "target", "status", "said"),
    [
        ("api.turkeysms.example", "POST", "/sms/send", 200, b"{}"),
        ("API.TurkeySMS.Example:8443", "POST", "/sms/send/", 200, b"{}"),
        ("api.turkeysms.example", "GET", "/sms/send", 405, b"root fails 405"),
        ("api.turkeysms.example", "GET", "/sms/9/9", 404, b"root fails 404"),
        ("api.turkeysms.example", "GET", "/health/nothing", 404, b"health fails 404"),
        ("other.example", "POST", "/sms/send", 404, b'{"type":"about:blank"'),
        ("[::1]:8080", "POST", "/sms/send", 404, b'{"type":"about:blank"'),
        ("", "POST", "/sms/send", 404, b'{"type":"about:blank"'),
    ],
)
async def test_routes_of_a_host_are_found_there_only(
    host: str, method: str, target: str, status: int, said: bytes
) -> None:
    answer = await call(web(*HOST_ROUTES), method, target, headers={"host": host})
    assert (answer.status, answer.body[: len(said)]) == (status, said)


async def test_common_routes_are_found_at_every_host() -> None:
    answer = await call(web(*HOST_ROUTES), "GET", "/health/live", headers={"host": "api.turkeysms.example"})
    assert answer.status == 200


# ── What goes wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("trouble", "status", "said"),
    [
        (Refused(Refusal(RefusalKind.NO_ROUTE), Refusal(RefusalKind.NO_PRICE)), 422, b"api refuses no_route,no_price"),
        (StoreAway("disk full"), 422, b"api refuses store_away"),
        (Unreadable("broken"), 422, b"api refuses malformed"),
        (ZeroDivisionError("oh"), 500, b"api fails 500"),
        (RecursionError(), 500, b"api fails 500"),
    ],
)
async def test_what_a_handler_raises_is_worded_by_its_group(trouble: Exception, status: int, said: bytes) -> None:
    async def handler(_: Request) -> Response:
        raise trouble

    answer = await call(web(Route(("GET",), "/api/v1/x", handler, API)), "GET", "/api/v1/x")
    assert (answer.status, answer.body) == (status, said)
    assert answer.headers["x-request-id"]


async def test_crash_is_logged_with_the_request_and_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        await request.body()
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "berid.web"):
        answer = await call(web(Route(("POST",), "/x", handler, API)), "POST", "/x?text=secret", b"secret")
    record = caplog.records[0]
    assert vars(record)["request_id"] == answer.headers["x-request-id"]
    assert vars(record)["route"] == "/x"
    assert "secret" not in str(vars(record))


async def test_group_that_cannot_word_a_refusal_fails_and_one_that_cannot_fail_is_replaced() -> None:
    def broken(*_: Any) -> Response:
        raise KeyError("no words")

    async def handler(_: Request) -> Response:
        raise Refused(Refusal(RefusalKind.NO_ROUTE))

    speechless = Group("a", ("/a",), broken, API.fail)
    mute = Group("b", ("/b",), broken, broken)
    app = web(Route(("GET",), "/a", handler, speechless), Route(("GET",), "/b", handler, mute))
    assert (await call(app, "GET", "/a")).body == b"api fails 500"
    answer = await call(app, "GET", "/b/c")
    assert (answer.status, answer.json["status"]) == (500, 500)
    assert (await call(app, "GET", "/b")).status == 500


async def read_all(request: Request) -> Response:
    """Says how much came."""
    return Response(200, str(len(await request.body())).encode())


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 100, {}, 200),
        (b"x" * 101, {}, 413),
        ((b"x" * 60, b"x" * 40), {}, 200),
        ((b"x" * 60, b"x" * 41), {}, 413),
        ((b"x" * 101,), {}, 413),
        (b"", {"content-length": "101"}, 413),
        (b"", {"content-length": "9" * 30}, 413),
        (b"x", {"content-length": "nonsense"}, 200),
    ],
)
async def test_body_is_bounded_however_it_comes(body: Any, headers: dict[str, str], status: int) -> None:
    app = web(Route(("POST",), "/api/v1/x", read_all, API), body_limit_bytes=100)
    answer = await call(app, "POST", "/api/v1/x", body, headers)
    assert answer.status == status
    assert answer.body == (
        b"api fails 413" if status == 413 else str(len(b"".join(body) if isinstance(body, tuple) else body)).encode()
    )


async def test_route_may_take_larger_bodies() -> None:
    app = web(Route(("POST",), "/x", read_all, API, limit_bytes=200), body_limit_bytes=100)
    assert (await call(app, "POST", "/x", b"x" * 200)).body == b"200"
    assert (await call(app, "POST", "/x", b"x" * 201)).status == 413


@pytest.mark.parametrize("body", [(), (b"half",)])
async def test_body_that_stops_arriving_is_given_up(body: tuple[bytes, ...]) -> None:
    app = web(Route(("POST",), "/api/v1/x", read_all, API), request_timeout_s=0.02)
    answer = await call(app, "POST", "/api/v1/x", body, stalls=True)
    assert (answer.status, answer.body, answer.headers["connection"]) == (408, b"api fails 408", "close")


@pytest.mark.parametrize("body", [b"all of it", (b"all ", b"of it"), (b"all ", b"of", b" it")])
async def test_body_that_has_to_be_waited_for_arrives_whole(body: Any) -> None:
    answer = await call(web(Route(("POST",), "/x", read_all, API)), "POST", "/x", body, is_late=True)
    assert (answer.status, answer.body) == (200, b"9")


@pytest.mark.parametrize("body", [(), (b"half",), (b"half", b"of it")])
async def test_caller_who_hangs_up_is_not_answered(body: tuple[bytes, ...]) -> None:
    app = web(Route(("POST",), "/x", read_all, API))
    with pytest.raises(AssertionError, match="nothing was answered"):
        await call(app, "POST", "/x", body, hangs_up=True)


# ── Who asks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_request_ids_are_new_and_sort_by_time() -> None:
    app = web(Route(("GET",), "/x", echo, API))
    ids = [(await call(app, "GET", "/x")).headers["x-request-id"] for _ in range(3)]
    assert ids == sorted(set(ids))
    assert all(identifier.startswith("req_") for identifier in ids)


@pytest.mark.parametrize(
    ("given_id", "is_kept"),
    [
        ("0f8c-41.a_b:c", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("a\tb", False),
        ('a"b', False),
        ("é", False),
    ],
)
async def test_own_request_id_is_kept_if_it_can_stand_in_a_log(given_id: str, is_kept: bool) -> None:
    answer = await call(web(Route(("GET",), "/x", echo, API)), "GET", "/x", headers={"x-request-id": given_id})
    assert (answer.headers["x-request-id"] == given_id) is is_kept


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.7", "203.0.113.1", "198.51.100.7"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "203.0.113.66, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", " , ", "10.0.0.1"),
        ("::ffff:10.0.0.1", "2001:db8::5", "2001:db8::5"),
    ],
)
async def test_forwarded_address_is_believed_from_trusted_proxies_only(
    peer: str, forwarded: str | None, address: str
) -> None:
    app = web(Route(("GET",), "/x", echo, API), trusted_proxies=(ip_network("10.0.0.0/8"),))
    headers = {"x-forwarded-for": forwarded} if forwarded is not None else {}
    answer = await call(app, "GET", "/x", headers=headers, client=(peer, 1))
    assert answer.json["address"] == address


async def test_caller_on_a_socket_without_addresses_has_none() -> None:
    assert (await call(web(Route(("GET",), "/x", echo, API)), "GET", "/x", client=None)).json["address"] == ""


@pytest.mark.parametrize(
    ("peer", "headers", "is_local"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
        ("10.0.0.1", {}, False),
    ],
)
async def test_local_is_who_connects_from_this_machine_himself(
    peer: str, headers: dict[str, str], is_local: bool
) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, msgspec.json.encode(request.is_local))

    answer = await call(web(Route(("GET",), "/x", handler, API)), "GET", "/x", headers=headers, client=(peer, 1))
    assert answer.json is is_local


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xyz"


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body with the boundary of `MULTIPART`."""
    made = [
        b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), value) for head, value in parts
    ]
    return b"".join(made) + b"--xyz--\r\n"


async def read(method: str, target: str, body: bytes = b"", content_type: str = "") -> Answer:
    """What `fields` makes of a request."""
    headers = {"content-type": content_type} if content_type else {}
    return await call(web(Route(("GET", "POST", "DELETE"), "/x", fields, API)), method, target, body, headers)


@pytest.mark.parametrize(
    ("target", "body", "content_type", "found"),
    [
        ("/x", b"", "", {}),
        ("/x?a=1&b=x+y%20z", b"", "", {"a": "1", "b": "x y z"}),
        ("/x?a=&b", b"", "", {"a": "", "b": ""}),
        ("/x?a=%D8%AA%D9%85", b"", "", {"a": "تم"}),
        ("/x?a=1&a=2&a=3", b"", "", {"a": ["1", "2", "3"]}),
        ("/x?a[]=1", b"", "", {"a": ["1"]}),
        ("/x?a%5B%5D=1&a%5B%5D=2", b"", "", {"a": ["1", "2"]}),
        ("/x?a[0]=1&a[1]=2", b"", "", {"a": ["1", "2"]}),
        ("/x?a=1&a[]=2", b"", "", {"a": ["1", "2"]}),
        ("/x?a[b]=1&[]=2&a[=3", b"", "", {"a[b]": "1", "[]": "2", "a[": "3"}),
        ("/x", b"a=1&b=x+y", FORM, {"a": "1", "b": "x y"}),
        ("/x", b"a=1&b=x+y", "", {"a": "1", "b": "x y"}),
        ("/x", b"a=1&b=x+y", "application/json", {"a": "1", "b": "x y"}),
        ("/x", "a=şğ".encode(), FORM, {"a": "şğ"}),
        ("/x", b"a=1\r\n", FORM, {"a": "1"}),
        ("/x", b'{"a":1,"b":[2,"3"],"c":null}', "application/json", {"a": 1, "b": [2, "3"], "c": None}),
        ("/x", b'{"a":1}', FORM, {"a": 1}),
        ("/x", b'{"a":1}', "application/json ", {"a": 1}),
        ("/x", b'{"a":1}', "", {"a": 1}),
        ("/x", b' \r\n\t{"a":1} \n', "text/plain", {"a": 1}),
        ("/x", b'\xef\xbb\xbf{"a":1}', "", {"a": 1}),
        ("/x", b'{"a":1,"a":2}', "", {"a": 2}),
        ("/x", b'{"a":"\\u015f\\ud83d\\ude00"}', "", {"a": "ş😀"}),
        ("/x", b'{"a":"\\\\u0000"}', "", {"a": "\\u0000"}),
        ("/x", b"[]", FORM, {}),
        ("/x", b'[{"apiKey":"k"}]', "", {"apiKey": "k"}),
        ("/x", b"{}", MULTIPART, {}),
        ("/x?a=1&b=2", b'{"b":3}', "", {"a": "1", "b": 3}),
        ("/x?a=1&b=2", b"b=3", FORM, {"a": "1", "b": "3"}),
        ("/x", multipart(('name="a"', b"1"), ('name="b"', "ş".encode())), MULTIPART, {"a": "1", "b": "ş"}),
        ("/x", multipart(('name="a[]"', b"1"), ('name="a[]"', b"2")), MULTIPART, {"a": ["1", "2"]}),
        ("/x", multipart(('name="f"; filename="f.mp3"', b"\x00\xff"), ('name="a"', b"1")), MULTIPART, {"a": "1"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_fields_are_read_from_wherever_they_came(
    method: str, target: str, body: bytes, content_type: str, found: dict[str, Any]
) -> None:
    answer = await read(method, target, body, content_type)
    assert (answer.status, answer.json) == (200, found)


UNREADABLE = [
    b"{",
    b'{"a":}',
    b'{"a":1} x',
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":"\\ud800"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xff"}',
    b'{"a":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"a":[[{"b":"x\\u0000"}]]}',
    b'{"a":1e999}',
    b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":NaN}',
    b'[{"a":1},{"a":2}]',
    b"[1]",
    b"a=%00",
    b"a=\x00",
    b"a=%ff",
    b"a=\xff",
    b"a=%ED%A0%80",
]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:24]))
async def test_what_cannot_be_read_is_refused_and_never_a_crash(body: bytes) -> None:
    answer = await read("POST", "/x", body)
    assert (answer.status, answer.body) == (422, b"api refuses malformed")


@pytest.mark.parametrize("query", ["a=%00", "a=%ff", "a=%ED%A0%80", quote("ş".encode("iso-8859-9"))])
async def test_query_that_cannot_be_read_is_refused(query: str) -> None:
    assert (await read("GET", f"/x?{query}")).body == b"api refuses malformed"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--xyz\r\n", "multipart/form-data"),
        (b"--abc\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--abc--", MULTIPART),
        (multipart(('name="a"', b"\x00")), MULTIPART),
        (multipart(('name="a"', b"\xff")), MULTIPART),
        (multipart(('name="a"', b"1")), "multipart/form-data; boundary=" + "x" * 500),
    ],
)
async def test_broken_multipart_is_refused(body: bytes, content_type: str) -> None:
    assert (await read("POST", "/x", body, content_type)).body == b"api refuses malformed"


async def test_form_with_too_many_fields_is_refused() -> None:
    app = web(Route(("POST",), "/x", fields, API))
    assert (await call(app, "POST", "/x", b"a=1&" * 200_001)).body == b"api refuses malformed"


async def test_what_was_read_until_a_refusal_is_there_for_its_wording() -> None:
    async def handler(request: Request) -> Response:
        await request.fields()
        raise Refused(Refusal(RefusalKind.NO_ROUTE))

    seen: list[Any] = []
    watching = Group("w", ("/x",), lambda request, _: seen.append(request.seen) or API.fail(request, 400), API.fail)
    app = web(Route(("POST",), "/x", handler, watching))
    await call(app, "POST", "/x?response_type=json", b'{"a":1}')
    await call(app, "POST", "/x?response_type=json", b'{"a":')
    await call(app, "POST", "/x", b"{")
    assert seen == [{"response_type": "json", "a": 1}, {"response_type": "json"}, {}]


@given(
    st.one_of(st.binary(max_size=200), st.text(alphabet='{}[]",:\\u0d8ae1=&%+\x00 ', max_size=60).map(str.encode)),
    st.sampled_from(["", FORM, "application/json", MULTIPART, "multipart/form-data; boundary=\xff"]),
)
def test_any_bytes_are_fields_or_unreadable(body: bytes, content_type: str) -> None:
    try:
        found = read_fields(body, content_type)
    except Unreadable:
        return
    assert isinstance(found, dict)


# ── Answers in pieces ──────────────────────────────────────────────────────────────────────────────────────────────────


def piecewise(*pieces: bytes | Exception) -> Route:
    """A route whose answer comes piece by piece; an exception among the pieces ends it."""

    async def handler(_: Request) -> Response:
        async def come() -> AsyncIterator[bytes]:
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        return Response(200, content_type=b"text/csv", pieces=come())

    return Route(("GET",), "/api/v1/list", handler, API)


async def test_large_answer_is_sent_as_it_comes() -> None:
    answer = await call(web(piecewise(b"a,", b"b")), "GET", "/api/v1/list")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a,b", "text/csv")
    assert "content-length" not in answer.headers


async def test_head_of_a_large_answer_has_no_body() -> None:
    answer = await call(web(piecewise(b"a")), "HEAD", "/api/v1/list")
    assert (answer.status, answer.body) == (200, b"")


async def test_answer_that_breaks_off_is_not_ended_as_if_it_were_whole() -> None:
    with pytest.raises(StoreAway):
        await call(web(piecewise(b"a", StoreAway("gone"))), "GET", "/api/v1/list")
