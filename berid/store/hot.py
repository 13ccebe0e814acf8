"""The hot path's store: grouped commits, and the few statements that run for every message.

`HotStore.do(verb, items)` is the only entrance. A *verb* is a function of `flow` that takes a `HotTx` and a list of
items. Whatever is asked for while a commit is under way is collected in the next group: every verb that waits runs with all
its items, those that came in one turn of the loop in the order of the verbs' ranks, and one commit serves everyone who
waits. When `do` returns, it is on disk.

If a group fails because of one item's data, the group is rolled back and tried again in halves, down to the one
item that fails alone, so that only the culprit hears of it. If the store itself is away, all hear `StoreAway`, and
nothing is half-written.

`HotTx` is implemented once per database (`hot_sqlite.py`, `hot_postgres.py`) in driver-level SQL; it takes and
gives lists, holds no decision, and one contract suite serves both.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from berid.base import failpoint
from berid.base.clock import Clock
from berid.domain.otp import Recent
from berid.domain.rules import QUIET
from berid.domain.spending import Spent

log = logging.getLogger("berid.store")

GROUP_MAX = 1_000
"""What a group may weigh: some ten or twenty milliseconds, after which others have their turn."""

AHEAD = 2
"""Groups that are handed over and not yet on disk. While the database is at one, the next lies ready."""

AHEAD_LEAST = 100
"""What a group must weigh to be handed over while another is being committed: a small one waits, and grows."""

Item = TypeVar("Item")
Result = TypeVar("Result")

HOT_COLUMNS: dict[str, tuple[str, ...]] = {
    "message": (
        "id", "account_id", "application_id", "mode", "channel", "dialect", "sender", "category", "priority", "body",
        "body_kind", "alphabet", "parts", "reference", "cancel_key", "options", "state", "total", "first_id", "last_id",
        "cost_micros", "currency", "refused", "created_ms", "due_ms", "expires_ms",
    ),
    "delivery": (
        "id", "message_id", "account_id", "recipient", "country", "state", "reason", "units", "price_micros",
        "wallet_id", "charge_on", "money", "route_id", "connector_id", "attempt", "parts_left", "carrier_ids",
        "sent_ms", "final_ms", "expires_ms",
    ),
    "ledger_entry": (
        "id", "account_id", "wallet_id", "kind", "amount_micros", "message_id", "deliveries", "at_ms", "actor", "note",
    ),
    "job": ("id", "kind", "lane", "priority", "account_id", "due_ms", "lease_until_ms", "slot", "attempts"),
    "idempotency": ("application_id", "key", "body_hash", "answer", "created_ms"),
    "carrier_ref": ("connector_id", "key", "delivery_id", "part", "sent_ms"),
    "event": ("delivery_id", "id", "kind", "at_ms", "detail"),
    "callback": (
        "id", "account_id", "endpoint_id", "delivery_id", "event", "payload", "created_ms", "bundle_id", "bundled",
    ),
    "callback_try": ("callback_id", "id", "at_ms", "status", "error", "elapsed_ms"),
    "parked_report": ("id", "connector_id", "key", "recipient", "report", "at_ms"),
    "inbound": (
        "id", "account_id", "connector_id", "channel", "sender", "recipient", "body", "keyword", "received_ms",
    ),
    "inbound_part": (
        "connector_id", "sender", "recipient", "reference", "number", "total", "body", "received_ms",
    ),
    "otp": (
        "id", "account_id", "application_id", "mode", "recipient", "country", "purpose", "digest", "state",
        "checks_left", "message_id", "delivery_id", "created_ms", "expires_ms",
    ),
}  # fmt: skip
"""The columns that `HotTx.insert` expects, in order; every other column takes its default."""


MAY_LEAVE = f"(state IN ('queued', 'scheduled') OR (state = 'held' AND reason = '{QUIET}'))"
"""The condition of a delivery whose job may be started when it is due. What is held for another reason waits for a person."""


class StoreAway(Exception):
    """The store did not take the work: database gone, disk full, or locked. Nothing was written; ask again later.

    Only a commit whose answer was lost on the way may have happened all the same (see `PostgresDriver.commit`), so
    whoever asks again must be able to find his work done.
    """


class StoreConflict(StoreAway):
    """Another process wrote the same rows at the same time and went first; the same work will most likely succeed
    at once."""


class RowRefused(Exception):
    """The database does not take a row: its key exists, or a value does not fit. The text shows no value."""


class Tracked(msgspec.Struct, gc=False):
    """A delivery with what the path needs to know of its message, read inside the transaction that will change it.

    Or written by an earlier one of this process, and remembered: `left_as` is then the state in which it was left.
    """

    id: int
    message_id: int
    account_id: int
    recipient: str
    state: str
    reason: str
    units: int
    price_micros: int
    wallet_id: int
    charge_on: str
    money: str
    route_id: int
    connector_id: int
    attempt: int
    parts_left: int
    carrier_ids: str
    sent_ms: int
    final_ms: int
    expires_ms: int
    report_ms: int
    report_code: str
    application_id: int
    mode: str
    channel: str
    dialect: str
    sender: str
    category: str
    priority: int
    parts: int
    reference: str
    options: str
    body_kind: str
    total: int
    created_ms: int
    key: str = ""
    part: int = 0
    left_as: str = ""


DELIVERY_COLUMNS = (
    "id, message_id, account_id, recipient, state, reason, units, price_micros, wallet_id, charge_on, money, route_id, "
    "connector_id, attempt, parts_left, carrier_ids, sent_ms, final_ms, expires_ms, report_ms, report_code"
)
MESSAGE_COLUMNS = (
    "application_id, mode, channel, dialect, sender, category, priority, parts, reference, options, body_kind, total, "
    "created_ms"
)
TRACKED_COLUMNS = ", ".join(
    [f"d.{name}" for name in DELIVERY_COLUMNS.split(", ")] + [f"m.{name}" for name in MESSAGE_COLUMNS.split(", ")]
)
"""The select list, over `delivery d` and `message m`, that fills a `Tracked`: the delivery's columns, then the message's."""


NOTHING_KNOWN: Mapping[int, Tracked] = {}


class LeasedJob(msgspec.Struct, gc=False):
    """One job that is ours until its lease runs out."""

    id: int
    kind: str
    lane: str
    priority: int
    account_id: int
    due_ms: int
    attempts: int


class HotTx(Protocol):
    """The statements of one open transaction. Every method takes a list and makes at most a few round trips for
    it."""

    async def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows in the order of `HOT_COLUMNS[table]`. A `carrier_ref` that exists is replaced, since carriers reuse
        ids: if not at once, the group raises `StoreConflict` and it is done when the group is repeated.

        Raises `RowRefused`, at the latest at the commit.
        """

    async def idempotent(self, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], tuple[str, str]]:
        """(application, key) → (hash of the body, stored answer) for the keys that were used before. If that is no longer so at
        the commit, it raises `StoreConflict`."""

    async def wallets(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Wallet → (available, credit limit) in micros. Nobody else can spend from them until the commit, or it raises
        `StoreConflict`."""

    async def move_money(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """Change wallets by (change of available, of held, of spent, wallet id)."""

    async def spent(self, wallet_ids: Iterable[int], since_day: int) -> Spent:
        """What the messages of these days have cost from these wallets, by application. Ask for the `wallets` first: it is
        what keeps others from spending meanwhile."""

    async def add_spent(self, spent: Spent) -> None:
        """Change what the messages of a day have cost; negative amounts are given back."""

    async def codes(self, places: Iterable[tuple[int, str, str]], since_ms: int) -> dict[tuple[int, str, str], Recent]:
        """(application, number, purpose) → what happened there after `since_ms`; nobody else can send a code there until
        the commit."""

    async def replace_codes(self, rows: Sequence[tuple[int, str, str, int]]) -> None:
        """End the open codes of (application, number, purpose) that are older than the one with this id."""

    async def start_sending(
        self, ids: Sequence[int], connector_id: int, now_ms: int, known: Mapping[int, Tracked] = NOTHING_KNOWN
    ) -> dict[int, Tracked]:
        """Write the intent: deliveries that may leave (`MAY_LEAVE`) and are not past their validity become *sending* on
        this connector, one attempt more. The answer holds those that did, as they are now, at the latest after the commit; the
        others were cancelled, held or handled elsewhere meanwhile.

        `known` are those of them that this process has just written, as they will be after their first attempt has begun: they
        are not read, their validity excepted, and one that has been tried before is left out."""

    async def tracked(self, ids: Sequence[int]) -> list[Tracked]:
        """The deliveries with these ids, locked."""

    async def tracked_by_key(self, connector_id: int, keys: Sequence[str]) -> list[Tracked]:
        """The deliveries, locked, whose parts a connector's carrier knows by these keys; `key` and `part` are set."""

    async def uncertain(self, connector_id: int, recipients: Sequence[str]) -> list[Tracked]:
        """Deliveries to these recipients that are uncertain on this connector, locked."""

    async def change(self, rows: Sequence[Tracked]) -> None:
        """Write back state, reason, money, connector, parts left, carrier ids, times, validity, and what the receipt said.

        Raises `StoreConflict` when one of them is no longer as it was left (`Tracked.left_as`), or has been tried again since.
        """

    async def forget_keys(self, connector_id: int, keys: Sequence[str]) -> None:
        """Delete carrier references whose receipts are settled for good."""

    async def take_parked(self, connector_id: int, keys: Sequence[str]) -> list[tuple[str, str]]:
        """Remove and return parked reports (key, report) that were waiting for these keys."""

    async def take_parked_of(self, connector_id: int, recipient: str, since_ms: int) -> list[tuple[str, str]]:
        """Remove and return parked reports (key, report) about a recipient that came at `since_ms` or later."""

    async def erase_bodies(self, message_ids: Sequence[int]) -> None:
        """Erase sealed texts of messages whose deliveries are all final."""

    async def lease(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> list[LeasedJob]:
        """Lease up to `room` due jobs of one lane and priority, shared fairly between accounts, beginning behind
        `after_account` (-1: the first) in the round. Fewer than `room` means that no more are due."""

    async def take_parts(self, keys: Iterable[tuple[int, str, str, int]]) -> list[tuple[Any, ...]]:
        """Remove the kept parts of messages from people, and return them as they were inserted. `keys` are what the parts of a
        message share: connector, sender, recipient, reference."""

    async def jobs_done(self, ids: Sequence[int]) -> None:
        """Remove finished jobs."""

    async def jobs_again(self, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
        """Give leased jobs back: (kind, lane, due_ms, attempts, id)."""

    async def jobs_bury(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """Set jobs aside for a person: (buried_ms, why, id)."""

    async def outgoing(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """What a connector needs of these deliveries: id, message, account, priority, sender, recipient, body,
        body_kind, alphabet, parts, expires_ms, attempt, route, dialect, state, due_ms, category, country, reason."""

    async def callbacks(self, ids: Sequence[int]) -> list[tuple[int, int, int, str, str, int, int]]:
        """The callbacks of these bundles, one bundle after the other: id, endpoint, account, event, payload, created_ms,
        bundle."""

    async def open_messages(self, ids: Sequence[int]) -> None:
        """Loading messages become open: all their pages are there."""

    async def drop_loading(self, ids: Sequence[int], until_id: int) -> list[tuple[int, int, int, int, int, int, int]]:
        """Delete loading messages and their deliveries; returns their holds, to be released: (wallet, account,
        amount, message, count of deliveries, application, created_ms). The holds' entries have ids from the message's
        own to `until_id`."""

    async def spread(self, message_id: int, after_id: int, limit: int, now_ms: int) -> int:
        """Make due dispatch jobs for the next `limit` deliveries of a message behind `after_id` that wait and have
        none yet, in the lanes of their connectors. Returns the last delivery id looked at, 0 when there was none."""


Tx = TypeVar("Tx", bound=HotTx)


class HotDriver(Protocol[Tx]):
    """One connection that writes, as a database gives it. A group is begun, and may be handed over, while another is being
    committed; what comes to the disk is what it would be if they were begun one after the other."""

    def begin(self, ahead: asyncio.Event | None = None) -> Tx:
        """Begin a group, which ends with `commit` or `rollback`. Before it reads anything, it waits for `ahead`: the end of the
        group before."""

    async def commit(self, tx: Tx) -> None:
        """Make it durable. When this returns it is on disk. Raises `StoreAway`, and `StoreConflict` when a group before it came
        to nothing; it is then to be rolled back."""

    async def rollback(self, tx: Tx) -> None:
        """Undo; never raises. What was begun since may have counted on it, and raises `StoreConflict`."""

    async def close(self) -> None:
        """Let the connection go."""


@dataclass(frozen=True, slots=True)
class Verb(Generic[Item, Result]):
    """One kind of work in a group. Verbs run in the order of `rank`, so that a later step sees an earlier one's rows.

    `run` gives one result per item, in order; a result that is an exception is raised at that item's caller.
    `after` is called with the items once they are on disk, before anyone hears of it; `undo` when the transaction
    came to nothing (`run` may then be called again with some of them). Both must not fail. `weigh` tells how much
    work an item is, where that is not the same for all.
    """

    name: str
    rank: int
    run: Callable[[HotTx, list[Item]], Awaitable[Sequence[Result | Exception]]]
    after: Callable[[list[Item]], None] | None = None
    undo: Callable[[list[Item]], None] | None = None
    weigh: Callable[[Item], int] | None = None


@dataclass(slots=True)
class _Ask:
    verb: Verb[Any, Any]
    items: list[Any]
    future: asyncio.Future[list[Any]]
    weight: int


class _Group:
    """What goes to disk together."""

    def __init__(self, tx: HotTx) -> None:
        self.tx = tx
        self.asks: list[_Ask] = []
        self.answers: list[tuple[_Ask, list[Any]]] = []
        self.begun: list[tuple[Verb[Any, Any], list[Any]]] = []
        self.count = 0
        """How many items it has."""
        self.weight = 0
        """How much work it is."""
        self.failure: Exception | None = None
        """Why it came to nothing."""
        self.task: asyncio.Task[None] | None = None
        """Who brings it to disk."""
        self.over = asyncio.Event()
        """Set when it is known what became of it."""


class HotStore:
    """Collects what is asked, commits it in groups. One per process; `start` it before use, `stop` it last.

    While one group is being committed, the next is decided, and what comes then the one behind it. Should the first come to
    nothing, the others are decided again after it. `observe(operations, seconds)` is told of every commit.
    """

    def __init__(
        self,
        driver: HotDriver[Any],
        clock: Clock,
        group_max: int = GROUP_MAX,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._group_max = group_max
        self._observe = observe
        self._asks: deque[_Ask] = deque()
        self._latest: asyncio.Future[list[Any]] | None = None
        """The answer to what was asked last."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="hot-store")

    async def ended(self) -> None:
        """Wait until it serves no more. Raises the fault that ended it, which `stop` is not."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Serve what was asked until now, then let the connection go."""
        self._is_stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._driver.close()

    def do(self, verb: Verb[Item, Result], items: Sequence[Item]) -> Coroutine[Any, Any, list[Result]]:
        """Ask, at once, for `verb` over `items` in the next group. What is to be awaited gives a result per item once the commit
        is on disk. Groups take what was asked in its order.

        Awaiting raises `StoreAway` when nothing was written, or the first item's own exception when it gave one; the others
        are then on disk. If the store goes away while a group is being divided, some of several items may be on disk.
        """
        return _results(self._ask(verb, items))

    async def do_each(self, verb: Verb[Item, Result], items: Sequence[Item]) -> list[Result | Exception]:
        """As `do`, but an item's own exception is given in its place, so that the others can go on."""
        return await self._ask(verb, items)

    async def passed(self) -> None:
        """Wait until it is known what became of everything that was asked until now."""
        if self._latest is not None:
            await asyncio.wait([self._latest])

    def _ask(self, verb: Verb[Item, Result], items: Sequence[Item]) -> asyncio.Future[list[Result | Exception]]:
        future: asyncio.Future[list[Result | Exception]] = asyncio.get_running_loop().create_future()
        if self._is_stopping:
            future.set_exception(StoreAway("the process is stopping"))
            return future
        self._asks.append(_ask(verb, list(items), future))
        self._latest = future
        self._wake.set()
        return future

    async def _run(self) -> None:
        try:
            await self._serve()
        finally:
            # After a fault nobody is kept waiting: neither those who wait now nor those who come while the process ends.
            self._is_stopping = True
            _fail(list(self._asks), StoreAway("the process is ending"))

    async def _serve(self) -> None:
        flying: deque[_Group] = deque()
        while flying or self._asks or not self._is_stopping:
            group = _Group(self._driver.begin(flying[-1].over if flying else None))
            await self._fill(group, flying)
            if group.failure is None and not any(ahead.failure for ahead in flying):
                if group.asks:
                    flying.append(group)
                    group.task = asyncio.get_running_loop().create_task(self._commit(group))
                continue
            for ahead in flying:
                await ahead.over.wait()
            # What was decided behind a group that came to nothing may have counted on it: all again, in their order.
            await self._undo(group)
            for ahead in flying:
                if ahead.failure is not None:
                    await self._retry(ahead.asks, ahead.failure)
            flying.clear()
            if group.failure is not None:
                await self._retry(group.asks, group.failure)
            elif group.asks:
                await self._attempt(group.asks)

    async def _fill(self, group: _Group, flying: deque[_Group]) -> None:
        """Decide what comes, until the group should be handed over: when nothing is ahead of it, or little and it is large. Ends
        early when it fails, or what is ahead."""
        while group.failure is None:
            while flying and flying[0].over.is_set() and flying[0].failure is None:
                flying.popleft()
            if any(ahead.failure for ahead in flying):
                return
            if asks := self._next(group.weight):
                await self._decide(group, asks)
                continue
            has_enough = group.asks and (not flying or (len(flying) < AHEAD and group.weight >= AHEAD_LEAST))
            if has_enough or (self._is_stopping and not flying):
                return
            self._wake.clear()
            await self._wake.wait()

    def _next(self, weight: int) -> list[_Ask]:
        """What waits, as far as there is room for it in a group that has this weight."""
        found: list[_Ask] = []
        while self._asks and (not weight or weight + self._asks[0].weight <= self._group_max):
            ask = self._asks.popleft()
            if not ask.future.cancelled():
                weight += ask.weight
                found.append(ask)
        return found

    async def _decide(self, group: _Group, asks: list[_Ask]) -> None:
        """Run the verbs of these, in the group's transaction."""
        by_verb: dict[str, list[_Ask]] = {}
        for ask in asks:
            by_verb.setdefault(ask.verb.name, []).append(ask)
        group.asks += asks
        try:
            for mine in sorted(by_verb.values(), key=lambda asks: asks[0].verb.rank):
                verb, items = mine[0].verb, [item for ask in mine for item in ask.items]
                group.weight += sum([ask.weight for ask in mine])
                group.count += len(items)
                group.begun.append((verb, items))
                results = list(await verb.run(group.tx, items))
                assert len(results) == len(items), f"verb {verb.name} lost a result"
                place = 0
                for ask in mine:
                    group.answers.append((ask, results[place : place + len(ask.items)]))
                    place += len(ask.items)
        except Exception as error:
            group.failure = error

    async def _commit(self, group: _Group) -> None:
        """Bring it to disk and answer everyone in it, or undo it."""
        started = self._clock.ticks_s()
        try:
            if failpoint.armed:
                for verb, _ in group.begun:
                    failpoint.hit(f"{verb.name}.before_commit")
            await self._driver.commit(group.tx)
            if failpoint.armed:
                for verb, _ in group.begun:
                    failpoint.hit(f"{verb.name}.after_commit")
        except Exception as error:
            group.failure = error
            await self._undo(group)
        else:
            if self._observe is not None:
                self._observe(group.count, self._clock.ticks_s() - started)
            for verb, items in group.begun:
                _follow(verb, verb.after, items)
            for ask, results in group.answers:
                if not ask.future.done():
                    ask.future.set_result(results)
        finally:
            group.over.set()
            self._wake.set()

    async def _undo(self, group: _Group) -> None:
        await self._driver.rollback(group.tx)
        for verb, items in group.begun:
            _follow(verb, verb.undo, items)

    async def _attempt(self, asks: list[_Ask]) -> None:
        """Serve these by themselves."""
        failure = await self._alone(asks)
        if failure is not None:
            await self._retry(asks, failure)

    async def _alone(self, asks: list[_Ask]) -> Exception | None:
        """One group of just these; gives why it came to nothing."""
        group = _Group(self._driver.begin())
        await self._decide(group, asks)
        if group.failure is not None:
            await self._undo(group)
        else:
            await self._commit(group)
        return group.failure

    async def _retry(self, asks: list[_Ask], failure: Exception) -> None:
        """Serve those whose group came to nothing: again, or in halves until the reason is alone, or by telling them why."""
        is_one = len(asks) == 1 and len(asks[0].items) <= 1
        for is_last in (False, True):
            is_conflict = isinstance(failure, StoreConflict)
            if isinstance(failure, StoreAway) and not is_conflict:
                break
            if not is_conflict and not is_one:
                await self._divide(asks)
                return
            if not is_last:
                # What another process wrote a moment ago, such as the same key, is seen the second time.
                again = await self._alone(asks)
                if again is None:
                    return
                failure = again
        if not isinstance(failure, StoreAway):
            log.error("verb %s failed", asks[0].verb.name, exc_info=failure)
        _fail(asks, failure)
        await asyncio.sleep(0)  # who is told hears of it before the next group begins

    async def _divide(self, asks: list[_Ask]) -> None:
        if len(asks) > 1:
            half = len(asks) // 2
            await self._attempt(asks[:half])
            await self._attempt(asks[half:])
            return
        ask = asks[0]
        half = len(ask.items) // 2
        results: list[Any] = []
        for items in (ask.items[:half], ask.items[half:]):
            part = _ask(ask.verb, items, asyncio.get_running_loop().create_future())
            await self._attempt([part])
            failure = part.future.exception()
            results += part.future.result() if failure is None else [failure] * len(items)
        if not ask.future.done():
            ask.future.set_result(results)


def _ask(verb: Verb[Any, Any], items: list[Any], future: asyncio.Future[list[Any]]) -> _Ask:
    return _Ask(verb, items, future, len(items) if verb.weigh is None else sum(map(verb.weigh, items)))


async def _results(answer: asyncio.Future[list[Result | Exception]]) -> list[Result]:
    results = await answer
    failures = [result for result in results if isinstance(result, Exception)]
    if failures:
        raise next((failure for failure in failures if isinstance(failure, StoreAway)), failures[0])
    return results  # type: ignore[return-value]


def _follow(verb: Verb[Any, Any], what: Callable[[list[Any]], None] | None, items: list[Any]) -> None:
    """What a verb does when a group is over. Should it fail against its word, those who wait are answered all the same."""
    try:
        if what is not None:
            what(items)
    except Exception:
        log.exception("verb %s failed at what follows its group", verb.name)


def _fail(asks: list[_Ask], error: Exception) -> None:
    for ask in asks:
        if not ask.future.done():
            ask.future.set_exception(error)
