"""The account's books: entries of its wallets, who must not be written to, and the record of consent."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import or_none, read_cursor, read_id, rfc3339, write_cursor
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.domain.suppression import ALL, Reason, Suppression
from berid.flow import consent
from berid.flow.manage import Office
from berid.store import ledger
from berid.store.consent import ConsentRecord
from berid.store.consent import consent_rules as stored_rules

Limit = Annotated[int, Meta(ge=1, le=1_000)]
_TYPES = {"csv": b"text/csv; charset=utf-8", "json": b"application/json"}


class LedgerQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The wallet by its id, see GET /account."""

    wallet: str
    limit: Limit = 100
    cursor: str = ""


class LedgerEntry(msgspec.Struct):
    """One movement of money. `message` is empty for what people moved; `actor` and `note` for what messages did."""

    id: str
    kind: str
    amount: str
    currency: str
    message: str
    deliveries: int
    at: str
    actor: str
    note: str


class LedgerPage(msgspec.Struct):
    """Some entries of a wallet, newest first."""

    data: list[LedgerEntry]
    next: str | None


class SuppressionQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which entries of the book to list."""

    limit: Limit = 100
    cursor: str = ""


class NewSuppression(msgspec.Struct, forbid_unknown_fields=True):
    """Somebody not to write to. `channel` is `all` unless one is named; `all_traffic` stops transactional messages as well."""

    recipient: str
    channel: str = ALL
    reason: Literal["opt_out", "manual", "bounce", "registry", "complaint"] = "manual"
    source: Annotated[str, Meta(max_length=255)] = ""
    all_traffic: bool = False


class SuppressionKey(msgspec.Struct, forbid_unknown_fields=True):
    """The entry to lift. An entry for `all` is not lifted for one channel."""

    recipient: str
    channel: str = ALL


class SuppressionEntry(msgspec.Struct):
    """Somebody who is not written to, on a channel or on `all`."""

    recipient: str
    channel: str
    reason: str
    source: str
    all_traffic: bool
    at: str


class SuppressionPage(msgspec.Struct):
    """Some entries of the book, by recipient."""

    data: list[SuppressionEntry]
    next: str | None


class SuppressionAdded(msgspec.Struct):
    """`added` is false if the book said as much before."""

    added: bool


class SuppressionList(msgspec.Struct, forbid_unknown_fields=True):
    """A list of people not to write to: a column `recipient`, and `channel`, `reason`, `source`, `all_traffic` where they differ
    from what is said here for all."""

    rows: str
    format: Literal["csv", "json"] = "csv"
    channel: str = ALL
    reason: Literal["opt_out", "manual", "bounce", "registry", "complaint"] = "manual"
    source: Annotated[str, Meta(max_length=255)] = "import"
    all_traffic: bool = False


class ConsentQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which lines of the record to list: of one recipient if named; with `current`, without those that later lines replaced."""

    recipient: str = ""
    current: bool = False
    limit: Limit = 100
    cursor: str = ""


class ConsentLine(msgspec.Struct):
    """What a recipient told a brand. `said_at` is when, `recorded_at` when we were told; `current`: nothing was said after it."""

    id: str
    brand: str
    type: str
    recipient: str
    recipient_type: str
    status: str
    source: str
    said_at: str | None
    recorded_at: str
    current: bool


class ConsentPage(msgspec.Struct):
    """Some lines of the record, newest first."""

    data: list[ConsentLine]
    next: str | None


class ConsentRuleChanges(msgspec.Struct, forbid_unknown_fields=True):
    """By country, whether promotional messages there need recorded consent; null leaves it to the country's rule pack."""

    countries: Annotated[dict[str, bool | None], Meta(max_length=250)]


class ConsentRules(msgspec.Struct):
    """The countries for which the account itself says whether consent is needed; elsewhere the rule packs do."""

    countries: dict[str, bool]


class ConsentList(msgspec.Struct, forbid_unknown_fields=True):
    """A list of consent in the columns of İYS: brandCode, type, recipient, recipientType, status, source, consentDate.

    `from_registry`: the list comes from the registry itself, so its rules for new records do not apply.
    """

    rows: str
    format: Literal["csv", "json"] = "csv"
    from_registry: bool = False


class ImportFault(msgspec.Struct):
    """Why a row was left out; rows count from 1."""

    row: int
    field: str
    detail: str


class Imported(msgspec.Struct):
    """What became of a list; the first hundred rows that were left out are told with their reason."""

    changed: int
    unchanged: int
    refused: int
    faults: list[ImportFault]


class ConsentForm(msgspec.Struct, forbid_unknown_fields=True):
    """How the list is written."""

    format: Literal["csv", "json"] = "csv"


async def statement(call: Call[None, LedgerQuery]) -> LedgerPage:
    """GET /ledger."""
    query, caller = call.query, call.caller
    wallet_id, before_id = read_id("wal", query.wallet, "wallet"), read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        wallets = {each.id: each for each in await ledger.wallets(tx, caller.account.id) if each.mode == caller.mode}
        if wallet_id not in wallets:
            raise refused(RefusalKind.NOT_FOUND, "the account has no such wallet in the token's mode", "wallet")
        found = await ledger.statement(tx, caller.account.id, wallet_id, before_id, query.limit + 1)
    shown, currency = found[: query.limit], wallets[wallet_id].currency
    data = [
        LedgerEntry(
            id=show("ent", each.id),
            kind=each.kind,
            amount=format_micros(each.amount_micros),
            currency=currency,
            message=show("msg", each.message_id) if each.message_id else "",
            deliveries=each.deliveries,
            at=rfc3339(each.at_ms),
            actor=each.actor,
            note=each.note,
        )
        for each in shown
    ]
    return LedgerPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


async def list_suppressions(call: Call[None, SuppressionQuery]) -> SuppressionPage:
    """GET /suppressions."""
    query = call.query
    after = _read_place(query.cursor)
    found = await consent.list_suppressions(Office.of(call.rt), call.caller.account.id, after, query.limit + 1)
    shown = found[: query.limit]
    following = _place(shown[-1]) if len(found) > query.limit else None
    return SuppressionPage(
        [
            SuppressionEntry(
                each.recipient, each.channel, each.reason.value, each.source, each.all_traffic, rfc3339(each.at_ms)
            )
            for each in shown
        ],
        following,
    )


def _place(entry: Suppression) -> str:
    """The cursor behind an entry: this list is ordered by recipient, so an id would not do."""
    return urlsafe_b64encode(f"{entry.recipient}\n{entry.channel}".encode()).decode()


def _read_place(text: str) -> tuple[str, str]:
    if not text:
        return "", ""
    try:
        recipient, _, channel = urlsafe_b64decode(text).decode().partition("\n")
    except ValueError:
        recipient = channel = ""
    if not channel or "\0" in recipient + channel:
        raise refused(RefusalKind.MALFORMED, "this cursor was not given by us", "cursor")
    return recipient, channel


async def suppress(call: Call[NewSuppression, None]) -> SuppressionAdded:
    """POST /suppressions."""
    body = call.body
    added = await consent.suppress(
        Office.of(call.rt),
        call.actor,
        call.caller.account.id,
        body.recipient,
        channel=body.channel,
        reason=Reason(body.reason),
        source=body.source,
        all_traffic=body.all_traffic,
    )
    return SuppressionAdded(added)


async def unsuppress(call: Call[None, SuppressionKey]) -> Response:
    """DELETE /suppressions."""
    query = call.query
    await consent.unsuppress(
        Office.of(call.rt), call.actor, call.caller.account.id, query.recipient, channel=query.channel
    )
    return Response(204)


async def import_suppressions(call: Call[SuppressionList, None]) -> Imported:
    """POST /suppressions/import."""
    body = call.body
    done = await consent.import_suppressions(
        Office.of(call.rt),
        call.actor,
        call.caller.account.id,
        body.rows,
        body.format,
        channel=body.channel,
        reason=Reason(body.reason),
        source=body.source,
        all_traffic=body.all_traffic,
    )
    return _imported(done)


def _imported(done: consent.Imported) -> Imported:
    faults = [ImportFault(each.row, each.field, each.detail) for each in done.faults]
    return Imported(done.changed, done.unchanged, done.refused, faults)


async def list_consents(call: Call[None, ConsentQuery]) -> ConsentPage:
    """GET /consents."""
    query = call.query
    found = await consent.list_consents(
        Office.of(call.rt),
        call.caller.account.id,
        read_cursor(query.cursor),
        query.limit + 1,
        query.recipient,
        query.current,
    )
    shown = found[: query.limit]
    return ConsentPage([_line(each) for each in shown], write_cursor(shown[-1].id if len(found) > query.limit else 0))


def _line(each: ConsentRecord) -> ConsentLine:
    said = each.consent
    return ConsentLine(
        id=show("cns", each.id),
        brand=said.brand,
        type=said.type.value,
        recipient=said.recipient,
        recipient_type=said.recipient_type.value,
        status=said.status.value,
        source=said.source,
        said_at=or_none(said.consent_ms),
        recorded_at=rfc3339(each.recorded_ms),
        current=each.is_current,
    )


async def consent_rules(call: Call[None, None]) -> ConsentRules:
    """GET /consent-rules."""
    async with call.rt.store.read() as tx:
        return ConsentRules(dict((await stored_rules(tx)).get(call.caller.account.id, {})))


async def change_consent_rules(call: Call[ConsentRuleChanges, None]) -> ConsentRules:
    """PATCH /consent-rules."""
    office, account_id = Office.of(call.rt), call.caller.account.id
    return ConsentRules(dict(await consent.set_consent_rules(office, call.actor, account_id, call.body.countries)))


async def import_consents(call: Call[ConsentList, None]) -> Imported:
    """POST /consents/import."""
    body = call.body
    done = await consent.import_consents(
        Office.of(call.rt),
        call.actor,
        call.caller.account.id,
        body.rows,
        body.format,
        is_from_registry=body.from_registry,
    )
    return _imported(done)


async def export_consents(call: Call[None, ConsentForm]) -> Response:
    """GET /consents/export."""
    form = call.query.format
    pieces = consent.export_consents(Office.of(call.rt), call.caller.account.id, form)
    return Response(200, content_type=_TYPES[form], pieces=(piece.encode() async for piece in pieces))


_NOT_FOUND = (RefusalKind.NOT_FOUND,)

ENDPOINTS = (
    Endpoint(
        "GET",
        "/ledger",
        statement,
        "The entries of a wallet",
        LedgerPage,
        Scope.MANAGE,
        query=LedgerQuery,
        about="Wallets of the token's mode only.",
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/suppressions",
        list_suppressions,
        "Who is not written to",
        SuppressionPage,
        Scope.MANAGE,
        query=SuppressionQuery,
    ),
    Endpoint(
        "POST",
        "/suppressions",
        suppress,
        "Write to somebody no more",
        SuppressionAdded,
        Scope.MANAGE,
        body=NewSuppression,
        about="Adding never weakens an entry.",
    ),
    Endpoint(
        "DELETE",
        "/suppressions",
        unsuppress,
        "Lift an entry",
        None,
        Scope.MANAGE,
        query=SuppressionKey,
        status=204,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/suppressions/import",
        import_suppressions,
        "Enter a list of people not to write to",
        Imported,
        Scope.MANAGE,
        body=SuppressionList,
        about="Adding never weakens an entry.",
        is_bulk=True,
    ),
    Endpoint(
        "GET",
        "/consents",
        list_consents,
        "What recipients have said",
        ConsentPage,
        Scope.MANAGE,
        query=ConsentQuery,
    ),
    Endpoint(
        "GET", "/consent-rules", consent_rules, "Where the account itself asks for consent", ConsentRules, Scope.MANAGE
    ),
    Endpoint(
        "PATCH",
        "/consent-rules",
        change_consent_rules,
        "Ask for consent in a country, or not",
        ConsentRules,
        Scope.MANAGE,
        body=ConsentRuleChanges,
    ),
    Endpoint(
        "POST",
        "/consents/import",
        import_consents,
        "Append a list to the record of consent",
        Imported,
        Scope.MANAGE,
        body=ConsentList,
        is_bulk=True,
    ),
    Endpoint(
        "GET",
        "/consents/export",
        export_consents,
        "What every recipient said last",
        None,
        Scope.MANAGE,
        query=ConsentForm,
        about="A list in the columns of İYS, as CSV or JSON.",
        types=("text/csv", "application/json"),
    ),
)
