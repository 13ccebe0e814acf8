"""A message on its way: what is asked for, what becomes of it, and which state may follow which.

The values here are msgspec Structs, frozen like the rest of the domain's: several are made for every message, and a
frozen dataclass costs ten times as much to make (docs/decisions/0002-values-on-the-path-are-structs.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum, StrEnum

import msgspec

from berid.domain.errors import Refusal
from berid.domain.otp import Code


class Priority(IntEnum):
    """Order inside every lane. 0 has room reserved in each connector's window and rate."""

    OTP = 0
    TRANSACTIONAL = 1
    BULK = 2


class Category(Enum):
    """What the message is for. Only promotional traffic needs consent and keeps quiet hours."""

    OTP = "otp"
    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"


class State(StrEnum):
    """The states of a delivery, the same words in tables, API, portal and docs."""

    SCHEDULED = "scheduled"
    HELD = "held"
    QUEUED = "queued"
    SENDING = "sending"
    UNCERTAIN = "uncertain"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    # As a text, and not through Enum's own: states are looked up several times for every message, often by what a row says.
    __hash__ = str.__hash__


WAITING = frozenset({State.SCHEDULED, State.HELD, State.QUEUED})
"""Not yet given to a carrier: may be cancelled, and all its money given back."""

FINAL = frozenset(
    {
        State.DELIVERED,
        State.READ,
        State.UNDELIVERED,
        State.EXPIRED,
        State.REJECTED,
        State.FAILED,
        State.CANCELLED,
    }
)
"""Nothing more is expected. A late report may still lift `expired` or `undelivered` to `delivered`."""

_FOLLOWS: Mapping[str, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.QUEUED, State.HELD, State.SENDING, State.EXPIRED, State.FAILED, State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.SCHEDULED, State.SENDING, State.EXPIRED, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.HELD, State.SENDING, State.EXPIRED, State.FAILED, State.CANCELLED}),
    State.SENDING: frozenset({State.QUEUED, State.SENT, State.UNCERTAIN, State.REJECTED, State.FAILED, State.EXPIRED}),
    State.UNCERTAIN: frozenset(
        {
            State.QUEUED,
            State.SENT,
            State.DELIVERED,
            State.READ,
            State.UNDELIVERED,
            State.EXPIRED,
            State.REJECTED,
            State.FAILED,
        }
    ),
    State.SENT: frozenset(
        {State.DELIVERED, State.READ, State.UNDELIVERED, State.EXPIRED, State.REJECTED, State.FAILED}
    ),
    State.DELIVERED: frozenset({State.READ}),
    State.READ: frozenset(),
    State.UNDELIVERED: frozenset({State.DELIVERED, State.READ}),
    State.EXPIRED: frozenset({State.DELIVERED, State.READ}),
    State.REJECTED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


def may_follow(state: str, following: State) -> bool:
    """Whether a delivery in `state` may become `following`. Whatever is not in the table changes nothing."""
    return following in _FOLLOWS[state]


class MoneyState(StrEnum):
    """What has become of a delivery's price. Each delivery's price is charged or released exactly once."""

    HELD = "held"
    CHARGED = "charged"
    RELEASED = "released"


class ChargeOn(StrEnum):
    """The moment at which a price list turns a hold into a charge."""

    SENT = "sent"
    DELIVERED = "delivered"


class RawPart(msgspec.Struct, frozen=True):
    """One part of a text that a customer has split himself (SMPP with a user data header): carried as it is."""

    udh: bytes
    data: bytes
    data_coding: int


class Content(msgspec.Struct, frozen=True):
    """What is to be said.

    `policy` says how a text may be written as SMS: `auto` (GSM if it fits, else UCS-2), `turkish` (Turkish tables
    permitted), `plain` (Turkish letters folded on request), `ucs2`. `raw` replaces `text` for a part split by the
    customer. `is_secret` texts are sealed while queued and erased at the final state.
    """

    text: str
    policy: str = "auto"
    raw: RawPart | None = None
    is_secret: bool = False


class Submission(msgspec.Struct, frozen=True):
    """What a caller asks for, in our words, not yet accepted.

    `recipients` are as the dialect normalised them; `rejected` are those that it could not read as a number.
    `due_ms` is None for now. `valid_s` None means the default of the category. `idempotency` is (key, hash of the
    body). `allows_partial`: a request with some refused recipients is still accepted for the others, as the
    dialect's contract says; otherwise one refused recipient refuses all.
    """

    channel: str
    sender: str
    recipients: Sequence[str]
    content: Content
    category: Category = Category.TRANSACTIONAL
    priority: Priority | None = None
    due_ms: int | None = None
    valid_s: int | None = None
    reference: str = ""
    cancel_key: str = ""
    idempotency: tuple[str, str] | None = None
    rejected: Sequence[str] = ()
    allows_partial: bool = False
    allows_none: bool = False
    """Whether a message that the rules let nobody have is still accepted, with every recipient refused: Taqnyat's way."""
    needs_sender: bool = True
    billing: str = ""
    """Name of the channel's way of counting units; empty is the exact one. TurkeySMS counts commercially."""
    faults: Sequence[Refusal] = ()
    """What the dialect has found wrong itself: nothing is accepted then, and the caller hears of all that is wrong at once.
    A channel that is not installed must be among them."""
    options: dict[str, str] = {}
    """Small things a dialect wants to see again when it reports: kept with the message, never interpreted here."""
    code: Code | None = None
    """The one-time password in it: counted against the limits, and kept, by the commit that accepts the message."""


BILLING_OPTION = "billing"
"""The option that keeps a message's `billing`, where it is not the exact one: sent again, it is counted as before."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """One delivery as the channel prepared it, before price and route: `units` are what is billed."""

    recipient: str
    units: int


class AcceptedDelivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One delivery of an accepted message."""

    id: int
    recipient: str
    units: int
    price_micros: int


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """The yes. Given only when message, deliveries, ledger entries and jobs are on disk.

    `deliveries` holds all for a message that was accepted in one commit; for a larger one the first and the last.
    `total` counts them all. `balance_micros` is what is left to spend. `is_replay` marks an answer to a repeated
    idempotency key: nothing was accepted again.

    Kept with the key as a list in the order of the fields, a third as long as with their names: a new field goes to the end and
    has a default.
    """

    message_id: int
    deliveries: Sequence[AcceptedDelivery]
    total: int
    units: int
    parts: int
    cost_micros: int
    currency: str
    balance_micros: int
    refused: Sequence[tuple[str, Refusal]] = ()
    state: State = State.QUEUED
    due_ms: int | None = None
    created_ms: int = 0
    is_replay: bool = False


class Outgoing(msgspec.Struct, gc=False):
    """One delivery handed to a connector, with all it needs to send it; the store is not asked again on the way."""

    delivery_id: int
    message_id: int
    account_id: int
    priority: int
    sender: str
    recipient: str
    body: str
    body_kind: str
    alphabet: str
    parts: int
    expires_ms: int
    attempt: int
    route_id: int
    dialect: str


class Sent(msgspec.Struct, frozen=True, gc=False):
    """The carrier's yes: its ids, one per part, as it gave them and as the route's rule matches them."""

    carrier_ids: tuple[str, ...]
    keys: tuple[str, ...]


class DeliveryReport(msgspec.Struct, frozen=True, gc=False):
    """What a carrier says of a delivery, in our words, with the raw words kept.

    `key` matches the carrier id by the route's rule; `recipient` helps to find a delivery whose submit got no answer.
    """

    connector_id: int
    key: str
    state: State
    at_ms: int
    code: str = ""
    raw: str = ""
    recipient: str = ""
