"""V4: the same messages by JSON and POST, answered with the HTTP status of their code.

It lies under `/turkeysms/v4`, and at the root of the host names in `http.root_dialect_hosts`, for clients that know no path in
front. Documentation says `sentto`, the SDKs send `mobile`: either is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from berid.dialects.turkeysms import answers, asking, codes, openapi, otp, sending
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.calls import CHANNEL, NAME, Call, Work
from berid.dialects.turkeysms.reading import TEXT, TO, items_of, numbers_of
from berid.dialects.web import Group, Request, Response, Route
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Accepted
from berid.flow.consent import suppress
from berid.flow.manage.office import Office
from berid.flow.ports import Runtime
from berid.store.hot import StoreAway

PREFIX = "/turkeysms/v4"

REPEAT_MS = 30_000
"""The same message to the same recipients within this time is taken for a repetition of the first: it is answered as that one
was, and not sent again. The provider says "a short window"."""

MIXED_MAX = 1_000
"""Different texts in one request: each is a message of its own."""

_AT_ONCE = 100
"""Messages of a mixed request that are given to the store together."""

REPEATED = ((b"idempotent-replayed", b"true"),)

_MAY_NOT_SEND = "TS-1061"
_MAY_NOT = "TS-1065"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Door:
    """One path of V4, for POST. `is_sending` where a key that lacks the right hears TS-1061, not TS-1065."""

    path: str
    work: Work
    about: str
    parameters: tuple[str, ...]
    is_sending: bool = False
    is_bulk: bool = False

    def route(self, rt: Runtime, group: Group, prefix: str) -> Route:
        """The route that reads, works and answers."""
        work, limit = self.work, rt.config.http.bulk_body_limit_bytes if self.is_bulk else None

        async def handle(request: Request) -> Response:
            call = Call(rt, request, await request.fields(), is_v4=True)
            body = await work(call)
            return answers.show_json(body, headers=REPEATED if call.is_repeated else ())

        return Route(("POST",), prefix + self.path, handle, group, limit)

    def described(self) -> openapi.Described:
        """For the description of the dialect."""
        return openapi.Described(PREFIX + self.path, ("POST",), self.about, self.parameters, is_v4=True)


GROUP = answers.v4_group("turkeysms v4", _MAY_NOT)
"""Paths on which a missing right is TS-1065, and whatever is nobody's below `/turkeysms`."""

SENDING = answers.v4_group("turkeysms v4 sending", _MAY_NOT_SEND)


def routes(rt: Runtime, doors: Sequence[Door]) -> list[Route]:
    """All routes of V4, wherever it lies."""
    found = [door.route(rt, SENDING if door.is_sending else GROUP, PREFIX) for door in doors]
    hosts = frozenset(host.lower() for host in rt.config.http.root_dialect_hosts)
    if not hosts:  # a group without hosts would lie at the root of every host name
        return found
    root = answers.v4_group("turkeysms v4 at the root", _MAY_NOT, hosts)
    root_sending = answers.v4_group("turkeysms v4 sending at the root", _MAY_NOT_SEND, hosts)
    return [*found, *(door.route(rt, root_sending if door.is_sending else root, "") for door in doors)]


class Repeats:
    """Which requests are repetitions: each gets an idempotency key that a repetition within REPEAT_MS has as well.

    A key names the content and the window in which it was first seen here. Windows are those of the clock, so another process, or
    this one after a restart, mostly gives the same key; in this process a window lasts from the first request.
    """

    def __init__(self, rt: Runtime) -> None:
        self._clock = rt.clock
        self._first_ms: dict[str, int] = {}
        self._swept_ms = 0

    def key(self, caller: Caller, content: Sequence[object]) -> tuple[str, str]:
        """(idempotency key, hash of the content); other dialects' keys of the same application are apart from these."""
        now_ms = self._clock.now_ms()
        if now_ms - self._swept_ms > REPEAT_MS:
            self._swept_ms = now_ms
            self._first_ms = {name: at for name, at in self._first_ms.items() if now_ms - at < REPEAT_MS}
        digest = sha256(_encode(content)).hexdigest()
        name = f"{caller.application.id}:{caller.mode}:{digest}"
        first_ms = self._first_ms.get(name, now_ms)
        if now_ms - first_ms >= REPEAT_MS:
            first_ms = now_ms
        self._first_ms[name] = first_ms
        return f"turkeysms:{caller.mode}:{digest}:{first_ms // REPEAT_MS}", digest


def doors_of(rt: Runtime) -> tuple[Door, ...]:
    """Every path of V4."""
    sender = _Sender(rt)
    return (
        Door("/auth/check", check_key, "Whether the key is good, and what it may do.", ()),
        Door("/sms/send", sender.send, "Send to one number.", openapi.SENDING, is_sending=True, is_bulk=True),
        Door("/otp/send", otp.send, "Send a code in our words.", openapi.CODE, is_sending=True),
        Door("/otp/detailed", otp.send_detailed, "Send a code in your words.", openapi.DETAILED_CODE, is_sending=True),
        Door("/otp/verify", otp.verify, "Check what a person typed.", ("mobile", "otp_code"), is_sending=True),
        Door(
            "/group/send",
            sender.send_group,
            "Send one text to many numbers.",
            openapi.SENDING,
            is_sending=True,
            is_bulk=True,
        ),
        Door(
            "/group/sendMixed",
            sender.send_mixed,
            "Send each number a text of its own.",
            openapi.MIXED,
            is_sending=True,
            is_bulk=True,
        ),
        Door("/blacklist/add", blacklist, "Write to a number no more.", ("number",), is_sending=True),
        Door("/sms/status", asking.status, "What became of a message.", ("sms_id",)),
        Door("/reports", asking.report, "What became of a message to many numbers, counted.", ("raporid",)),
        Door("/reports/{id}", asking.report, "What became of a message to many numbers, counted.", ()),
        Door("/balance", balance, "What is left.", ()),
    )


# ── Sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Sender:
    """The sending paths: they share the memory of repetitions."""

    def __init__(self, rt: Runtime) -> None:
        self._repeats = Repeats(rt)

    async def send(self, call: Call) -> Body:
        """`/sms/send`: one number; a list is sent as to a group."""
        asked = sending.read_asked(call)
        caller = call.caller()
        if len(asked.items) > 1:
            return await self._send_list(call, caller, asked)
        accepted = await sending.accept_single(call, caller, asked, self._key(caller, asked))
        call.is_repeated = accepted.is_replay
        body = sending.single_body(call.rt, caller, accepted, asked)
        return {**body, "total_recipients": 1, "success_count": 1}

    async def send_group(self, call: Call) -> Body:
        """`/group/send`: one text to many numbers."""
        return await self._send_list(call, call.caller(), sending.read_asked(call))

    async def _send_list(self, call: Call, caller: Caller, asked: sending.Asked) -> Body:
        accepted = await sending.accept_list(call, caller, asked, self._key(caller, asked))
        call.is_repeated = accepted.is_replay
        body = sending.list_body(accepted)
        return {**body, "total_recipients": len(asked.items), "success_count": accepted.total}

    async def send_mixed(self, call: Call) -> Body:
        """`/group/sendMixed`: to each number a text of its own; the two lists are equally long.

        Each is a message of its own, so some may be taken and others not; `sms_ids` has a null for each that was not. If none
        was, the answer is what was wrong with the first.
        """
        texts = _texts(call)
        asked = sending.read_asked(_without_texts(call))
        items = asked.items
        caller = call.caller()
        if len(items) != len(texts):
            unequal = Refusal(RefusalKind.MALFORMED, "sentto and text must be equally long", "text")
            raise Refused(*check_caller(caller, call.sending, CHANNEL), unequal)
        if len(items) > MIXED_MAX:
            raise refused(RefusalKind.RECIPIENTS_TOO_MANY, f"one request takes {MIXED_MAX} texts at most", "sentto")

        async def send_one(place: int) -> Accepted | Refused:
            mine = replace(asked, items=[items[place]], text=texts[place])
            try:
                return await sending.accept_single(call, caller, mine, self._key(caller, mine, place))
            except Refused as error:
                return error

        outcomes: list[Accepted | Refused] = []
        for start in range(0, len(items), _AT_ONCE):
            outcomes += await asyncio.gather(*map(send_one, range(start, min(start + _AT_ONCE, len(items)))))
        taken = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        if not taken:
            first = next((outcome for outcome in outcomes if isinstance(outcome, Refused)), None)
            raise first or refused(RefusalKind.RECIPIENT_MISSING, "no number was given", "sentto")
        call.is_repeated = all(accepted.is_replay for accepted in taken)
        return {
            "result": True,
            "sms_ids": [outcome.deliveries[0].id if isinstance(outcome, Accepted) else None for outcome in outcomes],
            "number_of_sms": sum(accepted.units for accepted in taken),
            "result_code": codes.SENT,
            "result_message": codes.TEXTS[codes.SENT],
            "total_recipients": len(items),
            "success_count": len(taken),
        }

    def _key(self, caller: Caller, asked: sending.Asked, place: int = 0) -> tuple[str, str]:
        """The key of a request; `place` sets equal messages of one mixed request apart."""
        content = (place, asked.title, asked.text, asked.items, asked.language, asked.content_type, asked.due_ms)
        return self._repeats.key(caller, content)


def _texts(call: Call) -> list[str]:
    for name in TEXT:
        value = call.fields.get(name)
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        if isinstance(value, str) and value:
            return [value]
    raise refused(RefusalKind.MALFORMED, "text must be a list of texts", "text")


def _without_texts(call: Call) -> Call:
    """The call without its list of texts, which `read_asked` would take for a wrong type."""
    fields = {name: value for name, value in call.fields.items() if name not in TEXT}
    return Call(call.rt, call.request, fields, is_v4=True)


async def blacklist(call: Call) -> Body:
    """`/blacklist/add`: write to a number no more. It enters the account's suppression book, for all traffic by SMS.

    One-time passwords still reach it: who asks for a code gets it.
    """
    items = items_of(call.fields, "number", *TO)
    caller = call.permitted(Scope.SEND_POST)
    if not items:
        raise refused(RefusalKind.RECIPIENT_MISSING, "no number was given", "number")
    usable, _ = await numbers_of(items)
    if len(usable) != 1 or len(items) != 1:
        raise refused(RefusalKind.RECIPIENT_INVALID, "give one number", "number")
    actor = f"token:{caller.token.id}"
    office = Office.of(call.rt)
    await suppress(office, actor, caller.account.id, usable[0], channel=CHANNEL, source=NAME, all_traffic=True)
    if call.rt.refresh is not None:
        with contextlib.suppress(StoreAway):  # it is on disk, and holds within half a second then
            await call.rt.refresh()
    return {"result": True, "result_code": codes.QUERY_DONE, "result_message": codes.SUCCESS, "number": usable[0]}


# ── Asking ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def check_key(call: Call) -> Body:
    """`/auth/check`: is the key good, what may it do, and what is left."""
    caller = call.permitted()
    token, services = caller.token, caller.application.services
    may_send = token.has(Scope.SEND_POST)
    count, lira = await asking.left(call.rt, caller)
    return {
        "result": True,
        "result_code": codes.KEY_IS_GOOD,
        "result_message": codes.SUCCESS,
        "key_details": {
            "permissions": {
                "send_single_sms": may_send and CHANNEL in services,
                "send_otp": may_send and bool(services & {"otp", CHANNEL}),
                "send_bulk_sms": may_send and CHANNEL in services,
                "check_balance": token.has(Scope.BALANCE),
                "check_sms_status": token.has(Scope.STATUS),
            }
        },
        "account_summary": {
            "account_name": caller.account.name,
            "balance": {"main": count, "international": lira} if token.has(Scope.BALANCE) else {},
        },
    }


async def balance(call: Call) -> Body:
    """`/balance`: what is left, by V3's names and by those of `/auth/check`. The key is not echoed."""
    count, lira = await asking.left(call.rt, call.permitted(Scope.BALANCE))
    return {
        "result": True,
        "result_code": codes.QUERY_DONE,
        "result_message": codes.SUCCESS,
        "local_balance_sms": count,
        "international_balance_tl": lira,
        "balance": {"main": count, "international": lira},
    }
