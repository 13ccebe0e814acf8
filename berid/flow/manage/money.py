"""Money that people move: topping up, bonuses, corrections, credit; statements; and the proof of every coin."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import msgspec

from berid.base.ids import show
from berid.base.money import format_micros
from berid.domain.ledger import EntryKind
from berid.flow.manage.office import Office, Once, first_answer, keep_answer, missing, unfit, write_down
from berid.store import Tx, ledger

LARGEST_MICROS = 10**18
"""A trillion units, as `parse_micros` has it: the store's 64 bits leave room for nine of them, so no sum runs over."""


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of a wallet: the entry's id, and what was available then, in micros. `is_replay`: it was entered before."""

    entry_id: int
    available_micros: int
    currency: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Two numbers that should be equal and are not, in micros. `kind` is a stable word; ids that do not matter are 0."""

    kind: str
    account_id: int
    wallet_id: int
    message_id: int
    expected_micros: int
    found_micros: int

    def __str__(self) -> str:
        """One sentence for the operator."""
        where = f"wallet {self.wallet_id} of {show('acc', self.account_id)}"
        if self.message_id:
            where += f", {show('msg', self.message_id)}"
        expected, found = format_micros(self.expected_micros), format_micros(self.found_micros)
        return f"{where}: {_SENTENCES[self.kind].format(expected=expected, found=found)}"


_SENTENCES = {
    "available": "available is {found}, its entries make {expected}",
    "held": "held is {found}, its entries make {expected}",
    "spent": "spent is {found}, its entries make {expected}",
    "stray_entry": "entries of another account, of an unknown kind or with an impossible amount",
    "unknown_wallet": "entries of {found} are in a wallet that does not exist",
    "message_held": "{found} was held, its deliveries cost {expected}",
    "message_charged": "{found} was charged, its charged deliveries cost {expected}",
    "message_released": "{found} was released, its released deliveries cost {expected}",
    "message_open": "{expected} was held, {found} of it charged or released, and the message is gone",
    "delivery_stuck": "a delivery of {found} has ended with its money neither charged nor released",
}


async def top_up(
    office: Office,
    actor: str,
    account_id: int,
    mode: str,
    currency: str,
    amount_micros: int,
    note_text: str = "",
    once: Once | None = None,
) -> Entered:
    """Enter money that the account has paid. Raises `Refused`.

    With the key of a request, `once`, the same request again gives the first answer and enters nothing.
    """
    return await _enter(office, actor, account_id, mode, currency, EntryKind.TOPUP, amount_micros, note_text, once)


async def add_bonus(
    office: Office,
    actor: str,
    account_id: int,
    mode: str,
    currency: str,
    amount_micros: int,
    note_text: str = "",
    once: Once | None = None,
) -> Entered:
    """Enter money that is a present. `once` as in `top_up`. Raises `Refused`."""
    return await _enter(office, actor, account_id, mode, currency, EntryKind.BONUS, amount_micros, note_text, once)


async def adjust(
    office: Office,
    actor: str,
    account_id: int,
    mode: str,
    currency: str,
    amount_micros: int,
    note_text: str,
    once: Once | None = None,
) -> Entered:
    """Correct what is available, upwards or (with a negative amount) downwards; the note says why. `once` as in `top_up`.

    Raises `Refused`.
    """
    if not note_text.strip():
        raise unfit("note", "a correction needs a note that says why")
    return await _enter(office, actor, account_id, mode, currency, EntryKind.ADJUST, amount_micros, note_text, once)


async def set_credit_limit(
    office: Office, actor: str, account_id: int, mode: str, currency: str, limit_micros: int
) -> None:
    """Let an account owe up to this much in one wallet. Raises `Refused`."""
    if limit_micros < 0:
        raise unfit("limit", "a credit limit is 0 or more")
    async with office.store.transaction() as tx:
        wallet = await wallet_of(tx, account_id, mode, currency)
        await ledger.set_credit_limit(tx, account_id, wallet.id, limit_micros)
        detail = {"mode": mode, "currency": currency, "limit_micros": limit_micros}
        await write_down(office, tx, actor, account_id, "wallet.credit", show("wal", wallet.id), **detail)


async def wallet_of(tx: Tx, account_id: int, mode: str, currency: str) -> ledger.WalletRecord:
    """One wallet of an account. Raises `Refused` when there is none."""
    for wallet in await ledger.wallets(tx, account_id):
        if (wallet.mode, wallet.currency) == (mode, currency):
            return wallet
    raise missing(f"wallet: the account has no {mode} wallet in {currency}")


async def statement(
    tx: Tx, account_id: int, mode: str, currency: str, before_id: int = 0, limit: int = 100
) -> list[ledger.EntryRecord]:
    """The entries of one wallet, newest first; `before_id` is the last id of the page before. Raises `Refused`."""
    wallet = await wallet_of(tx, account_id, mode, currency)
    return await ledger.statement(tx, account_id, wallet.id, before_id, limit)


async def _enter(
    office: Office,
    actor: str,
    account_id: int,
    mode: str,
    currency: str,
    kind: EntryKind,
    amount_micros: int,
    note_text: str,
    once: Once | None,
) -> Entered:
    async with office.store.transaction() as tx:
        before = await first_answer(office, tx, once)
        if before is not None:
            return replace(msgspec.json.decode(before, type=Entered), is_replay=True)
        wallet = await wallet_of(tx, account_id, mode, currency)
        entered = await enter_money(office, tx, actor, wallet, kind, amount_micros, note_text)
        await keep_answer(tx, once, msgspec.json.encode(entered).decode())
    return entered


async def enter_money(
    office: Office,
    tx: Tx,
    actor: str,
    wallet: ledger.WalletRecord,
    kind: EntryKind,
    amount_micros: int,
    note_text: str,
) -> Entered:
    """Within a transaction: one entry of a wallet and its line of the audit trail. Raises `Refused` for an impossible amount."""
    if not amount_micros or (amount_micros < 0 and kind is not EntryKind.ADJUST):
        raise unfit("amount", "the amount must be more than 0")
    if abs(wallet.available_micros + amount_micros) > LARGEST_MICROS:
        raise unfit("amount", f"a wallet holds no more than {format_micros(LARGEST_MICROS)}")
    entry = ledger.EntryRecord(
        id=office.ids.next(),
        account_id=wallet.account_id,
        wallet_id=wallet.id,
        kind=kind.value,
        amount_micros=amount_micros,
        message_id=0,
        deliveries=0,
        at_ms=office.clock.now_ms(),
        actor=actor,
        note=note_text,
    )
    available = await ledger.enter(tx, entry)
    detail = {
        "mode": wallet.mode,
        "currency": wallet.currency,
        "amount_micros": amount_micros,
        "note": note_text,
    }
    await write_down(office, tx, actor, wallet.account_id, f"wallet.{kind.value}", show("wal", wallet.id), **detail)
    return Entered(entry.id, available, wallet.currency)


async def verify_ledger(tx: Tx, limit: int = 1_000) -> list[Discrepancy]:
    """Prove the books of every account from their entries, and the entries from the deliveries; return what does not fit.

    `tx` must be a `store.read()` in which nothing has been asked yet: everything is compared at one moment, while traffic goes
    on. Memory does not grow with the tables; the search ends at `limit` discrepancies. An empty list means that, for every
    wallet, each book equals the sum of its entries, and for every message, what was held, charged and released equals
    the prices of its deliveries.
    """
    await ledger.see_one_moment(tx)
    found = []
    async with aclosing(_discrepancies(tx)) as discrepancies:
        async for discrepancy in discrepancies:
            found.append(discrepancy)
            if len(found) == limit:
                break
    return found


async def _discrepancies(tx: Tx) -> AsyncGenerator[Discrepancy, None]:
    async for sums in ledger.wallet_sums(tx):
        books = (
            ("available", sums.entries_available, sums.available),
            ("held", sums.entries_held, sums.held),
            ("spent", sums.entries_spent, sums.spent),
        )
        for kind, expected, shown in books:
            if expected != shown:
                yield Discrepancy(kind, sums.account_id, sums.id, 0, expected, shown)
        if sums.strays:
            yield Discrepancy("stray_entry", sums.account_id, sums.id, 0, 0, 0)
    for account_id, wallet_id, amount in await ledger.entries_of_no_wallet(tx):
        yield Discrepancy("unknown_wallet", account_id, wallet_id, 0, 0, amount)
    async for message in ledger.unequal_messages(tx):
        for kind, expected, shown in _differences(message):
            yield Discrepancy(kind, message.account_id, message.wallet_id, message.message_id, expected, shown)
    async for account_id, wallet_id, message_id, price in ledger.stuck_money(tx):
        yield Discrepancy("delivery_stuck", account_id, wallet_id, message_id, 0, price)


def _differences(sums: ledger.MessageSums) -> list[tuple[str, int, int]]:
    if sums.state is None:
        pairs = [("message_open", sums.held, sums.charged + sums.released)]
        if sums.deliveries_held:
            pairs.append(("message_held", sums.deliveries_held, sums.held))
    else:
        pairs = [
            ("message_held", sums.deliveries_held, sums.held),
            ("message_charged", sums.deliveries_charged, sums.charged),
            ("message_released", sums.deliveries_released, sums.released),
        ]
    return [(kind, expected, found) for kind, expected, found in pairs if expected != found]
