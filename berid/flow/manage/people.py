"""Accounts, their applications, and the tokens by which those are known."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from berid.base.ids import show
from berid.base.phone import country_name
from berid.base.secret import Vault, hash_password, hash_token, new_api_key, new_token
from berid.domain.account import Account, Application, Rules, Scope, Token
from berid.flow.manage.callbacks import follow_webhook_url
from berid.flow.manage.office import Office, missing, note, unfit
from berid.store import Tx, accounts, binds, ledger

MODES = ("test", "live")

ACCOUNT_STATES = ("active", "suspended", "closed")
"""Only an active account may send; the others differ for people."""

SERVICES = ("sms", "voice", "email", "whatsapp", "otp")
"""What an application may include: the channels, and one-time passwords."""

API_KEY_SCOPES = ("send.post", "send.get", "status", "balance", "senders")
"""The rights of TurkeySMS, and what a new api key has of them unless told otherwise: all."""

SYSTEM_ID_MAX = 15
"""SMPP 3.4 section 5.2.1: a system_id has 16 octets with its closing null."""

PASSWORD_CHARACTERS = 8
"""SMPP 3.4 section 5.2.2: a password has 9 octets with its closing null."""

_PASSWORD_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"  # noqa: S105
"""Without 0, O, 1, l and I, which people mistake. 8 of 56 are 46 bits, which `hash_password` makes dear to guess."""

DIGESTED = "digest:"
"""What a pass phrase begins with that is kept as its keyed hash."""

_CURRENCY = re.compile(r"[A-Z]{3,8}")
_SYSTEM_ID = re.compile(r"[!-~]{1,15}")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token at its birth: the only moment at which its secret is known. `login` is an SMPP system_id."""

    id: int
    secret: str
    login: str = ""


async def create_account(
    office: Office,
    actor: str,
    *,
    name: str,
    home: str,
    zone: str = "UTC",
    language: str = "en",
    currencies: Sequence[str] = (),
    rules: Rules | None = None,
) -> int:
    """Make an active account and return its id.

    `home` is the ISO code of its own country, `zone` the name of a time zone, `language` en, ar or tr. Each of `currencies`
    gets a test wallet and a live one, empty, with a credit limit of 0. Raises `Refused`.
    """
    name = name.strip()
    if not name:
        raise unfit("name", "an account needs a name")
    _check_country(home, "home")
    _check_zone(zone)
    if language not in ("en", "ar", "tr"):
        raise unfit("language", "the language must be en, ar or tr")
    account_id = office.ids.next()
    account = Account(account_id, name, "active", home, zone, language, _kept(office, check_rules(rules or Rules())))
    async with office.store.transaction() as tx:
        await accounts.add_account(tx, account, office.clock.now_ms())
        await note(office, tx, actor, account_id, "account.create", show("acc", account_id), name=name, home=home)
        await ensure_wallets(office, tx, account_id, currencies)
        await follow_webhook_url(office, tx, account_id, 0, account.rules.webhook_url)
    return account_id


async def set_account_state(office: Office, actor: str, account_id: int, state: str) -> None:
    """Let an account be active, suspended or closed. Raises `Refused`."""
    if state not in ACCOUNT_STATES:
        raise unfit("state", f"the state must be one of {', '.join(ACCOUNT_STATES)}")
    async with office.store.transaction() as tx:
        if not await accounts.set_account_state(tx, account_id, state):
            raise missing("account")
        await note(office, tx, actor, account_id, "account.state", show("acc", account_id), state=state)


async def set_account_rules(office: Office, actor: str, account_id: int, rules: Rules | Mapping[str, object]) -> Rules:
    """Replace an account's rules, or only those that a mapping names (see `read_rules`); returns all. Raises `Refused`."""
    async with office.store.transaction() as tx:
        account = await accounts.locked_account(tx, account_id)
        if account is None:
            raise missing("account")
        rules = _kept(office, _new_rules(rules, account.rules))
        await accounts.set_account_rules(tx, account_id, rules)
        await follow_webhook_url(office, tx, account_id, 0, rules.webhook_url)
        await note(office, tx, actor, account_id, "account.rules", show("acc", account_id), **_told(rules))
    return rules


async def open_wallets(office: Office, actor: str, account_id: int, currencies: Sequence[str]) -> None:
    """Give an account a test wallet and a live one for each of these currencies that it lacks. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if not await accounts.has_account(tx, account_id):
            raise missing("account")
        opened = await ensure_wallets(office, tx, account_id, currencies)
        if opened:
            await note(office, tx, actor, account_id, "wallet.open", show("acc", account_id), currencies=opened)


async def ensure_wallets(office: Office, tx: Tx, account_id: int, currencies: Sequence[str]) -> list[str]:
    """Within a transaction: open the wallets that an account lacks, and return which. Raises `Refused`."""
    await accounts.locked_account(tx, account_id)  # two who look at once would open the same wallet
    found = {(wallet.mode, wallet.currency) for wallet in await ledger.wallets(tx, account_id)}
    opened = []
    for currency in dict.fromkeys(currencies):
        check_currency(currency)
        for mode in MODES:
            if (mode, currency) not in found:
                await ledger.add_wallet(tx, office.ids.next(), account_id, mode, currency)
                opened.append(f"{mode} {currency}")
    return opened


def check_currency(currency: str) -> None:
    """Raise `Refused` unless this is how a currency is written."""
    if not _CURRENCY.fullmatch(currency):
        raise unfit("currency", "a currency is three to eight capital letters, such as SAR, TRY or CREDIT")


async def create_application(
    office: Office, actor: str, account_id: int, name: str, services: Iterable[str], rules: Rules | None = None
) -> int:
    """Make an application of an account, with the services it may use, and return its id. Raises `Refused`."""
    if not name.strip():
        raise unfit("name", "an application needs a name")
    checked = _check_services(services)
    application_id = office.ids.next()
    application = Application(
        application_id, account_id, name.strip(), "active", checked, _kept(office, check_rules(rules or Rules()))
    )
    async with office.store.transaction() as tx:
        if not await accounts.has_account(tx, account_id):
            raise missing("account")
        await accounts.add_application(tx, application, office.clock.now_ms())
        await follow_webhook_url(office, tx, account_id, application_id, application.rules.webhook_url)
        subject = show("app", application_id)
        await note(office, tx, actor, account_id, "application.create", subject, name=name, services=sorted(checked))
    return application_id


async def set_services(
    office: Office, actor: str, account_id: int, application_id: int, services: Iterable[str]
) -> None:
    """Replace the services that an application may use. Raises `Refused`."""
    checked = sorted(_check_services(services))
    async with office.store.transaction() as tx:
        if not await accounts.set_services(tx, account_id, application_id, checked):
            raise missing("application")
        subject = show("app", application_id)
        await note(office, tx, actor, account_id, "application.services", subject, services=checked)


async def set_application_rules(
    office: Office, actor: str, account_id: int, application_id: int, rules: Rules | Mapping[str, object]
) -> Rules:
    """Replace an application's rules, or only those that a mapping names (see `read_rules`); returns all. Raises `Refused`."""
    async with office.store.transaction() as tx:
        application = await accounts.locked_application(tx, account_id, application_id)
        if application is None:
            raise missing("application")
        rules = _kept(office, _new_rules(rules, application.rules))
        await accounts.set_application_rules(tx, account_id, application_id, rules)
        await follow_webhook_url(office, tx, account_id, application_id, rules.webhook_url)
        await note(office, tx, actor, account_id, "application.rules", show("app", application_id), **_told(rules))
    return rules


async def set_application_state(office: Office, actor: str, account_id: int, application_id: int, state: str) -> None:
    """Let an application be active or suspended. Raises `Refused`."""
    if state not in ("active", "suspended"):
        raise unfit("state", "the state must be active or suspended")
    async with office.store.transaction() as tx:
        if not await accounts.set_application_state(tx, account_id, application_id, state):
            raise missing("application")
        await note(office, tx, actor, account_id, "application.state", show("app", application_id), state=state)


async def create_bearer(
    office: Office,
    actor: str,
    account_id: int,
    application_id: int,
    *,
    mode: str,
    scopes: Sequence[str] = ("*",),
    label: str = "",
    expires_ms: int = 0,
) -> NewToken:
    """Make a token for `Authorization: Bearer` and return it with its secret, which is not kept. Raises `Refused`.

    `mode` is test or live; `scopes` are words of `Scope`, or `*` for all of an account's; `expires_ms` 0 means never.
    """
    secret = new_token(_check_mode(mode))
    made = Token(
        office.ids.next(),
        account_id,
        application_id,
        "bearer",
        mode,
        label,
        "",
        hash_token(secret),
        _check_scopes(scopes),
        expires_ms,
        0,
    )
    return await _add(office, actor, made, secret)


async def create_api_key(
    office: Office,
    actor: str,
    account_id: int,
    application_id: int,
    *,
    mode: str,
    scopes: Sequence[str] = API_KEY_SCOPES,
    label: str = "",
    expires_ms: int = 0,
) -> NewToken:
    """Make an api key in TurkeySMS's shape and return it with its secret, which is not kept. Raises `Refused`."""
    secret = new_api_key()
    made = Token(
        office.ids.next(),
        account_id,
        application_id,
        "api_key",
        _check_mode(mode),
        label,
        "",
        hash_token(secret),
        _check_scopes(scopes),
        expires_ms,
        0,
    )
    return await _add(office, actor, made, secret)


async def create_smpp_login(
    office: Office, actor: str, account_id: int, application_id: int, *, mode: str, system_id: str, label: str = ""
) -> NewToken:
    """Make a login for SMPP binds and return it with its password, which is not kept.

    `system_id` is 1 to 15 characters of printable ASCII and unique in the installation. Raises `Refused`.
    """
    if not _SYSTEM_ID.fullmatch(system_id):
        raise unfit(
            "system_id", f"a system_id has 1 to {SYSTEM_ID_MAX} characters: letters, digits and marks, no space"
        )
    password = _new_password()
    made = Token(
        office.ids.next(),
        account_id,
        application_id,
        "smpp",
        _check_mode(mode),
        label,
        system_id,
        await asyncio.to_thread(hash_password, password),
        frozenset({Scope.SEND.value, Scope.STATUS.value}),
        0,
        0,
    )
    return await _add(office, actor, made, password)


async def rotate_token(
    office: Office, actor: str, account_id: int, token_id: int, overlap_hours: float = 24.0
) -> NewToken:
    """Replace a token by a new one with the same rights; the old one ends `overlap_hours` from now.

    An SMPP login keeps its id and gets another password at once: a system_id has one password, so its overlap must
    be 0. Binds that are open stay open. Raises `Refused`.
    """
    if not 0 <= overlap_hours <= 24 * 365:
        raise unfit("overlap", "the overlap must be from 0 hours to a year")
    now_ms = office.clock.now_ms()
    subject = show("tok", token_id)
    async with office.store.transaction() as tx:
        old = await accounts.token(tx, account_id, token_id)
        if old is None:
            raise missing("token")
        if old.revoked_ms or (old.expires_ms and old.expires_ms <= now_ms):
            raise unfit("token", "this token has ended; create a new one")
        if old.kind == "smpp":
            if overlap_hours:
                raise unfit("overlap", "an SMPP login has one password: rotate it with an overlap of 0 hours")
            password = _new_password()
            hashed = await asyncio.to_thread(hash_password, password)
            await accounts.set_token_hash(tx, account_id, token_id, hashed)
            await note(office, tx, actor, account_id, "token.rotate", subject)
            return NewToken(token_id, password, old.login)
        secret = new_api_key() if old.kind == "api_key" else new_token(old.mode)
        identifier = office.ids.next()
        made = Token(
            identifier,
            account_id,
            old.application_id,
            old.kind,
            old.mode,
            old.label,
            "",
            hash_token(secret),
            frozenset(old.scopes.split()),
            old.expires_ms,
            0,
        )
        await accounts.add_token(tx, made, hint_of(secret), now_ms)
        ends_ms = now_ms + int(overlap_hours * 3_600_000)
        if not old.expires_ms or ends_ms < old.expires_ms:
            await accounts.set_token_expiry(tx, account_id, token_id, ends_ms)
        new = show("tok", identifier)
        await note(office, tx, actor, account_id, "token.rotate", subject, new=new, overlap_hours=overlap_hours)
    return NewToken(identifier, secret)


async def revoke_token(office: Office, actor: str, account_id: int, token_id: int) -> None:
    """End a token now. Every process forgets it within a second. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if not await accounts.revoke_token(tx, account_id, token_id, office.clock.now_ms()):
            raise missing("token that has not been revoked")
        await note(office, tx, actor, account_id, "token.revoke", show("tok", token_id))


def hint_of(secret: str) -> str:
    """The first and last characters of a secret, by which people recognise it; too few to guess the rest by."""
    return f"{secret[:7]}…{secret[-4:]}"


def read_rules(changes: Mapping[str, object], before: Rules | None = None) -> Rules:
    """Rules with some of their fields replaced. Text stands for any type, a list's text is separated by commas.

    Raises `Refused` for a name that is no rule, and for a value that cannot be one.
    """
    values = msgspec.structs.asdict(before or Rules())
    for name, value in changes.items():
        if name not in values:
            raise unfit(name, f"there is no rule {name}; the rules are {', '.join(values)}")
        if isinstance(value, str) and isinstance(values[name], tuple):
            value = [item.strip() for item in value.split(",") if item.strip()]
        values[name] = value
    try:
        return check_rules(msgspec.convert(values, Rules, strict=False))
    except msgspec.ValidationError as error:
        raise unfit("rules", f"the rules cannot be read: {error}") from None


def _new_rules(rules: Rules | Mapping[str, object], before: Rules) -> Rules:
    return check_rules(rules) if isinstance(rules, Rules) else read_rules(rules, before)


def digest_phrase(vault: Vault, phrase: str) -> str:
    """A pass phrase as the rules keep it: it is compared with what receivers answer, and never read back."""
    return DIGESTED + vault.digest("pass phrase", phrase.strip())


def _kept(office: Office, rules: Rules) -> Rules:
    """The rules as they are stored: the pass phrase only as its digest."""
    if not rules.pass_phrase or rules.pass_phrase.startswith(DIGESTED):
        return rules
    return msgspec.structs.replace(rules, pass_phrase=digest_phrase(office.vault, rules.pass_phrase))


def check_rules(rules: Rules) -> Rules:
    """The rules, if every part of them can be followed. Raises `Refused`."""
    for network in rules.networks:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise unfit("networks", f"{network} is not an address or a network such as 203.0.113.0/24") from None
    for country in rules.countries:
        _check_country(country, "countries")
    for name, value in msgspec.structs.asdict(rules).items():
        if isinstance(value, int | float) and not 0 <= value < 1 << 53:
            raise unfit(name, f"{name} must be 0 (no limit) or more")
    if rules.webhook_url:
        parts = urlsplit(rules.webhook_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise unfit("webhook_url", "the webhook's URL must look like https://example.com/path")
    return rules


async def _add(office: Office, actor: str, made: Token, secret: str) -> NewToken:
    async with office.store.transaction() as tx:
        if not await accounts.has_application(tx, made.account_id, made.application_id):
            raise missing("application")
        if made.login and await accounts.has_login(tx, made.login):
            raise unfit("system_id", "this system_id is taken; choose another")
        # Of a password of eight characters even two are too many to show.
        hint = "" if made.kind == "smpp" else hint_of(secret)
        await accounts.add_token(tx, made, hint, office.clock.now_ms())
        if made.kind == "smpp":
            await binds.ensure_endpoint(tx, made.account_id, made.application_id, office.clock.now_ms())
        subject = show("tok", made.id)
        detail = {"kind": made.kind, "mode": made.mode, "scopes": sorted(made.scopes), "hint": hint or made.login}
        await note(office, tx, actor, made.account_id, "token.create", subject, **detail)
    return NewToken(made.id, secret, made.login)


def _new_password() -> str:
    return "".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(PASSWORD_CHARACTERS))


def _check_mode(mode: str) -> str:
    if mode not in MODES:
        raise unfit("mode", "the mode must be test or live")
    return mode


def _check_scopes(scopes: Iterable[str]) -> frozenset[str]:
    known = {"*", *(scope.value for scope in Scope)}
    chosen = frozenset(scopes)
    if not chosen or chosen - known:
        raise unfit("scopes", f"the rights of a token are one or more of {', '.join(sorted(known))}")
    return chosen


def _check_services(services: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(services)
    if chosen - set(SERVICES):
        raise unfit("services", f"the services are {', '.join(SERVICES)}")
    return chosen


def _check_country(country: str, field: str) -> None:
    if country_name(country) is None:
        raise unfit(field, f"{country!r} is not a country; write its two letters, such as SA or TR")


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise unfit("zone", f"{zone!r} is not a time zone; write a name such as Asia/Riyadh") from None


def _told(rules: Rules) -> dict[str, object]:
    """What the audit keeps of rules: those that differ from the defaults, the pass phrase only as being set."""
    default = Rules()
    told = {name: value for name, value in msgspec.structs.asdict(rules).items() if value != getattr(default, name)}
    if "pass_phrase" in told:
        told["pass_phrase"] = "(set)"  # noqa: S105
    return told
