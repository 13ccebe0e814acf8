"""`/voiceSend.php` and `/mailSend.php`: a call with an audio file, an e-mail.

They read, check and refuse whether or not this installation has the channels `voice` and `email`; without the channel
a request that nothing else forbids hears code 101, as if sending were switched off.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from berid.base.money import format_micros
from berid.dialects.taqnyat import answers
from berid.dialects.taqnyat.calls import read_call
from berid.dialects.taqnyat.reading import attempt, key_of, numbers_of, text_of, texts_of
from berid.dialects.web import Request, Response
from berid.domain.account import Scope
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import Category, Content, Submission
from berid.flow.accept import accept
from berid.flow.ports import Runtime

VOICE_PATH = "/voiceSend.php"
MAIL_PATH = "/mailSend.php"

ADDRESS_MAX = 254
"""Characters of an e-mail address (RFC 5321, section 4.5.3.1.3, without the angle brackets)."""

_CATEGORY = Category.TRANSACTIONAL

_encode = msgspec.json.Encoder().encode


async def send_voice(rt: Runtime, request: Request) -> Response:
    """`/voiceSend.php`: call up to 1,000 numbers from `callerId` and play the file at `audioUrl`."""
    channel = "voice"
    caller, fields = await read_call(rt, request, Scope.SEND, channel)
    faults = _installed(rt, channel)
    caller_id = (attempt(faults, text_of, fields, "callerId") or "").strip()
    is_lenient = caller.application.rules.lenient_numbers
    usable, rejected = attempt(faults, numbers_of, fields, "recipients", is_lenient) or ([], [])
    audio_url = (attempt(faults, text_of, fields, "audioUrl") or "").strip()
    if not audio_url:
        faults.append(Refusal(RefusalKind.CONTENT_MISSING, "audioUrl was not given", "audioUrl"))
    elif not _is_url(audio_url):
        faults.append(Refusal(RefusalKind.CONTENT_INVALID, "audioUrl is not the address of a file", "audioUrl"))
    accepted = await accept(
        rt,
        caller,
        Submission(
            channel=channel,
            sender=caller_id,
            recipients=usable,
            content=Content(audio_url),
            category=_CATEGORY,
            rejected=rejected,
            allows_partial=len(usable) > 1,
            faults=faults,
        ),
    )
    request.message_id = accepted.message_id
    english, arabic = answers.SENT_TEXT
    body = {
        "status": 1,
        "ResponseStatus": "success",
        "messageId": accepted.message_id,
        "Data": {
            "msgId": f"V-{accepted.message_id}",
            "result": "1",
            "MessageAr": arabic,
            "MessageEn": english,
            "duration": accepted.parts,
            "dtmfTimeout": "0",
            "connectionFee": 0,
            "price": format_micros(accepted.cost_micros, 3),
            "rejectedNumber": answers.listed([*rejected, *(number for number, _ in accepted.refused)]),
            # The provider's own oddity: the word, inside Data. Others look for a null outside; both are there.
            "Error": "null",
        },
        "Error": None,
    }
    return Response(201, _encode(body))


async def send_mail(rt: Runtime, request: Request) -> Response:
    """`/mailSend.php`: an e-mail to up to 1,000 addresses. `msg` is a text or HTML; `campaignName` may be empty."""
    channel = "email"
    caller, fields = await read_call(rt, request, Scope.SEND, channel)
    faults = _installed(rt, channel)
    sender = (attempt(faults, text_of, fields, "from") or "").strip()
    given = attempt(faults, texts_of, fields, "to") or []
    subject = attempt(faults, text_of, fields, "subject") or ""
    message = attempt(faults, text_of, fields, "msg") or ""
    campaign = attempt(faults, key_of, fields, "campaignName") or ""
    usable = [address for address in given if _is_address(address)]
    faults += [
        Refusal(RefusalKind.CONTENT_MISSING, f"{name} was not given", name)
        for name, text in (("subject", subject), ("msg", message))
        if not text.strip()
    ]
    accepted = await accept(
        rt,
        caller,
        Submission(
            channel=channel,
            sender=sender,
            recipients=usable,
            content=Content(message),
            category=_CATEGORY,
            reference=campaign,
            rejected=[address for address in given if not _is_address(address)],
            allows_partial=len(usable) > 1,
            faults=faults,
            options={"subject": subject},
        ),
    )
    request.message_id = accepted.message_id
    english, arabic = answers.SENT_TEXT
    data = {
        "msgId": accepted.message_id,
        "result": 1,
        "MessageAr": arabic,
        "MessageEn": english,
        "price": format_micros(accepted.cost_micros),
    }
    return Response(201, _encode(answers.envelope(data)))


def _installed(rt: Runtime, channel: str) -> list[Refusal]:
    """What is wrong if this installation has no such channel: nothing leads there."""
    return [] if channel in rt.channels else [Refusal(RefusalKind.NO_ROUTE, f"{channel} is not installed")]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_address(text: str) -> bool:
    """Whether a text has the shape of a bare e-mail address; whether somebody reads it, only sending shows."""
    local, at, domain = text.rpartition("@")
    return (
        bool(at and local and "." in domain.strip("."))
        and len(text) <= ADDRESS_MAX
        and not any(character.isspace() or character in '<>"@' for character in local + domain)
    )
