"""Money that accounts ask for: top-up requests from both sides of the desk, and the credit by which a product is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros, parse_micros
from berid.dialects.native.endpoint import Call, Endpoint, encode
from berid.dialects.native.manage.attachments import Attachment, AttachmentIds, attachment, attachment_ids
from berid.dialects.native.shapes import or_none, read_cursor, read_id, rfc3339, write_cursor
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.domain.ledger import TOPUP_OPEN, TOPUP_TARGET_MS, TOPUP_WAITS, TopupState
from berid.flow import manage
from berid.flow.manage import Office, Once
from berid.store import Tx, attachments, topups
from berid.store.topups import TopupRecord

Limit = Annotated[int, Meta(ge=1, le=1_000)]
Words = Annotated[str, Meta(max_length=1_000)]
Amount = Annotated[str, Meta(pattern=r"^-?[0-9]{1,13}(\.[0-9]{1,6})?$")]
"""A decimal amount; a minus is for corrections only."""

_REPLAYED = ((b"idempotent-replayed", b"true"),)


class TopupWish(msgspec.Struct, forbid_unknown_fields=True):
    """Money that was paid for the wallet in `currency`, of the token's mode. `amount` is decimal, `reference` the account's own.

    `slips` are ids of files that prove it, see POST /attachments.
    """

    currency: str
    amount: Amount
    method: Annotated[str, Meta(min_length=1, max_length=100)]
    reference: Annotated[str, Meta(max_length=255)] = ""
    note: Words = ""
    slips: AttachmentIds = []


class TopupAddition(msgspec.Struct, forbid_unknown_fields=True):
    """More about an open request: files, and a note in place of the one before."""

    note: Words = ""
    slips: AttachmentIds = []


class TopupRequest(msgspec.Struct):
    """A top-up request. `approved` is what was entered in the wallet, as the ledger's `entry`; `reason` what was said of it last.

    While it waits for the operator `due_at` says when it should be decided: two hours after it was submitted. `waited_s` is how
    long it has waited, or did until it was decided; `is_late` if that is longer.
    """

    id: str
    account: str
    wallet: str
    mode: str
    currency: str
    amount: str
    approved: str | None
    entry: str
    method: str
    reference: str
    note: str
    state: TopupState
    reason: str
    slips: list[Attachment]
    created_at: str
    submitted_at: str
    due_at: str | None
    decided_at: str | None
    waited_s: int
    is_late: bool


class TopupPage(msgspec.Struct):
    """Some requests, newest first."""

    data: list[TopupRequest]
    next: str | None


class TopupCase(TopupRequest):
    """A top-up request as the operator sees it: who asked, who looks after it, and which other requests or sender names (of any
    account) came with the very same file."""

    asked_by: str
    handled_by: str
    same_files: list[str]


class TopupCasePage(msgspec.Struct):
    """Some requests of all accounts, oldest first."""

    data: list[TopupCase]
    next: str | None


class TopupQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How much of a list, and from where."""

    limit: Limit = 100
    cursor: str = ""


class TopupCaseQuery(TopupQuery):
    """Which requests: those of a state, or all open ones; of one wallet if named."""

    state: TopupState | None = None
    wallet: str = ""


class TopupYes(msgspec.Struct, forbid_unknown_fields=True):
    """The amount that has come in, if it is not the one asked for; then a reason is needed."""

    amount: Amount | None = None
    reason: Words = ""


class Objection(msgspec.Struct, forbid_unknown_fields=True):
    """Why, in words that the owner can act upon."""

    reason: Annotated[str, Meta(min_length=1, max_length=1_000)]


class EnteredMoney(msgspec.Struct):
    """The entry, and what was available in the wallet after it."""

    entry: str
    available: str
    currency: str


class TrialOffer(msgspec.Struct, forbid_unknown_fields=True):
    """What whoever tries a product gets once in his live wallet. `product` is a dialect's name, or any word of the operator's."""

    product: Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,31}$")]
    currency: str
    amount: Amount


class TrialOfferList(msgspec.Struct):
    """All offers, by product."""

    data: list[TrialOffer]


class TrialClaim(msgspec.Struct):
    """The trial credit that the account has had."""

    product: str
    entry: str
    at: str


class TrialCredit(msgspec.Struct):
    """What is offered, and what of it the account has had: one, once."""

    offers: list[TrialOffer]
    claimed: TrialClaim | None


class TrialChoice(msgspec.Struct, forbid_unknown_fields=True):
    """The product that is tried."""

    product: str


class TrialQuery(TrialChoice):
    """The product whose offer ends."""


# ── The account's side ────────────────────────────────────────────────────────────────────────────────────────────────


async def request_topup(call: Call[TopupWish, None]) -> Response:
    """POST /topup-requests."""
    body, caller = call.body, call.caller
    identifier, is_replay = await manage.request_topup(
        Office.of(call.rt),
        call.actor,
        caller.account.id,
        caller.mode,
        body.currency,
        amount_of(body.amount),
        method=body.method,
        reference=body.reference,
        note_text=body.note,
        slips=attachment_ids(body.slips, "slips"),
        once=await once_of(call),
    )
    async with call.rt.store.read() as tx:
        found = await topups.topup(tx, identifier)
        assert found is not None
        (shown,) = await _shown(call, tx, [found])
    return created(shown, is_replay)


async def list_topups(call: Call[None, TopupQuery]) -> TopupPage:
    """GET /topup-requests."""
    query, caller = call.query, call.caller
    before_id = read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        found = await topups.topups_of(tx, caller.account.id, caller.mode, before_id, query.limit + 1)
        data = await _shown(call, tx, found[: query.limit])
    return TopupPage(data, write_cursor(found[query.limit - 1].id if len(found) > query.limit else 0))


async def get_topup(call: Call[None, None]) -> TopupRequest:
    """GET /topup-requests/{id}."""
    return await _own(call)


async def complete_topup(call: Call[TopupAddition, None]) -> TopupRequest:
    """POST /topup-requests/{id}/submit."""
    await _own(call)
    await manage.complete_topup(
        Office.of(call.rt),
        call.actor,
        call.caller.account.id,
        call.path_id("top"),
        note_text=call.body.note,
        slips=attachment_ids(call.body.slips, "slips"),
    )
    return await _own(call)


async def withdraw_topup(call: Call[None, None]) -> TopupRequest:
    """POST /topup-requests/{id}/withdraw."""
    await _own(call)
    await manage.withdraw_topup(Office.of(call.rt), call.actor, call.caller.account.id, call.path_id("top"))
    return await _own(call)


async def _own(call: Call[Any, Any]) -> TopupRequest:
    """The request in the path, if it is the account's and for a wallet of the token's mode. Raises `Refused` with NOT_FOUND."""
    caller = call.caller
    async with call.rt.store.read() as tx:
        found = await topups.topup(tx, call.path_id("top"))
        if found is None or (found.account_id, found.mode) != (caller.account.id, caller.mode):
            raise _no_topup()
        return (await _shown(call, tx, [found]))[0]


async def trial_credit(call: Call[None, None]) -> TrialCredit:
    """GET /trial-credit."""
    async with call.rt.store.read() as tx:
        offers, claim = await topups.offers(tx), await topups.claim_of(tx, call.caller.account.id)
    claimed = TrialClaim(claim.product, show("ent", claim.entry_id), rfc3339(claim.at_ms)) if claim else None
    return TrialCredit([_offer(each) for each in offers], claimed)


async def claim_trial(call: Call[TrialChoice, None]) -> EnteredMoney:
    """POST /trial-credit."""
    office, product = Office.of(call.rt), call.body.product
    done = await manage.claim_trial(office, call.actor, call.caller.account.id, product)
    return EnteredMoney(show("ent", done.entry_id), format_micros(done.available_micros), done.currency)


# ── The operator's side ───────────────────────────────────────────────────────────────────────────────────────────────


async def list_cases(call: Call[None, TopupCaseQuery]) -> TopupCasePage:
    """GET /operator/topup-requests."""
    query = call.query
    states = TOPUP_OPEN if query.state is None else {query.state}
    wallet_id, after_id = read_id("wal", query.wallet, "wallet"), read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        found = await topups.topups(tx, [each.value for each in states], wallet_id, after_id, query.limit + 1)
        data = await _cases(call, tx, found[: query.limit])
    return TopupCasePage(data, write_cursor(found[query.limit - 1].id if len(found) > query.limit else 0))


async def get_case(call: Call[Any, None]) -> TopupCase:
    """GET /operator/topup-requests/{id}."""
    async with call.rt.store.read() as tx:
        found = await topups.topup(tx, call.path_id("top"))
        if found is None:
            raise _no_topup()
        return (await _cases(call, tx, [found]))[0]


async def check_topup(call: Call[None, None]) -> TopupCase:
    """POST /operator/topup-requests/{id}/check."""
    await manage.check_topup(Office.of(call.rt), call.actor, call.path_id("top"))
    return await get_case(call)


async def ask_about_topup(call: Call[Objection, None]) -> TopupCase:
    """POST /operator/topup-requests/{id}/needs-info."""
    await manage.ask_about_topup(Office.of(call.rt), call.actor, call.path_id("top"), call.body.reason)
    return await get_case(call)


async def reject_topup(call: Call[Objection, None]) -> TopupCase:
    """POST /operator/topup-requests/{id}/reject."""
    await manage.reject_topup(Office.of(call.rt), call.actor, call.path_id("top"), call.body.reason)
    return await get_case(call)


async def approve_topup(call: Call[TopupYes, None]) -> TopupCase:
    """POST /operator/topup-requests/{id}/approve."""
    body = call.body
    await manage.approve_topup(
        Office.of(call.rt),
        call.actor,
        call.path_id("top"),
        approver_account_id=call.caller.account.id,
        amount_micros=amount_of(body.amount) if body.amount is not None else None,
        reason=body.reason,
    )
    return await get_case(call)


async def list_offers(call: Call[None, None]) -> TrialOfferList:
    """GET /operator/trial-offers."""
    async with call.rt.store.read() as tx:
        return TrialOfferList([_offer(each) for each in await topups.offers(tx)])


async def set_offer(call: Call[TrialOffer, None]) -> TrialOffer:
    """PUT /operator/trial-offers."""
    body = call.body
    await manage.offer_trial(Office.of(call.rt), call.actor, body.product, body.currency, amount_of(body.amount))
    return body


async def end_offer(call: Call[None, TrialQuery]) -> Response:
    """DELETE /operator/trial-offers."""
    await manage.end_trial(Office.of(call.rt), call.actor, call.query.product)
    return Response(204)


# ── What both show ────────────────────────────────────────────────────────────────────────────────────────────────────


async def once_of(call: Call[Any, Any]) -> Once | None:
    """The request's idempotency key, as the office takes it. Raises `Refused` for one too long."""
    found = await call.idempotency()
    return Once(call.caller.application.id, *found) if found is not None else None


def created(answer: msgspec.Struct, is_replay: bool) -> Response:
    """The answer to a request with a key: 201, marked if it was made before."""
    return Response(201, encode(answer), headers=_REPLAYED if is_replay else ())


def amount_of(text: str, field: str = "amount") -> int:
    """A decimal amount in micros. Raises `Refused` with MALFORMED."""
    try:
        return parse_micros(text)
    except ValueError as error:
        raise refused(RefusalKind.MALFORMED, str(error), field) from None


async def _shown(call: Call[Any, Any], tx: Tx, found: Sequence[TopupRecord]) -> list[TopupRequest]:
    slips = await attachments.of_subjects(tx, [show("top", each.id) for each in found])
    return [TopupRequest(**_fields(call, each, slips[show("top", each.id)])) for each in found]


async def _cases(call: Call[Any, Any], tx: Tx, found: Sequence[TopupRecord]) -> list[TopupCase]:
    slips = await attachments.of_subjects(tx, [show("top", each.id) for each in found])
    twins = await attachments.twins(tx, sorted({slip.digest for mine in slips.values() for slip in mine}))
    cases = []
    for each in found:
        subject = show("top", each.id)
        digests = {slip.digest for slip in slips[subject]}
        same = sorted({twin.subject for twin in twins if twin.digest in digests} - {subject})
        fields = _fields(call, each, slips[subject])
        cases.append(TopupCase(**fields, asked_by=each.asked_by, handled_by=each.handled_by, same_files=same))
    return cases


def _fields(call: Call[Any, Any], each: TopupRecord, slips: Sequence[attachments.AttachmentRecord]) -> dict[str, Any]:
    """What every view of a request says of it. The clock stands while the account is asked for more."""
    state = TopupState(each.state)
    until_ms = each.decided_ms or (call.rt.clock.now_ms() if state in TOPUP_WAITS else each.submitted_ms)
    waited_ms = max(0, until_ms - each.submitted_ms)
    return {
        "id": show("top", each.id),
        "account": show("acc", each.account_id),
        "wallet": show("wal", each.wallet_id),
        "mode": each.mode,
        "currency": each.currency,
        "amount": format_micros(each.amount_micros),
        "approved": format_micros(each.approved_micros) if each.entry_id else None,
        "entry": show("ent", each.entry_id) if each.entry_id else "",
        "method": each.method,
        "reference": each.reference,
        "note": each.note,
        "state": state,
        "reason": each.reason,
        "slips": [attachment(slip) for slip in slips],
        "created_at": rfc3339(each.created_ms),
        "submitted_at": rfc3339(each.submitted_ms),
        "due_at": rfc3339(each.submitted_ms + TOPUP_TARGET_MS) if state in TOPUP_WAITS else None,
        "decided_at": or_none(each.decided_ms),
        "waited_s": waited_ms // 1000,
        "is_late": waited_ms > TOPUP_TARGET_MS,
    }


def _offer(each: topups.OfferRecord) -> TrialOffer:
    return TrialOffer(each.product, each.currency, format_micros(each.amount_micros))


def _no_topup() -> Exception:
    return refused(RefusalKind.NOT_FOUND, "there is no such top-up request", "id")


_NOT_FOUND = (RefusalKind.NOT_FOUND,)
_STEP = (RefusalKind.NOT_FOUND, RefusalKind.WRONG_STATE)
_Step = Callable[[Call[Any, Any]], Awaitable[msgspec.Struct]]


def _step(
    name: str, handler: _Step, summary: str, body: type[msgspec.Struct] | None = None, *more: RefusalKind
) -> Endpoint:
    """A step of a request that the operator takes."""
    path = f"/operator/topup-requests/{{id}}/{name}"
    return Endpoint("POST", path, handler, summary, TopupCase, Scope.OPERATOR, body=body, refusals=(*_STEP, *more))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/topup-requests",
        request_topup,
        "Say that money was paid",
        TopupRequest,
        Scope.MANAGE,
        body=TopupWish,
        status=201,
        about="Somebody else than who asks decides, and the yes enters the money.",
        refusals=(*_NOT_FOUND, RefusalKind.IDEMPOTENCY_CONFLICT),
        is_keyed=True,
    ),
    Endpoint(
        "GET",
        "/topup-requests",
        list_topups,
        "The account's top-up requests",
        TopupPage,
        Scope.MANAGE,
        query=TopupQuery,
        about="For wallets of the token's mode only.",
    ),
    Endpoint(
        "GET", "/topup-requests/{id}", get_topup, "A top-up request", TopupRequest, Scope.MANAGE, refusals=_NOT_FOUND
    ),
    Endpoint(
        "POST",
        "/topup-requests/{id}/submit",
        complete_topup,
        "Add what is missing to a top-up request",
        TopupRequest,
        Scope.MANAGE,
        body=TopupAddition,
        refusals=_STEP,
    ),
    Endpoint(
        "POST",
        "/topup-requests/{id}/withdraw",
        withdraw_topup,
        "Take a top-up request back",
        TopupRequest,
        Scope.MANAGE,
        refusals=_STEP,
    ),
    Endpoint(
        "GET",
        "/operator/topup-requests",
        list_cases,
        "Top-up requests of all accounts",
        TopupCasePage,
        Scope.OPERATOR,
        query=TopupCaseQuery,
    ),
    Endpoint(
        "GET",
        "/operator/topup-requests/{id}",
        get_case,
        "A top-up request of any account",
        TopupCase,
        Scope.OPERATOR,
        refusals=_NOT_FOUND,
    ),
    _step("check", check_topup, "Say that somebody looks for the money"),
    _step("needs-info", ask_about_topup, "Ask for what is missing", Objection),
    _step("approve", approve_topup, "Enter the money of a request, once", TopupYes, RefusalKind.SELF_APPROVAL),
    _step("reject", reject_topup, "Turn a request down", Objection),
    Endpoint("GET", "/trial-credit", trial_credit, "What may be tried for nothing", TrialCredit, Scope.MANAGE),
    Endpoint(
        "POST",
        "/trial-credit",
        claim_trial,
        "Have the trial credit entered",
        EnteredMoney,
        Scope.MANAGE,
        body=TrialChoice,
        status=201,
        about="Once for every account, in its live wallet.",
        refusals=_STEP,
    ),
    Endpoint("GET", "/operator/trial-offers", list_offers, "What is given for trying", TrialOfferList, Scope.OPERATOR),
    Endpoint(
        "PUT",
        "/operator/trial-offers",
        set_offer,
        "Give something for trying a product",
        TrialOffer,
        Scope.OPERATOR,
        body=TrialOffer,
    ),
    Endpoint(
        "DELETE",
        "/operator/trial-offers",
        end_offer,
        "Give nothing any more for trying a product",
        None,
        Scope.OPERATOR,
        query=TrialQuery,
        status=204,
        refusals=_NOT_FOUND,
    ),
)
