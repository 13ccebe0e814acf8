"""Everything that deciding about a request needs to know of the business, as one immutable snapshot in memory.

The store loads it (`store.directory`); a change to any of it raises the store's version, and every process takes a new snapshot
within a second. So the hot path decides without a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from berid.domain.account import Account, Application, SenderName, Token
from berid.domain.pricing import PriceList
from berid.domain.report import Endpoint
from berid.domain.routing import ConnectorSettings, Route


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
