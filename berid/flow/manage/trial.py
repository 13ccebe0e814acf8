"""Trial credit: what the operator gives to whoever tries a product, once for every account."""

from __future__ import annotations

import re

from berid.base.ids import show
from berid.domain.ledger import EntryKind
from berid.flow.manage.money import LARGEST_MICROS, Entered, enter_money, wallet_of
from berid.flow.manage.office import Office, missing, note, too_late, unfit, write_down
from berid.flow.manage.people import check_currency, ensure_wallets
from berid.store import accounts, topups
from berid.store.topups import ClaimRecord, OfferRecord

MODE = "live"
"""The wallet that gets it: test money is not worth giving."""

_PRODUCT = re.compile(r"[a-z][a-z0-9_-]{0,31}")


async def offer_trial(office: Office, actor: str, product: str, currency: str, amount_micros: int) -> None:
    """Give so much from now on to whoever tries a product: a dialect's name, or any word of the operator's. Raises `Refused`."""
    if not _PRODUCT.fullmatch(product):
        raise unfit("product", "a product is named by a small letter and up to 31 more, digits, - or _: taqnyat")
    check_currency(currency)
    if not 0 < amount_micros <= LARGEST_MICROS:
        raise unfit("amount", "the amount must be more than 0")
    async with office.store.transaction() as tx:
        await topups.set_offer(tx, OfferRecord(product, currency, amount_micros, office.clock.now_ms()))
        await write_down(office, tx, actor, 0, "trial.offer", product, currency=currency, amount_micros=amount_micros)


async def end_trial(office: Office, actor: str, product: str) -> None:
    """Give nothing any more to whoever tries a product. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if not await topups.drop_offer(tx, product):
            raise missing("offer")
        await write_down(office, tx, actor, 0, "trial.end", product)


async def claim_trial(office: Office, actor: str, account_id: int, product: str) -> Entered:
    """Enter an account's trial credit as a bonus; its wallet is opened if it has none in the currency.

    An account has it once, for whichever product. Raises `Refused`, with WRONG_STATE if it has had it.
    """
    async with office.store.transaction() as tx:
        if await accounts.locked_account(tx, account_id) is None:
            raise missing("account")
        offer = next((each for each in await topups.offers(tx) if each.product == product), None)
        if offer is None:
            raise missing("offer")
        before = await topups.claim_of(tx, account_id)
        if before is not None:
            raise too_late(f"the account has had its trial credit, for {before.product}")
        await ensure_wallets(office, tx, account_id, [offer.currency])
        wallet = await wallet_of(tx, account_id, MODE, offer.currency)
        what = f"trial credit {product}"
        entered = await enter_money(office, tx, actor, wallet, EntryKind.BONUS, offer.amount_micros, what)
        await topups.add_claim(tx, ClaimRecord(account_id, product, entered.entry_id, office.clock.now_ms()))
        detail = {"product": product, "currency": offer.currency, "amount_micros": offer.amount_micros}
        await note(office, tx, actor, account_id, "trial.claim", show("acc", account_id), **detail)
    return entered
