"""The operator's desk: accounts, sender names, money, jobs, incidents, rule packs, the audit trail and the proof of the books."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros
from berid.dialects.native.account import MyAccount
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.manage.people import (
    AccountWallet,
    AnApplication,
    Mode,
    Name,
    NewApplication,
    RuleChanges,
    TokenSecret,
    TokenWish,
    account_fields,
    make_application,
    make_token,
    wallets_of,
)
from berid.dialects.native.manage.senders import SenderRequest, sender_requests
from berid.dialects.native.manage.topups import Amount, EnteredMoney, Objection, amount_of, created, once_of
from berid.dialects.native.shapes import or_none, read_cursor, read_id, read_moment, rfc3339, write_cursor
from berid.dialects.web import Response
from berid.domain.account import Account, Scope, SenderState
from berid.domain.errors import RefusalKind, refused
from berid.domain.rules import RulePack
from berid.flow import consent, manage
from berid.flow.manage import Office
from berid.flow.manage.incidents import close_incident, open_incident
from berid.store import accounts, business, incidents, work

Limit = Annotated[int, Meta(ge=1, le=1_000)]
Identifiers = Annotated[list[str], Meta(min_length=1, max_length=1_000)]


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How much of a list, and from where."""

    limit: Limit = 100
    cursor: str = ""


class AnyAccount(MyAccount):
    """An account with its rules, without the secret ones."""

    rules: dict[str, Any]


class AccountDetail(AnyAccount):
    """An account with its wallets."""

    wallets: list[AccountWallet]


class AccountPage(msgspec.Struct):
    """Some accounts, oldest first."""

    data: list[AnyAccount]
    next: str | None


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    """An account to make. Each of `currencies` gets a test wallet and a live one, empty. `rules` are those that differ from the
    defaults."""

    name: Name
    country: str
    zone: str = "UTC"
    language: Literal["en", "ar", "tr"] = "en"
    currencies: Annotated[list[str], Meta(max_length=20)] = []
    rules: RuleChanges = {}


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of an account; what is left out stays, each rule for itself."""

    state: Literal["active", "suspended", "closed"] | None = None
    rules: RuleChanges | None = None


class SenderRequestQuery(PageQuery):
    """Which sender names to list."""

    state: SenderState | None = None


class SenderRequestPage(msgspec.Struct):
    """Some sender names of all accounts, oldest first."""

    data: list[SenderRequest]
    next: str | None


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    """The last moment of the yes; without it the name does not expire."""

    expires_at: str | int | None = None


class TopUp(msgspec.Struct, forbid_unknown_fields=True):
    """Money to enter: paid (`topup`), given (`bonus`), or a correction (`adjust`: may be negative, and needs a note).

    `amount` is decimal. Calling twice enters it twice, unless both calls have the same Idempotency-Key.
    """

    account: str
    mode: Mode
    currency: str
    amount: Amount
    kind: Literal["topup", "bonus", "adjust"] = "topup"
    note: Annotated[str, Meta(max_length=1_000)] = ""


class CreditLimit(msgspec.Struct, forbid_unknown_fields=True):
    """How far one wallet of an account may go below zero; decimal, 0 for not at all."""

    mode: Mode
    currency: str
    limit: Amount


class JobQuery(PageQuery):
    """Which jobs to list: those that were set aside (`buried`), or those that wait or are being done; of one lane if named."""

    state: Literal["buried", "waiting"] = "buried"
    lane: str = ""


class Job(msgspec.Struct):
    """A job. `state` is that of its delivery, `why` the reason for which it was set aside."""

    id: str
    kind: str
    lane: str
    priority: int
    account: str
    state: str
    due_at: str | None
    attempts: int
    buried_at: str | None
    why: str


class JobPage(msgspec.Struct):
    """Some jobs, oldest first."""

    data: list[Job]
    next: str | None


class JobIds(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs by their ids: all of them, or none."""

    jobs: Identifiers


class JobsDone(msgspec.Struct):
    """How many jobs there were."""

    jobs: int


class RulePackItem(msgspec.Struct):
    """A pack, and whether the operator has set it in place of ours."""

    pack: RulePack
    is_own: bool


class RulePackList(msgspec.Struct):
    """All packs by country; of those of a country that have begun, the first counts."""

    data: list[RulePackItem]


class RulePackSet(msgspec.Struct):
    """The version that the pack has become."""

    version: int


class IncidentQuery(PageQuery):
    """Which incidents to list."""

    state: Literal["open"] | None = None


class NewIncident(msgspec.Struct, forbid_unknown_fields=True):
    """What the public is told: which service is concerned, and a sentence."""

    service: Annotated[str, Meta(max_length=100)]
    title: Annotated[str, Meta(max_length=500)]


class Incident(msgspec.Struct):
    """Something that is or was wrong with the platform."""

    id: str
    service: str
    title: str
    state: str
    started_at: str
    ended_at: str | None


class IncidentPage(msgspec.Struct):
    """Some incidents, newest first."""

    data: list[Incident]
    next: str | None


class AuditQuery(PageQuery):
    """Whose trail: an account's, or the installation's own if none is named."""

    account: str = ""


class AuditLine(msgspec.Struct):
    """Who did what to which thing. `actor` is `token:…`, `cli:…`; an empty account is the installation."""

    id: str
    account: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    at: str


class AuditPage(msgspec.Struct):
    """Some lines of a trail, newest first."""

    data: list[AuditLine]
    next: str | None


class LedgerFault(msgspec.Struct):
    """Two numbers that should be equal and are not."""

    kind: str
    account: str
    wallet: str
    message: str
    expected: str
    found: str
    sentence: str


class LedgerProof(msgspec.Struct):
    """Whether every book equals its entries and every message its deliveries; the first thousand faults if not."""

    is_right: bool
    faults: list[LedgerFault]


# ── Accounts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_accounts(call: Call[None, PageQuery]) -> AccountPage:
    """GET /operator/accounts."""
    query = call.query
    async with call.rt.store.read() as tx:
        found = await business.accounts(tx, read_cursor(query.cursor), query.limit + 1)
    shown = found[: query.limit]
    data = [AnyAccount(**account_fields(each)) for each in shown]
    return AccountPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


async def get_account(call: Call[None, None]) -> AccountDetail:
    """GET /operator/accounts/{id}."""
    return await _detail(call, call.path_id("acc"))


async def create_account(call: Call[NewAccount, None]) -> AccountDetail:
    """POST /operator/accounts."""
    body = call.body
    account_id = await manage.create_account(
        Office.of(call.rt),
        call.actor,
        name=body.name,
        home=body.country,
        zone=body.zone,
        language=body.language,
        currencies=body.currencies,
        rules=manage.read_rules(body.rules),
    )
    return await _detail(call, account_id)


async def change_account(call: Call[AccountChange, None]) -> AccountDetail:
    """PATCH /operator/accounts/{id}."""
    body, account_id, office = call.body, call.path_id("acc"), Office.of(call.rt)
    if body.rules is not None:
        await manage.set_account_rules(office, call.actor, account_id, body.rules)
    if body.state is not None:
        await manage.set_account_state(office, call.actor, account_id, body.state)
    return await _detail(call, account_id)


async def create_account_application(call: Call[NewApplication, None]) -> AnApplication:
    """POST /operator/accounts/{id}/applications."""
    return await make_application(call, call.path_id("acc"), call.body)


async def create_account_token(call: Call[TokenWish, None]) -> TokenSecret:
    """POST /operator/accounts/{id}/tokens."""
    return await make_token(call, call.path_id("acc"), call.body)


async def _account(call: Call[Any, Any], account_id: int) -> Account:
    async with call.rt.store.read() as tx:
        found = await business.account(tx, account_id)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such account", "id")
    return found


async def _detail(call: Call[Any, Any], account_id: int) -> AccountDetail:
    found = await _account(call, account_id)
    async with call.rt.store.read() as tx:
        wallets = await wallets_of(tx, account_id, call.rt.clock.now_ms())
    return AccountDetail(**account_fields(found), wallets=wallets)


# ── Sender names ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_senders(call: Call[None, SenderRequestQuery]) -> SenderRequestPage:
    """GET /operator/senders."""
    query = call.query
    state = query.state.value if query.state is not None else ""
    async with call.rt.store.read() as tx:
        found = await business.senders(tx, state, read_cursor(query.cursor), query.limit + 1)
        shown = found[: query.limit]
        data = await sender_requests(tx, shown)
    return SenderRequestPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


async def approve_sender(call: Call[Approval, None]) -> SenderRequest:
    """POST /operator/senders/{id}/approve."""
    ends = call.body.expires_at
    expires_ms = read_moment(ends, "expires_at") if ends is not None else 0
    return await _move(call, SenderState.APPROVED, expires_ms=expires_ms)


async def reject_sender(call: Call[Objection, None]) -> SenderRequest:
    """POST /operator/senders/{id}/reject."""
    return await _move(call, SenderState.REJECTED, reason=call.body.reason)


async def suspend_sender(call: Call[Objection, None]) -> SenderRequest:
    """POST /operator/senders/{id}/suspend."""
    return await _move(call, SenderState.SUSPENDED, reason=call.body.reason)


async def ask_about_sender(call: Call[Objection, None]) -> SenderRequest:
    """POST /operator/senders/{id}/needs-info."""
    return await _move(call, SenderState.NEEDS_INFO, reason=call.body.reason)


async def _move(call: Call[Any, None], state: SenderState, *, reason: str = "", expires_ms: int = 0) -> SenderRequest:
    sender_id = call.path_id("snd")
    async with call.rt.store.read() as tx:
        found = await business.sender(tx, sender_id)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such sender name", "id")
    await manage.move_sender(
        Office.of(call.rt), call.actor, found.account_id, sender_id, state, reason=reason, expires_ms=expires_ms
    )
    async with call.rt.store.read() as tx:
        moved = await business.sender(tx, sender_id)
        assert moved is not None
        return (await sender_requests(tx, [moved]))[0]


# ── Money ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def top_up(call: Call[TopUp, None]) -> Response:
    """POST /operator/topups."""
    body, amount, once = call.body, amount_of(call.body.amount), await once_of(call)
    enter = {"topup": manage.top_up, "bonus": manage.add_bonus, "adjust": manage.adjust}[body.kind]
    account_id = read_id("acc", body.account, "account")
    done = await enter(Office.of(call.rt), call.actor, account_id, body.mode, body.currency, amount, body.note, once)
    entered = EnteredMoney(show("ent", done.entry_id), format_micros(done.available_micros), done.currency)
    return created(entered, done.is_replay)


async def set_credit_limit(call: Call[CreditLimit, None]) -> AccountDetail:
    """PUT /operator/accounts/{id}/credit-limit."""
    body, account_id = call.body, call.path_id("acc")
    limit = amount_of(body.limit, "limit")
    await manage.set_credit_limit(Office.of(call.rt), call.actor, account_id, body.mode, body.currency, limit)
    return await _detail(call, account_id)


async def verify_ledger(call: Call[None, None]) -> LedgerProof:
    """GET /operator/ledger/verify."""
    async with call.rt.store.read() as tx:
        found = await manage.verify_ledger(tx)
    faults = [
        LedgerFault(
            each.kind,
            show("acc", each.account_id),
            show("wal", each.wallet_id),
            show("msg", each.message_id) if each.message_id else "",
            format_micros(each.expected_micros),
            format_micros(each.found_micros),
            str(each),
        )
        for each in found
    ]
    return LedgerProof(not faults, faults)


# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def list_jobs(call: Call[None, JobQuery]) -> JobPage:
    """GET /operator/jobs."""
    query = call.query
    after_id = read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        found = await work.jobs(
            tx, buried=query.state == "buried", lane=query.lane, after_id=after_id, limit=query.limit + 1
        )
    shown = found[: query.limit]
    data = [
        Job(
            id=str(each.id),
            kind=each.kind,
            lane=each.lane,
            priority=each.priority,
            account=show("acc", each.account_id),
            state=each.state,
            due_at=or_none(each.due_ms),
            attempts=each.attempts,
            buried_at=or_none(each.buried_ms),
            why=each.why,
        )
        for each in shown
    ]
    return JobPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


async def revive_jobs(call: Call[JobIds, None]) -> JobsDone:
    """POST /operator/jobs/revive."""
    identifiers = _job_ids(call.body)
    await manage.revive_jobs(Office.of(call.rt), call.actor, identifiers)
    return JobsDone(len(identifiers))


async def cancel_jobs(call: Call[JobIds, None]) -> JobsDone:
    """POST /operator/jobs/cancel."""
    return JobsDone(await manage.cancel_jobs(call.rt, call.actor, _job_ids(call.body)))


def _job_ids(body: JobIds) -> list[int]:
    return list(dict.fromkeys(read_id("job", each, "jobs") for each in body.jobs))


# ── Rules, incidents, the trail ───────────────────────────────────────────────────────────────────────────────────────


async def list_rule_packs(call: Call[None, None]) -> RulePackList:
    """GET /operator/rule-packs."""
    found = await consent.list_rule_packs(Office.of(call.rt))
    return RulePackList([RulePackItem(pack, is_own) for pack, is_own in found])


async def set_rule_pack(call: Call[RulePack, None]) -> RulePackSet:
    """PUT /operator/rule-packs."""
    return RulePackSet(await consent.set_rule_pack(Office.of(call.rt), call.actor, call.body))


async def list_incidents(call: Call[None, IncidentQuery]) -> IncidentPage:
    """GET /operator/incidents."""
    query = call.query
    async with call.rt.store.read() as tx:
        found = await incidents.incidents(tx, read_cursor(query.cursor), query.limit + 1, query.state == "open")
    shown = found[: query.limit]
    return IncidentPage(
        [_incident(each) for each in shown], write_cursor(shown[-1].id if len(found) > query.limit else 0)
    )


async def create_incident(call: Call[NewIncident, None]) -> Incident:
    """POST /operator/incidents."""
    return _incident(await open_incident(Office.of(call.rt), call.actor, call.body.service, call.body.title))


async def end_incident(call: Call[None, None]) -> Response:
    """POST /operator/incidents/{id}/close."""
    await close_incident(Office.of(call.rt), call.actor, call.path_id("inc"))
    return Response(204)


def _incident(each: incidents.IncidentRecord) -> Incident:
    return Incident(
        show("inc", each.id), each.service, each.title, each.state, rfc3339(each.started_ms), or_none(each.ended_ms)
    )


async def audit(call: Call[None, AuditQuery]) -> AuditPage:
    """GET /operator/audit."""
    query = call.query
    account_id, before_id = read_id("acc", query.account, "account"), read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        found = await accounts.audit(tx, account_id, before_id, query.limit + 1)
    shown = found[: query.limit]
    data = [
        AuditLine(
            id=show("aud", each.id),
            account=show("acc", each.account_id) if each.account_id else "",
            actor=each.actor,
            action=each.action,
            subject=each.subject,
            detail=msgspec.json.decode(each.detail, type=dict[str, Any]) if each.detail else {},
            at=rfc3339(each.at_ms),
        )
        for each in shown
    ]
    return AuditPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


_NOT_FOUND = (RefusalKind.NOT_FOUND,)
_STEP = (RefusalKind.NOT_FOUND, RefusalKind.WRONG_STATE)
_MOMENTS = (RefusalKind.SCHEDULE_DATE_INVALID, RefusalKind.SCHEDULE_TIME_INVALID)
_OPERATOR = Scope.OPERATOR

ENDPOINTS = (
    Endpoint("GET", "/operator/accounts", list_accounts, "All accounts", AccountPage, _OPERATOR, query=PageQuery),
    Endpoint(
        "POST",
        "/operator/accounts",
        create_account,
        "Make an account",
        AccountDetail,
        _OPERATOR,
        body=NewAccount,
        status=201,
    ),
    Endpoint(
        "GET",
        "/operator/accounts/{id}",
        get_account,
        "An account with its wallets",
        AccountDetail,
        _OPERATOR,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "PATCH",
        "/operator/accounts/{id}",
        change_account,
        "Change an account's state or rules",
        AccountDetail,
        _OPERATOR,
        body=AccountChange,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/operator/accounts/{id}/applications",
        create_account_application,
        "Make an application of an account",
        AnApplication,
        _OPERATOR,
        body=NewApplication,
        status=201,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/operator/accounts/{id}/tokens",
        create_account_token,
        "Make a token of an account",
        TokenSecret,
        _OPERATOR,
        body=TokenWish,
        status=201,
        refusals=(*_NOT_FOUND, *_MOMENTS),
    ),
    Endpoint(
        "GET",
        "/operator/senders",
        list_senders,
        "Sender names of all accounts",
        SenderRequestPage,
        _OPERATOR,
        query=SenderRequestQuery,
    ),
    Endpoint(
        "POST",
        "/operator/senders/{id}/approve",
        approve_sender,
        "Approve a sender name, or renew it",
        SenderRequest,
        _OPERATOR,
        body=Approval,
        refusals=(*_STEP, *_MOMENTS),
    ),
    Endpoint(
        "POST",
        "/operator/senders/{id}/reject",
        reject_sender,
        "Turn a sender name down",
        SenderRequest,
        _OPERATOR,
        body=Objection,
        refusals=_STEP,
    ),
    Endpoint(
        "POST",
        "/operator/senders/{id}/suspend",
        suspend_sender,
        "Suspend a sender name",
        SenderRequest,
        _OPERATOR,
        body=Objection,
        refusals=_STEP,
    ),
    Endpoint(
        "POST",
        "/operator/senders/{id}/needs-info",
        ask_about_sender,
        "Ask the owner of a sender name for more",
        SenderRequest,
        _OPERATOR,
        body=Objection,
        refusals=_STEP,
    ),
    Endpoint(
        "POST",
        "/operator/topups",
        top_up,
        "Enter money, a bonus or a correction",
        EnteredMoney,
        _OPERATOR,
        body=TopUp,
        status=201,
        refusals=(*_NOT_FOUND, RefusalKind.IDEMPOTENCY_CONFLICT),
        is_keyed=True,
    ),
    Endpoint(
        "PUT",
        "/operator/accounts/{id}/credit-limit",
        set_credit_limit,
        "Let an account owe in a wallet",
        AccountDetail,
        _OPERATOR,
        body=CreditLimit,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/operator/ledger/verify",
        verify_ledger,
        "Prove the books of all accounts",
        LedgerProof,
        _OPERATOR,
        about="Reads every entry: seconds on a large installation, while traffic goes on.",
    ),
    Endpoint("GET", "/operator/jobs", list_jobs, "Jobs of all accounts", JobPage, _OPERATOR, query=JobQuery),
    Endpoint(
        "POST",
        "/operator/jobs/revive",
        revive_jobs,
        "Do jobs that were set aside now",
        JobsDone,
        _OPERATOR,
        body=JobIds,
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "POST",
        "/operator/jobs/cancel",
        cancel_jobs,
        "Give jobs up",
        JobsDone,
        _OPERATOR,
        body=JobIds,
        about="Money that was held for them is released. What has left in the meantime is not counted.",
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/operator/rule-packs", list_rule_packs, "The rules of countries", RulePackList, _OPERATOR),
    Endpoint(
        "PUT",
        "/operator/rule-packs",
        set_rule_pack,
        "Set the rules of a country from a day on",
        RulePackSet,
        _OPERATOR,
        body=RulePack,
    ),
    Endpoint(
        "GET",
        "/operator/incidents",
        list_incidents,
        "What is or was wrong with the platform",
        IncidentPage,
        _OPERATOR,
        query=IncidentQuery,
    ),
    Endpoint(
        "POST",
        "/operator/incidents",
        create_incident,
        "Tell the public that something is wrong",
        Incident,
        _OPERATOR,
        body=NewIncident,
        status=201,
    ),
    Endpoint(
        "POST",
        "/operator/incidents/{id}/close",
        end_incident,
        "Tell the public that it is over",
        None,
        _OPERATOR,
        status=204,
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/operator/audit", audit, "The audit trail", AuditPage, _OPERATOR, query=AuditQuery),
)
