"""How the native API says no: one catalogue, from which answers, the OpenAPI document and `docs/errors.md` are made.

Answers are problem details (RFC 9457) with our members beside the standard's: `code`, a stable word to program against; `fix`,
what to do about it; `docs`, where it is explained; `field`, what in the request it is about; `request_id`. When there are
several reasons, the first one stands in front and `errors` lists all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from berid.dialects.web import PROBLEM, Request, Response
from berid.domain.errors import Refusal, RefusalKind

PAGE = "docs/errors.md"
"""The generated page."""

_FIELDS = {"recipients": "to", "due": "send_at", "key": "Idempotency-Key"}
"""Our word for a part of a request where the flow has another."""


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of a reason: HTTP status, a title that never changes, and what the caller can do about it."""

    status: int
    title: str
    fix: str


class Reason(msgspec.Struct, omit_defaults=True):
    """One of several reasons."""

    code: str
    title: str
    detail: str
    fix: str
    field: str = ""


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every answer that is not a yes."""

    type: str
    title: str
    status: int
    code: str
    fix: str
    docs: str
    request_id: str
    detail: str = ""
    field: str = ""
    errors: list[Reason] = []


refusals: Mapping[RefusalKind, Words] = {
    RefusalKind.TOKEN_MISSING: Words(401, "No token was given", "Send the header `Authorization: Bearer <token>`."),
    RefusalKind.TOKEN_INVALID: Words(
        401,
        "The token is not valid",
        "It is unknown, revoked or expired. Make a new one for the application, and check that all of it was copied.",
    ),
    RefusalKind.ACCOUNT_INACTIVE: Words(
        403, "The account or the application is not active", "Ask the operator to activate it."
    ),
    RefusalKind.API_OFF: Words(
        403,
        "Sending through the API is switched off",
        "Switch it on in the rules of the account and of the application.",
    ),
    RefusalKind.ADDRESS_NOT_ALLOWED: Words(
        403,
        "Calls from this address are not allowed",
        "Add the address named in `detail` to the allowed networks of the account or application, or remove the restriction.",
    ),
    RefusalKind.SCOPE_MISSING: Words(
        403, "The token lacks the right for this", "Use a token with the right named in `detail`."
    ),
    RefusalKind.SERVICE_MISSING: Words(
        403, "The application does not include this channel", "Add the channel to the application's services."
    ),
    RefusalKind.MALFORMED: Words(
        400,
        "The request could not be read",
        "Compare the request with the API's description; `field` says where it differs.",
    ),
    RefusalKind.NOT_FOUND: Words(
        404,
        "There is no such thing",
        "Check the id, and that it belongs to this account and to the token's mode (test or live).",
    ),
    RefusalKind.IDEMPOTENCY_CONFLICT: Words(
        409,
        "The idempotency key was used with another request",
        "Send the same request as before to get its answer again, or use a new key for a new request.",
    ),
    RefusalKind.SENDER_MISSING: Words(422, "No sender was given", "Name one of the account's approved sender names."),
    RefusalKind.SENDER_UNKNOWN: Words(
        422,
        "The sender name is not one of the account's",
        "Ask for the name to be approved for this country and category, or use one of `GET /api/v1/senders`. Case matters.",
    ),
    RefusalKind.SENDER_INACTIVE: Words(
        422, "The sender name is not approved", "Wait for its approval, or see why it was turned down."
    ),
    RefusalKind.SENDER_EXPIRED: Words(422, "The sender name has expired", "Have it renewed."),
    RefusalKind.RECIPIENT_MISSING: Words(422, "No recipient was given", "Name at least one recipient."),
    RefusalKind.RECIPIENT_INVALID: Words(
        422, "No recipient is a number that can be written to", "Write numbers with their country's code: 966500000000."
    ),
    RefusalKind.RECIPIENTS_TOO_MANY: Words(
        422, "There are too many recipients", "Divide the list over several requests."
    ),
    RefusalKind.CONTENT_MISSING: Words(422, "There is nothing to send", "Give a text."),
    RefusalKind.CONTENT_INVALID: Words(
        422, "The content cannot be sent", "Shorten or change it as `detail` says, or allow another `encoding`."
    ),
    RefusalKind.COUNTRY_NOT_ALLOWED: Words(
        422, "This country may not be written to", "Add it to the countries of the account and of the application."
    ),
    RefusalKind.INTERNATIONAL_OFF: Words(
        422, "Other countries may not be written to", "Ask the operator to switch international traffic on."
    ),
    RefusalKind.SCHEDULE_DATE_INVALID: Words(
        422,
        "The planned time could not be read",
        "Write it by RFC 3339 (2026-12-24T18:00:00+03:00), or as milliseconds since 1970.",
    ),
    RefusalKind.SCHEDULE_TIME_INVALID: Words(
        422, "The planned time has no offset from UTC", "Add the offset: `Z`, `+03:00`."
    ),
    RefusalKind.SCHEDULE_PAST: Words(
        422, "The planned time is in the past", "Plan for later, or leave `send_at` out to send now."
    ),
    RefusalKind.BALANCE_ZERO: Words(402, "The balance is used up", "Top the wallet up."),
    RefusalKind.BALANCE_SHORT: Words(
        402, "The balance does not cover this request", "Top the wallet up, or send to fewer recipients."
    ),
    RefusalKind.SPEND_CAP: Words(
        403,
        "A spending limit is reached",
        "Wait for the next day or month in the account's time zone, as the detail says, or raise the limit.",
    ),
    RefusalKind.RATE_LIMIT: Words(
        429, "Too many messages in a short time", "Wait as long as the header Retry-After says."
    ),
    RefusalKind.OTP_LIMIT: Words(
        429,
        "Too many codes for this number",
        "Wait as long as the header Retry-After says, and do not ask for a code again so soon.",
    ),
    RefusalKind.SUPPRESSED: Words(
        422, "The recipient does not want messages", "Do not write to this recipient until he asks for it again."
    ),
    RefusalKind.NO_OPT_IN: Words(
        422, "The recipient has not agreed to promotional messages", "Get and record his consent first."
    ),
    RefusalKind.QUIET_HOURS: Words(422, "It is too late or too early there", "Plan the message for the allowed hours."),
    RefusalKind.NO_ROUTE: Words(
        422, "No route serves this destination", "Ask the operator for a route. Test tokens reach simulators only."
    ),
    RefusalKind.NO_PRICE: Words(
        422, "No price is set for this destination", "Ask the operator to extend the price list."
    ),
    RefusalKind.NOT_CANCELLABLE: Words(
        409, "It no longer waits", "Nothing can be done about what has left; see the message for its state."
    ),
    RefusalKind.WRONG_STATE: Words(
        409,
        "This does not follow from its state",
        "Look at it again: `detail` says in what state it is.",
    ),
    RefusalKind.SELF_APPROVAL: Words(
        403,
        "Who asks does not approve",
        "Let somebody else of the operator's decide, with a token of another account than the one that asks.",
    ),
    RefusalKind.STORE_AWAY: Words(
        503,
        "The store did not answer",
        "Nothing was accepted. Send the same request again, with the same idempotency key.",
    ),
}
"""Every refusal, in the order of precedence: of several reasons the first in this table stands in front."""

FAILURES: Mapping[int, tuple[str, Words]] = {
    404: ("path_unknown", Words(404, "There is nothing at this path", "Compare the path with the API's description.")),
    405: (
        "method_not_allowed",
        Words(405, "This path does not take this method", "The header Allow names those it takes."),
    ),
    408: (
        "request_timeout",
        Words(408, "The request did not arrive in time", "Send it again over a better connection."),
    ),
    413: ("body_too_large", Words(413, "The body is too large", "Divide the request into several.")),
    500: (
        "internal",
        Words(
            500,
            "Something broke on our side",
            "Send the same request again with the same idempotency key; tell the operator the request_id if it stays.",
        ),
    ),
}
"""What goes wrong before a request is understood, or against all expectation: code and words by HTTP status."""

_PRECEDENCE = {kind: place for place, kind in enumerate(refusals)}
_encode = msgspec.json.Encoder().encode


def refuse(request: Request, reasons: Sequence[Refusal]) -> Response:
    """The answer to a request that was refused for these reasons."""
    problem = problem_of(request.id, reasons)
    return Response(problem.status, _encode(problem), PROBLEM, _headers(problem.status, reasons))


def problem_of(request_id: str, reasons: Sequence[Refusal]) -> Problem:
    """The body that tells these reasons, the weightiest first."""
    ordered = sorted(reasons, key=lambda reason: _PRECEDENCE[reason.kind])
    first = ordered[0]
    words = refusals[first.kind]
    problem = _problem(first.kind.value, words, request_id)
    problem.detail, problem.field = first.detail, _field(first)
    if len(ordered) > 1:
        problem.errors = [
            Reason(
                reason.kind.value, refusals[reason.kind].title, reason.detail, refusals[reason.kind].fix, _field(reason)
            )
            for reason in ordered
        ]
    return problem


def fail(request: Request, status: int) -> Response:
    """The answer to a request that came to no handler, or to a broken one."""
    code, words = FAILURES[status]
    return Response(status, _encode(_problem(code, words, request.id)), PROBLEM)


def _problem(code: str, words: Words, request_id: str) -> Problem:
    return Problem(
        type=f"urn:berid:problem:{code}",
        title=words.title,
        status=words.status,
        code=code,
        fix=words.fix,
        docs=f"/{PAGE}#{code}",
        request_id=request_id,
    )


def _field(reason: Refusal) -> str:
    return _FIELDS.get(reason.field, reason.field)


def _headers(status: int, reasons: Sequence[Refusal]) -> Sequence[tuple[bytes, bytes]]:
    if status == 401:
        return ((b"www-authenticate", b"Bearer"),)
    if status in (429, 503):
        wait_s = max(1, *(math.ceil(reason.retry_after_s) for reason in reasons))
        return ((b"retry-after", b"%d" % wait_s),)
    return ()


def page() -> str:
    """The text of `docs/errors.md`."""
    lines = [
        "# Errors of the native API",
        "",
        "<!-- Written by `make docs` from berid/dialects/native/problems.py; do not edit. -->",
        "",
        "Every answer that is not a yes is `application/problem+json` (RFC 9457) with the members `type`, `title`, `status`, "
        "`detail`, `code`, `fix`, `docs`, `field` and `request_id`. Program against `code`: it never changes. When there are "
        "several reasons, `errors` lists all of them, and the first in the order of this page stands in front.",
        "",
        "Nothing is accepted and nothing is charged when a request is refused.",
        "",
    ]
    catalogue = [(kind.value, words) for kind, words in refusals.items()] + list(FAILURES.values())
    for code, words in catalogue:
        lines += [f"## {code}", "", f"**{words.status}** {words.title}.", "", words.fix, ""]
    return "\n".join(lines)
