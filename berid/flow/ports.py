"""What the flow needs of the rims, and the bag that holds the parts of one process.

Channels, connectors and dialects import `flow`; `flow` never imports them: it gets them in `Runtime`, and says here
what they must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from berid.base.clock import Clock
from berid.base.ids import IdMaker
from berid.base.secret import Vault
from berid.config import Config
from berid.domain.directory import Directory
from berid.domain.errors import SendFailure
from berid.domain.message import Draft, Outgoing, Sent, Submission
from berid.domain.report import Endpoint
from berid.domain.routing import ConnectorSettings
from berid.flow.limits import Limits
from berid.metrics import Metrics
from berid.net import Outbound
from berid.queue.lanes import Lane
from berid.store import Store
from berid.store.hot import Tracked
from berid.trace import Trace

Outcome = Sent | SendFailure
"""How one try through a connector ended."""

Report = Callable[[Outgoing, Outcome], None]
"""How a connector tells the outcome of one delivery. Called on the event loop, at once, and must not block."""


class Prepared(msgspec.Struct, frozen=True):
    """A submission as its channel will send it: one body, and one draft per recipient.

    `body_kind` is `text` or `raw`; `alphabet` and `parts` are the channel's own words for how the body goes out.
    """

    body: str
    body_kind: str
    alphabet: str
    parts: int
    drafts: Sequence[Draft]


class Tell(msgspec.Struct, gc=False):
    """One event for one endpoint. `payload` is its frozen data as JSON."""

    callback_id: int
    endpoint_id: int
    account_id: int
    event: str
    payload: str
    created_ms: int


class Bundle(msgspec.Struct):
    """Events of one commit for one endpoint, on their way through a lane: told in one call, with one job and one record of a
    try. It has the id of its first event; `attempts` counts this try, and `parts` the events."""

    id: int
    endpoint_id: int
    account_id: int
    tells: Sequence[Tell]
    attempts: int
    parts: int
    priority: int = 1


class Fresh(Outgoing, gc=False):
    """What this process has just accepted, with the delivery as it will be when it has started for the first time: it need not be
    read again."""

    row: Tracked


class Channel(Protocol):
    """A kind of message with rules."""

    name: str

    def prepare(self, submission: Submission) -> Prepared:
        """Encode the content and count the units, for every recipient. No I/O. Raises `Refused`."""

    def connector(self, rt: Runtime, settings: ConnectorSettings) -> Connector:
        """A connector for one configured link. Raises ValueError for settings it cannot use."""

    def check_settings(self, kind: str, settings: dict[str, Any]) -> None:
        """Raises ValueError, in words for a person, when a connector could not be made of these settings."""


class Connector(Protocol):
    """One configured link to a carrier."""

    settings: ConnectorSettings

    async def start(self) -> None:
        """Begin to connect; returns at once."""

    async def stop(self) -> None:
        """Wait for the answers to what is on the wire, within the time budget, then unbind and close."""

    @property
    def is_up(self) -> bool:
        """Whether it can send now."""

    def health(self) -> str:
        """`up`, `degraded` (some binds) or `down`, with a reason: for people."""

    def room(self) -> tuple[int, int]:
        """(parts that may be handed over now, how many of them are for priority 0 only)."""

    def reserve(self, parts: int) -> None:
        """Take room for a parcel that is about to be handed over."""

    def give_back(self, parts: int) -> None:
        """Give back room of deliveries that are not handed over after all."""

    def on_room(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever room may have appeared or the link went up or down."""

    def send(self, parcel: Sequence[Outgoing], report: Report) -> None:
        """Put a parcel on the wire, while `Runtime.holds` says that we may. `report` is called exactly once for each delivery, in
        any order, later or at once."""


class Dialect(Protocol):
    """A language that customers speak to us over HTTP, and in which web addresses of theirs are told."""

    name: str

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """The body and headers of one call with these events, in this dialect's shape; one event unless the
        endpoint batches."""

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """Whether the receiver's answer counts as received."""


class Listener(Protocol):
    """A language that customers speak to us on connections of their own, over which they are told as well: SMPP."""

    name: str

    async def listen(self, rt: Runtime) -> tuple[int | None, int | None]:
        """Take connections, and return the plain port and the TLS port, None where there is none. Raises OSError."""

    async def shut(self, rt: Runtime) -> None:
        """End every connection in good order. Does nothing if `listen` was not called."""


class Binds(Protocol):
    """The connections of a listener, for step *notify*."""

    def serves(self, application_id: int) -> bool:
        """Whether an application has a connection here that can be told something."""

    async def deliver(self, endpoint: Endpoint, tells: Sequence[Tell]) -> list[str | None]:
        """Tell an application some events, and return what came of each: "" when it was received, words when it was not,
        None when it was not tried."""


@dataclass(slots=True)
class Runtime:
    """The parts of one process. Made and taken apart by `app`."""

    config: Config
    clock: Clock
    ids: IdMaker
    slot: int
    vault: Vault
    store: Store
    http: Outbound
    metrics: Metrics
    channels: dict[str, Channel]
    directory: Directory = field(default_factory=Directory)
    refresh: Callable[[], Awaitable[None]] | None = None
    """Takes a new directory if somebody has changed it. Every process does so twice a second; whoever has just made a change
    asks at once, so that it holds before the answer."""
    limits: Limits = field(default_factory=Limits)
    trace: Trace = field(default_factory=Trace)
    dialects: dict[str, Dialect] = field(default_factory=dict)
    listeners: dict[str, Listener] = field(default_factory=dict)
    connectors: dict[int, Connector] = field(default_factory=dict)
    leases: dict[int, float] = field(default_factory=dict)
    """Until which monotonic second this process may use a connector. None for one: as long as it lives (SQLite)."""
    lanes: dict[str, Lane[Any]] = field(default_factory=dict)
    """The lanes that this process serves, by name."""
    parked: dict[int, int] = field(default_factory=dict)
    """How many reports of each connector are parked, waiting for a response that names their id."""
    recent_keys: dict[tuple[int, str], None] = field(default_factory=dict)
    """(connector, key) of receipts settled a short while ago, oldest first."""
    sent: dict[tuple[int, str], Tracked] = field(default_factory=dict)
    """Deliveries that this process has sent a short while ago, as it left them, by (connector, key) of the receipt that will
    come; oldest first."""
    background: set[asyncio.Task[None]] = field(default_factory=set)
    """Work that nobody waits for and that the sweeper would take up again."""
    binds: Binds | None = None
    """The customers' binds, when this process serves any: tells SMPP customers at step *notify*."""

    def holds(self, connector_id: int) -> bool:
        """Whether the connector is this process's to send by. A process that was frozen for longer than its lease finds here,
        before anything else, that another may have taken its place."""
        until_s = self.leases.get(connector_id)
        return until_s is None or self.clock.ticks_s() < until_s
