"""Sending: one number, several, a group of up to 100,000; now or at a planned time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from berid.base.phone import country_name, country_of
from berid.dialects.turkeysms import codes
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.calls import CHANNEL, Call
from berid.dialects.turkeysms.reading import LANG, MOBILE, TEXT, TO, choice_of, due_of, items_of, numbers_of, text_of
from berid.domain.account import Caller
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import BILLING_OPTION, Accepted, Category, Content, Submission
from berid.flow.accept import accept
from berid.flow.ports import Runtime

INVALID_OPTION = "invalid"
"""The option of a message to a list that says how many of its recipients were no number: the report tells it."""

LANGUAGES = ("English", "Turkish", "Arabic")
"""The words for `sms_lang` 0, 1 and 2."""

POLICIES = ("plain", "turkish", "auto")
"""How a text may be written, by `sms_lang`: 0 asks for plain letters, 1 permits the Turkish tables, 2 is what the text needs."""

DEFAULT_LANGUAGE = 2

CONTENT_TYPES = ("Transactional", "High Quality", "Advertising")
"""The words for `content_type` 0, 1 and 2."""

CATEGORIES = (Category.TRANSACTIONAL, Category.TRANSACTIONAL, Category.PROMOTIONAL)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to send, read and not yet judged. `items` are the recipients as written, `faults` what is wrong with the plan."""

    title: str
    text: str
    items: list[Any]
    language: int
    content_type: int
    due_ms: int | None
    faults: list[Refusal]


def read_asked(call: Call, recipients: tuple[str, ...] = TO) -> Asked:
    """The parameters of a sending. Raises `Refused` with MALFORMED for wrong types and for values that do not exist."""
    fields = call.fields
    due_ms, faults = due_of(fields, call.rt.config.dialects.turkeysms_zone)
    return Asked(
        text_of(fields, "title").strip(),
        text_of(fields, *TEXT),
        items_of(fields, *recipients),
        choice_of(fields, (0, 1, 2), DEFAULT_LANGUAGE, *LANG),
        choice_of(fields, (0, 1, 2), 0, "content_type"),
        due_ms,
        faults,
    )


def billing_of(rt: Runtime) -> str:
    """How parts are counted: as operators in Turkey bill them, with what they append. See `base.text.commercial_parts`."""
    return f"turkeysms:{rt.config.dialects.turkeysms_footer_len}"


async def send(call: Call) -> Body:
    """`/gonder/add-content`: one number. A list of more is sent as to a group."""
    return await _send(call, read_asked(call))


async def send_by_get(call: Call) -> Body:
    """`/get/get.php`: as `send`, with the recipient in `mobile`."""
    return await _send(call, read_asked(call, MOBILE))


async def send_multi(call: Call) -> Body:
    """`/gonder_coklu_gsm/add-content`: numbers with commas between them."""
    accepted = await accept_list(call, call.caller(), read_asked(call))
    return {**list_body(accepted), "sms_id": accepted.message_id}


async def send_group(call: Call) -> Body:
    """`/gruba-gonder/post/tek-metin-gonderimi`: one text to a JSON list of numbers."""
    return list_body(await accept_list(call, call.caller(), read_asked(call)))


async def _send(call: Call, asked: Asked) -> Body:
    caller = call.caller()
    if len(asked.items) > 1:
        return list_body(await accept_list(call, caller, asked))
    return single_body(call.rt, caller, await accept_single(call, caller, asked), asked)


async def accept_single(
    call: Call, caller: Caller, asked: Asked, idempotency: tuple[str, str] | None = None
) -> Accepted:
    """Accept a message to one number. Raises `Refused`."""
    usable, rejected = await numbers_of(asked.items)
    return await _accept(call, caller, asked, usable, rejected, idempotency)


async def accept_list(call: Call, caller: Caller, asked: Asked, idempotency: tuple[str, str] | None = None) -> Accepted:
    """Accept a message to many numbers; what is no number, or must not be written to, is left out. Raises `Refused` if
    nobody is left."""
    limit = call.rt.config.limits.recipients_per_request
    if len(asked.items) > limit:
        too_many = Refusal(RefusalKind.RECIPIENTS_TOO_MANY, f"one request takes {limit} at most", "sentto")
        asked = replace(asked, items=asked.items[:1], faults=[*asked.faults, too_many])
    usable, rejected = await numbers_of(asked.items)
    return await _accept(call, caller, asked, usable, rejected, idempotency)


async def _accept(
    call: Call,
    caller: Caller,
    asked: Asked,
    usable: list[str],
    rejected: list[str],
    idempotency: tuple[str, str] | None,
) -> Accepted:
    billing = billing_of(call.rt)
    invalid = {INVALID_OPTION: str(len(rejected))} if rejected else {}
    submission = Submission(
        channel=CHANNEL,
        sender=asked.title,
        recipients=usable,
        content=Content(asked.text, POLICIES[asked.language]),
        category=CATEGORIES[asked.content_type],
        due_ms=asked.due_ms,
        idempotency=idempotency,
        rejected=rejected,
        allows_partial=len(usable) > 1,
        billing=billing,
        faults=asked.faults,
        options={BILLING_OPTION: billing, **invalid},
    )
    accepted = await accept(call.rt, caller, submission, call.sending)
    call.request.message_id = accepted.message_id
    return accepted


def single_body(rt: Runtime, caller: Caller, accepted: Accepted, asked: Asked) -> Body:
    """The answer to a message to one number."""
    delivery = accepted.deliveries[0]
    return {
        "result": True,
        "sms_id": delivery.id,
        "total_has_sent_last_1_min": rt.limits.last_minute(("token", caller.token.id), rt.clock.ticks_s()),
        "number_of_sms": accepted.units,
        "result_code": codes.SENT,
        "result_message": codes.TEXTS[codes.SENT],
        "sms_lang": LANGUAGES[asked.language],
        "content_type": CONTENT_TYPES[asked.content_type],
        "country": country_word(delivery.recipient),
    }


def list_body(accepted: Accepted) -> Body:
    """The answer to a message to many numbers. `total_mobile_num` counts those that it goes to."""
    return {
        "result": True,
        "rapor_id": accepted.message_id,
        "total_mobile_num": accepted.total,
        "number_of_sms": accepted.units,
        "result_code": codes.SENT,
        "result_message": codes.TEXTS[codes.SENT],
    }


def country_word(number: str) -> str:
    """The country of a number as the provider writes it: `Turkey-TR`."""
    return _country_word(country_of(number) or "")


@cache
def _country_word(country: str) -> str:
    return f"{country_name(country) or ''}-{country}" if country else ""
