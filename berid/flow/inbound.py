"""A message from a person to us: put together from its parts, stored, its words of consent recognised, its owner told.

A carrier is answered only after `receive` has returned: a crash before means that it repeats. What it repeats must not
be stored twice, and what a person writes twice must not be lost; SMPP has no word to tell one from the other, for a
repetition has a new sequence number and may come over another bind. So, of equal messages (the same words from the
same number to the same number, for parts also the same reference and place):

- Where the carrier gives each an id of its own, those with different ids differ, and one that comes again with its
  id within `ID_REPEAT_S` is a repetition.
- Else one is a repetition only if it comes within `REPEAT_S` and the connector is in doubt (`InboundSms.in_doubt`):
  a bind has come up or ended a short while ago, or an answer of ours was late. A carrier whose answers all came in
  time has nothing to repeat.

Whatever is in doubt beyond that is stored: a message that stands there twice can be seen, one that is missing cannot.
Each repetition is in the log.

Whose a message is, the directory's numbers say. What is for none of them is stored with account 0, where the operator finds
it (`GET /operator/inbound`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from berid.store.hot import HotTx, Verb
from berid.store.inbound import SetKey, stale_sets

log = logging.getLogger("berid.inbound")

REPEAT_S = 60
"""Longer than a carrier waits for an answer, and than a lost link takes to come back; shorter than people mean a
word anew."""

ID_REPEAT_S = 3_600
"""The same where the carrier gives ids. Not for ever: some count their ids round, or give the id of what is replied to."""

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
    carrier's own id of the message, the same when it repeats; "" where it gives none. `mark` tells a message from the
    next one of the same sender, but comes again after a while: the handset's own count. `in_doubt`: the carrier may
    not have had our answer to something that it delivered before.
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
    mark: str = ""
    in_doubt: bool = False


async def receive(rt: Runtime, messages: Sequence[InboundSms]) -> None:
    """Take messages over. On return they are on disk, and the carrier may be answered. Raises `StoreAway`.

    A part is on disk as well, and becomes a message when the last one is here, in whatever order they come.
    """
    for heard_of in await rt.store.hot.do(RECEIVE, [_Arrival(rt, message) for message in messages]):
        for message in heard_of:
            await _heed(rt, message)


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
    while True:
        before_ms = rt.clock.now_ms() - PART_PATIENCE_S * 1000
        async with rt.store.read() as tx:
            keys = await stale_sets(tx, before_ms, _SWEEP_PAGE)
        if not keys:
            return total
        await rt.store.hot.do(GIVE_UP, [_Stale(rt, keys)])
        total += len(keys)


# ── In the transaction ────────────────────────────────────────────────────────────────────────────────────────────────


class _Part(NamedTuple):
    """A row of table `inbound_part`, in the order of `HOT_COLUMNS`."""

    connector_id: int
    sender: str
    recipient: str
    reference: int
    number: int
    total: int
    body: str
    received_ms: int

    @property
    def key(self) -> SetKey:
        """What it shares with the other parts of its message."""
        return SetKey(*self[:4])


@dataclass(slots=True)
class _Arrival:
    """What a carrier delivered, on its way into the store."""

    rt: Runtime
    message: InboundSms
    changes: Changes | None = None


@dataclass(slots=True)
class _Stale:
    """Messages whose missing parts nobody waits for any more."""

    rt: Runtime
    keys: Sequence[SetKey]
    changes: Changes | None = None


async def _receive(tx: HotTx, arrivals: list[_Arrival]) -> list[list[InboundSms] | Exception]:
    """Store what is whole, keep the parts of what is not. The messages to heed that each arrival gave: also repeated ones."""
    rt = arrivals[0].rt
    changes = arrivals[0].changes = Changes(rt, rt.clock.now_ms())
    parts = [_part_of(each.message) for each in arrivals if each.message.total > 1]
    sets: dict[SetKey, dict[int, _Part]] = {part.key: {} for part in parts}
    if sets:
        for row in await tx.take_parts(list(sets)):
            part = _Part(*row)
            sets[part.key][part.number] = part
    seen = _Seen(changes.now_ms)
    held = [_message_of(part) for rows in sets.values() for part in rows.values()]
    await seen.look_up(tx, [*held, *(each.message for each in arrivals)])

    results: list[list[InboundSms] | Exception] = []
    stored: list[InboundSms] = []
    for arrival in arrivals:
        message = arrival.message
        if seen.has(message):
            log.info("a carrier repeated a message from a person", extra={"connector": message.connector_id})
            results.append([message] if message.total <= 1 else [])
            continue
        whole: list[InboundSms] = []
        if message.total <= 1:
            seen.remember(message)
            whole.append(message)
        else:
            part = _part_of(message)
            rows = sets[part.key]
            if _is_of_another(rows, part):
                whole.append(_joined(rows.values()))
                rows.clear()
            rows[part.number] = part
            if len(rows) == part.total:
                whole.append(_joined(rows.values()))
                for each in rows.values():
                    seen.remember(_message_of(each))
                rows.clear()
        stored += whole
        results.append(whole)
    await _write(tx, changes, stored, seen)
    left = [part for rows in sets.values() for part in rows.values()]
    if left:
        await tx.insert("inbound_part", list(map(tuple, left)))
    return results


async def _give_up(tx: HotTx, given_up: list[_Stale]) -> list[Exception | None]:
    """Store what has waited long enough as it is."""
    rt = given_up[0].rt
    changes = given_up[0].changes = Changes(rt, rt.clock.now_ms())
    sets: dict[SetKey, list[_Part]] = {}
    for row in await tx.take_parts({key for stale in given_up for key in stale.keys}):
        part = _Part(*row)
        sets.setdefault(part.key, []).append(part)
    await _write(tx, changes, [_joined(parts) for parts in sets.values()], _Seen(changes.now_ms))
    return [None for _ in given_up]


async def _write(tx: HotTx, changes: Changes, messages: Sequence[InboundSms], seen: _Seen) -> None:
    rows = [_store(changes, message) for message in messages]
    if rows:
        await tx.insert("inbound", rows)
    strays = sum(1 for message in messages if not _owner(changes.rt.directory, message.recipient)[0])
    if strays:
        log.info("people wrote to what is no account's", extra={"messages": strays})
    if seen.rows:
        await tx.insert("idempotency", seen.rows)
    await changes.write(tx)


def _part_of(message: InboundSms) -> _Part:
    return _Part(
        message.connector_id,
        message.sender,
        message.recipient,
        message.reference,
        message.number,
        message.total,
        message.text,
        message.received_ms,
    )


def _message_of(part: _Part) -> InboundSms:
    return InboundSms(
        part.connector_id,
        part.sender,
        part.recipient,
        part.body,
        part.reference,
        part.number,
        part.total,
        part.received_ms,
    )


def _is_of_another(rows: dict[int, _Part], part: _Part) -> bool:
    """Whether the kept parts are of an earlier message with the same reference, whose rest never came."""
    if not rows:
        return False
    total = next(iter(rows.values())).total
    return total != part.total or (part.number in rows and rows[part.number].body != part.body)


def _joined(rows: Iterable[_Part]) -> InboundSms:
    """The message that these parts make; a gap shows where some are missing."""
    parts = sorted(rows, key=lambda row: row.number)
    text, wanted = "", 1
    for part in parts:
        text += (GAP if part.number > wanted else "") + part.body
        wanted = part.number + 1
    if wanted <= parts[0].total:
        text += GAP
    return InboundSms(*parts[0].key[:3], text, parts[0].reference, 1, 1, max(part.received_ms for part in parts))


class _Seen:
    """Which messages were stored before, by keys among the idempotency keys. See the top for what counts as a repetition."""

    def __init__(self, now_ms: int) -> None:
        self.rows: list[tuple[Any, ...]] = []
        """What is to be remembered."""
        self._now_ms = now_ms
        self._received_ms: dict[str, int] = {}
        self._taken: set[str] = set()

    async def look_up(self, tx: HotTx, messages: Sequence[InboundSms]) -> None:
        """Ask the store for everything that `has` and `remember` may be asked of."""
        found = await tx.idempotent({(_NOBODY, key) for message in messages for key in _keys(message)})
        self._received_ms = {key: int(received_ms) for (_, key), (received_ms, _) in found.items()}
        self._taken = set(self._received_ms)

    def has(self, message: InboundSms) -> bool:
        """Whether this message was stored in an earlier commit and is now repeated."""
        if not (message.in_doubt or message.carrier_id):
            return False
        window_ms = _window_ms(message)
        found = (self._received_ms[key] for key in _keys(message) if key in self._received_ms)
        return any(abs(message.received_ms - received_ms) <= window_ms for received_ms in found)

    def remember(self, message: InboundSms) -> None:
        """Keep the key of a message that is stored now; of equal ones the first one's stands."""
        key = _keys(message)[0]
        if key not in self._taken:
            self._taken.add(key)
            self.rows.append((_NOBODY, key, str(message.received_ms), "", self._now_ms))


def _window_ms(message: InboundSms) -> int:
    return (ID_REPEAT_S if message.carrier_id else REPEAT_S) * 1000


def _keys(message: InboundSms) -> tuple[str, str]:
    """The keys under which a message may have been stored before; the first is the one to store it under now.

    Time is counted in steps of the window, and a repetition can fall into the step after the first one's.
    """
    words = (
        message.connector_id,
        message.sender,
        message.recipient,
        message.reference,
        message.number,
        message.total,
        message.carrier_id,
        message.mark,
        message.text,
    )
    digest = hashlib.sha256("\0".join(map(str, words)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    step = message.received_ms // _window_ms(message)
    return f"in:{digest}:{step}", f"in:{digest}:{step - 1}"


def _store(changes: Changes, message: InboundSms) -> tuple[Any, ...]:
    """The row of table `inbound`, and a callback for every endpoint of the owner that wants to know."""
    identifier = changes.rt.ids.next()
    directory = changes.rt.directory
    account_id, application_id = _owner(directory, message.recipient)
    keyword = keyword_of(message.text) or ""
    payload = ""
    for endpoint in directory.endpoints.get(account_id, ()):
        if endpoint.wants(application_id, INBOUND_EVENT):
            payload = payload or _payload(changes, identifier, account_id, message, keyword)
            changes.tell(endpoint, 0, INBOUND_EVENT, payload)
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


def _after(items: Sequence[_Arrival | _Stale]) -> None:
    if items[0].changes is not None:
        items[0].changes.push()


def _undo(items: Sequence[_Arrival | _Stale]) -> None:
    if items[0].changes is not None:
        items[0].changes.withdraw()
        items[0].changes = None


RECEIVE: Verb[_Arrival, list[InboundSms]] = Verb("receive", 42, _receive, after=_after, undo=_undo)
"""Messages from people, and parts of them."""

GIVE_UP: Verb[_Stale, None] = Verb("give_up_parts", 43, _give_up, after=_after, undo=_undo)
"""Parts that have waited long enough."""
