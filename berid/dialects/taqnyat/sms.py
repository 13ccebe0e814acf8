"""`/v1/messages`: sending, by POST or by GET."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from berid.dialects.taqnyat import answers
from berid.dialects.taqnyat.reading import NAME, RECIPIENTS_MAX, Fields, due_of, numbers_of, read_call, text_of
from berid.dialects.web import Request, Response
from berid.domain.account import Caller, Scope, check_caller, check_sender
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Category, Content, Submission
from berid.flow.accept import accept
from berid.flow.ports import Runtime

ADVERT_SUFFIX = "-AD"
"""Sender names that end so are for adverts, by the rule of the Saudi regulator."""

_CHANNEL = "sms"

_encode = msgspec.json.Encoder().encode


async def send(rt: Runtime, request: Request) -> Response:
    """`POST /v1/messages` and `GET /v1/messages?…`: accept an SMS to up to 1,000 numbers, now or at a planned time."""
    caller, fields = await read_call(rt, request, Scope.SEND, _CHANNEL)
    submission = _submission(rt, caller, fields)
    accepted = await accept(rt, caller, submission)
    rejected = submission.rejected
    if accepted.refused:
        rejected = [*rejected, *(number for number, _ in accepted.refused)]
    return answers.sent(accepted, rejected)


def _submission(rt: Runtime, caller: Caller, fields: Fields) -> Submission:
    """The parameters of a send in our words. Raises `Refused` for what cannot be read, together with what comes before it."""
    rules = caller.application.rules
    sender = ""
    try:
        sender = text_of(fields, "sender").strip()
        usable, rejected = numbers_of(fields.get("recipients"), rules.lenient_numbers)
        if len(usable) + len(rejected) > RECIPIENTS_MAX:
            raise refused(RefusalKind.RECIPIENTS_TOO_MANY, "one request takes 1,000 numbers at most", "recipients")
        text = text_of(fields, "body")
        due_ms = due_of(fields, rt.config.dialects.taqnyat_zone)
        sms_id = text_of(fields, "smsId")
        cancel_key = text_of(fields, "deleteId")
    except Refused as error:
        raise Refused(*_why_not(rt, caller, sender), *error.refusals) from None
    idempotency = None
    if rules.sms_id_is_key and sms_id:
        idempotency = _key(f"{caller.mode}:{sms_id}", sender, text, usable, rejected, due_ms)
    return Submission(
        channel=_CHANNEL,
        sender=sender,
        recipients=usable,
        content=Content(text),
        category=_category(sender),
        due_ms=due_ms,
        reference=sms_id,
        cancel_key=cancel_key,
        idempotency=idempotency,
        rejected=rejected,
        allows_partial=True,
    )


def _category(sender: str) -> Category:
    return Category.PROMOTIONAL if sender.endswith(ADVERT_SUFFIX) else Category.TRANSACTIONAL


def _key(key: str, *request: object) -> tuple[str, str]:
    """The idempotency key that `smsId` is where the application's rules say so, and the hash of what it stands for.

    Other dialects' keys of the same application are apart from these.
    """
    return f"{NAME}:{key}", sha256(_encode(request)).hexdigest()


def _why_not(rt: Runtime, caller: Caller, sender: str) -> list[Refusal]:
    """What comes before an unreadable parameter: `accept`, which would gather it all, cannot be asked with half a request."""
    refusals = check_caller(caller, Scope.SEND, _CHANNEL)
    if sender:
        names = rt.directory.senders.get((caller.account.id, _CHANNEL, sender), ())
        _, refusal = check_sender(names, None, _category(sender).value, rt.clock.now_ms())
        if refusal is not None:
            refusals.append(refusal)
    return refusals
