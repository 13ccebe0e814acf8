"""Price lists: made once, filled from CSV, given to accounts in an order."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO

from berid.base.ids import show
from berid.base.money import parse_micros
from berid.domain.message import Category, ChargeOn
from berid.domain.pricing import PriceRow
from berid.flow.manage.office import Office, missing, note, unfit
from berid.flow.manage.people import check_currency, ensure_wallets
from berid.store import accounts

COLUMNS = ("prefix", "price", "category", "operator", "from", "until")
"""The columns of a price file. `prefix` and `price` must be there. `from` and `until` are dates (midnight UTC) or times in
ISO 8601."""

_PREFIX = re.compile(r"[0-9]{0,15}")

_Key = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class PriceDiff:
    """What a price file would change, or has changed: rows that are new, rows (before, after) that differ, rows that go."""

    added: tuple[PriceRow, ...]
    changed: tuple[tuple[PriceRow, PriceRow], ...]
    removed: tuple[PriceRow, ...]
    unchanged: int


async def create_price_list(
    office: Office, actor: str, name: str, channel: str, currency: str, charge_on: str = ChargeOn.SENT.value
) -> int:
    """Make an empty price list and return its id.

    `charge_on` says when a hold becomes a charge: `sent`, or `delivered` for a list that gives the money back for what does
    not arrive. Raises `Refused`.
    """
    if not name.strip():
        raise unfit("name", "a price list needs a name")
    if charge_on not in [moment.value for moment in ChargeOn]:
        raise unfit("charge_on", "a price is charged on sent or on delivered")
    check_currency(currency)
    identifier = office.ids.next()
    record = accounts.PriceListRecord(identifier, name, channel, currency, charge_on, office.clock.now_ms())
    async with office.store.transaction() as tx:
        if any((found.name, found.channel) == (name, channel) for found in await accounts.price_lists(tx)):
            raise unfit("name", f"there is a price list {name!r} for {channel} already")
        await accounts.add_price_list(tx, record)
        await note(
            office, tx, actor, 0, "price.create", show("prl", identifier), name=name, channel=channel, currency=currency
        )
    return identifier


async def import_prices(
    office: Office, actor: str, price_list_id: int, text: str, *, is_dry_run: bool = False
) -> PriceDiff:
    """Make a price list say exactly what a CSV file says, and return what that changes; a dry run changes nothing.

    Raises `Refused` with the line's number for a file that cannot be read.
    """
    wanted = {_key(row): row for row in _read(text)}
    async with office.store.transaction() as tx:
        if await accounts.price_list(tx, price_list_id) is None:
            raise missing("price list")
        found = {
            _key(row): (identifier, row) for identifier, row in (await accounts.price_rows(tx, price_list_id)).items()
        }
        added = [row for key, row in wanted.items() if key not in found]
        changed = [(found[key][1], row) for key, row in wanted.items() if key in found and found[key][1] != row]
        removed = [row for key, (_, row) in found.items() if key not in wanted]
        diff = PriceDiff(tuple(added), tuple(changed), tuple(removed), len(wanted) - len(added) - len(changed))
        if is_dry_run or not (added or changed or removed):
            return diff
        gone = [found[_key(row)][0] for row in (*removed, *(before for before, _ in changed))]
        await accounts.remove_price_rows(tx, price_list_id, gone)
        fresh = [*added, *(after for _, after in changed)]
        identifiers = office.ids.take(len(fresh))
        await accounts.add_price_rows(tx, price_list_id, dict(zip(identifiers, fresh, strict=True)))
        counts = {"added": len(added), "changed": len(changed), "removed": len(removed)}
        await note(office, tx, actor, 0, "price.import", show("prl", price_list_id), **counts)
    return diff


async def use_price_list(office: Office, actor: str, account_id: int, price_list_id: int, rank: int) -> None:
    """Let an account buy by a list. Lists of lower `rank` are asked first, and the first that covers a number decides and pays.

    Account 0 stands for all that have no list of their own for the channel. The account's wallets in the list's currency are
    opened if it has none. Raises `Refused`.
    """
    async with office.store.transaction() as tx:
        found = await accounts.price_list(tx, price_list_id)
        if found is None:
            raise missing("price list")
        if account_id and not await accounts.has_account(tx, account_id):
            raise missing("account")
        if account_id:
            await ensure_wallets(office, tx, account_id, [found.currency])
        await accounts.use_price_list(tx, account_id, price_list_id, rank)
        await note(office, tx, actor, account_id, "price.use", show("prl", price_list_id), rank=rank)


async def drop_price_list(office: Office, actor: str, account_id: int, price_list_id: int) -> None:
    """Let an account (0: all that have none of their own) no longer buy by a list. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if not await accounts.drop_price_list(tx, account_id, price_list_id):
            raise missing("use of this price list")
        await note(office, tx, actor, account_id, "price.drop", show("prl", price_list_id))


def _key(row: PriceRow) -> _Key:
    """What makes a row that row: another price or another end is the same row changed."""
    return row.prefix, row.category, row.operator, row.from_ms


def _read(text: str) -> Iterable[PriceRow]:
    reader = csv.DictReader(StringIO(text.removeprefix("\ufeff")), strict=True)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "prefix" not in names or "price" not in names:
        raise unfit("file", f"the first line of a price file names its columns: {','.join(COLUMNS)}")
    reader.fieldnames = names
    seen: dict[_Key, int] = {}
    try:
        for values in reader:
            row = _row(values, reader.line_num)
            if _key(row) in seen:
                raise unfit("file", f"line {reader.line_num} repeats line {seen[_key(row)]}")
            seen[_key(row)] = reader.line_num
            yield row
    except csv.Error as error:
        raise unfit("file", f"line {reader.reader.line_num} is not CSV: {error}") from None


def _row(values: dict[str, str | None], line: int) -> PriceRow:
    if None in values or None in values.values():
        raise unfit("file", f"line {line} has not as many columns as the first line")
    row = {name: (value or "").strip() for name, value in values.items()}
    prefix, category = row["prefix"], row.get("category", "")
    if not _PREFIX.fullmatch(prefix):
        raise unfit("file", f"line {line}: the prefix {prefix!r} is not digits, such as 966; empty is for every number")
    if category and category not in [each.value for each in Category]:
        raise unfit("file", f"line {line}: the category is otp, transactional, promotional or empty, not {category!r}")
    try:
        price = parse_micros(row["price"])
    except ValueError as error:
        raise unfit("file", f"line {line}: the price is {error}") from None
    if price < 0:
        raise unfit("file", f"line {line}: a price is 0 or more")
    from_ms, until_ms = _moment(row.get("from", ""), line), _moment(row.get("until", ""), line)
    if until_ms and until_ms <= from_ms:
        raise unfit("file", f"line {line} ends before it begins")
    return PriceRow(prefix, price, category, row.get("operator", ""), from_ms, until_ms)


def _moment(text: str, line: int) -> int:
    """A date or time of a price file in milliseconds; without a zone it is UTC, and empty is 0."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise unfit("file", f"line {line}: {text!r} is not a date such as 2026-01-31") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
