"""`/v1/messages`: sending SMS, by POST or by GET, and deleting what is scheduled."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from berid.dialects.taqnyat import answers
from berid.dialects.taqnyat.calls import NAME, read_call, read_permitted
from berid.dialects.taqnyat.reading import Fields, attempt, due_of, key_of, numbers_of, text_of
from berid.dialects.web import Request, Response
from berid.domain.account import Caller, Scope
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Accepted, Category, Content, Submission
from berid.flow.accept import accept
from berid.flow.cancel import cancel
from berid.flow.manage.senders import ADVERT_SUFFIX
from berid.flow.ports import Runtime
from berid.store import messages

CHANNEL = "sms"

_OWN = frozenset({RefusalKind.SUPPRESSED, RefusalKind.NO_OPT_IN, RefusalKind.QUIET_HOURS})
"""Refusals that are about a person, not about the account or the platform."""

_OF_RECIPIENT = _OWN | {
    RefusalKind.RECIPIENT_INVALID,
    RefusalKind.COUNTRY_NOT_ALLOWED,
    RefusalKind.INTERNATIONAL_OFF,
    RefusalKind.NO_ROUTE,
    RefusalKind.NO_PRICE,
}
"""Refusals of single recipients."""

_encode = msgspec.json.Encoder().encode


async def send(rt: Runtime, request: Request) -> Response:
    """`POST /v1/messages` and `GET /v1/messages?…`: accept an SMS to up to 1,000 numbers, now or at a planned time."""
    caller, fields = await read_call(rt, request, Scope.SEND, CHANNEL)
    submission = _submission(rt, caller, fields)
    accepted = await _accept(rt, caller, submission)
    request.message_id = accepted.message_id
    return answers.sent(accepted, submission.rejected)


async def delete(rt: Runtime, request: Request) -> Response:
    """Delete every message that was sent under a `deleteId` and still waits, and give its money back.

    Three ways in: `DELETE /v1/messages/delete`, `GET /v1/messages/delete?…`, and `DELETE /v1/messages` as the SDKs write it, with
    `deleteKey` or, by their mistake, without any key. A call without a key deletes nothing.
    """
    caller, fields = await read_permitted(rt, request, Scope.SEND, CHANNEL)
    key = key_of(fields, "deleteId") or key_of(fields, "deleteKey")
    if not key:
        raise refused(RefusalKind.NOT_FOUND, "deleteId was not given", "deleteId")
    async with rt.store.read() as tx:
        found = await messages.find_by_cancel_key(tx, caller.account.id, caller.mode, key)
    owners = [message for message in found if message.channel == CHANNEL]
    if not owners:
        raise refused(RefusalKind.NOT_FOUND, "nothing was sent under this deleteId", "deleteId")
    done = await cancel(rt, caller.account.id, owners)
    if not done.cancelled:
        raise refused(RefusalKind.NOT_CANCELLABLE, "what was sent under this deleteId no longer waits", "deleteId")
    return answers.say(201, "Deleted successfully")


def _submission(rt: Runtime, caller: Caller, fields: Fields) -> Submission:
    """The parameters of a send in our words; what cannot be read is among the submission's faults."""
    rules = caller.application.rules
    faults: list[Refusal] = []
    sender = (attempt(faults, text_of, fields, "sender") or "").strip()
    usable, rejected = attempt(faults, numbers_of, fields, "recipients", rules.lenient_numbers) or ([], [])
    text = attempt(faults, text_of, fields, "body") or ""
    due_ms = attempt(faults, due_of, fields, rt.config.dialects.taqnyat_zone)
    sms_id = attempt(faults, key_of, fields, "smsId") or ""
    delete_id = attempt(faults, key_of, fields, "deleteId") or ""
    idempotency = None
    if rules.sms_id_is_key and sms_id:
        idempotency = _key(f"{caller.mode}:{sms_id}", sender, text, usable, rejected, due_ms, delete_id)
    return Submission(
        channel=CHANNEL,
        sender=sender,
        recipients=usable,
        content=Content(text),
        category=_category(sender),
        due_ms=due_ms,
        reference=sms_id,
        cancel_key=delete_id,
        idempotency=idempotency,
        rejected=rejected,
        allows_partial=True,
        faults=faults,
    )


async def _accept(rt: Runtime, caller: Caller, submission: Submission) -> Accepted:
    """`accept`; but where nobody is left because people do not want to be written to, the provider takes the message all
    the same, with every number rejected. Where countries are the reason, it says so, and the message is refused."""
    try:
        return await accept(rt, caller, submission)
    except Refused as error:
        kinds = {refusal.kind for refusal in error.refusals}
        if not kinds & _OWN or kinds - _OF_RECIPIENT:
            raise
    return await accept(rt, caller, msgspec.structs.replace(submission, allows_none=True))


def _category(sender: str) -> Category:
    """Names that end in -AD are for adverts: customers of this API say it in no other way."""
    return Category.PROMOTIONAL if sender.endswith(ADVERT_SUFFIX) else Category.TRANSACTIONAL


def _key(key: str, *request: object) -> tuple[str, str]:
    """The idempotency key that `smsId` is where the application's rules say so, and the hash of what it stands for.

    Other dialects' keys of the same application are apart from these.
    """
    return f"{NAME}:{key}", sha256(_encode(request)).hexdigest()
