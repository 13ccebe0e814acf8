"""Who may be written to: the suppression book, the record of consent, the rules of countries, and what rules have held.

The verbs for people are as those of `flow.manage`: one transaction each (a long import: one for each page), with a line of the
audit trail and a new version of the directory, and `Refused` with a sentence for the person when nothing was changed. Accept asks
`Directory.gate` in memory; what was accepted is asked about again when it is about to leave (`stopped_by_rules`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec

from berid.base.ids import show
from berid.base.phone import country_name, country_of
from berid.domain.consent import Keyword
from berid.domain.directory import Directory
from berid.domain.errors import Refusal, RefusalKind, Refused
from berid.domain.message import WAITING, Category, State, Submission
from berid.domain.rules import QUIET, RELEASED, Decision, Gate, Outcome, RuleBook, RulePack, pack_fault, read_pack
from berid.domain.suppression import (
    ALL,
    CHANNELS,
    TURKEY,
    Consent,
    ConsentType,
    Reason,
    RecipientType,
    Status,
    Suppression,
    address_of,
    consent_fault,
    merge,
    registry_fault,
)
from berid.flow.changes import Changes
from berid.flow.manage.office import Office, missing, note, unfit
from berid.flow.ports import Runtime
from berid.store import Tx, accounts, directory
from berid.store import consent as book
from berid.store.hot import HotTx, Tracked, Verb

PAGE = 1_000
"""Rows of an import in one transaction, and deliveries released in one: some ten milliseconds of the database's time."""

FAULTS = 100
"""How many rows of an import that were refused are told with their reason; the rest are counted."""

Form = Literal["csv", "json"]
"""How lists come and go: CSV whose first line names the columns, or a JSON list of objects with the same names."""

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one row of an import was refused. `row` counts from 1, without the line of names."""

    row: int
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a list. `unchanged` said what was known already; of the `refused` the first FAULTS are told why."""

    changed: int
    unchanged: int
    refused: int
    faults: Sequence[Fault]


# ── The suppression book ──────────────────────────────────────────────────────────────────────────────────────────────


async def suppress(
    office: Office,
    actor: str,
    account_id: int,
    recipient: str,
    *,
    channel: str = ALL,
    reason: Reason = Reason.MANUAL,
    source: str = "",
    all_traffic: bool = False,
) -> bool:
    """Enter somebody into an account's book. False if the book says as much already: adding never weakens an entry.

    `channel` is one of CHANNELS or ALL. Promotional messages are refused then, with `all_traffic` transactional ones as well.
    Raises `Refused`.
    """
    entry = _entry(recipient, channel, reason, source, all_traffic, office.clock.now_ms())
    async with office.store.transaction() as tx:
        await _check_account(tx, account_id)
        if not await _put(tx, account_id, {(entry.recipient, channel): entry}):
            return False
        detail = {"channel": channel, "reason": reason.value, "source": source, "all_traffic": all_traffic}
        await note(office, tx, actor, account_id, "suppression.add", entry.recipient, **detail)
    return True


async def unsuppress(office: Office, actor: str, account_id: int, recipient: str, *, channel: str = ALL) -> None:
    """Take an entry out of an account's book. An entry for ALL is not lifted for one channel. Raises `Refused`."""
    address = address_of(recipient) or recipient
    async with office.store.transaction() as tx:
        version = await directory.bump(tx)
        now_ms = office.clock.now_ms()
        if not await book.remove_suppression(tx, account_id, address, channel, now_ms, version):
            raise missing(f"entry for this recipient on {channel}")
        await note(office, tx, actor, account_id, "suppression.remove", address, channel=channel)


async def list_suppressions(
    office: Office, account_id: int, after: tuple[str, str] = ("", ""), limit: int = 100
) -> list[Suppression]:
    """A page of an account's book, by recipient and channel; `after` is the last one of the page before."""
    async with office.store.read() as tx:
        return await book.suppressions(tx, account_id, after, limit)


async def check_suppressions(
    office: Office, account_id: int, recipients: Sequence[str], channel: str
) -> dict[str, list[Suppression]]:
    """The entries that concern each of some recipients on a channel; none for who may be written to.

    From the store, so it knows what was changed a moment ago. Up to PAGE recipients. Raises `Refused`.
    """
    if len(recipients) > PAGE:
        raise unfit("recipients", f"up to {PAGE} recipients can be looked up at once")
    asked = {recipient: address_of(recipient) or recipient for recipient in recipients}
    async with office.store.read() as tx:
        found = await book.suppressions_of(tx, account_id, list(asked.values()))
    return {
        recipient: [found[address, name] for name in dict.fromkeys((channel, ALL)) if (address, name) in found]
        for recipient, address in asked.items()
    }


async def import_suppressions(
    office: Office,
    actor: str,
    account_id: int,
    text: str,
    form: Form,
    *,
    channel: str = ALL,
    reason: Reason = Reason.MANUAL,
    source: str = "import",
    all_traffic: bool = False,
) -> Imported:
    """Enter a list into an account's book. Columns: recipient, and channel, reason, source, all_traffic (true or false) where
    they differ from what is given here. Rows that cannot be entries are told and left out.

    Pages of it are entered one after the other; whoever is interrupted may import the same list again. Raises `Refused` if
    the list itself cannot be read; then nothing was entered.
    """
    rows = _rows(text, form, required={"recipient"}, known={"recipient", "channel", "reason", "source", "all_traffic"})
    now_ms = office.clock.now_ms()
    total = _Count()
    page: dict[tuple[str, str], Suppression] = {}
    async with office.store.read() as tx:
        await _check_account(tx, account_id)
    for number, row in rows:
        try:
            entry = _entry(
                row["recipient"],
                row.get("channel") or channel,
                _member(Reason, row.get("reason") or reason.value, "reason"),
                row.get("source") or source,
                _truth(row["all_traffic"], "all_traffic") if row.get("all_traffic") else all_traffic,
                now_ms,
            )
        except Refused as error:
            total.refuse(number, error)
            continue
        total.rows += 1
        key = (entry.recipient, entry.channel)
        page[key] = merge(page.get(key), entry)
        if len(page) == PAGE:
            total.changed += await _put_page(office, account_id, page)
            page = {}
    total.changed += await _put_page(office, account_id, page)
    await _note_import(office, actor, account_id, "suppression.import", source, total)
    return total.result()


async def heard(rt: Runtime, account_id: int, sender: str, keyword: Keyword | None, channel: str) -> None:
    """Do what a person has asked for by a word of consent, on one channel: *stop* enters the book, *start* lifts what the
    person's own stop had entered, and nothing else.

    Hearing the same again changes nothing, so whoever is not sure may call again. Raises `StoreAway`.
    """
    recipient = address_of(sender)
    if keyword not in ("stop", "start") or recipient is None or not account_id:
        return
    entry = Suppression(recipient, channel, Reason.OPT_OUT, f"{channel}:{keyword}", False, rt.clock.now_ms())
    async with rt.store.read() as tx:
        before = (await book.suppressions_of(tx, account_id, [recipient])).get((recipient, channel))
    if keyword == "stop" and merge(before, entry) != before:
        await suppress(
            Office.of(rt), "recipient", account_id, recipient, channel=channel, reason=entry.reason, source=entry.source
        )
    if keyword == "start" and before is not None and before.reason is Reason.OPT_OUT:
        await unsuppress(Office.of(rt), "recipient", account_id, recipient, channel=channel)


def _entry(recipient: str, channel: str, reason: Reason, source: str, all_traffic: bool, at_ms: int) -> Suppression:
    address = address_of(recipient)
    if address is None:
        raise unfit("recipient", "the recipient must be a number with its country's code, or an e-mail address")
    if channel not in (ALL, *CHANNELS):
        raise unfit("channel", f"the channel must be {ALL} or one of {', '.join(CHANNELS)}")
    if channel != ALL and (channel == "email") != ("@" in address):
        raise unfit("channel", f"{channel} does not reach such a recipient")
    return Suppression(address, channel, reason, source, all_traffic, at_ms)


async def _put(tx: Tx, account_id: int, entries: Mapping[tuple[str, str], Suppression]) -> int:
    """Write those entries that say more than the book does; returns how many."""
    version = await directory.bump(tx)
    before = await book.suppressions_of(tx, account_id, [recipient for recipient, _ in entries])
    merged = {key: merge(before.get(key), entry) for key, entry in entries.items()}
    changed = [entry for key, entry in merged.items() if entry != before.get(key)]
    await book.put_suppressions(tx, account_id, changed, version)
    return len(changed)


async def _put_page(office: Office, account_id: int, page: Mapping[tuple[str, str], Suppression]) -> int:
    if not page:
        return 0
    async with office.store.transaction() as tx:
        return await _put(tx, account_id, page)


# ── The record of consent ─────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS = ("brandCode", "type", "recipient", "recipientType", "status", "source", "consentDate")
"""The names of İYS, in and out, so that its own lists can be read and ours given to it."""

_DATE = "%Y-%m-%d %H:%M:%S"


async def record_consent(office: Office, actor: str, account_id: int, consent: Consent) -> int:
    """Append to the record what a recipient has just said, and return the line's id. Raises `Refused`; see `consent_fault`."""
    async with office.store.transaction() as tx:
        await _check_account(tx, account_id)
        version = await directory.bump(tx)
        now_ms = office.clock.now_ms()
        before = await book.consent_statuses(tx, account_id, [consent.recipient])
        fault = consent_fault(consent, before.get(_key(consent)), now_ms)
        if fault is not None:
            raise unfit(*fault)
        identifier = office.ids.next()
        await book.add_consents(tx, account_id, {identifier: consent}, now_ms, version)
        detail = {"brand": consent.brand, "type": consent.type.value, "status": consent.status.value}
        await note(office, tx, actor, account_id, "consent.record", consent.recipient, **detail, source=consent.source)
    return identifier


async def import_consents(
    office: Office, actor: str, account_id: int, text: str, form: Form, *, is_from_registry: bool = False
) -> Imported:
    """Append a list to the record, in its order. Columns: brandCode, type, recipient, recipientType (BIREYSEL if empty), status,
    source, consentDate (`YYYY-MM-DD hh:mm:ss` in Turkey's time, or with an offset).

    Rows that break the registry's rules are told and left out. `is_from_registry`: the list is what İYS has already, so the
    rules for new records do not apply, and what is known is *unchanged*. Pages are entered one after the other; whoever is
    interrupted may import the same list again. Raises `Refused` if the list itself cannot be read.
    """
    required = {"brandCode", "type", "recipient", "status"}
    rows = _rows(text, form, required=required, known=set(_COLUMNS))
    total = _Count()
    page: dict[tuple[str, str, str, str], tuple[int, Consent]] = {}
    async with office.store.read() as tx:
        await _check_account(tx, account_id)
    for number, row in rows:
        try:
            consent = _read_consent(row)
        except Refused as error:
            total.refuse(number, error)
            continue
        if len(page) == PAGE or _key(consent) in page:
            await _add_page(office, account_id, page, is_from_registry, total)
            page = {}
        total.rows += 1
        page[_key(consent)] = (number, consent)
    await _add_page(office, account_id, page, is_from_registry, total)
    await _note_import(office, actor, account_id, "consent.import", "registry" if is_from_registry else "", total)
    return total.result()


async def list_consents(
    office: Office,
    account_id: int,
    before_id: int = 0,
    limit: int = 100,
    recipient: str = "",
    is_current: bool = False,
) -> list[book.ConsentRecord]:
    """A page of an account's record, newest first, of one recipient if asked; without what later lines have replaced if
    `is_current`."""
    async with office.store.read() as tx:
        address = address_of(recipient) or recipient
        return await book.consents(tx, account_id, before_id, limit, recipient=address, is_current=is_current)


async def export_consents(office: Office, account_id: int, form: Form) -> AsyncIterator[str]:
    """What every recipient said last, as a list that `import_consents` and the registry can read, in pieces of text."""
    before_id, is_first = 0, True
    yield ",".join(_COLUMNS) + "\r\n" if form == "csv" else "["
    while True:
        async with office.store.read() as tx:
            page = await book.consents(tx, account_id, before_id, PAGE, is_current=True)
        if not page:
            break
        before_id = page[-1].id
        rows = [_write_consent(record.consent) for record in page]
        if form == "csv":
            out = io.StringIO()
            csv.DictWriter(out, _COLUMNS).writerows(rows)
            yield out.getvalue()
        else:
            yield ("\n" if is_first else ",\n") + ",\n".join(msgspec.json.encode(row).decode() for row in rows)
            is_first = False
    if form == "json":
        yield "\n]\n"


async def set_consent_rules(
    office: Office, actor: str, account_id: int, changes: Mapping[str, bool | None]
) -> Mapping[str, bool]:
    """Say for some countries whether an account's promotional messages there need recorded consent; None: as its pack says.

    Returns all countries for which the account says so itself. Raises `Refused`.
    """
    for country in changes:
        _check_country(country)
    async with office.store.transaction() as tx:
        if await accounts.locked_account(tx, account_id) is None:
            raise missing("account")
        for country, is_required in changes.items():
            await book.set_consent_rule(tx, account_id, country, is_required)
        await note(office, tx, actor, account_id, "consent.rules", show("acc", account_id), countries=dict(changes))
        return (await book.consent_rules(tx)).get(account_id, {})


def _key(consent: Consent) -> tuple[str, str, str, str]:
    return consent.recipient, consent.type.value, consent.brand, consent.recipient_type.value


async def _add_page(
    office: Office,
    account_id: int,
    page: Mapping[tuple[str, str, str, str], tuple[int, Consent]],
    is_from_registry: bool,
    total: _Count,
) -> None:
    if not page:
        return
    now_ms = office.clock.now_ms()
    added: dict[int, Consent] = {}
    faults: list[tuple[int, Refused]] = []
    async with office.store.transaction() as tx:
        version = await directory.bump(tx)
        known = await book.consent_statuses(tx, account_id, [key[0] for key in page])
        for key, (number, consent) in page.items():
            before = known.get(key)
            fault = registry_fault(consent) if is_from_registry else consent_fault(consent, before, now_ms)
            if fault is not None:
                faults.append((number, unfit(*fault)))
            elif before is not consent.status:
                added[office.ids.next()] = consent
        await book.add_consents(tx, account_id, added, now_ms, version)
    total.changed += len(added)
    total.rows -= len(faults)
    for number, error in faults:
        total.refuse(number, error)


def _read_consent(row: Mapping[str, str]) -> Consent:
    return Consent(
        brand=row["brandCode"],
        recipient=address_of(row["recipient"]) or row["recipient"],
        recipient_type=_member(
            RecipientType, row.get("recipientType") or RecipientType.BIREYSEL.value, "recipientType"
        ),
        type=_member(ConsentType, row["type"], "type"),
        status=_member(Status, row["status"], "status"),
        source=row.get("source", ""),
        consent_ms=_moment(row.get("consentDate", "")),
    )


def _write_consent(consent: Consent) -> dict[str, str]:
    told = datetime.fromtimestamp(consent.consent_ms / 1000, UTC).astimezone(TURKEY) if consent.consent_ms else None
    values = (
        consent.brand,
        consent.type.value,
        consent.recipient if "@" in consent.recipient else f"+{consent.recipient}",
        consent.recipient_type.value,
        consent.status.value,
        consent.source,
        told.strftime(_DATE) if told else "",
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _moment(text: str) -> int:
    """Milliseconds of a written time, Turkey's if it names no offset; 0 if there is none. Raises `Refused`."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise unfit("consentDate", f"{text[:40]!r} is not a time such as 2026-07-01 14:30:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=TURKEY)).timestamp() * 1000)


# ── Rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_rule_packs(office: Office) -> list[tuple[RulePack, bool]]:
    """Every pack, with whether the operator set it, by country; of those of a country that have begun, the first counts."""
    async with office.store.read() as tx:
        return RuleBook(await book.rule_packs(tx)).packs()


async def show_rule_pack(office: Office, country: str) -> RulePack:
    """The pack that counts for a country now. Raises `Refused`."""
    _check_country(country)
    async with office.store.read() as tx:
        return RuleBook(await book.rule_packs(tx)).pack(country, office.clock.now_ms())


async def set_rule_pack(office: Office, actor: str, pack: RulePack | str) -> int:
    """Set the rules of a country from the pack's first day on, in place of ours and of those that were set before; returns the
    version. Text is TOML, as in the packs that come with the platform. Raises `Refused`.
    """
    if isinstance(pack, str):
        try:
            pack = read_pack(pack)
        except ValueError as error:
            raise unfit("pack", str(error)) from None
    fault = pack_fault(pack)
    if fault is not None:
        raise unfit(*fault)
    async with office.store.transaction() as tx:
        before = RuleBook(await book.rule_packs(tx)).pack(pack.country, pack.from_ms)
        version = await book.add_rule_pack(tx, pack, office.clock.now_ms())
        old, new = msgspec.to_builtins(before), msgspec.to_builtins(pack)
        changes = {name: [old[name], new[name]] for name in new if name != "notes" and new[name] != old[name]}
        await note(office, tx, actor, 0, "rule_pack.set", pack.name, version=version, changes=changes)
    return version


def would_pass(
    business: Directory, account_id: int, submission: Submission, parts: int, now_ms: int
) -> list[tuple[str, list[Decision]]]:
    """What every rule says of each recipient of a submission of `parts` parts, were it accepted now. Changes nothing.

    The order is that of `accept`, which stops at the first refusal. Other reasons to refuse (routes, prices, money) are not here.
    """
    gate = _gate(business, account_id, submission, parts, now_ms)
    if gate is None:
        detail = "no rule asks about one-time passwords" if submission.category is Category.OTP else "no rule applies"
        free = [Decision("suppression", Outcome.PASS, detail)]
        return [(recipient, free) for recipient in submission.recipients]
    text = submission.content.text
    return [(recipient, gate.explain(recipient, country_of(recipient), text)) for recipient in submission.recipients]


def _gate(business: Directory, account_id: int, submission: Submission, parts: int, now_ms: int) -> Gate | None:
    at_ms = submission.due_ms or now_ms
    return business.gate(account_id, submission.channel, submission.category, submission.sender, parts, at_ms)


# ── What is about to leave, and what is held ──────────────────────────────────────────────────────────────────────────


def stopped_by_rules(rt: Runtime, channel: str, rows: Iterable[tuple[Any, ...]]) -> set[int]:
    """Which of these deliveries may not leave now, though they were accepted: someone has opted out since, or hours have closed.

    `rows` are as `HotTx.outgoing` gives them. Hand the ids to STOP.
    """
    now_ms = rt.clock.now_ms()
    gates: dict[int, Gate | None] = {}
    stopped: set[int] = set()
    for row in rows:
        message_id = row[1]
        if message_id not in gates:
            category = Category(row[16])
            gates[message_id] = rt.directory.gate(row[2], channel, category, row[4], row[9], now_ms)
        gate = gates[message_id]
        if gate is not None and _verdict(gate, row[5], row[17] or None, row[18], now_ms):
            stopped.add(row[0])
    return stopped


def _verdict(gate: Gate, recipient: str, country: str | None, reason: str, now_ms: int) -> Refusal | int:
    """Why a delivery may not leave, or until when it is held; 0 if it may go. What a person released is not held again."""
    verdict = gate.judge(recipient, country)
    if isinstance(verdict, Refusal) and verdict.kind is RefusalKind.QUIET_HOURS:
        verdict = now_ms + int(verdict.retry_after_s * 1000)  # to refuse it is too late
    return 0 if reason == RELEASED and not isinstance(verdict, Refusal) else verdict


@dataclass(slots=True)
class Stop:
    """One delivery that may not leave, and the lane of its job."""

    rt: Runtime
    delivery_id: int
    lane: str
    changes: Changes | None = None


async def _stop(tx: HotTx, stops: list[Stop]) -> list[Exception | None]:
    rt = stops[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    stops[0].changes = changes
    rows = {row.id: row for row in await tx.tracked([stop.delivery_id for stop in stops])}
    for stop in stops:
        row = rows.get(stop.delivery_id)
        if row is not None and State(row.state) in WAITING:
            _hold_or_fail(changes, row, stop.lane)
    await changes.write(tx)
    return [None for _ in stops]


def _hold_or_fail(changes: Changes, row: Tracked, lane: str) -> None:
    now_ms = changes.now_ms
    gate = changes.rt.directory.gate(row.account_id, row.channel, Category(row.category), row.sender, row.parts, now_ms)
    verdict = _verdict(gate, row.recipient, country_of(row.recipient), row.reason, now_ms) if gate is not None else 0
    if isinstance(verdict, Refusal):
        changes.release(row)
        changes.advance(row, State.FAILED, verdict.kind.value)
        changes.done.append(row.id)
        return
    if verdict:
        row.expires_ms += verdict - now_ms  # the validity does not run while the rules hold it
        if row.state == State.HELD.value:
            changes.rows[row.id] = row
        else:
            changes.advance(row, State.HELD, QUIET, {"until_ms": verdict})
    changes.again.append(("dispatch", lane, verdict or now_ms, row.attempt, row.id))


def _after(stops: list[Stop]) -> None:
    if stops[0].changes is not None:
        stops[0].changes.push()


def _undo(stops: list[Stop]) -> None:
    if stops[0].changes is not None:
        stops[0].changes.withdraw()
        stops[0].changes = None


STOP: Verb[Stop, None] = Verb("rules", 46, _stop, after=_after, undo=_undo)
"""Deliveries that rules stop at the last moment: held until the hours open, or failed with their money released."""


async def release_held(office: Office, actor: str, account_id: int, message_id: int) -> int:
    """Let the held deliveries of a message go, whatever held them, at the time for which it was planned or now; returns how many.

    A person has decided, so quiet hours do not hold them again; who has opted out is still not written to. Their validity is
    what the customer asked for, counted from now. Raises `Refused` if none is held.
    """
    total = 0
    while True:
        async with office.store.transaction() as tx:
            page = await book.held(tx, account_id, message_id, PAGE)
            if not page:
                break
            now_ms = office.clock.now_ms()
            released = [_released(each, now_ms) for each in page]
            events = [
                {
                    "delivery_id": each.id,
                    "id": office.ids.next(),
                    "kind": RELEASED,
                    "at_ms": now_ms,
                    "detail": msgspec.json.encode({"by": actor, "was": each.reason}).decode(),
                }
                for each in page
            ]
            await book.let_go(tx, account_id, released, events, RELEASED)
            total += len(page)
    if not total:
        raise missing("held delivery of this message")
    async with office.store.transaction() as tx:
        await note(office, tx, actor, account_id, "message.release", show("msg", message_id), deliveries=total)
    return total


def _released(each: book.Held, now_ms: int) -> tuple[book.Held, State, int, int]:
    due_ms = max(each.planned_ms, now_ms)
    state = State.SCHEDULED if due_ms > now_ms else State.QUEUED
    # The validity of what waits for its hours counts from their opening; of what came too late it counts from its time.
    early_ms = max(0, each.due_ms - due_ms) if each.reason == QUIET else 0
    return each, state, each.expires_ms - early_ms, due_ms


# ── Helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Count:
    """Counts an import."""

    def __init__(self) -> None:
        self.rows = 0
        self.changed = 0
        self.refused = 0
        self.faults: list[Fault] = []

    def refuse(self, row: int, error: Refused) -> None:
        self.refused += 1
        if len(self.faults) < FAULTS:
            refusal = error.refusals[0]
            self.faults.append(Fault(row, refusal.field, refusal.detail))

    def result(self) -> Imported:
        return Imported(self.changed, self.rows - self.changed, self.refused, self.faults)


async def _note_import(office: Office, actor: str, account_id: int, action: str, source: str, total: _Count) -> None:
    if total.changed:
        async with office.store.transaction() as tx:
            detail = {"source": source, "changed": total.changed, "refused": total.refused}
            await note(office, tx, actor, account_id, action, show("acc", account_id), **detail)


def _rows(text: str, form: Form, required: set[str], known: set[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """The rows of a list, numbered from 1; the `required` names are there, and none that is not `known`. Raises `Refused`."""
    if form == "json":
        try:
            found = msgspec.json.decode(text, type=list[dict[str, str | int | bool | None]])
        except msgspec.DecodeError as error:
            raise unfit("list", f"the JSON cannot be read: {error}") from None
        for number, each in enumerate(found, 1):
            _check_names(set(each), required, known, f"row {number}")
        return ((number, {name: _text(value) for name, value in each.items()}) for number, each in enumerate(found, 1))
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), restval="")
    _check_names({name.strip() for name in reader.fieldnames or ()}, required, known, "the first line")
    return enumerate(_lines(reader), 1)


def _lines(reader: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    try:
        for row in reader:
            yield {name.strip(): value.strip() for name, value in row.items() if name is not None}
    except csv.Error as error:
        raise unfit("list", f"line {reader.line_num} of the CSV cannot be read: {error}") from None


def _check_names(names: set[str], required: set[str], known: set[str], where: str) -> None:
    if required - names:
        raise unfit("list", f"{where} does not name {', '.join(sorted(required - names))}")
    if names - known:
        raise unfit("list", f"{where} names {', '.join(sorted(names - known))}; known are {', '.join(sorted(known))}")


def _text(value: str | int | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _member(kind: type[E], text: str, field: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise unfit(field, f"{text[:40]!r} is not one of {', '.join(kind)}") from None


def _truth(text: str, field: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise unfit(field, "write true or false")
    return text.lower() in ("true", "1")


async def _check_account(tx: Tx, account_id: int) -> None:
    if not await accounts.has_account(tx, account_id):
        raise missing("account")


def _check_country(country: str) -> None:
    if country_name(country) is None:
        raise unfit("country", f"{country!r} is not a country; write its two letters, such as SA or TR")
