"""The one outgoing HTTP client: customers' callbacks, fetched media, providers' APIs.

Most addresses it is told to call were typed by customers, so every call is treated as an attempt to reach
something behind our own firewall (server-side request forgery). Three rules hold for all of them:

- *The address is judged when its socket is made*, not when the name is looked up. aiohttp asks
  `socket_factory` for every socket, whether the host was a name, a literal address or an odd spelling of one,
  so nothing slips between look-up and connection and a name that changes its mind changes nothing. Anything
  that is not a public unicast address is refused.
- *Redirects are not followed.* A 3xx is an answer like any other, and for a callback it is a failure.
- *Everything has an end*: one deadline over look-up, connection, answer and body together; a byte limit both
  ways.

`ipaddress.is_global` is not the judge: its answer differs between Python versions, and it calls multicast,
NAT64 and 6to4 public. The tables below are IANA's special-purpose registries (RFC 6890 and its updates), plus
one cloud's metadata service on a public address.

Ports: 80, 443, and every port from 1024 that is not in `_SERVICE_PORTS`. Below 1024 live mail, remote shells
and directories, and the list above it names services that understand enough of an HTTP request to be harmed
by one.

Error texts name the scheme, the host and the port, never the path or the query: customers put their secrets
in both.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import math
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import istr
from yarl import URL

from berid import __version__

Network = IPv4Network | IPv6Network

_URL_LIMIT = 2048
"""Characters. Browsers and proxies stop agreeing on longer ones."""
_DNS_THREADS = 16
"""getaddrinfo blocks its thread for up to ten seconds when a customer's name server is dead. With threads of
their own, sixteen such names at once delay only other new names, never the store's threads or connections
that are already open."""
_DNS_TTL_S = 30
_KEEPALIVE_S = 4.0
"""Idle connections are dropped before the far side drops them: Node.js and Apache close at 5 s. A request
written into a connection that is just being closed would be lost without a word, and shown to the customer as
their failure."""
_KEPT_HEADERS = tuple(
    istr(name)
    for name in (
        "content-type",
        "content-encoding",
        "content-length",
        "date",
        "etag",
        "location",
        "retry-after",
    )
)
_SERVICE_PORTS = {
    1433: "SQL Server",
    1521: "Oracle",
    1723: "PPTP",
    1883: "MQTT",
    2049: "NFS",
    2181: "ZooKeeper",
    2375: "Docker",
    2376: "Docker",
    2379: "etcd",
    2380: "etcd",
    2775: "SMPP",
    3306: "MySQL",
    3389: "Remote Desktop",
    4222: "NATS",
    5060: "SIP",
    5061: "SIP",
    5432: "PostgreSQL",
    5672: "AMQP",
    5900: "VNC",
    6000: "X11",
    6379: "Redis",
    6667: "IRC",
    6697: "IRC",
    8300: "Consul",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    9300: "Elasticsearch",
    10250: "Kubernetes",
    11211: "memcached",
    27017: "MongoDB",
}
_PLAIN_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
"""The alphabet of RFC 3986, section 2: a URL in it needs no escaping."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_REFUSED_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "it means this machine (RFC 1122)"),
        ("10.0.0.0/8", "it is a private network (RFC 1918)"),
        ("100.64.0.0/10", "it is behind a carrier's address translation (RFC 6598)"),
        ("127.0.0.0/8", "it is this machine's loopback"),
        ("168.63.129.16/32", "it is a cloud's metadata service"),
        ("169.254.0.0/16", "it is link-local, where clouds keep their metadata services"),
        ("172.16.0.0/12", "it is a private network (RFC 1918)"),
        ("192.0.0.0/24", "it is reserved for protocols (RFC 6890)"),
        ("192.0.2.0/24", "it is reserved for documentation"),
        ("192.88.99.0/24", "it is reserved for 6to4 relays"),
        ("192.168.0.0/16", "it is a private network (RFC 1918)"),
        ("198.18.0.0/15", "it is reserved for benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "it is reserved for documentation"),
        ("203.0.113.0/24", "it is reserved for documentation"),
        ("224.0.0.0/4", "it is multicast"),
        ("240.0.0.0/4", "it is reserved or broadcast"),
        ("::/128", "it means this machine"),
        ("::1/128", "it is this machine's loopback"),
        ("64:ff9b:1::/48", "it is a local translation prefix (RFC 8215)"),
        ("2001::/23", "it is reserved for protocols (RFC 2928)"),
        ("2001:db8::/32", "it is reserved for documentation"),
        ("3fff::/20", "it is reserved for documentation"),
        ("fc00::/7", "it is a private network (RFC 4193)"),
        ("fe80::/10", "it is link-local"),
        ("ff00::/8", "it is multicast"),
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
"""The only part of the IPv6 space that IANA has given out as global unicast."""
_NAT64 = IPv6Network("64:ff9b::/96")
_LOOPBACK = IPv4Address("127.0.0.1")


class Stage(StrEnum):
    """How far a call came. Only after CONNECT and TLS can any byte of the request have left."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    ANSWER = "answer"


class NetError(Exception):
    """A call that gave no answer. `kind` is a stable word for tables and counters; the text is for people.

    `may_have_arrived` is False when the far side cannot have seen the request, so that sending it again
    cannot double it.
    """

    kind: ClassVar[str]

    def __init__(self, text: str, may_have_arrived: bool = False) -> None:
        super().__init__(text)
        self.may_have_arrived = may_have_arrived


class BadUrl(NetError):
    """The URL cannot be called: syntax, scheme, credentials in it, or a port that is not for HTTP."""

    kind = "bad_url"


class Blocked(NetError):
    """The URL leads to an address that must not be called. Trying again gives the same answer.

    `address` is the refused address, or the name if it was refused as such; `why` ends the sentence "refused
    because …".
    """

    kind = "blocked"

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"the address {address} is refused because {why}")
        self.address = address
        self.why = why


class TooLarge(NetError):
    """A request's body is over our limit (nothing was sent), or a fetched file is over the caller's."""

    kind = "too_large"


class Unreachable(NetError):
    """No answer, and not for lack of time. `stage` says what failed: name, connection, TLS or answer."""

    kind = "unreachable"

    def __init__(self, stage: Stage, text: str) -> None:
        super().__init__(text, may_have_arrived=stage is Stage.ANSWER)
        self.stage = stage


class TimedOut(NetError):
    """The deadline passed: at stage CONNECT without a connection, at stage ANSWER without a whole answer."""

    kind = "timed_out"

    def __init__(self, stage: Stage, text: str) -> None:
        super().__init__(text, may_have_arrived=stage is Stage.ANSWER)
        self.stage = stage


@dataclass(frozen=True, slots=True)
class Answer:
    """What the far side said, whatever its status.

    `headers` holds only those of `_KEPT_HEADERS` that came, names in lower case. `body` is as it came, not
    decompressed; after `post` at most its first bytes. `elapsed_ms` runs from the call to the body's end.
    `address` is the IP address that answered.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: int
    address: str


def check_url(url: str, allowed_networks: Sequence[Network] = ()) -> None:
    """Say at configuration time what can be said without a look-up: syntax, scheme, port, literal addresses.

    Raises `BadUrl` or `Blocked` in words for the person who typed the URL. Passing here promises nothing
    about the address that a name leads to; that is judged at each connection.
    """
    _parse(url, allowed_networks)


def why_refused(address: IPv4Address | IPv6Address, allowed_networks: Sequence[Network] = ()) -> str:
    """Why `address` must not be called, as the end of the sentence "refused because …"; empty if it may be.

    An IPv6 address that wraps an IPv4 one (mapped, NAT64, 6to4, Teredo) is refused, unless its own network is
    on the list; then the address inside is judged. So an operator behind NAT64 may list 64:ff9b::/96 without
    opening 10.0.0.0/8 by it.
    """
    is_listed = any(address in network for network in allowed_networks)
    inner = _wrapped_ipv4(address) if isinstance(address, IPv6Address) else None
    if inner is not None:
        return why_refused(inner, allowed_networks) if is_listed else f"it wraps the IPv4 address {inner}"
    if is_listed:
        return ""
    for network, why in _REFUSED_NETWORKS:
        if address in network:
            return why
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return "it is not a public IPv6 address"
    return ""


class Outbound:
    """The client. Make one per process inside the running loop, share it, close it after its callers stopped.

    allowed_networks: networks exempt from the private-address rule; none by default. Ports and schemes are
        not exempt.
    timeout_s: the deadline of one call, over everything. connect_timeout_s: the part of it for look-up,
        waiting for a free connection, TCP and TLS; it must be shorter, so that a timeout tells whether the
        request may have arrived.
    connections, connections_per_host: how many may be open at once; a call beyond that waits, within
        connect_timeout_s.
    body_limit_bytes: the largest request body. answer_limit_bytes: how much of an answer to a `post` is kept.
    ca_file: certificate authorities (PEM) trusted besides the system's. Verification cannot be switched off.
    """

    def __init__(
        self,
        *,
        allowed_networks: Sequence[Network] = (),
        timeout_s: float = 10.0,
        connect_timeout_s: float = 4.0,
        connections: int = 512,
        connections_per_host: int = 8,
        body_limit_bytes: int = 1 << 20,
        answer_limit_bytes: int = 16 << 10,
        ca_file: str | None = None,
    ) -> None:
        self._allowed = tuple(allowed_networks)
        self._connect_timeout_s = connect_timeout_s
        self._timeout = self._deadline(timeout_s)
        self._body_limit = body_limit_bytes
        self._answer_limit = answer_limit_bytes
        self._loop = asyncio.get_running_loop()
        # Callbacks go to the same few URLs again and again, and reading one costs several times what finding
        # it here does.
        self._read_url = functools.lru_cache(maxsize=4096)(functools.partial(_parse, allowed_networks=self._allowed))
        self._resolver = _Resolver()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=True if ca_file is None else _trusting(ca_file),
                resolver=self._resolver,
                ttl_dns_cache=_DNS_TTL_S,
                keepalive_timeout=_KEEPALIVE_S,
                limit=connections,
                limit_per_host=connections_per_host,
                socket_factory=self._open_socket,
            ),
            headers={"User-Agent": f"Berid/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
            auto_decompress=False,
            # A proxy from the environment would connect in our place, past the address rule.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def check_url(self, url: str) -> None:
        """`check_url` under this client's allowed networks. Raises `BadUrl` or `Blocked`."""
        self._read_url(url)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST `body`. Gives the answer, whatever its status, with its body's first `answer_limit_bytes`.

        Raises `BadUrl`, `Blocked`, `TooLarge`, `Unreachable` or `TimedOut`.
        """
        if len(body) > self._body_limit:
            raise TooLarge(f"the body has {len(body)} bytes; at most {self._body_limit} are sent")
        return await self._call("POST", url, headers, self._timeout, body=body)

    async def fetch(
        self,
        url: str,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """GET `url` and give the answer, whatever its status, with its whole body of at most `max_bytes`.

        `timeout_s` takes the place of the client's own deadline, for files that are long on the way.
        Raises `BadUrl`, `Blocked`, `TooLarge`, `Unreachable` or `TimedOut`.
        """
        timeout = self._timeout if timeout_s is None else self._deadline(timeout_s)
        return await self._call("GET", url, headers, timeout, max_bytes=max_bytes)

    async def close(self) -> None:
        """Close every connection. Callers must have stopped: a call that waits for one is cancelled."""
        await self._session.close()
        await self._resolver.close()

    async def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        deadline: aiohttp.ClientTimeout,
        *,
        body: bytes | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """One request. Its answer is cut at the client's limit, or refused above `max_bytes` if given."""
        target = self._read_url(url)
        started = self._loop.time()
        try:
            response = await self._session.request(
                method, target, data=body, headers=headers, allow_redirects=False, timeout=deadline
            )
            try:
                limit = self._answer_limit if max_bytes is None else max_bytes
                content = await _read(response, limit, is_cut=max_bytes is None)
            finally:
                # A connection whose answer was read to its end is back in the pool already; any other is of
                # no more use.
                response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            # The cause is left out of the chain: aiohttp's texts hold the whole URL.
            raise _named(error, target, deadline) from None
        assert isinstance(response, _Response)
        return Answer(
            status=response.status,
            headers={name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
            body=content,
            elapsed_ms=round((self._loop.time() - started) * 1000),
            address=response.peer,
        )

    def _deadline(self, timeout_s: float) -> aiohttp.ClientTimeout:
        if self._connect_timeout_s >= timeout_s:
            raise ValueError("connect_timeout_s must be shorter than timeout_s")
        # Above its threshold aiohttp rounds deadlines up to whole seconds, which could put the two in the
        # wrong order.
        return aiohttp.ClientTimeout(total=timeout_s, connect=self._connect_timeout_s, ceil_threshold=math.inf)

    def _open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Make the socket for one address, or refuse; aiohttp then tries the name's other addresses."""
        family, kind, protocol, _, sockaddr = info
        address = ip_address(sockaddr[0])
        why = why_refused(address, self._allowed)
        if why:
            raise _Refusal(Blocked(str(address), why))
        return socket.socket(family, kind, protocol)


class _Refusal(OSError):
    """Carries a `Blocked` through aiohttp, which takes an OSError here as "try the next address".

    Every refusal has the same text, so that aiohttp's summary of several keeps the first one itself instead
    of a new error.
    """

    def __init__(self, blocked: Blocked) -> None:
        super().__init__(errno.EACCES, "the address is refused")
        self.blocked = blocked


class _Response(aiohttp.ClientResponse):
    """Remembers who answered: after a short answer its connection is in the pool before anybody could ask."""

    peer = ""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None and (name := transport.get_extra_info("peername")):
            self.peer = name[0]
        return await super().start(connection)


class _Resolver(AbstractResolver):
    """The system's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = functools.partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(hostname=host, host=str(sockaddr[0]), port=port, family=family, proto=0, flags=0)
            for family, _, _, _, sockaddr in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _named(error: Exception, target: URL, deadline: aiohttp.ClientTimeout) -> NetError:
    """Our own error for one of aiohttp's."""
    origin = target.origin()
    match error:
        case aiohttp.ClientConnectorError(os_error=_Refusal(blocked=blocked)):
            return blocked
        case aiohttp.ClientConnectorDNSError(os_error=cause):
            return Unreachable(Stage.DNS, f"{origin}: the name does not resolve ({cause.strerror})")
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return Unreachable(Stage.TLS, f"{origin}: the certificate is not accepted ({cause.verify_message})")
        case aiohttp.ClientSSLError():
            return Unreachable(Stage.TLS, f"{origin}: the TLS handshake failed")
        case aiohttp.ClientConnectorError(os_error=cause):
            why = os.strerror(cause.errno) if cause.errno else str(cause)
            return Unreachable(Stage.CONNECT, f"{origin}: no connection ({why})")
        case aiohttp.ConnectionTimeoutError():
            return TimedOut(Stage.CONNECT, f"{origin}: no connection within {deadline.connect:g} s")
        case TimeoutError():
            return TimedOut(Stage.ANSWER, f"{origin}: no complete answer within {deadline.total:g} s")
        case aiohttp.ClientResponseError():
            return Unreachable(Stage.ANSWER, f"{origin}: the answer is not HTTP")
    return Unreachable(Stage.ANSWER, f"{origin}: the connection ended before the answer did")


async def _read(response: aiohttp.ClientResponse, limit: int, is_cut: bool) -> bytes:
    """The body's first `limit` bytes; TooLarge if there are more and they must not be cut off."""
    if not is_cut and (response.content_length or 0) > limit:
        raise TooLarge(f"the file has {response.content_length} bytes; at most {limit} are taken", True)
    content = response.content
    body = await content.read(limit + 1)
    if not content.at_eof():
        chunks = [body]
        size = len(body)
        while size <= limit and (chunk := await content.read(limit + 1 - size)):
            chunks.append(chunk)
            size += len(chunk)
        body = b"".join(chunks)
    if len(body) > limit and not is_cut:
        raise TooLarge(f"the file has more than {limit} bytes", True)
    return body[:limit]


def _parse(url: str, allowed_networks: Sequence[Network]) -> URL:
    """The URL as it will be called. Raises `BadUrl` or `Blocked`; see `check_url`."""
    if len(url) > _URL_LIMIT:
        raise BadUrl(f"the URL is longer than {_URL_LIMIT} characters")
    if any(character <= " " or character in "\\\x7f" for character in url):
        raise BadUrl("the URL holds a space, a backslash or a control character")
    try:
        target = URL(url)
    except ValueError:
        raise BadUrl("the URL cannot be read; it should look like https://example.com/path") from None
    if target.scheme not in ("http", "https"):
        raise BadUrl("the URL must begin with https:// or http://")
    if target.raw_user is not None or target.raw_password is not None:
        raise BadUrl("the URL holds a user name or password before the host; leave it out")
    if not target.raw_host:
        raise BadUrl("the URL has no host")
    _check_port(target.port)
    _check_host(target.raw_host, allowed_networks)
    if _PLAIN_URL.fullmatch(url):
        # yarl would write some escapes anew, "%2F" as "/" in a query. What the customer signed must be what is called.
        parts = urlsplit(url)
        return URL.build(
            scheme=target.scheme,
            authority=target.raw_authority,
            path=parts.path or "/",
            query_string=parts.query,
            encoded=True,
        )
    return target


def _check_port(port: int | None) -> None:
    if port in (80, 443):
        return
    if not port or port < 1024:
        raise BadUrl(f"port {port} is not for HTTP; use 80, 443 or one from 1024")
    if port in _SERVICE_PORTS:
        raise BadUrl(f"port {port} belongs to {_SERVICE_PORTS[port]}, not to HTTP; use another")


def _check_host(host: str, allowed_networks: Sequence[Network]) -> None:
    """Judge a literal address, the shape of a name, and the names that mean this machine (RFC 6761)."""
    labels = host.removesuffix(".").split(".")
    if ":" in host or _NUMBER_LABEL.fullmatch(labels[-1]):
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise BadUrl(f"{host} is no usual form of an address; write four decimal numbers or plain IPv6")
        if why := why_refused(address, allowed_networks):
            raise Blocked(host, why)
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrl("the URL's host is not a name that can be looked up")
    elif labels[-1] == "localhost" and (why := why_refused(_LOOPBACK, allowed_networks)):
        raise Blocked(host, why)


def _wrapped_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that traffic to this one would really reach, if it is of a kind that wraps one."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


def _trusting(ca_file: str) -> ssl.SSLContext:
    """The system's authorities and those of one file, with the same verification."""
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context
