"""What a batch of outcomes or reports is about to write: collected in lists, written in a few statements.

`record`, `settle`, `cancel` and the sweeper all end in the same four things: deliveries change state, money moves,
the journal grows, customers are told. `Changes` is the one place where that is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from berid.base.ids import show
from berid.domain.journal import delivered_detail, sent_detail
from berid.domain.ledger import EntryKind, effect
from berid.domain.message import FINAL, MoneyState, State
from berid.domain.report import EVENT_OF_STATE, Endpoint
from berid.domain.spending import Spent, day_of
from berid.flow.ports import Bundle, Runtime, Tell
from berid.queue.lanes import Lane
from berid.store.hot import HotTx, Tracked

BUNDLE_MAX = 100
"""Events of a bundle at most: a lane holds as many as `flow.notify.LANE_CAPACITY` bundles in memory."""

CALLBACK_LEASE_MS = 120_000
"""Longer than one call with its time limit, and than a full lane takes to drain."""

TIMELY_MS = 250
"""A line is left to its row only if the ids that are made with it tell its time so closely: its callbacks are found by them."""

ID_BLOCK = 32
"""Ids are taken in blocks: one by one they would ask for the time at every line."""

_WORDS = {state: state.value for state in State}
_SENT, _DELIVERED = State.SENT.value, State.DELIVERED.value
_CHARGE, _RELEASE = EntryKind.CHARGE.value, EntryKind.RELEASE.value
_CHARGED, _RELEASED = MoneyState.CHARGED.value, MoneyState.RELEASED.value
"""The plain words: taking one from its member costs more than the rest of such a line."""

_News = tuple[Endpoint, list[tuple[int, str, str]]]
"""What an endpoint is to be told: (delivery, event, payload)."""

_encode = msgspec.json.Encoder().encode


class _Payload(msgspec.Struct, gc=False):
    """The data of an event about a delivery; `options` are those of its message, if it has any."""

    type: str
    created_ms: int
    delivery_id: str
    message_id: str
    channel: str
    mode: str
    to: str
    sender: str
    state: str
    reason: str
    units: int
    reference: str
    dialect: str
    total: int
    accepted_ms: int
    sent_ms: int
    options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class Changes:
    """Collects the writes of one batch. `now_ms` is the time of all of them."""

    rt: Runtime
    now_ms: int
    rows: dict[int, Tracked] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    refs: list[tuple[Any, ...]] = field(default_factory=list)
    forgotten: dict[int, list[str]] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    again: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    new_jobs: list[tuple[Any, ...]] = field(default_factory=list)
    callbacks: list[tuple[Any, ...]] = field(default_factory=list)
    bundles: dict[Lane[Bundle], list[Bundle]] = field(default_factory=dict)
    """Leased callbacks by lane: to be pushed after the commit, or withdrawn."""
    parked: list[tuple[Any, ...]] = field(default_factory=list)
    unparked: list[int] = field(default_factory=list)
    """The connector of each report that is parked no longer."""
    erased: list[int] = field(default_factory=list)
    counts: list[tuple[Any, ...]] = field(default_factory=list)
    """Metrics to raise once it is on disk: (method, arguments…). A batch may be tried twice; it is counted once."""
    _settled: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many deliveries of a channel have come to a final state; counted as `counts` are."""
    _money: dict[tuple[int, int, str, int], list[int]] = field(default_factory=dict)
    _given_back: Spent = field(default_factory=dict)
    _wanting: dict[tuple[int, int, State], list[_News]] = field(default_factory=dict)
    """Whom an application wants to be told of a state, as far as this batch has asked."""
    _news: dict[int, _News] = field(default_factory=dict)
    """What endpoints are to be told, by endpoint."""
    _told_by_row: set[int] = field(default_factory=set)
    """Deliveries whose one line of this batch is left to their row. Of several none is, for their order is known only here."""
    _journalled: set[int] = field(default_factory=set)
    """Deliveries with lines in `events`."""
    _is_timely: bool = field(init=False)
    """Whether the ids that are made now tell the time."""
    _ids: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self._is_timely = self.rt.ids.reached_ms <= self.now_ms + TIMELY_MS
        blocks = iter(partial(self.rt.ids.take, ID_BLOCK), range(0))
        self._ids = chain.from_iterable(blocks)

    def journal(self, row: Tracked, kind: str, detail: dict[str, Any] | None = None) -> None:
        """Append one line to the delivery's history."""
        if row.id in self._told_by_row:
            self._write_out(row)
        self._journalled.add(row.id)
        self._line(row, kind, self.now_ms, detail)

    def _line(self, row: Tracked, kind: str, at_ms: int, detail: dict[str, Any] | None) -> None:
        text = _encode(detail).decode() if detail else ""
        self.events.append((row.id, next(self._ids), kind, at_ms, text))

    def _write_out(self, row: Tracked) -> None:
        """Write the newest of the lines that were left to the row: something follows that the row cannot tell as well."""
        self._told_by_row.discard(row.id)
        if not row.report_ms:
            self._line(row, _SENT, row.sent_ms, sent_detail(row))
            return
        self._line(row, _DELIVERED, row.final_ms, delivered_detail(row))
        row.report_ms, row.report_code = 0, ""

    def advance(
        self,
        row: Tracked,
        state: State,
        reason: str = "",
        detail: dict[str, Any] | None = None,
        is_told_by_row: bool = False,
    ) -> None:
        """Put a delivery into `state`, with its journal line and its event; the caller has asked `may_follow`.

        With `is_told_by_row` the line is one of those that the row can tell (`domain/journal.py`), and its columns say it
        already: then no line is written if it is the only one of this batch.
        """
        if row.report_ms and row.state == _DELIVERED:
            self._write_out(row)
        row.state = _WORDS[state]
        row.reason = reason
        if state in FINAL:
            row.final_ms = self.now_ms
            if row.body_kind == "sealed":
                self.erased.append(row.message_id)
            settled = (row.channel, row.state)
            self._settled[settled] = self._settled.get(settled, 0) + 1
        self.rows[row.id] = row
        if not is_told_by_row:
            self.journal(row, row.state, detail)
        elif self._is_timely and row.id not in self._told_by_row and row.id not in self._journalled:
            self._told_by_row.add(row.id)
        else:
            detail = sent_detail(row) if state is State.SENT else delivered_detail(row)
            row.report_ms, row.report_code = 0, ""
            self.journal(row, row.state, detail)
        self._tell(row, state)

    def charge(self, row: Tracked) -> None:
        """Turn the delivery's hold into a charge, if it still is one."""
        self._move(row, _CHARGE, _CHARGED)

    def release(self, row: Tracked) -> None:
        """Give the delivery's hold back, if it still is one."""
        self._move(row, _RELEASE, _RELEASED)

    def _move(self, row: Tracked, kind: str, money: str) -> None:
        if row.money != MoneyState.HELD:
            return
        row.money = money
        self.rows[row.id] = row
        if row.price_micros:
            total = self._money.setdefault((row.wallet_id, row.account_id, kind, row.message_id), [0, 0])
            total[0] += row.price_micros
            total[1] += 1
            account = self.rt.directory.accounts.get(row.account_id) if kind is _RELEASE else None
            if account is not None:
                place = (row.wallet_id, day_of(row.created_ms, account.zone), row.application_id)
                self._given_back[place] = self._given_back.get(place, 0) - row.price_micros

    def _tell(self, row: Tracked, state: State) -> None:
        """Let every endpoint of the account be told that wants this event."""
        place = (row.account_id, row.application_id, state)
        wanting = self._wanting.get(place)
        if wanting is None:
            wanting = self._wanting[place] = self._who_wants(*place)
        payload = ""
        for endpoint, news in wanting:
            if endpoint.kind == "smpp" and (row.dialect != "smpp" or '"rd"' not in row.options):
                continue  # a bind hears of what it has submitted, if it asked for receipts
            event = EVENT_OF_STATE[state]
            payload = payload or self.payload(row, event)
            news.append((row.id, event, payload))

    def _who_wants(self, account_id: int, application_id: int, state: State) -> list[_News]:
        event = EVENT_OF_STATE.get(state)
        endpoints = self.rt.directory.endpoints.get(account_id, ()) if event is not None else ()
        return [self._news_of(endpoint) for endpoint in endpoints if endpoint.wants(application_id, event or "")]

    def _news_of(self, endpoint: Endpoint) -> _News:
        return self._news.setdefault(endpoint.id, (endpoint, []))

    def tell(self, endpoint: Endpoint, delivery_id: int, event: str, payload: str) -> None:
        """Let an endpoint be told an event; `delivery_id` 0 if it is about none."""
        self._news_of(endpoint)[1].append((delivery_id, event, payload))

    def _bundle(self, endpoint: Endpoint, news: Sequence[tuple[int, str, str]]) -> None:
        """Write the callbacks of one bundle, and its job; leased to this process when the lane in memory has room."""
        rt, now_ms, account_id = self.rt, self.now_ms, endpoint.account_id
        ids = rt.ids.take(len(news))
        for identifier, (delivery_id, event, payload) in zip(ids, news, strict=True):
            self.callbacks.append((identifier, account_id, endpoint.id, delivery_id, event, payload, now_ms, ids[0], 0))
        self.callbacks[-len(news)] = (*self.callbacks[-len(news)][:-1], len(news))
        lane = rt.lanes.get(endpoint.lane)
        if lane is not None and lane.admit(1, account_id, 1):
            tells = [
                Tell(identifier, endpoint.id, account_id, event, payload, now_ms)
                for identifier, (_, event, payload) in zip(ids, news, strict=True)
            ]
            bundle = Bundle(ids[0], endpoint.id, account_id, tells, 1, len(tells))
            self.bundles.setdefault(lane, []).append(bundle)
            lease = (now_ms + CALLBACK_LEASE_MS, rt.slot, 1)
        else:
            lease = (0, 0, 0)
        self.new_jobs.append((ids[0], "callback", endpoint.lane, 1, account_id, now_ms, *lease))

    def payload(self, row: Tracked, event: str) -> str:
        """The event's data as it will be told, frozen now: later states do not change what was true at this one."""
        payload = _Payload(
            event,
            self.now_ms,
            show("dlv", row.id),
            show("msg", row.message_id),
            row.channel,
            row.mode,
            row.recipient,
            row.sender,
            row.state,
            row.reason,
            row.units,
            row.reference,
            row.dialect,
            row.total,
            row.created_ms,
            row.sent_ms,
            msgspec.Raw(row.options.encode()) if row.options else msgspec.UNSET,
        )
        return _encode(payload).decode()

    def unpark(self, connector_id: int) -> None:
        """Count one parked report less."""
        self.rt.parked[connector_id] -= 1
        self.unparked.append(connector_id)

    async def write(self, tx: HotTx) -> None:
        """Write everything collected."""
        if self.rows:
            await tx.change(list(self.rows.values()))
        if self.refs:
            await tx.insert("carrier_ref", self.refs)
        for connector_id, keys in self.forgotten.items():
            await tx.forget_keys(connector_id, keys)
        if self.events:
            await tx.insert("event", self.events)
        if self._money:
            wallets: dict[int, list[int]] = {}
            entries: list[tuple[Any, ...]] = []
            for (wallet_id, account_id, kind, message_id), (amount, count) in self._money.items():
                entries.append(
                    (next(self._ids), account_id, wallet_id, kind, amount, message_id, count, self.now_ms, "", "")
                )
                change = wallets.setdefault(wallet_id, [0, 0, 0])
                for place, part in enumerate(effect(EntryKind(kind), amount)):
                    change[place] += part
            await tx.insert("ledger_entry", entries)
            await tx.move_money([(*change, wallet_id) for wallet_id, change in sorted(wallets.items())])  # type: ignore[misc]
        if self._given_back:
            await tx.add_spent(self._given_back)
        if self.done:
            await tx.jobs_done(self.done)
        if self.again:
            await tx.jobs_again(self.again)
        for endpoint, news in self._news.values():
            # What is told over binds has an outcome for each event.
            size = 1 if endpoint.kind == "smpp" else min(endpoint.batch_max, BUNDLE_MAX)
            for start in range(0, len(news), size):
                self._bundle(endpoint, news[start : start + size])
        if self.callbacks:
            await tx.insert("callback", self.callbacks)
        if self.new_jobs:
            await tx.insert("job", self.new_jobs)
        if self.parked:
            await tx.insert("parked_report", self.parked)
        if self.erased:
            await tx.erase_bodies(self.erased)

    def push(self) -> None:
        """After the commit: hand the leased callbacks to their lanes, and count what has happened."""
        for count, *words in self.counts:
            count(*words)
        for settled, count in self._settled.items():
            self.rt.metrics.settled(*settled, count)
        for lane, bundles in self.bundles.items():
            lane.push(bundles, held=len(bundles))

    def withdraw(self) -> None:
        """After a rollback: give the places back, and forget what was noted in memory."""
        rt = self.rt
        for lane, bundles in self.bundles.items():
            lane.withdraw(len(bundles))
        for row in self.parked:
            rt.parked[row[1]] -= 1
        for connector_id in self.unparked:
            rt.parked[connector_id] += 1
        for connector_id, keys in self.forgotten.items():
            for key in keys:
                rt.recent_keys.pop((connector_id, key), None)
