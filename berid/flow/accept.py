"""Submission → stored, priced, held, queued, in one commit: the room that every door leads to.

`accept` first gathers every refusal that it can see from the directory in memory, then asks the store for the rest
(idempotency, balance) inside the transaction that writes message, deliveries, ledger entries and jobs. When it
returns, all of that is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from berid.base.phone import country_of, place_of
from berid.domain.account import Caller, Scope, check_caller, check_sender
from berid.domain.directory import Directory
from berid.domain.errors import Refusal, RefusalKind, Refused
from berid.domain.ledger import EntryKind
from berid.domain.message import (
    Accepted,
    AcceptedDelivery,
    Category,
    Priority,
    State,
    Submission,
)
from berid.domain.otp import CHECKS_MAX, WINDOW_MS, Code, Recent, why_limited
from berid.domain.pricing import quote
from berid.domain.routing import Route
from berid.domain.rules import QUIET
from berid.domain.spending import Spent, day_of, first_of_month, is_capped, why_capped
from berid.flow.ports import Fresh, Prepared, Runtime
from berid.queue.lanes import Lane
from berid.store import ledger
from berid.store.hot import HotTx, Tracked, Verb

PAGE = 1_000
"""Recipients that fit one commit. A larger request is loaded page by page and leaves only when all of it is there."""

_PRIORITY = {
    Category.OTP: Priority.OTP,
    Category.TRANSACTIONAL: Priority.TRANSACTIONAL,
    Category.PROMOTIONAL: Priority.BULK,
}

LEASE_MS = 60_000
"""How long a leased job is ours. Longer than a lane takes to drain: it holds some seconds' work of its
connector (`Dispatcher._fit`)."""


_CodePlace = tuple[int, str, str]
"""Where codes are counted: application, number and purpose."""


_HOLD = EntryKind.HOLD.value


class _Way(msgspec.Struct):
    """How messages to one country leave: the route, and the connector of it that should carry them now."""

    country: str
    route: Route
    connector_id: int
    lane: str


class _Line(msgspec.Struct, gc=False):
    """One delivery to be accepted: where it goes, what it costs, who pays."""

    recipient: str
    way: _Way
    units: int
    price_micros: int
    wallet_id: int
    charge_on: str
    currency: str
    held_until_ms: int = 0
    """When the rules of its country let it go; 0 if they do not hold it."""


class Order(msgspec.Struct):
    """Everything decided about a submission before the transaction."""

    rt: Runtime
    caller: Caller
    submission: Submission
    prepared: Prepared
    lines: list[_Line]
    refused: list[tuple[str, Refusal]]
    priority: Priority
    now_ms: int
    due_ms: int
    expires_ms: int
    message_id: int
    ids: range
    stored_body: str
    body_kind: str
    options: str
    """What the dialect remembers with the message, as JSON; "" if nothing."""
    holds: dict[int, int]
    cost_micros: int
    day: int
    """On which of the account's days it counts against spending limits."""
    is_capped: bool
    """Whether there are such limits."""
    currency: str
    admitted: list[tuple[Lane[Any], int]]
    """(lane, how many places were held in it)."""


async def accept(rt: Runtime, caller: Caller, submission: Submission, scope: Scope = Scope.SEND) -> Accepted:
    """Take a submission over, or refuse it; `scope` is the right that the caller's door asks for.

    Raises `Refused` with every reason seen, and then nothing but counters has changed. Raises `StoreAway` when the
    store did not take it: the same request may be sent again. The same idempotency key with the same body gives the
    first answer again.
    """
    started_s = rt.clock.ticks_s()
    with rt.trace.span("accept", dialect=caller.dialect, recipients=len(submission.recipients)):
        order = await _decide(rt, caller, submission, scope)
        if len(order.lines) > PAGE:
            from berid.flow.load import accept_large

            accepted = await accept_large(rt, order)
        else:
            accepted = (await rt.store.hot.do(ACCEPT, [order]))[0]
    if not accepted.is_replay:
        rt.metrics.accepted(submission.channel, caller.dialect, caller.mode, accepted.total)
    rt.metrics.accept_took(rt.clock.ticks_s() - started_s)
    return accepted


async def explain(
    rt: Runtime, caller: Caller, submission: Submission, scope: Scope | None = Scope.SEND
) -> list[Refusal]:
    """Every reason for which `accept` would refuse a submission now, its own decisions; none if it would take it.

    Nothing is written, counted or sent. With `scope` None the rights of the token are not asked about. Rates are not asked
    about either: what is free of them now may be taken a moment later. The balance is looked at only if nothing else is wrong.
    """
    now_ms = rt.clock.now_ms()
    refusals, prepared, lines, turned_away = await _judge(rt, caller, submission, scope, now_ms)
    if refusals or prepared is None:
        return refusals
    order = _order(rt, caller, submission, prepared, lines, turned_away, now_ms)
    async with rt.store.read() as tx:
        wallets = await ledger.wallets(tx, caller.account.id)
        spent = await ledger.spent(tx, list(order.holds), first_of_month(order.day))
    balances = {each.id: (each.available_micros, each.credit_limit_micros) for each in wallets}
    short = why_short(order, balances, {wallet_id: available for wallet_id, (available, _) in balances.items()})
    return [reason for reason in (short, why_over(order, spent)) if reason is not None]


async def _decide(rt: Runtime, caller: Caller, submission: Submission, scope: Scope) -> Order:
    """All that can be known without the store. Raises `Refused` with every reason at once."""
    now_ms = rt.clock.now_ms()
    refusals, prepared, lines, turned_away = await _judge(rt, caller, submission, scope, now_ms)
    if not refusals:
        refusals += _check_rates(rt, caller, len(lines))
    if refusals:
        for refusal in refusals:
            rt.metrics.refused(refusal.kind.value, caller.dialect)
        raise Refused(*refusals)
    assert prepared is not None
    return _order(rt, caller, submission, prepared, lines, turned_away, now_ms)


async def _judge(
    rt: Runtime, caller: Caller, submission: Submission, scope: Scope | None, now_ms: int
) -> tuple[list[Refusal], Prepared | None, list[_Line], list[tuple[str, Refusal]]]:
    """What the directory says of a submission: every reason against it, and what it would become. Counts nothing."""
    service = (
        "otp" if submission.category is Category.OTP and "otp" in caller.application.services else submission.channel
    )
    refusals = [*submission.faults, *check_caller(caller, scope, service)]

    if submission.needs_sender:
        refusals += _check_sender(rt, caller, submission, now_ms)
    if not submission.recipients:
        kind = RefusalKind.RECIPIENT_INVALID if submission.rejected else RefusalKind.RECIPIENT_MISSING
        refusals.append(Refusal(kind, "no usable recipient was given", "recipients"))
    if submission.due_ms is not None and submission.due_ms <= now_ms:
        refusals.append(Refusal(RefusalKind.SCHEDULE_PAST, "the planned time is in the past", "due"))

    prepared: Prepared | None = None
    try:
        if submission.channel in rt.channels:
            prepared = rt.channels[submission.channel].prepare(submission)
    except Refused as error:
        refusals += error.refusals

    lines, turned_away = await _price(rt, caller, submission, prepared, now_ms)
    if turned_away and not (submission.allows_partial and (lines or submission.allows_none)):
        seen = {refusal.kind: refusal for _, refusal in turned_away}
        if submission.rejected:
            seen[RefusalKind.RECIPIENT_INVALID] = Refusal(
                RefusalKind.RECIPIENT_INVALID, "this is no number that can be written to", "recipients"
            )
        refusals += seen.values()
    return refusals, prepared, lines, turned_away


def _check_sender(rt: Runtime, caller: Caller, submission: Submission, now_ms: int) -> list[Refusal]:
    if not submission.sender:
        return [Refusal(RefusalKind.SENDER_MISSING, "no sender was given", "sender")]
    names = rt.directory.senders.get((caller.account.id, submission.channel, submission.sender), ())
    country = country_of(submission.recipients[0]) if submission.recipients else None
    _, refusal = check_sender(names, country, submission.category.value, now_ms)
    return [refusal] if refusal is not None else []


def _check_rates(rt: Runtime, caller: Caller, count: int) -> list[Refusal]:
    """Count the messages against the rates of account and application, the last thing before the store is asked."""
    now_s = rt.clock.ticks_s()
    for key, rules in (
        (("account", caller.account.id), caller.account.rules),
        (("token", caller.token.id), caller.application.rules),
    ):
        if key[0] == "account" and not rules.per_second and not rules.per_minute:
            continue
        per_second = rules.per_second or (rt.config.limits.default_rate_per_s if key[0] == "token" else 0)
        wait_s = rt.limits.take(key, now_s, count, per_second, rules.per_minute)
        if wait_s:
            return [
                Refusal(
                    RefusalKind.RATE_LIMIT, f"too many messages; try again in {wait_s:.1f} s", "", retry_after_s=wait_s
                )
            ]
    return []


async def _price(
    rt: Runtime, caller: Caller, submission: Submission, prepared: Prepared | None, now_ms: int
) -> tuple[list[_Line], list[tuple[str, Refusal]]]:
    """Price and route every recipient; those that may not be written to come back with the reason.

    Lists of recipients repeat countries, so what depends on the country alone is decided once for each. Others have their turn
    after every page of a long list.
    """
    if prepared is None:
        return [], []
    directory, account, mode = rt.directory, caller.account, caller.mode
    lists = directory.price_lists(account.id, submission.channel)
    category = submission.category.value
    lines: list[_Line] = []
    turned_away: list[tuple[str, Refusal]] = []
    ways: dict[str | None, _Way | Refusal] = {}
    looks_at_prefixes = directory.looks_at_prefixes
    gate = directory.gate(
        account.id,
        submission.channel,
        submission.category,
        submission.sender,
        prepared.parts,
        submission.due_ms or now_ms,
    )
    for index, draft in enumerate(prepared.drafts, 1):
        if not index % PAGE:
            await asyncio.sleep(0)
        number = draft.recipient
        place = place_of(number)
        country = place.country_iso2 if place is not None else None
        way = ways.get(country)
        if way is None or looks_at_prefixes:
            way = ways[country] = _way(rt, directory, caller, submission.channel, category, number, country)
        if isinstance(way, Refusal):
            turned_away.append((number, way))
            continue
        held_until_ms = 0
        if gate is not None:
            verdict = gate.judge(number, country)
            if isinstance(verdict, Refusal):
                turned_away.append((number, verdict))
                continue
            held_until_ms = verdict
        price = quote(lists, number, category, (place.operator if place is not None else None) or "", now_ms)
        wallet_id = directory.wallets.get((account.id, mode, price.currency)) if price is not None else None
        if price is None or wallet_id is None:
            turned_away.append((number, Refusal(RefusalKind.NO_PRICE, f"no price is set for {country}", "recipients")))
            continue
        units = draft.units
        lines.append(
            _Line(
                number,
                way,
                units,
                price.unit_micros * units,
                wallet_id,
                price.charge_on.value,
                price.currency,
                held_until_ms,
            )
        )
    return lines, turned_away


def _way(
    rt: Runtime, directory: Directory, caller: Caller, channel: str, category: str, number: str, country: str | None
) -> _Way | Refusal:
    """How messages to a country leave, or why none may."""
    account, mode = caller.account, caller.mode
    refusal = _check_country(country, account.home, (account.rules, caller.application.rules))
    if refusal is not None:
        return refusal
    route = directory.route(mode, channel, number, country, category, account.id)
    if route is None:
        return Refusal(RefusalKind.NO_ROUTE, f"no {mode} route serves {country}", "recipients")
    connector_id = best_connector(rt, route, 0)
    return _Way(country or "", route, connector_id, f"c{connector_id}")


def best_connector(rt: Runtime, route: Route, after: int) -> int:
    """The connector of a route that should carry a delivery now: the first in order of preference that can send.

    `after` is the connector that has just failed (0: none): the search begins behind it. When none can send, the
    first that is switched on waits for it. What other processes run is believed to be up.
    """
    order = route.connectors
    if after in order:
        place = order.index(after) + 1
        order = order[place:] + order[:place]
    waiting = order[0]
    for connector_id in order:
        settings = rt.directory.connectors.get(connector_id)
        if settings is None or settings.state != "on":
            continue
        running = rt.connectors.get(connector_id)
        if running is None or running.is_up:
            return connector_id
        if waiting == order[0]:
            waiting = connector_id
    return waiting


def _check_country(country: str | None, home: str, rules: Sequence[Any]) -> Refusal | None:
    for rule in rules:
        if rule.countries and country not in rule.countries:
            return Refusal(RefusalKind.COUNTRY_NOT_ALLOWED, f"{country or 'this country'} is not allowed", "recipients")
        if not rule.international_on and home and country != home:
            return Refusal(
                RefusalKind.INTERNATIONAL_OFF, "the account is not activated for other countries", "recipients"
            )
    return None


def _order(
    rt: Runtime,
    caller: Caller,
    submission: Submission,
    prepared: Prepared,
    lines: list[_Line],
    refused: list[tuple[str, Refusal]],
    now_ms: int,
) -> Order:
    priority = submission.priority
    if priority is None:
        priority = _PRIORITY[submission.category]
    valid_s = submission.valid_s
    if valid_s is None:
        validity = rt.config.validity
        valid_s = (validity.otp_s, validity.transactional_s, validity.bulk_s)[priority]
    due_ms = submission.due_ms or 0
    holds: dict[int, int] = {}
    for line in lines:
        holds[line.wallet_id] = holds.get(line.wallet_id, 0) + line.price_micros
    body, body_kind = prepared.body, prepared.body_kind
    if submission.content.is_secret:
        body, body_kind = rt.vault.seal(body, "body"), "sealed"
    ids = rt.ids.take(1 + len(lines))
    return Order(
        rt=rt,
        caller=caller,
        submission=submission,
        prepared=prepared,
        lines=lines,
        refused=refused,
        priority=priority,
        now_ms=now_ms,
        due_ms=due_ms,
        expires_ms=(due_ms or now_ms) + valid_s * 1000,
        message_id=ids[0],
        ids=ids[1:],
        stored_body=body,
        body_kind=body_kind,
        options=msgspec.json.encode(submission.options).decode() if submission.options else "",
        holds=holds,
        cost_micros=sum(holds.values()),
        day=day_of(now_ms, caller.account.zone),
        is_capped=is_capped(caller.account, caller.application),
        currency=lines[0].currency if lines else "",
        admitted=[],
    )


async def _accept(tx: HotTx, orders: list[Order]) -> list[Accepted | Exception]:
    """The transaction's part, for every order that waits. Orders that are refused here write nothing."""
    keys = {
        (order.caller.application.id, order.submission.idempotency[0])
        for order in orders
        if order.submission.idempotency is not None
    }
    used = await tx.idempotent(keys) if keys else {}
    balances = await tx.wallets({wallet_id for order in orders for wallet_id in order.holds})
    left = {wallet_id: available for wallet_id, (available, _) in balances.items()}
    spent = await spent_before(tx, orders)
    seen = await _codes_before(tx, orders)

    results: list[Accepted | Exception] = []
    messages: list[tuple[Any, ...]] = []
    deliveries: list[tuple[Any, ...]] = []
    entries: list[tuple[Any, ...]] = []
    jobs: list[tuple[Any, ...]] = []
    idempotency: list[tuple[Any, ...]] = []
    coded: dict[_CodePlace, list[Order]] = {}
    taken: dict[int, int] = {}
    spending: Spent = {}
    for order in orders:
        idem = order.submission.idempotency
        key = (order.caller.application.id, idem[0]) if idem is not None else None
        if key is not None and key in used and idem is not None:
            results.append(replay(used[key], idem[1]))
            continue
        place_of_code = _code_place(order)
        short = why_limited(seen.get(place_of_code, Recent()), order.now_ms) if place_of_code is not None else None
        short = short or why_short(order, balances, left) or why_over(order, spent)
        if short is not None:
            order.rt.metrics.refused(short.kind.value, order.caller.dialect)
            results.append(Refused(short))
            continue
        for wallet_id, amount in order.holds.items():
            left[wallet_id] -= amount
            taken[wallet_id] = taken.get(wallet_id, 0) + amount
            place = (wallet_id, order.day, order.caller.application.id)
            spending[place] = spending.get(place, 0) + amount
            spent[place] = spent.get(place, 0) + amount
        accepted = accepted_of(order, left)
        if key is not None and idem is not None:
            answer = msgspec.json.encode(accepted).decode()
            idempotency.append((*key, idem[1], answer, order.now_ms))
            used[key] = (idem[1], answer)
        messages.append(message_row(order, "open"))
        _rows(order, deliveries, entries, jobs)
        if place_of_code is not None:
            before = seen.get(place_of_code, Recent())
            seen[place_of_code] = Recent(before.sends + 1, before.checks_used, before.oldest_ms or order.now_ms)
            coded.setdefault(place_of_code, []).append(order)
        results.append(accepted)
    if messages:
        await tx.insert("message", messages)
    if deliveries:
        await tx.insert("delivery", deliveries)
        await tx.insert("job", jobs)
    if entries:
        await tx.insert("ledger_entry", entries)
        await tx.move_money([(-amount, amount, 0, wallet_id) for wallet_id, amount in sorted(taken.items())])
        await tx.add_spent(spending)
    if idempotency:
        await tx.insert("idempotency", idempotency)
    if coded:
        await _keep_codes(tx, coded, seen)
    return results


def _code_place(order: Order) -> _CodePlace | None:
    code = order.submission.code
    return (order.caller.application.id, code.recipient, code.purpose) if code is not None else None


async def _codes_before(tx: HotTx, orders: Sequence[Order]) -> dict[_CodePlace, Recent]:
    """What was sent in the window to the numbers of those orders that are one-time passwords."""
    coded = {place: order for order in orders if (place := _code_place(order)) is not None}
    if not coded:
        return {}
    return await tx.codes(coded, min(order.now_ms for order in coded.values()) - WINDOW_MS)


async def _keep_codes(tx: HotTx, coded: dict[_CodePlace, list[Order]], seen: dict[_CodePlace, Recent]) -> None:
    """Keep the codes of accepted orders. The last one to a number for a purpose replaces all before it."""
    rows = [
        _code_row(order, seen[place].checks_used, "open" if order is orders[-1] else "replaced")
        for place, orders in coded.items()
        for order in orders
    ]
    await tx.replace_codes([(*place, _code_of(orders[-1]).id) for place, orders in coded.items()])
    await tx.insert("otp", rows)


def _code_of(order: Order) -> Code:
    assert order.submission.code is not None
    return order.submission.code


def _code_row(order: Order, checks_used: int, state: str) -> tuple[Any, ...]:
    """The row of table `otp`, in the order of `HOT_COLUMNS`."""
    code, caller = _code_of(order), order.caller
    return (
        code.id,
        caller.account.id,
        caller.application.id,
        caller.mode,
        code.recipient,
        order.lines[0].way.country,
        code.purpose,
        code.digest,
        state,
        CHECKS_MAX - checks_used,
        order.message_id,
        order.ids[0],
        order.now_ms,
        code.expires_ms,
    )


def replay(stored: tuple[str, str], body_hash: str) -> Accepted | Exception:
    """The answer to a repeated idempotency key: the first one, or the conflict when the body is another."""
    if stored[0] != body_hash:
        return Refused(
            Refusal(RefusalKind.IDEMPOTENCY_CONFLICT, "this idempotency key was used with another request", "key")
        )
    return msgspec.structs.replace(msgspec.json.decode(stored[1], type=Accepted), is_replay=True)


def why_short(order: Order, balances: dict[int, tuple[int, int]], left: dict[int, int]) -> Refusal | None:
    for wallet_id, amount in order.holds.items():
        spendable = left[wallet_id] + balances[wallet_id][1]
        if amount and spendable <= 0:
            return Refusal(RefusalKind.BALANCE_ZERO, "the balance is used up")
        if amount > spendable:
            return Refusal(RefusalKind.BALANCE_SHORT, "the balance does not cover this request")
    return None


async def spent_before(tx: HotTx, orders: Sequence[Order]) -> Spent:
    """What has been spent this month from the wallets of those orders whose spending is limited."""
    capped = [order for order in orders if order.is_capped]
    if not capped:
        return {}
    wallet_ids = {wallet_id for order in capped for wallet_id in order.holds}
    return await tx.spent(wallet_ids, min(first_of_month(order.day) for order in capped))


def why_over(order: Order, spent: Spent) -> Refusal | None:
    if not order.is_capped:
        return None
    return why_capped(order.caller.account, order.caller.application, order.holds, order.day, spent)


def accepted_of(order: Order, left: dict[int, int]) -> Accepted:
    lines = order.lines
    state, due_ms = (State.SCHEDULED if order.due_ms else State.QUEUED), order.due_ms
    if lines and lines[0].held_until_ms and all(line.held_until_ms for line in lines):
        state, due_ms = State.HELD, min(line.held_until_ms for line in lines)
    shown = range(len(lines)) if len(lines) <= PAGE else (0, len(lines) - 1)
    return Accepted(
        message_id=order.message_id,
        deliveries=[
            AcceptedDelivery(order.ids[place], lines[place].recipient, lines[place].units, lines[place].price_micros)
            for place in shown
        ],
        total=len(lines),
        units=sum([line.units for line in lines]),
        parts=order.prepared.parts,
        cost_micros=order.cost_micros,
        currency=order.currency,
        balance_micros=left[lines[0].wallet_id] if lines else 0,
        refused=order.refused,
        state=state,
        due_ms=due_ms or None,
        created_ms=order.now_ms,
    )


def message_row(order: Order, state: str) -> tuple[Any, ...]:
    """The row of table `message`, in the order of `HOT_COLUMNS`."""
    submission, caller = order.submission, order.caller
    refused = (
        msgspec.json.encode([(number, refusal.kind.value) for number, refusal in order.refused]).decode()
        if order.refused
        else ""
    )
    return (
        order.message_id,
        caller.account.id,
        caller.application.id,
        caller.mode,
        submission.channel,
        caller.dialect,
        submission.sender,
        submission.category.value,
        int(order.priority),
        order.stored_body,
        order.body_kind,
        order.prepared.alphabet,
        order.prepared.parts,
        submission.reference,
        submission.cancel_key,
        order.options,
        state,
        len(order.lines),
        order.ids[0] if order.ids else 0,
        order.ids[-1] if order.ids else 0,
        order.cost_micros,
        order.currency,
        refused,
        order.now_ms,
        order.due_ms,
        order.expires_ms + _longest_hold_ms(order),
    )


def _longest_hold_ms(order: Order) -> int:
    """How long the rules hold the last of the deliveries beyond its time."""
    if order.submission.category is not Category.PROMOTIONAL:
        return 0
    return max((_hold_ms(order, line) for line in order.lines), default=0)


def _hold_ms(order: Order, line: _Line) -> int:
    return line.held_until_ms - (order.due_ms or order.now_ms) if line.held_until_ms else 0


def delivery_rows(order: Order, ids: range, lines: Sequence[_Line]) -> list[tuple[Any, ...]]:
    """Rows of table `delivery`, in the order of `HOT_COLUMNS`. The validity of what is held counts from its release."""
    message_id, account_id, parts, expires_ms = (
        order.message_id,
        order.caller.account.id,
        order.prepared.parts,
        order.expires_ms,
    )
    state = "scheduled" if order.due_ms else "queued"
    return [
        (
            delivery_id,
            message_id,
            account_id,
            line.recipient,
            line.way.country,
            "held" if line.held_until_ms else state,
            QUIET if line.held_until_ms else "",
            line.units,
            line.price_micros,
            line.wallet_id,
            line.charge_on,
            "held",
            line.way.route.id,
            line.way.connector_id,
            0,
            parts,
            "",
            0,
            0,
            expires_ms + _hold_ms(order, line) if line.held_until_ms else expires_ms,
        )
        for delivery_id, line in zip(ids, lines, strict=True)
    ]


def hold_rows(order: Order) -> list[tuple[Any, ...]]:
    """One ledger entry per wallet: the hold of the whole message, with the count of deliveries it stands for."""
    lines = order.lines
    counts = {wallet_id: len(lines) for wallet_id in order.holds}
    if len(counts) > 1:
        counts = {wallet_id: sum([line.wallet_id == wallet_id for line in lines]) for wallet_id in counts}
    return [
        (
            order.rt.ids.next(),
            order.caller.account.id,
            wallet_id,
            _HOLD,
            amount,
            order.message_id,
            counts[wallet_id],
            order.now_ms,
            "",
            "",
        )
        for wallet_id, amount in order.holds.items()
        if amount
    ]


def _rows(
    order: Order, deliveries: list[tuple[Any, ...]], entries: list[tuple[Any, ...]], jobs: list[tuple[Any, ...]]
) -> None:
    """Rows of deliveries, holds and jobs. Work that its lane has room for is leased to us in this same commit."""
    rt, priority, account_id = order.rt, int(order.priority), order.caller.account.id
    leased: set[str] = set()
    if not order.due_ms:
        counts: dict[str, int] = {}
        for line in order.lines:
            if not line.held_until_ms:
                counts[line.way.lane] = counts.get(line.way.lane, 0) + 1
        for name, count in counts.items():
            lane = rt.lanes.get(name)
            if lane is not None and lane.admit(priority, account_id, count):
                leased.add(name)
                order.admitted.append((lane, count))
    due_ms, until_ms = order.due_ms or order.now_ms, order.now_ms + LEASE_MS
    deliveries += delivery_rows(order, order.ids, order.lines)
    for delivery_id, line in zip(order.ids, order.lines, strict=True):
        name = line.way.lane
        if name in leased and not line.held_until_ms:
            jobs.append((delivery_id, "dispatch", name, priority, account_id, due_ms, until_ms, rt.slot, 1))
        else:
            jobs.append((delivery_id, "dispatch", name, priority, account_id, line.held_until_ms or due_ms, 0, 0, 0))
    entries += hold_rows(order)


def _withdraw(orders: list[Order]) -> None:
    """Give back the places in lanes that were held for work which was not written."""
    for order in orders:
        for lane, count in order.admitted:
            lane.withdraw(count)
        order.admitted.clear()


def _push(orders: list[Order]) -> None:
    """Hand the leased deliveries to their lanes in memory."""
    for order in orders:
        for lane, count in order.admitted:
            lane.push(_outgoing(order, lane.name), held=count)


def _outgoing(order: Order, lane: str) -> list[Fresh]:
    """The deliveries of one lane, as a connector needs them."""
    submission, caller, prepared = order.submission, order.caller, order.prepared
    message_id, account_id, priority = order.message_id, caller.account.id, int(order.priority)
    sender, dialect, expires_ms, parts = submission.sender, caller.dialect, order.expires_ms, prepared.parts
    body, body_kind, alphabet = prepared.body, prepared.body_kind, prepared.alphabet
    facts = (
        caller.application.id,
        caller.mode,
        submission.channel,
        dialect,
        sender,
        submission.category.value,
        priority,
        parts,
        submission.reference,
        order.options,
        order.body_kind,
        len(order.lines),
        order.now_ms,
    )
    return [
        Fresh(
            delivery_id=delivery_id,
            message_id=message_id,
            account_id=account_id,
            priority=priority,
            sender=sender,
            recipient=line.recipient,
            body=body,
            body_kind=body_kind,
            alphabet=alphabet,
            parts=parts,
            expires_ms=expires_ms,
            attempt=0,
            route_id=line.way.route.id,
            dialect=dialect,
            row=Tracked(
                delivery_id,
                message_id,
                account_id,
                line.recipient,
                "sending",
                "",
                line.units,
                line.price_micros,
                line.wallet_id,
                line.charge_on,
                "held",
                line.way.route.id,
                line.way.connector_id,
                1,
                parts,
                "",
                0,
                0,
                expires_ms,
                0,
                "",
                *facts,
            ),
        )
        for delivery_id, line in zip(order.ids, order.lines, strict=True)
        if line.way.lane == lane and not line.held_until_ms
    ]


ACCEPT: Verb[Order, Accepted] = Verb(
    "accept", 10, _accept, after=_push, undo=_withdraw, weigh=lambda order: len(order.lines)
)
"""Lines up in `HotStore` with every other request that waits."""
