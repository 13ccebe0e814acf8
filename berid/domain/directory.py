"""Everything that deciding about a request needs to know of the business, as one immutable snapshot in memory.

The store loads it (`store.directory`); a change to any of it raises the store's version, and every process takes a new snapshot
within a second. So the hot path decides without a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from berid.domain.account import Account, Application, SenderName, Token
from berid.domain.message import Category
from berid.domain.pricing import PriceList
from berid.domain.report import Endpoint
from berid.domain.routing import ConnectorSettings, Route, choose
from berid.domain.rules import Gate, RuleBook
from berid.domain.suppression import ALL, Books, Consents


@dataclass(frozen=True, slots=True)
class Directory:
    """One moment of the business. Look-ups are by dictionary; nothing in it is changed after it is made."""

    version: int = 0
    accounts: Mapping[int, Account] = field(default_factory=dict)
    applications: Mapping[int, Application] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    """By hash."""
    logins: Mapping[str, Token] = field(default_factory=dict)
    """SMPP tokens by system_id."""
    senders: Mapping[tuple[int, str, str], Sequence[SenderName]] = field(default_factory=dict)
    """By (account, channel, name)."""
    wallets: Mapping[tuple[int, str, str], int] = field(default_factory=dict)
    """Wallet ids by (account, mode, currency)."""
    prices: Mapping[tuple[int, str], Sequence[PriceList]] = field(default_factory=dict)
    """By (account, channel), in the order in which they are asked; account 0 holds the defaults."""
    routes: Sequence[Route] = ()
    """By rank."""
    route_by_id: Mapping[int, Route] = field(default_factory=dict)
    connectors: Mapping[int, ConnectorSettings] = field(default_factory=dict)
    endpoints: Mapping[int, Sequence[Endpoint]] = field(default_factory=dict)
    """By account."""
    endpoint_by_id: Mapping[int, Endpoint] = field(default_factory=dict)
    numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(account, application) by the number that people write to."""
    rules: RuleBook = field(default_factory=RuleBook)
    consent_rules: Mapping[int, Mapping[str, bool]] = field(default_factory=dict)
    """By account and country: whether it wants consent, where that differs from the rule pack."""
    suppressions: Books = field(default_factory=dict)
    consents: Consents = field(default_factory=dict)
    _chosen: dict[tuple[str, str, str | None, str, int], Route | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What `route` has found before."""
    looks_at_prefixes: bool = field(default=False, init=False)
    """Whether some route looks at more of a number than its country."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks_at_prefixes", any(route.prefixes for route in self.routes))

    def gate(
        self, account_id: int, channel: str, category: Category, sender: str, parts: int, at_ms: int
    ) -> Gate | None:
        """What the suppression book and the rules say of messages that an account sends at a moment; None if nothing."""
        if category is Category.OTP:
            return None
        is_promotional = category is Category.PROMOTIONAL
        mine = self.suppressions.get(account_id)
        if mine is None and not is_promotional:
            return None
        books = [book for name in (channel, ALL) if (book := mine.get(name)) is not None] if mine else []
        if not is_promotional:
            books = [book for book in books if book.marked]
            if not books:
                return None
        return Gate(
            is_promotional=is_promotional,
            channel=channel,
            sender=sender,
            parts=parts,
            at_ms=at_ms,
            rules=self.rules,
            books=books,
            consents=self.consents.get(account_id, {}),
            consent_rules=self.consent_rules.get(account_id, {}),
        )

    def route(
        self, mode: str, channel: str, number: str, country: str | None, category: str, account_id: int
    ) -> Route | None:
        """The first route, by rank, that takes a delivery; remembered where a number's country settles it."""
        key = (mode, channel, country, category, account_id)
        if key in self._chosen:
            return self._chosen[key]
        found = choose(self.routes, mode, channel, number, country, category, account_id)
        if not self.looks_at_prefixes:
            self._chosen[key] = found
        return found

    def price_lists(self, account_id: int, channel: str) -> Sequence[PriceList]:
        """The lists by which an account buys on a channel."""
        return self.prices.get((account_id, channel)) or self.prices.get((0, channel), ())

    def senders_of(self, account_id: int, channel: str) -> list[SenderName]:
        """All sender names of an account on a channel, by name."""
        return [
            name
            for key, names in sorted(self.senders.items())
            if key[0] == account_id and key[1] == channel
            for name in names
        ]
