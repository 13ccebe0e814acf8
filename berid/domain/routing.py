"""Which connectors may carry a delivery, in which order, and what to do when no answer comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class UncertainPolicy(StrEnum):
    """What becomes of a delivery whose submit left us and got no answer."""

    WAIT = "wait"
    """Wait for a receipt until the validity ends, then fail and release the money."""
    RESEND = "resend"
    """Send again: the owner says a double is better than a loss. Default for one-time passwords."""
    FAIL = "fail"
    """Fail and release at once."""


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that picks connectors. Lower `rank` is asked first; empty conditions match everything.

    `mode` is test or live: test traffic can only reach simulators. `connectors` are ids in order of preference.
    `uncertain` maps a priority (0, 1, 2) to a policy; what it leaves out is as configured for all routes.
    """

    id: int
    name: str
    rank: int
    mode: str
    channel: str
    connectors: tuple[int, ...]
    countries: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()
    accounts: frozenset[int] = frozenset()
    uncertain: Mapping[int, UncertainPolicy] = field(default_factory=dict)

    def why_not(self, mode: str, channel: str, number: str, country: str | None, category: str, account_id: int) -> str:
        """Empty if the route takes this delivery, else which condition it fails: what *explain* prints."""
        if self.mode != mode:
            return f"is for {self.mode} traffic"
        if self.channel != channel:
            return f"is for {self.channel}"
        if self.accounts and account_id not in self.accounts:
            return "is for other accounts"
        if self.categories and category not in self.categories:
            return f"is for {', '.join(sorted(self.categories))}"
        if self.countries and country not in self.countries:
            return f"does not serve {country or 'unknown countries'}"
        if self.prefixes and not number.startswith(self.prefixes):
            return "does not serve this prefix"
        return ""


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """One configured link to a carrier. `settings` are the channel's own; secrets in them are sealed.

    `state` is `on`, `paused` (keeps its binds, sends nothing), `draining` (takes nothing new) or `off`.
    """

    id: int
    name: str
    channel: str
    kind: str
    mode: str
    state: str
    settings: Mapping[str, object]

    @property
    def lane(self) -> str:
        """The lane of its jobs."""
        return f"c{self.id}"


def choose(
    routes: Sequence[Route],
    mode: str,
    channel: str,
    number: str,
    country: str | None,
    category: str,
    account_id: int,
) -> Route | None:
    """The first route, by rank, that takes this delivery."""
    for route in routes:
        if not route.why_not(mode, channel, number, country, category, account_id):
            return route
    return None
