"""A message from a person to us: put together from its parts, stored, its words of consent recognised, its owner told.

A carrier is answered only after `receive` has returned: a crash before means that it repeats. A repetition is known
by the carrier's own id where it gives one, else by being the same words from the same number to the same number
within `REPEAT_S`; so a person who writes one word twice in that time is heard once, and a carrier that repeats
later than that is heard twice.

Whose a message is, the directory's numbers say. What is for none of them is stored with account 0, for the operator
to see.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from berid.base.ids import show
from berid.base.phone import lenient
from berid.domain.consent import keyword_of
from berid.domain.directory import Directory
from berid.domain.errors import Refused
from berid.domain.report import INBOUND_EVENT
from berid.flow.changes import Changes
from berid.flow.consent import heard
from berid.flow.ports import Runtime
from berid.store import Store
from berid.store.hot import HotTx, Verb
from berid.store.inbound import PartRow, SetKey, parts_of, replace_parts, stale_sets

log = logging.getLogger("berid.inbound")

REPEAT_S = 60
"""Longer than a carrier waits for an answer, and than a lost link takes to come back; shorter than people mean a
word anew."""

PART_PATIENCE_S = 86_400
"""How long parts wait for those that are missing: carriers try for a day or less, as a rule."""

GAP = "…"
"""What stands in a message for parts that never came."""

_SWEEP_PAGE = 100
_NOBODY = 0
"""In place of an application: the idempotency keys of carriers."""


@dataclass(frozen=True, slots=True)
class InboundSms:
    """One short message, or one part of a long one, as a carrier handed it over.

    `reference` ties the parts of a long message together (-1: not in parts), `number` of `total`. `carrier_id` is the
    carrier's own id of this delivery to us, the same when it repeats; "" where it gives none.
    """

    connector_id: int
    sender: str
    recipient: str
    text: str
    reference: int
    number: int
    total: int
    received_ms: int
    carrier_id: str = ""


async def receive(rt: Runtime, messages: Sequence[InboundSms]) -> None:
    """Take messages over. On return they are on disk, and the carrier may be answered. Raises `StoreAway`.

    A part is on disk as well, and becomes a message when the last one is here, in whatever order they come.
    """
    whole = [_Arrival(rt, message, message.carrier_id) for message in messages if message.total <= 1]
    parts: dict[SetKey, list[InboundSms]] = {}
    for message in messages:
        if message.total > 1:
            key = SetKey(message.connector_id, message.sender, message.recipient, message.reference)
            parts.setdefault(key, []).append(message)
    if not parts:
        await rt.store.hot.do(RECEIVE, whole)
    else:
        async with _joining(rt.store):
            await _join(rt, whole, parts)
    for arrival in whole:
        await _heed(rt, arrival.message)


async def _heed(rt: Runtime, message: InboundSms) -> None:
    """Do what a person asks for by a word of consent. Repeats of the carrier are heeded too: the process may have ended
    between storing a message and heeding it, and heeding twice changes nothing."""
    keyword = keyword_of(message.text)
    account_id, _ = _owner(rt.directory, message.recipient)
    if keyword is not None and account_id:
        try:
            await heard(rt, account_id, message.sender, keyword, "sms")
        except Refused as error:
            # The message is kept; a wish that nobody can take down must not keep the carrier from being answered.
            log.error("a word of consent could not be followed", extra={"account": account_id, "why": str(error)})


def _owner(directory: Directory, recipient: str) -> tuple[int, int]:
    """(account, application) of a number or name that people write to; zeros if it is nobody's."""
    return directory.numbers.get(recipient) or directory.numbers.get(lenient(recipient) or "", (0, 0))


async def sweep_parts(rt: Runtime) -> int:
    """Take for whole what still lacks parts after `PART_PATIENCE_S`, with a gap where they are missing. Returns how
    many.

    For the sweeper, every few minutes. Raises `StoreAway`.
    """
    total = 0
    async with _joining(rt.store):
        while True:
            async with rt.store.read() as tx:
                keys = await stale_sets(tx, rt.clock.now_ms() - PART_PATIENCE_S * 1000, _SWEEP_PAGE)
                held = {key: await parts_of(tx, key) for key in keys}
            if not keys:
                return total
            await rt.store.hot.do(RECEIVE, [_joined(rt, key, parts) for key, parts in held.items()])
            async with rt.store.transaction() as tx:
                for key in keys:
                    await replace_parts(tx, key, ())
            total += len(keys)


_locks: WeakKeyDictionary[Store, asyncio.Lock] = WeakKeyDictionary()


def _joining(store: Store) -> asyncio.Lock:
    """Held while parts are looked at and changed: the binds of one carrier bring the parts of one message side by side.

    Only the process that runs a connector receives from it, so a lock in memory is enough.
    """
    return _locks.setdefault(store, asyncio.Lock())


async def _join(rt: Runtime, whole: list[_Arrival], parts: Mapping[SetKey, Sequence[InboundSms]]) -> None:
    """Put new parts to those that are kept; store what became whole, then keep the rest.

    In this order, so that nothing is ever in neither place. A crash between the two leaves parts of a message that is
    stored already; the carrier's repetition completes it once more, which is recognised.
    """
    async with rt.store.read() as tx:
        held = {key: await parts_of(tx, key) for key in parts}
    left: dict[SetKey, Iterable[PartRow]] = {}
    for key, messages in parts.items():
        rows = {row.number: row for row in held[key]}
        for message in messages:
            row = PartRow(message.number, message.total, message.text, message.received_ms)
            if _is_of_another(rows, row):
                whole.append(_joined(rt, key, rows.values()))
                rows = {}
            rows[row.number] = row
            if len(rows) == row.total:
                whole.append(_joined(rt, key, rows.values()))
                rows = {}
        if rows or held[key]:
            left[key] = rows.values()
    if whole:
        await rt.store.hot.do(RECEIVE, whole)
    if left:
        async with rt.store.transaction() as tx:
            for key, kept in left.items():
                await replace_parts(tx, key, kept)


def _is_of_another(rows: Mapping[int, PartRow], row: PartRow) -> bool:
    """Whether the kept parts are of an earlier message with the same reference, whose rest never came."""
    if not rows:
        return False
    total = next(iter(rows.values())).total
    return total != row.total or (row.number in rows and rows[row.number].body != row.body)


def _joined(rt: Runtime, key: SetKey, rows: Iterable[PartRow]) -> _Arrival:
    """The message that these parts make; a gap shows where some are missing."""
    parts = sorted(rows, key=lambda row: row.number)
    text, wanted = "", 1
    for part in parts:
        text += (GAP if part.number > wanted else "") + part.body
        wanted = part.number + 1
    if wanted <= parts[0].total:
        text += GAP
    received_ms = max(part.received_ms for part in parts)
    return _Arrival(
        rt, InboundSms(key.connector_id, key.sender, key.recipient, text, key.reference, 1, 1, received_ms), ""
    )


@dataclass(slots=True)
class _Arrival:
    """One whole message on its way into the store. `carrier_id` is "" where only its words can tell it from another."""

    rt: Runtime
    message: InboundSms
    carrier_id: str
    changes: Changes | None = None

    def keys(self) -> list[str]:
        """The keys under which this message may have been stored before; the first is the one to store it under now.

        Without the carrier's id there are two: its time is counted in steps of `REPEAT_S`, and a repetition can
        fall into the step after the first one's.
        """
        message = self.message
        if self.carrier_id:
            return [f"in:{message.connector_id}:{self.carrier_id}"]
        words = (str(message.connector_id), message.sender, message.recipient, str(message.reference), message.text)
        digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        step = message.received_ms // (REPEAT_S * 1000)
        return [f"in:{digest}:{step}", f"in:{digest}:{step - 1}"]

    def is_repeat_of(self, received_ms: int) -> bool:
        """Whether a message found under one of the keys, and received then, is this one."""
        return bool(self.carrier_id) or abs(self.message.received_ms - received_ms) <= REPEAT_S * 1000


async def _receive(tx: HotTx, arrivals: list[_Arrival]) -> list[Exception | None]:
    rt = arrivals[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    arrivals[0].changes = changes
    keys = [arrival.keys() for arrival in arrivals]
    used = await tx.idempotent({(_NOBODY, key) for found in keys for key in found})
    received = {key: int(received_ms) for (_, key), (received_ms, _) in used.items()}
    rows: list[tuple[Any, ...]] = []
    remembered: list[tuple[Any, ...]] = []
    for arrival, mine in zip(arrivals, keys, strict=True):
        message = arrival.message
        if any(key in received and arrival.is_repeat_of(received[key]) for key in mine):
            log.info("a carrier repeated a message from a person", extra={"connector": message.connector_id})
            continue
        received[mine[0]] = message.received_ms
        identifier = rt.ids.next()
        rows.append(_store(changes, identifier, message))
        remembered.append((_NOBODY, mine[0], str(message.received_ms), show("inb", identifier), changes.now_ms))
    if rows:
        await tx.insert("inbound", rows)
        await tx.insert("idempotency", remembered)
    await changes.write(tx)
    return [None for _ in arrivals]


def _store(changes: Changes, identifier: int, message: InboundSms) -> tuple[Any, ...]:
    """The row of table `inbound`, and a callback for every endpoint of the owner that wants to know."""
    directory = changes.rt.directory
    account_id, application_id = _owner(directory, message.recipient)
    keyword = keyword_of(message.text) or ""
    payload = ""
    for endpoint in directory.endpoints.get(account_id, ()):
        if endpoint.wants(application_id, INBOUND_EVENT):
            payload = payload or _payload(changes, identifier, account_id, message, keyword)
            changes.tell(endpoint.id, endpoint.lane, account_id, 0, INBOUND_EVENT, payload)
    return (
        identifier,
        account_id,
        message.connector_id,
        "sms",
        message.sender,
        message.recipient,
        message.text,
        keyword,
        message.received_ms,
    )


def _payload(changes: Changes, identifier: int, account_id: int, message: InboundSms, keyword: str) -> str:
    """The event's data. `keyword` is "" when the text is no word of consent."""
    return msgspec.json.encode(
        {
            "type": INBOUND_EVENT,
            "created_ms": changes.now_ms,
            "id": show("inb", identifier),
            "account": show("acc", account_id),
            "channel": "sms",
            "from": message.sender,
            "to": message.recipient,
            "text": message.text,
            "keyword": keyword,
            "received_ms": message.received_ms,
        }
    ).decode()


def _after(arrivals: list[_Arrival]) -> None:
    if arrivals[0].changes is not None:
        arrivals[0].changes.push()


def _undo(arrivals: list[_Arrival]) -> None:
    if arrivals[0].changes is not None:
        arrivals[0].changes.withdraw()
        arrivals[0].changes = None


RECEIVE: Verb[_Arrival, None] = Verb("receive", 42, _receive, after=_after, undo=_undo)
"""Messages from people."""
