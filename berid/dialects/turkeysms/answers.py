"""How an answer leaves: JSON, print_r or nothing at all, as the caller asked; and the shape of every no.

V3 answers HTTP 200 whatever happens: clients of the provider throw the body of any other status away, and with it the code. Only
an address or a method that V3 does not have is 404 or 405. V4 answers JSON with the status of its code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from berid.dialects.reading import Unreadable
from berid.dialects.turkeysms import codes
from berid.dialects.turkeysms.php import print_r
from berid.dialects.web import Group, Request, Response
from berid.domain.errors import Refusal

Body = dict[str, Any]
"""The members of an answer, in the provider's order."""

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

Headers = Sequence[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode


def show(request: Request, body: Body, headers: Headers = ()) -> Response:
    """A V3 answer in the form that the caller wants."""
    if _wants_json(request):
        return Response(200, _encode(body), JSON, headers)
    return Response(200, print_r(body), TEXT, headers)


def show_success(request: Request, body: Body) -> Response:
    """As `show`, but empty if the caller has asked for no report."""
    return Response(200, b"", TEXT) if _wants_nothing(request) else show(request, body)


def _wants_nothing(request: Request) -> bool:
    """Whether `report` is off: 0 (the provider's documentation) or 2 (its samples)."""
    return str(request.seen.get("report", "")).strip() in ("0", "2")


def show_json(body: Body, status: int = 200, headers: Headers = ()) -> Response:
    """A V4 answer."""
    return Response(status, _encode(body), JSON, headers)


def _wants_json(request: Request) -> bool:
    """`response_type` decides; without a value that is known, print_r, unless the caller accepts JSON by name."""
    given = request.seen.get("response_type")
    if isinstance(given, str):
        match given.strip().lower():
            case "json":
                return True
            case "php" | "array":
                return False
    return b"application/json" in request.headers.get(b"accept", b"").lower()


def _no(code: str, text: str = "") -> Body:
    return {"result": False, "result_code": code, "result_message": text or codes.TEXTS[code]}


def _marks(refusal: Refusal) -> Headers:
    """Headers that tell the true kind, where the provider's codes are coarser."""
    marks = [(b"x-berid-code", refusal.kind.value.encode())]
    if refusal.retry_after_s:
        marks.append((b"retry-after", b"%d" % -(-refusal.retry_after_s // 1)))
    return marks


def _reason(refusals: Sequence[Refusal], permission: str) -> tuple[Refusal, codes.Words, Body]:
    refusal = codes.first_of(refusals)
    words = codes.REFUSALS[refusal.kind]
    text = refusal.detail if words.tells_why else ""
    return refusal, words, _no(words.code or permission, text)


# ── V3 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


Right = Literal["sending", "status", "balance", "login"]
"""What a path of V3 is for: a key that may not do it hears of it by a code of its own."""

_PERMISSIONS: dict[Right, Callable[[Request], str]] = {
    "sending": lambda request: "TS-1061" if request.method == "POST" else "TS-1062",
    "status": lambda _: "TS-1063",
    "balance": lambda _: "TS-1065",
    "login": lambda _: "TS-1031",
}


def v3_groups(hides_errors: bool) -> dict[Right, Group]:
    """The groups of V3's paths. With `hides_errors` who wants no report hears nothing of what is wrong either."""

    def group(right: Right) -> Group:
        def refuse(request: Request, refusals: Sequence[Refusal]) -> Response:
            refusal, _, body = _reason(refusals, _PERMISSIONS[right](request))
            if hides_errors and _wants_nothing(request):
                return Response(200, b"", TEXT, _marks(refusal))
            return show(request, body, _marks(refusal))

        return Group(f"turkeysms {right}", ("/api/v3",), refuse, fail_v3)

    return {right: group(right) for right in _PERMISSIONS}


def fail_v3(request: Request, status: int) -> Response:
    """What never came to a handler of V3, or broke in it."""
    code = codes.WAIT if status == 408 else codes.INCORRECT
    with suppress(Unreadable):
        _ = request.query  # may say in which form to answer
    response = show(request, _no(code))
    response.status = status if status in (404, 405) else 200
    return response


# ── V4 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

V4_PREFIX = "/turkeysms"
V4_ROOTS = ("/auth", "/sms", "/otp", "/group", "/balance", "/blacklist", "/reports")
"""Where V4 lies at host names that are its own."""


def v4_group(name: str, permission: str, hosts: frozenset[str] = frozenset()) -> Group:
    """Paths of V4 on which a missing right is told by `permission`; with `hosts`, at the root of these host names."""

    def refuse(_: Request, refusals: Sequence[Refusal]) -> Response:
        refusal, words, body = _reason(refusals, permission)
        return show_json(body, words.status, _marks(refusal))

    return Group(name, V4_ROOTS if hosts else (V4_PREFIX,), refuse, _fail_v4, hosts)


def _fail_v4(_: Request, status: int) -> Response:
    return show_json(_no(codes.WAIT if status == 408 else codes.INCORRECT), status)
