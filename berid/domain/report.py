"""What we tell the customer: events, and the endpoints that want them."""

from __future__ import annotations

from dataclasses import dataclass

from berid.domain.message import State

EVENT_OF_STATE: dict[State, str] = {
    State.SENT: "message.sent",
    State.DELIVERED: "message.delivered",
    State.READ: "message.read",
    State.UNDELIVERED: "message.undelivered",
    State.EXPIRED: "message.expired",
    State.REJECTED: "message.rejected",
    State.FAILED: "message.failed",
    State.CANCELLED: "message.cancelled",
    State.UNCERTAIN: "message.uncertain",
    State.HELD: "message.held",
}
"""The public name of the event for each state that customers are told of."""

INBOUND_EVENT = "message.received"
"""A person wrote to one of the account's numbers."""

VERIFIED_EVENT = "otp.verified"
"""A person has typed the right code, at whatever door. Told to endpoints of VERIFIED_KINDS, whatever else they ask for."""

VERIFIED_KINDS = frozenset({"turkeysms"})
"""The kinds of endpoint whose contract has that event."""

DEFAULT_EVENTS = frozenset(
    {
        "message.delivered",
        "message.read",
        "message.undelivered",
        "message.expired",
        "message.rejected",
        "message.failed",
        "message.cancelled",
        INBOUND_EVENT,
    }
)
"""What an endpoint is told when it names no events: every end of a message, and every message received."""

DEFAULT_EVENTS_OF_KIND = {"turkeysms": DEFAULT_EVENTS - {INBOUND_EVENT} | {EVENT_OF_STATE[State.SENT]}}
"""The same for kinds whose contract has other events."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an account's events go. `kind` is `native` (signed JSON), a dialect's name, or `smpp` (a bind).

    `application_id` 0 means every application of the account. `host` is the lane: one slow receiver harms only itself.
    `batch_max` events at most go into one call; 1 means one event a call, in its own shape.
    """

    id: int
    account_id: int
    application_id: int
    kind: str
    url: str
    host: str
    sealed_secret: str
    events: frozenset[str]
    batch_max: int
    state: str

    @property
    def lane(self) -> str:
        """The lane of its jobs."""
        return f"h{self.host}"

    def hears(self, application_id: int) -> bool:
        """Whether this endpoint is told of an application at all."""
        return self.state == "on" and (not self.application_id or self.application_id == application_id)

    def wants(self, application_id: int, event: str) -> bool:
        """Whether this endpoint is told of an event of an application."""
        return event in self.events and self.hears(application_id)
