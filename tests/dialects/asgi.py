"""Requests to an ASGI application without a socket, as a server would hand them over."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec


@dataclass(frozen=True)
class Answer:
    """What came back. Names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return msgspec.json.decode(self.body)


async def call(
    app: Any,
    method: str,
    target: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    client: tuple[str, int] | None = ("198.51.100.7", 50_000),
    hangs_up: bool = False,
    stalls: bool = False,
    announces: bool = True,
    is_late: bool = False,
) -> Answer:
    """One request. A `body` in pieces arrives piece by piece, the loop being given back between them.

    `hangs_up`: after the last piece the caller is gone. `stalls`: after the last piece nothing comes any more. `announces`:
    a Content-Length is sent. `is_late`: the first piece has to be waited for as well. Raises AssertionError if nothing was
    answered.
    """
    pieces = [body] if isinstance(body, bytes) else list(body)
    given = {"host": "api.example", **(headers or {})}
    if announces and "content-length" not in given and isinstance(body, bytes) and body:
        given["content-length"] = str(len(body))
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
        "client": client,
        "server": ("127.0.0.1", 8080),
    }
    sent: list[Any] = []
    is_first = not is_late

    async def receive() -> dict[str, Any]:
        nonlocal is_first
        if not is_first:
            await asyncio.sleep(0)
        is_first = False
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces) or hangs_up or stalls}
        if stalls:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent, "nothing was answered"
    start, *rest = sent
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(message.get("body", b"") for message in rest))
