"""Sender names, from the request to the yes; and the dry run of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import structs

from berid.base.ids import show
from berid.base.phone import is_possible, lenient
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.manage.attachments import Attachment, AttachmentIds, attachment, attachment_ids
from berid.dialects.native.problems import Reason, refusals
from berid.dialects.native.shapes import or_none, read_id, rfc3339
from berid.domain.account import Scope, SenderState
from berid.domain.errors import RefusalKind, Refused, refused
from berid.domain.message import Category, Content, Submission
from berid.flow import manage
from berid.flow.accept import explain
from berid.flow.consent import would_pass
from berid.flow.manage import Office
from berid.store import Tx, accounts, attachments, business
from berid.store.accounts import SenderRecord


class SenderWish(msgspec.Struct, forbid_unknown_fields=True):
    """A sender name to ask for. An empty country means every country; a `draft` is not judged until it is submitted.

    `documents` are ids of the papers that go with it, see POST /attachments.
    """

    name: str
    channel: str = "sms"
    country: str = ""
    category: Literal["any", "transactional", "promotional"] = "any"
    documents: AttachmentIds = []
    draft: bool = False


class SenderPapers(msgspec.Struct, forbid_unknown_fields=True):
    """More papers for a sender name."""

    documents: AttachmentIds = []


class SenderRequest(msgspec.Struct):
    """A sender name and what became of the request; `reason` is what the last decision said."""

    id: str
    account: str
    name: str
    channel: str
    country: str
    category: str
    state: str
    reason: str
    documents: list[Attachment]
    created_at: str
    updated_at: str
    expires_at: str | None


class DryRun(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is not sent. `address` is where the call would come from, `application` which one would make it; those of
    this call unless given."""

    to: str | int
    text: str
    sender: str = ""
    category: Literal["otp", "transactional", "promotional"] = "transactional"
    channel: str = "sms"
    address: str = ""
    application: str = ""


class RuleVerdict(msgspec.Struct):
    """What one rule says: pass, warn, hold (until a time) or refuse, and by which rule pack."""

    rule: str
    outcome: str
    detail: str
    pack: str
    until: str | None


class DryRunAnswer(msgspec.Struct):
    """Whether the message would be accepted now, every reason why not, and what each rule says of it.

    The token's rights and the rates are left out. What is held would be accepted, and leave later.
    """

    would_pass: bool
    reasons: list[Reason]
    rules: list[RuleVerdict]


async def request_sender(call: Call[SenderWish, None]) -> SenderRequest:
    """POST /senders."""
    body, account_id = call.body, call.caller.account.id
    identifier = await manage.request_sender(
        Office.of(call.rt),
        call.actor,
        account_id,
        body.channel,
        body.name,
        country=body.country,
        category=body.category,
        documents=attachment_ids(body.documents, "documents"),
        is_draft=body.draft,
    )
    return await _own(call, identifier)


async def get_sender(call: Call[None, None]) -> SenderRequest:
    """GET /senders/{id}."""
    return await _own(call, call.path_id("snd"))


async def submit_sender(call: Call[SenderPapers, None]) -> SenderRequest:
    """POST /senders/{id}/submit."""
    return await _move(call, SenderState.SUBMITTED, attachment_ids(call.body.documents, "documents"))


async def withdraw_sender(call: Call[None, None]) -> SenderRequest:
    """POST /senders/{id}/withdraw."""
    return await _move(call, SenderState.WITHDRAWN)


async def _move(call: Call[Any, None], state: SenderState, documents: Sequence[int] = ()) -> SenderRequest:
    account_id, sender_id = call.caller.account.id, call.path_id("snd")
    await manage.move_sender(Office.of(call.rt), call.actor, account_id, sender_id, state, documents=documents)
    return await _own(call, sender_id)


async def _own(call: Call[Any, Any], sender_id: int) -> SenderRequest:
    async with call.rt.store.read() as tx:
        found = await accounts.sender(tx, call.caller.account.id, sender_id)
        if found is None:
            raise refused(RefusalKind.NOT_FOUND, "there is no such sender name", "id")
        return (await sender_requests(tx, [found]))[0]


async def sender_requests(tx: Tx, found: Sequence[SenderRecord]) -> list[SenderRequest]:
    """Sender names as they are shown, with their papers."""
    papers = await attachments.of_subjects(tx, [show("snd", each.id) for each in found])
    return [
        SenderRequest(
            id=show("snd", each.id),
            account=show("acc", each.account_id),
            name=each.name,
            channel=each.channel,
            country=each.country,
            category=each.category,
            state=each.state,
            reason=each.reason,
            documents=[attachment(paper) for paper in papers[show("snd", each.id)]],
            created_at=rfc3339(each.created_ms),
            updated_at=rfc3339(each.updated_ms),
            expires_at=or_none(each.expires_ms),
        )
        for each in found
    ]


async def dry_run(call: Call[DryRun, None]) -> DryRunAnswer:
    """POST /rules/dry-run: `accept`'s own decisions, and nothing is accepted."""
    body, rt, caller = call.body, call.rt, call.caller
    if body.channel not in rt.channels:
        raise refused(RefusalKind.MALFORMED, f"there is no channel {body.channel[:40]!r}", "channel")
    application_id = read_id("app", body.application, "application")
    if application_id:
        async with rt.store.read() as tx:
            application = await business.application(tx, caller.account.id, application_id)
        if application is None:
            raise refused(RefusalKind.NOT_FOUND, "there is no such application", "application")
        caller = structs.replace(caller, application=application)
    caller = structs.replace(caller, address=body.address or caller.address)
    text = str(body.to)
    number = lenient(text, caller.account.home)
    usable = number is not None and is_possible(number)
    submission = Submission(
        channel=body.channel,
        sender=body.sender,
        recipients=[number] if usable and number is not None else [],
        content=Content(body.text),
        category=Category(body.category),
        rejected=[] if usable else [text],
    )
    found = await explain(rt, caller, submission, None)
    reasons = [
        Reason(
            each.kind.value,
            refusals[each.kind].title,
            each.detail,
            refusals[each.kind].fix,
            _FIELDS.get(each.field, each.field),
        )
        for each in found
    ]
    return DryRunAnswer(not reasons, reasons, _verdicts(call, submission))


_FIELDS = {"recipients": "to"}
"""The dry run's word for a part of it where the flow has another."""


def _verdicts(call: Call[Any, Any], submission: Submission) -> list[RuleVerdict]:
    """What every rule says; nothing if the content could not be prepared at all."""
    rt = call.rt
    try:
        parts = rt.channels[submission.channel].prepare(submission).parts
    except Refused:
        return []
    found = would_pass(rt.directory, call.caller.account.id, submission, parts, rt.clock.now_ms())
    return [
        RuleVerdict(each.rule, each.outcome.value, each.detail, each.pack, or_none(each.until_ms))
        for _, decisions in found
        for each in decisions
    ]


_NOT_FOUND = (RefusalKind.NOT_FOUND,)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/senders",
        request_sender,
        "Ask for a sender name",
        SenderRequest,
        Scope.MANAGE,
        body=SenderWish,
        status=201,
    ),
    Endpoint(
        "GET", "/senders/{id}", get_sender, "A sender name's request", SenderRequest, Scope.MANAGE, refusals=_NOT_FOUND
    ),
    Endpoint(
        "POST",
        "/senders/{id}/submit",
        submit_sender,
        "Have a sender name judged, or judged again",
        SenderRequest,
        Scope.MANAGE,
        body=SenderPapers,
        refusals=(*_NOT_FOUND, RefusalKind.WRONG_STATE),
    ),
    Endpoint(
        "POST",
        "/senders/{id}/withdraw",
        withdraw_sender,
        "Give a sender name up",
        SenderRequest,
        Scope.MANAGE,
        refusals=(*_NOT_FOUND, RefusalKind.WRONG_STATE),
    ),
    Endpoint(
        "POST",
        "/rules/dry-run",
        dry_run,
        "Would this message be accepted, and if not, why",
        DryRunAnswer,
        Scope.MANAGE,
        body=DryRun,
        about="Nothing is sent, stored or counted.",
        refusals=_NOT_FOUND,
    ),
)
