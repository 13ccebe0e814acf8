"""The account itself, its applications and its tokens.

A token gives away no more than it has: whoever makes or rotates a token must have every right of the new one, and a test
token makes and changes test tokens only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros
from berid.dialects.native.account import MyAccount
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import or_none, read_id, read_moment, rfc3339
from berid.dialects.web import Response
from berid.domain.account import Account, Application, Rules, Scope
from berid.domain.errors import RefusalKind, refused
from berid.domain.ledger import TOPUP_TARGET_MS, TOPUP_WAITS
from berid.flow import manage
from berid.flow.manage import Office
from berid.store import Tx, accounts, business, ledger, topups

Mode = Literal["test", "live"]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Service = Literal["sms", "voice", "email", "whatsapp", "otp"]
RuleValue = bool | int | float | str | list[str]
RuleChanges = dict[str, RuleValue]
"""Rules by name; what is left out stays."""

_SECRET_RULES = ("pass_phrase",)
"""Rules that are never shown again."""


class OpenTopups(msgspec.Struct):
    """The open top-up requests of a wallet: how many, and of those that wait for the operator the oldest's time, and when it
    should be decided."""

    count: int
    oldest_at: str | None
    due_at: str | None
    is_late: bool


class AccountWallet(msgspec.Struct):
    """A wallet with its id, by which its entries are listed. Amounts are decimal."""

    id: str
    mode: str
    currency: str
    available: str
    held: str
    spent_total: str
    credit_limit: str
    open_topups: OpenTopups


class OwnAccount(MyAccount):
    """The account, its rules (without secret ones) and all of its wallets."""

    rules: dict[str, Any]
    wallets: list[AccountWallet]


class AnApplication(msgspec.Struct):
    """A client of an account, with the services it may use and the rules that narrow its account's."""

    id: str
    name: str
    state: str
    services: list[str]
    rules: dict[str, Any]


class ApplicationList(msgspec.Struct):
    """All applications of the account."""

    data: list[AnApplication]


class NewApplication(msgspec.Struct, forbid_unknown_fields=True):
    """An application to make. `rules` are those that differ from the defaults."""

    name: Name
    services: list[Service] = []
    rules: RuleChanges = {}


class ApplicationChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of an application; what is left out stays, each rule for itself."""

    services: list[Service] | None = None
    rules: RuleChanges | None = None
    state: Literal["active", "suspended"] | None = None


class ATokenInList(msgspec.Struct):
    """A token without its secret. `hint` is the beginning and end of the secret; `login` an SMPP system_id."""

    id: str
    application: str
    kind: str
    mode: str
    label: str
    hint: str
    login: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class TokenList(msgspec.Struct):
    """All tokens of the account, ended ones among them."""

    data: list[ATokenInList]


class TokenWish(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make, no mightier than the one that makes it.

    A bearer token needs its `scopes` named; an api key without any gets all of TurkeySMS's; an SMPP login has always `send`
    and `status`, and needs a `system_id`. SMPP logins do not expire.
    """

    application: str
    kind: Literal["bearer", "api_key", "smpp"] = "bearer"
    mode: Mode = "test"
    scopes: list[str] = []
    label: Annotated[str, Meta(max_length=255)] = ""
    system_id: str = ""
    expires_at: str | int | None = None


class TokenRotation(msgspec.Struct, forbid_unknown_fields=True):
    """How long the old secret stays good; a day unless given. An SMPP login has one password, so 0 is its only overlap."""

    overlap_hours: Annotated[float, Meta(ge=0, le=24 * 365)] | None = None


class TokenSecret(msgspec.Struct):
    """A new token. The secret is not shown again. `login` is an SMPP system_id."""

    id: str
    secret: str
    login: str


async def own_account(call: Call[None, None]) -> OwnAccount:
    """GET /account."""
    account_id = call.caller.account.id
    async with call.rt.store.read() as tx:
        found = await business.account(tx, account_id)
        wallets = await wallets_of(tx, account_id, call.rt.clock.now_ms())
    return OwnAccount(**account_fields(found or call.caller.account), wallets=wallets)


def account_fields(account: Account) -> dict[str, Any]:
    """What every view of an account says of it."""
    return {
        "id": show("acc", account.id),
        "name": account.name,
        "state": account.state,
        "country": account.home,
        "zone": account.zone,
        "language": account.language,
        "rules": rules_fields(account.rules),
    }


def rules_fields(rules: Rules) -> dict[str, Any]:
    """Rules as they are shown: without the secret ones."""
    return {name: value for name, value in msgspec.structs.asdict(rules).items() if name not in _SECRET_RULES}


async def wallets_of(tx: Tx, account_id: int, now_ms: int) -> list[AccountWallet]:
    """All wallets of an account, as they are shown."""
    waiting = await topups.open_topups(tx, account_id, [state.value for state in TOPUP_WAITS])
    return [
        AccountWallet(
            show("wal", each.id),
            each.mode,
            each.currency,
            format_micros(each.available_micros),
            format_micros(each.held_micros),
            format_micros(each.spent_micros),
            format_micros(each.credit_limit_micros),
            _open_topups(waiting.get(each.id), now_ms),
        )
        for each in await ledger.wallets(tx, account_id)
    ]


def _open_topups(found: topups.OpenTopups | None, now_ms: int) -> OpenTopups:
    if found is None or not found.oldest_ms:
        return OpenTopups(found.count if found is not None else 0, None, None, False)
    due_ms = found.oldest_ms + TOPUP_TARGET_MS
    return OpenTopups(found.count, rfc3339(found.oldest_ms), rfc3339(due_ms), now_ms > due_ms)


async def list_applications(call: Call[None, None]) -> ApplicationList:
    """GET /applications."""
    async with call.rt.store.read() as tx:
        found = await business.applications(tx, call.caller.account.id)
    return ApplicationList([_application(each) for each in found])


async def create_application(call: Call[NewApplication, None]) -> AnApplication:
    """POST /applications."""
    return await make_application(call, call.caller.account.id, call.body)


async def make_application(call: Call[Any, None], account_id: int, body: NewApplication) -> AnApplication:
    """Make an application of an account and show it. Raises `Refused`."""
    rules = manage.read_rules(body.rules)
    identifier = await manage.create_application(
        Office.of(call.rt), call.actor, account_id, body.name, body.services, rules
    )
    return await _find_application(call, account_id, identifier)


async def change_application(call: Call[ApplicationChange, None]) -> AnApplication:
    """PATCH /applications/{id}."""
    body, account_id, application_id = call.body, call.caller.account.id, call.path_id("app")
    office, actor = Office.of(call.rt), call.actor
    await _find_application(call, account_id, application_id)
    if body.rules is not None:
        await manage.set_application_rules(office, actor, account_id, application_id, body.rules)
    if body.services is not None:
        await manage.set_services(office, actor, account_id, application_id, body.services)
    if body.state is not None:
        await manage.set_application_state(office, actor, account_id, application_id, body.state)
    return await _find_application(call, account_id, application_id)


async def list_tokens(call: Call[None, None]) -> TokenList:
    """GET /tokens."""
    async with call.rt.store.read() as tx:
        return TokenList([_token(each) for each in await accounts.tokens(tx, call.caller.account.id)])


async def create_token(call: Call[TokenWish, None]) -> TokenSecret:
    """POST /tokens."""
    check_gift(call, _wanted_scopes(call.body), call.body.mode)
    return await make_token(call, call.caller.account.id, call.body)


async def make_token(call: Call[Any, None], account_id: int, body: TokenWish) -> TokenSecret:
    """Make a token of an account's application and show its secret, this once. Raises `Refused`."""
    office, actor, scopes = Office.of(call.rt), call.actor, _wanted_scopes(body)
    application_id = read_id("app", body.application, "application")
    expires_ms = read_moment(body.expires_at, "expires_at") if body.expires_at is not None else 0
    if body.kind == "smpp":
        if expires_ms or body.scopes:
            field = "expires_at" if expires_ms else "scopes"
            raise refused(RefusalKind.MALFORMED, "an SMPP login has its own rights and no last day", field)
        made = await manage.create_smpp_login(
            office, actor, account_id, application_id, mode=body.mode, system_id=body.system_id, label=body.label
        )
    elif body.kind == "api_key":
        made = await manage.create_api_key(
            office,
            actor,
            account_id,
            application_id,
            mode=body.mode,
            scopes=scopes,
            label=body.label,
            expires_ms=expires_ms,
        )
    else:
        made = await manage.create_bearer(
            office,
            actor,
            account_id,
            application_id,
            mode=body.mode,
            scopes=scopes,
            label=body.label,
            expires_ms=expires_ms,
        )
    return _secret(made)


def _wanted_scopes(body: TokenWish) -> list[str]:
    """The rights that a token would have."""
    if body.kind == "smpp":
        return [Scope.SEND.value, Scope.STATUS.value]
    return body.scopes or list(manage.API_KEY_SCOPES if body.kind == "api_key" else ())


def check_gift(call: Call[Any, Any], scopes: Iterable[str], mode: str) -> None:
    """Raise `Refused` if the calling token lacks a right that another is to have, or is of test mode and that of live."""
    giver = call.caller.token
    for scope in scopes:
        if scope == "*":
            has = "*" in giver.scopes
        else:
            try:
                has = giver.has(Scope(scope))
            except ValueError:
                raise refused(RefusalKind.MALFORMED, f"there is no right {scope[:40]!r}", "scopes") from None
        if not has:
            raise refused(RefusalKind.SCOPE_MISSING, f"a token without the right {scope!r} cannot give it", "scopes")
    if giver.mode != mode and giver.mode == "test":
        raise refused(RefusalKind.SCOPE_MISSING, "a test token makes and changes test tokens only", "mode")


async def rotate_token(call: Call[TokenRotation, None]) -> TokenSecret:
    """POST /tokens/{id}/rotate. The new secret has the old one's rights, so whoever gets it must have them."""
    account_id, token_id = call.caller.account.id, call.path_id("tok")
    old = await _find_token(call, token_id)
    check_gift(call, old.scopes.split(), old.mode)
    overlap = call.body.overlap_hours
    if overlap is None:
        overlap = 0.0 if old.kind == "smpp" else 24.0
    return _secret(await manage.rotate_token(Office.of(call.rt), call.actor, account_id, token_id, overlap))


async def revoke_token(call: Call[None, None]) -> Response:
    """DELETE /tokens/{id}."""
    token_id = call.path_id("tok")
    old = await _find_token(call, token_id)
    check_gift(call, (), old.mode)
    await manage.revoke_token(Office.of(call.rt), call.actor, call.caller.account.id, token_id)
    return Response(204)


async def _find_token(call: Call[Any, Any], token_id: int) -> accounts.TokenRecord:
    async with call.rt.store.read() as tx:
        found = await accounts.token(tx, call.caller.account.id, token_id)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such token", "id")
    return found


async def _find_application(call: Call[Any, Any], account_id: int, application_id: int) -> AnApplication:
    async with call.rt.store.read() as tx:
        found = await business.application(tx, account_id, application_id)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such application", "id")
    return _application(found)


def _application(each: Application) -> AnApplication:
    return AnApplication(show("app", each.id), each.name, each.state, sorted(each.services), rules_fields(each.rules))


def _token(each: accounts.TokenRecord) -> ATokenInList:
    return ATokenInList(
        id=show("tok", each.id),
        application=show("app", each.application_id),
        kind=each.kind,
        mode=each.mode,
        label=each.label,
        hint=each.hint,
        login=each.login,
        scopes=each.scopes.split(),
        created_at=rfc3339(each.created_ms),
        expires_at=or_none(each.expires_ms),
        revoked_at=or_none(each.revoked_ms),
    )


def _secret(made: manage.NewToken) -> TokenSecret:
    return TokenSecret(show("tok", made.id), made.secret, made.login)


_NOT_FOUND = (RefusalKind.NOT_FOUND,)

ENDPOINTS = (
    Endpoint("GET", "/account", own_account, "The account, its rules and its wallets", OwnAccount, Scope.MANAGE),
    Endpoint("GET", "/applications", list_applications, "The account's applications", ApplicationList, Scope.MANAGE),
    Endpoint(
        "POST",
        "/applications",
        create_application,
        "Make an application",
        AnApplication,
        Scope.MANAGE,
        body=NewApplication,
        status=201,
    ),
    Endpoint(
        "PATCH",
        "/applications/{id}",
        change_application,
        "Change an application's services, rules or state",
        AnApplication,
        Scope.MANAGE,
        body=ApplicationChange,
        refusals=_NOT_FOUND,
    ),
    Endpoint("GET", "/tokens", list_tokens, "The account's tokens, without their secrets", TokenList, Scope.MANAGE),
    Endpoint(
        "POST",
        "/tokens",
        create_token,
        "Make a token",
        TokenSecret,
        Scope.MANAGE,
        body=TokenWish,
        status=201,
        about="A token gives away no right that it lacks, and a test token makes test tokens only.",
        refusals=(*_NOT_FOUND, RefusalKind.SCHEDULE_DATE_INVALID, RefusalKind.SCHEDULE_TIME_INVALID),
    ),
    Endpoint(
        "POST",
        "/tokens/{id}/rotate",
        rotate_token,
        "Replace a token's secret",
        TokenSecret,
        Scope.MANAGE,
        body=TokenRotation,
        about="Except for an SMPP login the new secret has an id of its own.",
        refusals=_NOT_FOUND,
    ),
    Endpoint(
        "DELETE",
        "/tokens/{id}",
        revoke_token,
        "End a token at once",
        None,
        Scope.MANAGE,
        status=204,
        refusals=_NOT_FOUND,
    ),
)
