"""The outgoing client, on real loopback sockets; and the rows of addresses and URLs that it must never call."""

from __future__ import annotations

import asyncio
import datetime
import gc
import socket
import ssl
import time
import traceback
import uuid
import warnings
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from berid.net import (
    Answer,
    BadUrl,
    Blocked,
    NetError,
    Outbound,
    Stage,
    TimedOut,
    TooLarge,
    Unreachable,
    check_url,
    why_refused,
)
from tests.support.receiver import Drop, Hang, Raw, Receiver, Reply, redirect

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    async with Outbound(allowed_networks=LOOPBACK) as client:
        yield client


def lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name lead to these addresses, in this order."""

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def made_sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every socket that the client makes from here on."""
    made: list[object] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(socket, name)

        def socket(self, *args: int) -> socket.socket:
            made.append(args)
            return socket.socket(*args)

    monkeypatch.setattr("berid.net.socket", Watched())
    return made


# ---- what a call carries and brings back ----


async def test_a_post_arrives_as_given_and_its_answer_comes_back(receiver: Receiver, outbound: Outbound) -> None:
    receiver.next(Reply(202, b"thanks", (("Retry-After", "3"), ("Set-Cookie", "a=b"), ("X-Other", "x"))))
    answer = await outbound.post(
        receiver.url("/hook?k=v"), b'{"a":1}', {"Content-Type": "application/json", "webhook-id": "evt_1"}
    )
    [request] = await receiver.wait_for(1)
    assert (request.method, request.target, request.body) == ("POST", "/hook?k=v", b'{"a":1}')
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["user-agent"].startswith("Berid/")
    assert (answer.status, answer.body, answer.address) == (202, b"thanks", "127.0.0.1")
    assert answer.headers == {"retry-after": "3", "content-length": "6"}
    assert 0 <= answer.elapsed_ms < 5000


async def test_cookies_are_not_kept_between_calls(receiver: Receiver, outbound: Outbound) -> None:
    receiver.always(Reply(headers=(("Set-Cookie", "session=1"),)))
    for _ in range(2):
        await outbound.post(receiver.url(), b"", {})
    assert all("cookie" not in request.headers for request in receiver.requests)


async def test_calls_one_after_another_share_a_connection(receiver: Receiver, outbound: Outbound) -> None:
    answers = [await outbound.post(receiver.url(), b"x", {}) for _ in range(5)]
    assert [answer.address for answer in answers] == ["127.0.0.1"] * 5
    assert receiver.connections_made == 1


async def test_calls_beyond_the_hosts_connections_wait_for_one(receiver: Receiver) -> None:
    receiver.always(Reply(delay_s=0.02))
    async with Outbound(allowed_networks=LOOPBACK, connections_per_host=2) as client:
        await asyncio.gather(*(client.post(receiver.url(), b"", {}) for _ in range(6)))
    assert receiver.connections_made == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver, outbound: Outbound, status: int) -> None:
    receiver.always(redirect(receiver.url("/elsewhere"), status))
    posted = await outbound.post(receiver.url(), b"", {})
    fetched = await outbound.fetch(receiver.url(), 100)
    assert (posted.status, fetched.status) == (status, status)
    assert posted.headers["location"] == receiver.url("/elsewhere")
    assert [request.target for request in receiver.requests] == ["/hook", "/hook"]


@pytest.mark.parametrize("status", [200, 204, 400, 404, 410, 429, 500, 503])
async def test_every_status_is_an_answer(receiver: Receiver, outbound: Outbound, status: int) -> None:
    receiver.next(Reply(status))
    assert (await outbound.post(receiver.url(), b"", {})).status == status


async def test_a_proxy_in_the_environment_is_not_used(
    receiver: Receiver, outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await outbound.post(receiver.url(), b"", {})).status == 200


# ---- sizes ----


async def test_a_body_over_the_limit_is_not_sent(receiver: Receiver) -> None:
    async with Outbound(allowed_networks=LOOPBACK, body_limit_bytes=10) as client:
        assert (await client.post(receiver.url(), b"x" * 10, {})).status == 200
        with pytest.raises(TooLarge) as caught:
            await client.post(receiver.url(), b"x" * 11, {})
    assert not caught.value.may_have_arrived
    assert receiver.count == 1


@pytest.mark.parametrize("size", [99, 100, 101, 5_000_000])
async def test_a_long_answer_to_a_post_is_cut(receiver: Receiver, size: int) -> None:
    receiver.always(Reply(body=b"y" * size))
    async with Outbound(allowed_networks=LOOPBACK, answer_limit_bytes=100) as client:
        assert (await client.post(receiver.url(), b"", {})).body == b"y" * min(size, 100)
        assert (await client.post(receiver.url(), b"", {})).status == 200


@pytest.mark.parametrize("size", [0, 99, 100])
async def test_a_file_within_the_limit_is_fetched_whole(receiver: Receiver, outbound: Outbound, size: int) -> None:
    receiver.next(Reply(body=b"z" * size, headers=(("Content-Type", "image/png"),)))
    answer = await outbound.fetch(receiver.url("/file"), 100, {"Accept": "image/*"})
    [request] = await receiver.wait_for(1)
    assert (request.method, request.headers["accept"]) == ("GET", "image/*")
    assert (answer.body, answer.headers["content-type"]) == (b"z" * size, "image/png")


async def test_a_large_file_is_fetched_whole(receiver: Receiver, outbound: Outbound) -> None:
    receiver.next(Reply(body=bytes(range(256)) * 20_000))
    answer = await outbound.fetch(receiver.url(), 16 << 20)
    assert answer.body == bytes(range(256)) * 20_000


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Reply(body=b"z" * 101), id="announced"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 101), id="until the connection ends"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 200_000, is_closed=False), id="without end"),
        pytest.param(
            Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"z" * 101 + b"\r\n0\r\n\r\n"),
            id="in chunks",
        ),
    ],
)
async def test_a_file_over_the_limit_is_refused(receiver: Receiver, outbound: Outbound, behaviour: Reply | Raw) -> None:
    receiver.next(behaviour)
    with pytest.raises(TooLarge):
        await outbound.fetch(receiver.url(), 100)


async def test_a_compressed_answer_is_not_unpacked(receiver: Receiver, outbound: Outbound) -> None:
    receiver.next(Reply(body=b"\x1f\x8b not really", headers=(("Content-Encoding", "gzip"),)))
    answer = await outbound.fetch(receiver.url(), 100)
    assert answer.body == b"\x1f\x8b not really"
    assert answer.headers["content-encoding"] == "gzip"
    assert receiver.requests[0].headers["accept-encoding"] == "identity"


# ---- failures and their names ----


async def failure(client: Outbound, url: str) -> NetError:
    with pytest.raises(NetError) as caught:
        await client.post(url, b"secret-body", {"Authorization": "secret-header"})
    return caught.value


@pytest.mark.parametrize(
    "behaviour",
    [
        Hang.FOREVER,
        Reply(body=b"slow", drip_s=0.02),
        Reply(headers=(("X-Long", "x" * 200),), drip_s=0.02),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", is_closed=False),
        Raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, is_closed=False),
    ],
)
async def test_the_deadline_ends_a_call_whatever_the_far_side_dribbles(
    receiver: Receiver, behaviour: Hang | Reply | Raw
) -> None:
    receiver.always(behaviour)
    async with Outbound(allowed_networks=LOOPBACK, timeout_s=0.2, connect_timeout_s=0.1) as client:
        started = time.monotonic()
        error = await failure(client, receiver.url())
        assert time.monotonic() - started < 2
    assert isinstance(error, TimedOut)
    assert (error.kind, error.stage, error.may_have_arrived) == ("timed_out", Stage.ANSWER, True)


async def test_a_fetch_may_have_its_own_deadline(receiver: Receiver) -> None:
    receiver.always(Reply(delay_s=0.2))
    async with Outbound(allowed_networks=LOOPBACK, timeout_s=0.1, connect_timeout_s=0.05) as client:
        assert (await client.fetch(receiver.url(), 10, timeout_s=5)).status == 200
        with pytest.raises(TimedOut):
            await client.fetch(receiver.url(), 10)


async def test_waiting_in_vain_for_a_connection_is_a_timeout_before_anything_was_sent(receiver: Receiver) -> None:
    receiver.always(Hang.FOREVER)
    async with Outbound(
        allowed_networks=LOOPBACK, timeout_s=0.5, connect_timeout_s=0.05, connections_per_host=1
    ) as client:
        first = asyncio.create_task(failure(client, receiver.url()))
        await receiver.wait_for(1)
        error = await failure(client, receiver.url())
        assert isinstance(error, TimedOut)
        assert (error.stage, error.may_have_arrived) == (Stage.CONNECT, False)
        assert isinstance(await first, TimedOut)
    assert receiver.count == 1


async def test_a_slow_name_server_is_a_timeout_before_anything_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        time.sleep(0.3)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with Outbound(allowed_networks=LOOPBACK, timeout_s=0.2, connect_timeout_s=0.05) as client:
        error = await failure(client, "http://slow.example/")
    assert isinstance(error, TimedOut)
    assert (error.stage, error.may_have_arrived) == (Stage.CONNECT, False)


def test_deadlines_in_the_wrong_order_are_refused() -> None:
    async def make() -> None:
        Outbound(timeout_s=4, connect_timeout_s=4)

    with pytest.raises(ValueError, match="shorter"):
        asyncio.run(make())


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Drop.RESET, id="reset"),
        pytest.param(Drop.CLOSE, id="closed"),
        pytest.param(Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), id="not HTTP"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), id="a header without end"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"), id="headers without end"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), id="half a body"),
        pytest.param(Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="broken chunks"),
    ],
)
async def test_a_broken_answer_means_the_request_may_have_arrived(
    receiver: Receiver, outbound: Outbound, behaviour: Drop | Raw
) -> None:
    receiver.always(behaviour)
    error = await failure(outbound, receiver.url())
    assert isinstance(error, Unreachable)
    assert (error.kind, error.stage, error.may_have_arrived) == ("unreachable", Stage.ANSWER, True)
    assert receiver.count == 1


async def test_a_refused_connection_is_named(outbound: Outbound) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        error = await failure(outbound, f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert isinstance(error, Unreachable)
    assert (error.stage, error.may_have_arrived) == (Stage.CONNECT, False)
    assert "refused" in str(error).lower()


async def test_a_name_that_does_not_resolve_is_named(outbound: Outbound, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = await failure(outbound, "https://gone.example/")
    assert isinstance(error, Unreachable)
    assert (error.stage, error.may_have_arrived) == (Stage.DNS, False)
    assert str(error) == "https://gone.example: the name does not resolve (Name or service not known)"


@pytest.mark.parametrize("behaviour", [Hang.FOREVER, Drop.RESET, Raw(b"nonsense\r\n\r\n"), Reply(body=b"z" * 50)])
async def test_no_secret_of_a_call_is_in_its_error(receiver: Receiver, behaviour: Hang | Drop | Raw | Reply) -> None:
    receiver.always(behaviour)
    secret = uuid.uuid4().hex
    async with Outbound(allowed_networks=LOOPBACK, timeout_s=0.1, connect_timeout_s=0.05) as client:
        with pytest.raises(NetError) as caught:
            await client.fetch(receiver.url(f"/{secret}?token={secret}#{secret}"), 10, {"Authorization": secret})
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("form", ["https://{}:{}@x.example/", "http://x.example:22/{}?{}", "x{}://x.example/{}"])
def test_no_secret_of_a_refused_url_is_in_its_error(form: str) -> None:
    secret = uuid.uuid4().hex
    with pytest.raises(BadUrl) as caught:
        check_url(form.format(secret, secret))
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("/a%2Fb/%7Ec?k=%2F+v%20&e=&k#part", "/a%2Fb/%7Ec?k=%2F+v%20&e=&k"),
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/a/../b//c", "/a/../b//c"),
        ("/ü?q=مرحبا", "/%C3%BC?q=%D9%85%D8%B1%D8%AD%D8%A8%D8%A7"),
        ('/{a}"', "/%7Ba%7D%22"),
    ],
)
async def test_a_url_is_called_as_it_was_written(
    receiver: Receiver, outbound: Outbound, written: str, called: str
) -> None:
    await outbound.post(receiver.url(written), b"", {})
    assert receiver.requests[0].target == called


# ---- TLS ----


class Authority:
    """A certificate authority of the test's own, and certificates from it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._issue(self._name, self._key, None, 30).public_bytes(serialization.Encoding.PEM))

    def _issue(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None, days: int
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if host is None:
            usage = x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def server(self, host: str, days: int = 30) -> ssl.SSLContext:
        """A server's context with a certificate for `host` that is good for `days` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), key, host, days)
        file = self._folder / f"{host}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_https_to_a_trusted_certificate_works(authority: Authority) -> None:
    async with (
        Receiver(tls=authority.server("localhost")) as receiver,
        Outbound(allowed_networks=LOOPBACK, ca_file=str(authority.ca_file)) as client,
    ):
        answer = await client.post(receiver.url(host="localhost"), b"x", {})
    assert (answer.status, answer.address) == (200, "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "days", "is_trusted", "words"),
    [
        pytest.param("localhost", 30, False, "unable to get local issuer certificate", id="unknown authority"),
        pytest.param("localhost", -1, True, "certificate has expired", id="expired"),
        pytest.param("other.example", 30, True, "Hostname mismatch", id="another name"),
    ],
)
async def test_a_certificate_that_is_not_right_stops_the_call(
    authority: Authority, host: str, days: int, is_trusted: bool, words: str
) -> None:
    ca_file = str(authority.ca_file) if is_trusted else None
    async with (
        Receiver(tls=authority.server(host, days)) as receiver,
        Outbound(allowed_networks=LOOPBACK, ca_file=ca_file) as client,
    ):
        error = await failure(client, receiver.url(host="localhost"))
        assert receiver.count == 0
    assert isinstance(error, Unreachable)
    assert (error.stage, error.may_have_arrived) == (Stage.TLS, False)
    assert words in str(error)


async def test_plain_http_on_a_tls_port_is_a_tls_failure(receiver: Receiver, outbound: Outbound) -> None:
    error = await failure(outbound, receiver.url().replace("http:", "https:"))
    assert isinstance(error, Unreachable)
    assert (error.stage, error.may_have_arrived) == (Stage.TLS, False)


# ---- addresses ----

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "3ffe::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused_with_a_reason(address: str) -> None:
    assert why_refused(ip_address(address)) != ""


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not_refused(address: str) -> None:
    assert why_refused(ip_address(address)) == ""


@pytest.mark.parametrize("address", REFUSED)
async def test_a_name_that_leads_to_a_refused_address_gets_no_socket(
    address: str, monkeypatch: pytest.MonkeyPatch, made_sockets: list[object]
) -> None:
    lead_to(monkeypatch, address)
    async with Outbound() as client:
        error = await failure(client, "http://innocent.example/")
    assert isinstance(error, Blocked)
    assert error.address == str(ip_address(address))
    assert (error.kind, error.may_have_arrived) == ("blocked", False)
    assert error.why in str(error)
    assert made_sockets == []


@pytest.mark.parametrize("address", REFUSED)
async def test_a_literal_refused_address_gets_no_socket(address: str, made_sockets: list[object]) -> None:
    host = f"[{address}]" if ":" in address else address
    async with Outbound() as client:
        error = await failure(client, f"http://{host}/")
        with pytest.raises(Blocked):
            client.check_url(f"http://{host}/")
    assert isinstance(error, Blocked)
    assert made_sockets == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "0x7f000001"])
async def test_the_socket_is_refused_even_if_the_url_passed(
    host: str, monkeypatch: pytest.MonkeyPatch, made_sockets: list[object]
) -> None:
    monkeypatch.setattr("berid.net._check_host", lambda *_: None)
    async with Outbound() as client:
        assert isinstance(await failure(client, f"http://{host}/"), Blocked)
    assert made_sockets == []


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "ⓛocalhost", "127.0.0.1", "１２７.０.０.１"]
)
async def test_names_and_spellings_of_this_machine_are_refused(host: str, made_sockets: list[object]) -> None:
    async with Outbound() as client:
        error = await failure(client, f"http://{host}/")
    assert isinstance(error, Blocked)
    assert made_sockets == []


async def test_the_real_look_up_of_this_machines_name_is_refused_at_the_socket(
    monkeypatch: pytest.MonkeyPatch, made_sockets: list[object]
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **named: real("localhost", *rest, **named))
    async with Outbound() as client:
        error = await failure(client, "http://looks.harmless.example/")
    assert isinstance(error, Blocked)
    assert made_sockets == []


async def test_a_name_with_refused_addresses_only_is_blocked_whatever_their_number(
    monkeypatch: pytest.MonkeyPatch, made_sockets: list[object]
) -> None:
    lead_to(monkeypatch, "10.0.0.1", "fd00::1", "192.168.0.1", "::1")
    async with Outbound() as client:
        assert isinstance(await failure(client, "http://many.example/"), Blocked)
    assert made_sockets == []


async def test_a_name_with_one_permitted_address_is_called_there_only(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(monkeypatch, "10.0.0.1", "fd00::1", "127.0.0.1")
    async with Outbound(allowed_networks=LOOPBACK) as client:
        for _ in range(3):
            answer = await client.post(receiver.url(host="mixed.example"), b"", {})
            assert answer.address == "127.0.0.1"


async def test_a_name_that_changes_its_mind_is_judged_at_each_connection(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.always(Reply(headers=(("Connection", "close"),)))
    monkeypatch.setattr("berid.net._DNS_TTL_S", 0)
    async with Outbound(allowed_networks=[ip_network("127.0.0.1/32")]) as client:
        lead_to(monkeypatch, "127.0.0.1")
        assert (await client.post(receiver.url(host="fickle.example"), b"", {})).status == 200
        lead_to(monkeypatch, "127.0.0.2")
        assert isinstance(await failure(client, receiver.url(host="fickle.example")), Blocked)
    assert receiver.count == 1


@pytest.mark.parametrize(
    ("address", "networks", "is_allowed"),
    [
        ("10.1.2.3", ["10.1.0.0/16"], True),
        ("10.2.0.1", ["10.1.0.0/16"], False),
        ("fd00::1", ["fd00::/8"], True),
        ("127.0.0.1", ["::/0"], False),
        ("::ffff:127.0.0.1", ["127.0.0.0/8"], False),
        ("::ffff:127.0.0.1", ["127.0.0.0/8", "::ffff:0:0/96"], True),
        ("64:ff9b::8.8.8.8", ["64:ff9b::/96"], True),
        ("64:ff9b::10.0.0.1", ["64:ff9b::/96"], False),
        ("2002:a00:1::1", ["2002::/16"], False),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", ["2001::/32"], False),
    ],
)
def test_the_allow_list_opens_what_it_names_and_no_more(address: str, networks: list[str], is_allowed: bool) -> None:
    allowed = [ip_network(network) for network in networks]
    assert (why_refused(ip_address(address), allowed) == "") is is_allowed


# ---- URLs ----


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with https"),
        ("example.com/hook", "must begin with https"),
        ("//example.com/hook", "must begin with https"),
        ("ftp://example.com/", "must begin with https"),
        ("file:///etc/passwd", "must begin with https"),
        ("gopher://example.com/", "must begin with https"),
        ("javascript:alert(1)", "must begin with https"),
        ("http://", "no host"),
        ("http:///hook", "no host"),
        ("https:example.com", "no host"),
        ("http://user@example.com/", "user name or password"),
        ("http://user:password@example.com/", "user name or password"),
        ("http://:password@example.com/", "user name or password"),
        ("http://exa mple.com/", "space"),
        ("http://example.com/a b", "space"),
        ("http://example.com/\r\nX: y", "control character"),
        ("http://example.com\\@10.0.0.1/", "backslash"),
        ("http://[::1/", "cannot be read"),
        ("http://example.com:99999/", "cannot be read"),
        ("http://example.com:http/", "cannot be read"),
        ("http://example..com/", "not a name"),
        ("http://.example.com/", "not a name"),
        ("http://*.example.com/", "not a name"),
        ("http://" + "a" * 64 + ".com/", "not a name"),
        ("http://" + "a." * 130 + "com/", "not a name"),
        ("http://example.com/" + "a" * 2048, "longer than"),
        ("http://2130706433/", "no usual form"),
        ("http://0x7f000001/", "no usual form"),
        ("http://0x7F.1/", "no usual form"),
        ("http://0177.0.0.1/", "no usual form"),
        ("http://127.1/", "no usual form"),
        ("http://127.0.0.1./", "no usual form"),
        ("http://1.2.3.4.5/", "no usual form"),
        ("http://256.1.1.1/", "no usual form"),
        ("http://[2606:4700::1111%25eth0]/", "no usual form"),
        ("http://example.com:0/", "not for HTTP"),
        ("http://example.com:22/", "not for HTTP"),
        ("http://example.com:25/", "not for HTTP"),
        ("https://example.com:1023/", "not for HTTP"),
        ("http://example.com:6379/", "Redis"),
        ("http://example.com:2775/", "SMPP"),
        ("http://example.com:5432/", "PostgreSQL"),
    ],
)
async def test_a_url_that_cannot_be_called_is_refused_in_words(
    url: str, words: str, made_sockets: list[object]
) -> None:
    with pytest.raises(BadUrl, match=words) as caught:
        check_url(url)
    assert "password@" not in str(caught.value)
    async with Outbound() as client:
        assert isinstance(await failure(client, url), BadUrl)
    assert made_sockets == []


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTPS://EXAMPLE.COM./hook?a=b#c",
        "http://example.com:80/",
        "https://example.com:443/",
        "https://example.com:1024/",
        "https://example.com:8443/a/b",
        "http://localhost.example.com/",
        "https://my_host-1.example/",
        "https://intranet/hook",
        "https://bücher.example/ü",
        "https://مثال.example/",
        "https://8.8.8.8/hook",
        "https://[2606:4700::1111]:8080/hook",
        "https://example.com/hook?url=http://user:pass@10.0.0.1/",
    ],
)
def test_an_ordinary_url_passes(url: str) -> None:
    check_url(url)


async def test_the_allow_list_counts_at_configuration_time_too(outbound: Outbound) -> None:
    outbound.check_url("http://127.0.0.1:8080/")
    outbound.check_url("http://localhost:8080/")
    check_url("http://127.0.0.1:8080/", LOOPBACK)
    with pytest.raises(Blocked):
        check_url("http://127.0.0.1:8080/")
    with pytest.raises(BadUrl):
        outbound.check_url("http://127.0.0.1:6379/")


# ---- the end ----


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_it_closes_without_a_warning_on_either_loop(run: object, authority: Authority) -> None:
    async def use() -> list[Answer]:
        async with Receiver() as plain, Receiver(tls=authority.server("localhost")) as secure:
            async with Outbound(allowed_networks=LOOPBACK, ca_file=str(authority.ca_file)) as client:
                plain.next(Reply(), Reply(body=b"y" * 100_000), Drop.CLOSE)
                answers = [await client.post(plain.url(), b"x", {}) for _ in range(2)]
                await failure(client, plain.url())
                answers += [await client.post(secure.url(host="localhost"), b"x", {}) for _ in range(2)]
                with pytest.raises(Blocked):
                    await client.post("http://10.0.0.1/", b"", {})
            return answers

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert callable(run)
        assert [answer.status for answer in run(use())] == [200] * 4
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_a_cancelled_call_leaves_the_client_usable(receiver: Receiver, outbound: Outbound) -> None:
    receiver.next(Hang.FOREVER)
    calling = asyncio.create_task(outbound.post(receiver.url(), b"", {}))
    await receiver.wait_for(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (await outbound.post(receiver.url(), b"", {})).status == 200
