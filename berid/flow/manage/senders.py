"""Sender names: what may be asked for, and how a request becomes an approved name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from berid.base.ids import show
from berid.base.phone import country_name
from berid.domain.account import SenderName, SenderState
from berid.domain.message import Category
from berid.flow.manage.attachments import attach
from berid.flow.manage.office import Office, missing, note, too_late, unfit
from berid.store import accounts

CATEGORIES = ("any", Category.TRANSACTIONAL.value, Category.PROMOTIONAL.value)
"""What a name may be used for. One-time passwords may come from any of them."""

ADVERT_SUFFIX = "-AD"
"""How a promotional name ends in Saudi Arabia, by the rule of its regulator (CST)."""

_MOVES: dict[SenderState, frozenset[SenderState]] = {
    SenderState.DRAFT: frozenset({SenderState.SUBMITTED, SenderState.WITHDRAWN}),
    SenderState.SUBMITTED: frozenset(
        {SenderState.NEEDS_INFO, SenderState.APPROVED, SenderState.REJECTED, SenderState.WITHDRAWN}
    ),
    SenderState.NEEDS_INFO: frozenset({SenderState.SUBMITTED, SenderState.REJECTED, SenderState.WITHDRAWN}),
    SenderState.APPROVED: frozenset(
        {SenderState.APPROVED, SenderState.SUSPENDED, SenderState.EXPIRED, SenderState.WITHDRAWN}
    ),
    SenderState.SUSPENDED: frozenset({SenderState.APPROVED, SenderState.EXPIRED, SenderState.WITHDRAWN}),
    SenderState.EXPIRED: frozenset({SenderState.SUBMITTED, SenderState.APPROVED, SenderState.WITHDRAWN}),
    SenderState.REJECTED: frozenset({SenderState.SUBMITTED, SenderState.WITHDRAWN}),
    SenderState.WITHDRAWN: frozenset({SenderState.DRAFT, SenderState.SUBMITTED}),
}
"""Which state may follow which. Approved after approved renews: it gives the name another last day."""

_NEEDS_REASON = frozenset({SenderState.NEEDS_INFO, SenderState.REJECTED, SenderState.SUSPENDED})
"""The states that leave the owner asking why."""

_LETTERS = re.compile(r"[!-~](?:[ -~]{0,9}[!-~])?")
_DIGITS = re.compile(r"[0-9]{3,15}")
_TURKISH = re.compile(r"[A-Za-z0-9 .*-]{3,11}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


async def request_sender(
    office: Office,
    actor: str,
    account_id: int,
    channel: str,
    name: str,
    *,
    country: str = "",
    category: str = "any",
    documents: Sequence[int] = (),
    is_draft: bool = False,
) -> int:
    """Ask for a sender name and return its id; it is *submitted*, or a *draft* that nobody judges yet.

    `country` empty means everywhere. `documents` are ids of the account's files: the papers that go with it. Raises `Refused` for
    a name that cannot be approved (see `check_name`) and for one that the account has asked for before.
    """
    check_name(channel, name, country, category)
    identifier = office.ids.next()
    state = SenderState.DRAFT if is_draft else SenderState.SUBMITTED
    sender = SenderName(identifier, account_id, channel, name, country, category, state, 0)
    async with office.store.transaction() as tx:
        if not await accounts.has_account(tx, account_id):
            raise missing("account")
        if await accounts.has_sender(tx, account_id, channel, name, country, category):
            raise unfit("name", f"the account has asked for {name!r} before, for this country and category")
        await accounts.add_sender(tx, sender, office.clock.now_ms())
        subject = show("snd", identifier)
        await attach(tx, account_id, documents, subject, "documents")
        detail = {"name": name, "channel": channel, "country": country, "category": category, "state": state.value}
        await note(office, tx, actor, account_id, "sender.request", subject, **detail)
    return identifier


async def move_sender(
    office: Office,
    actor: str,
    account_id: int,
    sender_id: int,
    state: SenderState,
    *,
    reason: str = "",
    expires_ms: int = 0,
    documents: Sequence[int] = (),
) -> None:
    """Move a sender name into another state, as `_MOVES` allows. Approved names end at `expires_ms`; 0 means never.

    A name that needs information, is rejected or suspended must be told the `reason`. `documents` are more papers for it, ids of
    the account's files. Raises `Refused`, with WRONG_STATE for a state that cannot follow.
    """
    now_ms = office.clock.now_ms()
    if state in _NEEDS_REASON and not reason:
        raise unfit("reason", f"a name that becomes {state.value} needs a reason that its owner can act upon")
    if expires_ms and (state is not SenderState.APPROVED or expires_ms <= now_ms):
        raise unfit("expires", "only an approved name has a last day, and it lies in the future")
    async with office.store.transaction() as tx:
        found = await accounts.sender(tx, account_id, sender_id)
        if found is None:
            raise missing("sender name")
        before = SenderState(found.state)
        if state not in _MOVES[before]:
            allowed = ", ".join(sorted(following.value for following in _MOVES[before]))
            raise too_late(f"a name that is {before.value} can become {allowed}, not {state.value}")
        if not await accounts.set_sender_state(tx, account_id, sender_id, before, state, reason, expires_ms, now_ms):
            raise too_late("somebody else has just changed this name; look again")
        subject = show("snd", sender_id)
        await attach(tx, account_id, documents, subject, "documents")
        detail = {"name": found.name, "before": before.value, "state": state.value, "reason": reason}
        await note(office, tx, actor, account_id, "sender.move", subject, **detail, expires_ms=expires_ms)


def check_name(channel: str, name: str, country: str, category: str) -> None:
    """Raise `Refused` unless a name could be approved.

    SMS: 1 to 11 printable ASCII characters, or a number of 3 to 15 digits (3GPP TS 23.040 section 9.1.2.5). For Türkiye:
    3 to 11 letters, digits, spaces, full stops, hyphens or asterisks. For Saudi Arabia promotional names, and only those,
    end in -AD, which makes at most 8 characters before it. E-mail: a bare address. Voice and WhatsApp: a number.
    """
    if category not in CATEGORIES:
        raise unfit("category", f"the category must be one of {', '.join(CATEGORIES)}")
    if country and country_name(country) is None:
        raise unfit("country", f"{country!r} is not a country; write its two letters, such as SA or TR")
    if channel == "email":
        if not _EMAIL.fullmatch(name):
            raise unfit("name", "the sender of e-mail is a bare address such as news@example.com")
    elif channel in ("voice", "whatsapp"):
        if not _DIGITS.fullmatch(name):
            raise unfit("name", "the sender is a number of 3 to 15 digits")
    elif channel == "sms":
        _check_sms_name(name, country, category)
    else:
        raise unfit("channel", "the channel must be sms, voice, email or whatsapp")


def _check_sms_name(name: str, country: str, category: str) -> None:
    if not (_LETTERS.fullmatch(name) or _DIGITS.fullmatch(name)):
        raise unfit(
            "name",
            "a sender name has 1 to 11 characters: English letters, digits, marks, and spaces inside; "
            "or it is a number of 3 to 15 digits",
        )
    if country == "TR" and not _TURKISH.fullmatch(name):
        raise unfit("name", "a Turkish sender name has 3 to 11 English letters, digits, spaces or . - *")
    is_advert = name.endswith(ADVERT_SUFFIX)
    if country == "SA" and category == Category.PROMOTIONAL.value and not is_advert:
        raise unfit("name", "a promotional name in Saudi Arabia has at most 8 characters and then -AD")
    if is_advert and category != Category.PROMOTIONAL.value:
        raise unfit("name", "a name that ends in -AD is for promotional messages only")
    if is_advert and name == ADVERT_SUFFIX:
        raise unfit("name", "there must be a name before -AD")
