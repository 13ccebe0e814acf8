"""Who may send, as whom, from where, to where: accounts, applications, tokens, sender names."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import msgspec

from berid.domain.errors import Refusal, RefusalKind


class Scope(StrEnum):
    """A right of a token. The `*` of a token's scopes means all of an account's; `operator` stands above accounts."""

    SEND = "send"
    """Send through the native API, Taqnyat's and SMPP."""
    SEND_POST = "send.post"
    """TurkeySMS: may send by POST."""
    SEND_GET = "send.get"
    """TurkeySMS: may send by GET."""
    STATUS = "status"
    """Read messages and their states."""
    BALANCE = "balance"
    SENDERS = "senders"
    CALLBACKS = "callbacks"
    MANAGE = "manage"
    """Change the account's own settings, applications and tokens."""
    OPERATOR = "operator"
    """Run the installation: every account, prices, routes, connectors."""


class SenderState(StrEnum):
    """The life of a sender name."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    NEEDS_INFO = "needs_info"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Restrictions of an account or of an application; an application's narrow its account's.

    Empty lists restrict nothing. Rates count messages; 0 means no limit.
    """

    api_on: bool = True
    networks: tuple[str, ...] = ()
    """Addresses and CIDRs from which the API may be called."""
    countries: tuple[str, ...] = ()
    """ISO 3166 codes of the countries that may be written to."""
    international_on: bool = True
    """Whether numbers outside the account's own country may be written to."""
    per_second: float = 0
    per_minute: int = 0
    spend_per_day_micros: int = 0
    """What may be spent in a day of the account's zone, in the currency of whichever wallet pays; 0 means no limit."""
    spend_per_month_micros: int = 0
    returns_code: bool = True
    """Whether compatible OTP calls return the code to the caller, as their contract says."""
    otp_prefix_per_minute: int = 0
    """Codes into one block of numbers in a minute; 0 means the platform's own limit."""
    otp_country_per_minute: int = 0
    otp_address_per_minute: int = 0
    sms_id_is_key: bool = False
    """Whether Taqnyat's `smsId` is an idempotency key."""
    lenient_numbers: bool = False
    """Whether `+` and `00` before a number are forgiven on Taqnyat's calls."""
    pass_phrase: str = ""
    """What a receiver of Taqnyat's delivery webhook must answer; once it is stored, its keyed hash."""
    webhook_url: str = ""
    """Where Taqnyat's delivery webhook goes."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays. `home` is the ISO code of its own country: what is not `home` is international."""

    id: int
    name: str
    state: str
    home: str
    zone: str
    language: str
    rules: Rules


@dataclass(frozen=True, slots=True)
class Application:
    """A named client of an account. `services` are the channels it may use, `otp` among them."""

    id: int
    account_id: int
    name: str
    state: str
    services: frozenset[str]
    rules: Rules


@dataclass(frozen=True, slots=True)
class Token:
    """A secret of an application, known by its hash. `kind` is `bearer`, `api_key` or `smpp`; `mode` test or live."""

    id: int
    account_id: int
    application_id: int
    kind: str
    mode: str
    label: str
    login: str
    hash: str
    scopes: frozenset[str]
    expires_ms: int
    revoked_ms: int

    def is_live_at(self, now_ms: int) -> bool:
        """Whether the token may be used now."""
        return not (self.revoked_ms and self.revoked_ms <= now_ms) and not (
            self.expires_ms and self.expires_ms <= now_ms
        )

    def has(self, scope: Scope) -> bool:
        """Whether the token carries a right. `*` carries every right but `operator`."""
        return scope.value in self.scopes or ("*" in self.scopes and scope is not Scope.OPERATOR)


@dataclass(frozen=True, slots=True)
class SenderName:
    """An approved name or number shown to the recipient. Case-sensitive. `country` empty means everywhere.

    `category` is `transactional`, `promotional` or `any`. `expires_ms` 0 means never.
    """

    id: int
    account_id: int
    channel: str
    name: str
    country: str
    category: str
    state: SenderState
    expires_ms: int


class Caller(msgspec.Struct, frozen=True):
    """Whoever makes a request: account, application and token, from which address, in which dialect."""

    account: Account
    application: Application
    token: Token
    address: str
    dialect: str

    @property
    def mode(self) -> str:
        """`test` or `live`: which wallets pay and which connectors may be reached."""
        return self.token.mode


def check_caller(caller: Caller, scope: Scope | None, service: str | None) -> list[Refusal]:
    """All reasons, seen from the account's rules alone, why this caller may not make this call.

    `scope` is the right the call needs, `service` the channel it sends on; None where none is needed.
    """
    found: list[Refusal] = []
    account, application, token = caller.account, caller.application, caller.token
    if account.state != "active" or application.state != "active":
        found.append(Refusal(RefusalKind.ACCOUNT_INACTIVE, "the account or the application is not active"))
    if scope is not None and not token.has(scope):
        found.append(Refusal(RefusalKind.SCOPE_MISSING, f"the token lacks the right {scope.value!r}"))
    if service is not None and service not in application.services:
        found.append(Refusal(RefusalKind.SERVICE_MISSING, f"the application does not include {service!r}"))
    for rules in (account.rules, application.rules):
        if service is not None and not rules.api_on:
            found.append(Refusal(RefusalKind.API_OFF, "sending through the API is switched off"))
            break
    for rules in (account.rules, application.rules):
        if rules.networks and not is_in_networks(caller.address, rules.networks):
            found.append(Refusal(RefusalKind.ADDRESS_NOT_ALLOWED, f"calls from {caller.address} are not allowed"))
            break
    return found


def is_in_networks(address: str, networks: Sequence[str]) -> bool:
    """Whether an address lies in one of the networks; an address that cannot be read lies in none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in _networks(tuple(networks)) if network.version == parsed.version)


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def check_sender(
    names: Sequence[SenderName], country: str | None, category: str, now_ms: int
) -> tuple[SenderName | None, Refusal | None]:
    """Pick the sender name that may be used among an account's names that are spelled as asked.

    `names` are all of the account's names with that spelling on that channel. Returns the usable one, or the refusal:
    unknown when there is none for this country and category, else expired or inactive.
    """
    fitting = [
        name
        for name in names
        if (not name.country or country is None or name.country == country)
        and (name.category == "any" or category == "otp" or name.category == category)
    ]
    if not fitting:
        return None, Refusal(RefusalKind.SENDER_UNKNOWN, "the sender name is not one of the account's", "sender")
    for name in fitting:
        if name.state is SenderState.APPROVED and not (name.expires_ms and name.expires_ms <= now_ms):
            return name, None
    if any(name.state in (SenderState.EXPIRED, SenderState.APPROVED) for name in fitting):
        return None, Refusal(RefusalKind.SENDER_EXPIRED, "the sender name has expired", "sender")
    return None, Refusal(RefusalKind.SENDER_INACTIVE, f"the sender name is {fitting[0].state.value}", "sender")
