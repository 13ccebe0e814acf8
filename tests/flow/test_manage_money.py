"""Money that people move, and the proof of the books: nothing wrong goes unseen, nothing right is called wrong."""

from collections.abc import AsyncIterator, Sequence

import pytest

from berid.base.ids import IdMaker
from berid.base.secret import Vault
from berid.domain.errors import Refused
from berid.domain.ledger import EntryKind, effect
from berid.flow import manage
from berid.flow.manage import Office
from berid.store import Tx, ledger, open_store
from berid.store.hot import HotTx, Verb
from tests.support.database import ask, row

NOW_MS = 1_790_000_000_000


class Clock:
    """A clock that stands."""

    def now_ms(self) -> int:
        return NOW_MS

    def ticks_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the office does not wait")


@pytest.fixture
async def office(store_url: str) -> AsyncIterator[Office]:
    clock = Clock()
    store = await open_store(store_url, clock)
    yield Office(store, clock, IdMaker(clock.now_ms, 31), Vault(b"k" * 32))
    await store.close()


@pytest.fixture
async def account_id(office: Office) -> int:
    """An account with 1,000 SAR of test money."""
    account_id = await manage.create_account(office, "t", name="Acme", home="SA", currencies=["SAR"])
    await manage.top_up(office, "t", account_id, "test", "SAR", 1_000_000_000)
    return account_id


async def books(office: Office, account_id: int) -> tuple[int, int, int]:
    async with office.store.read() as tx:
        wallet = await manage.wallet_of(tx, account_id, "test", "SAR")
    return wallet.available_micros, wallet.held_micros, wallet.spent_micros


async def found_wrong(office: Office) -> list[tuple[str, int, int]]:
    """(kind, expected, found) of each discrepancy."""
    async with office.store.read() as tx:
        found = await manage.verify_ledger(tx)
    assert all(str(each) for each in found)
    return [(each.kind, each.expected_micros, each.found_micros) for each in found]


async def send(
    office: Office,
    account_id: int,
    fates: Sequence[str],
    price: int = 26_000,
    state: str = "open",
    message_id: int = 0,
    deliveries: int | None = None,
) -> int:
    """One message as the path writes it: a hold for all, and of each delivery its fate: held, charged or released.

    `deliveries` says how many of them are there, if not all.
    """
    async with office.store.read() as tx:
        wallet_id = (await manage.wallet_of(tx, account_id, "test", "SAR")).id
    message_id = message_id or office.ids.next()
    states = {"held": "queued", "charged": "delivered", "released": "failed"}
    entries = [
        row("ledger_entry", id=office.ids.next(), account_id=account_id, wallet_id=wallet_id, kind=kind,
            amount_micros=price * count, message_id=message_id, deliveries=count)
        for kind, count in (
            ("hold", len(fates)), ("charge", fates.count("charged")), ("release", fates.count("released")),
        )
        if count and price
    ]  # fmt: skip
    moves = [
        (*effect(EntryKind(kind), price * count), wallet_id)
        for kind, count in (
            ("hold", len(fates)),
            ("charge", fates.count("charged")),
            ("release", fates.count("released")),
        )
    ]
    rows = [
        row("delivery", id=office.ids.next(), message_id=message_id, account_id=account_id, price_micros=price,
            wallet_id=wallet_id, money=fate, state=states[fate])
        for fate in fates[:deliveries]
    ]  # fmt: skip

    async def write(tx: HotTx, _items: list[int]) -> list[Exception | None]:
        await tx.insert("message", [row("message", id=message_id, account_id=account_id, state=state)])
        await tx.insert("delivery", rows)
        await tx.insert("ledger_entry", entries)
        await tx.move_money(moves)  # type: ignore[arg-type]
        return [None]

    await office.store.hot.do(Verb("test_send", 10, write), [1])
    return message_id


async def test_each_movement_is_an_entry_with_its_actor(office: Office, account_id: int) -> None:
    bonus = await manage.add_bonus(office, "cli:ada", account_id, "test", "SAR", 5_000_000, "welcome")
    lowered = await manage.adjust(office, "cli:ada", account_id, "test", "SAR", -7_000_000, "typed twice")
    assert (bonus.available_micros, lowered.available_micros) == (1_005_000_000, 998_000_000)
    assert await books(office, account_id) == (998_000_000, 0, 0)
    async with office.store.read() as tx:
        entries = await manage.statement(tx, account_id, "test", "SAR")
        assert [(each.kind, each.amount_micros, each.actor, each.note) for each in entries] == [
            ("adjust", -7_000_000, "cli:ada", "typed twice"),
            ("bonus", 5_000_000, "cli:ada", "welcome"),
            ("topup", 1_000_000_000, "t", ""),
        ]
        page = await manage.statement(tx, account_id, "test", "SAR", before_id=entries[0].id, limit=1)
    assert page == entries[1:2]
    assert await found_wrong(office) == []


@pytest.mark.parametrize("mode", ["test", "live"])
async def test_modes_have_purses_of_their_own(office: Office, account_id: int, mode: str) -> None:
    await manage.set_credit_limit(office, "t", account_id, mode, "SAR", 9_000_000)
    async with office.store.read() as tx:
        limits = {wallet.mode: wallet.credit_limit_micros for wallet in await ledger.wallets(tx, account_id)}
    assert limits == {"test": 0, "live": 0} | {mode: 9_000_000}


async def test_movement_that_makes_no_sense_is_refused(office: Office, account_id: int, store_url: str) -> None:
    attempts = [
        manage.top_up(office, "t", account_id, "test", "SAR", 0),
        manage.top_up(office, "t", account_id, "test", "SAR", -1),
        manage.add_bonus(office, "t", account_id, "test", "SAR", -1),
        manage.adjust(office, "t", account_id, "test", "SAR", 0, "why"),
        manage.adjust(office, "t", account_id, "test", "SAR", 5, " "),
        manage.top_up(office, "t", account_id, "test", "TRY", 1),
        manage.top_up(office, "t", 1, "test", "SAR", 1),
        manage.set_credit_limit(office, "t", account_id, "test", "SAR", -1),
    ]
    for attempt in attempts:
        with pytest.raises(Refused):
            await attempt
    assert await books(office, account_id) == (1_000_000_000, 0, 0)
    assert await ask(store_url, "SELECT count(*) FROM ledger_entry") == [(1,)]


async def test_honest_books_are_found_right(office: Office, account_id: int, store_url: str) -> None:
    await send(office, account_id, ["held"])
    await send(office, account_id, ["charged", "released", "held", "charged"])
    await send(office, account_id, ["released"], price=0)
    await send(office, account_id, ["held"] * 3, state="loading", deliveries=1)
    gone = await send(office, account_id, ["charged", "released"])
    await ask(store_url, "DELETE FROM delivery WHERE message_id = $1", gone)
    await ask(store_url, "DELETE FROM message WHERE id = $1", gone)
    assert await found_wrong(office) == []
    assert await books(office, account_id) == (1_000_000_000 - 8 * 26_000, 5 * 26_000, 3 * 26_000)


TAMPERINGS = [
    ("UPDATE wallet SET available_micros = available_micros + 1 WHERE mode = 'test'", [("available", 0, 1)]),
    ("UPDATE wallet SET held_micros = held_micros - 1 WHERE mode = 'test'", [("held", 0, -1)]),
    ("UPDATE wallet SET spent_micros = spent_micros + 1 WHERE mode = 'live'", [("spent", 0, 1)]),
    (
        "UPDATE ledger_entry SET amount_micros = amount_micros + 1 WHERE kind = 'charge'",
        [("held", -1, 0), ("spent", 1, 0), ("message_charged", 0, 1)],
    ),
    ("DELETE FROM ledger_entry WHERE kind = 'topup'", [("available", -1_000_000_000, 0)]),
    (
        "UPDATE ledger_entry SET kind = 'charge' WHERE kind = 'release'",
        [("available", -10, 0), ("spent", 10, 0), ("message_charged", 0, 10), ("message_released", 0, -10)],
    ),
    (
        "UPDATE ledger_entry SET kind = 'gift' WHERE kind = 'topup'",
        [("available", -1_000_000_000, 0), ("stray_entry", 0, 0)],
    ),
    (
        "UPDATE ledger_entry SET kind = 'bonus', amount_micros = -1000000000 WHERE kind = 'topup'",
        [("available", -2_000_000_000, 0), ("stray_entry", 0, 0)],
    ),
    ("UPDATE ledger_entry SET account_id = 1 WHERE kind = 'topup'", [("stray_entry", 0, 0)]),
    (
        "UPDATE ledger_entry SET wallet_id = 1 WHERE kind = 'topup'",
        [("available", -1_000_000_000, 0), ("unknown_wallet", 0, 1_000_000_000)],
    ),
    ("UPDATE delivery SET price_micros = 15 WHERE money = 'held'", [("message_held", 5, 0)]),
    ("UPDATE delivery SET price_micros = 15 WHERE money = 'charged'", [("message_held", 5, 0), ("message_charged", 5, 0)]),
    ("UPDATE delivery SET money = 'charged', state = 'sent' WHERE money = 'held'", [("message_charged", 10, 0)]),
    ("UPDATE delivery SET money = 'held', state = 'sent' WHERE money = 'charged'", [("message_charged", -10, 0)]),
    ("UPDATE delivery SET state = 'failed' WHERE money = 'held'", [("delivery_stuck", 0, 10)]),
    ("UPDATE delivery SET money = 'spent' WHERE money = 'held'", [("delivery_stuck", 0, 10)]),
    ("DELETE FROM delivery WHERE money = 'released'", [("message_held", -10, 0), ("message_released", -10, 0)]),
    ("UPDATE delivery SET message_id = 1 WHERE money = 'released'", [
        ("message_held", 10, 0), ("message_held", -10, 0), ("message_released", -10, 0),
    ]),
    ("DELETE FROM message", [("message_open", 30, 20)]),
]  # fmt: skip


@pytest.mark.parametrize(("tampering", "expected"), TAMPERINGS, ids=[each[0] for each in TAMPERINGS])
async def test_tampering_is_found(
    office: Office, account_id: int, store_url: str, tampering: str, expected: list[tuple[str, int, int]]
) -> None:
    """The expected numbers are differences from what the honest books say."""
    await send(office, account_id, ["charged", "released", "held"], price=10)
    await ask(store_url, tampering)
    found = await found_wrong(office)
    assert [kind for kind, _, _ in found] == [kind for kind, _, _ in expected]
    assert [shown - should for _, should, shown in found] == [shown - should for _, should, shown in expected]


async def test_proof_stops_at_its_limit(office: Office, account_id: int, store_url: str) -> None:
    for _ in range(5):
        await send(office, account_id, ["held"])
    await ask(store_url, "UPDATE delivery SET price_micros = 1")
    async with office.store.read() as tx:
        assert len(await manage.verify_ledger(tx, limit=3)) == 3
    async with office.store.read() as tx:
        assert len(await manage.verify_ledger(tx)) == 5


async def test_traffic_during_the_proof_does_not_disturb_it(
    office: Office, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first question of the proof and the second a whole message comes in and settles."""
    await send(office, account_id, ["held"])
    ask_wallets = ledger.entries_of_no_wallet
    happened = []

    async def meanwhile(tx: Tx) -> list[tuple[int, int, int]]:
        happened.append(await send(office, account_id, ["charged", "held"]))
        await manage.top_up(office, "t", account_id, "test", "SAR", 1)
        return await ask_wallets(tx)

    monkeypatch.setattr(ledger, "entries_of_no_wallet", meanwhile)
    assert await found_wrong(office) == []
    assert len(happened) == 1
