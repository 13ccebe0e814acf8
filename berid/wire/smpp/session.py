"""The SMPP conversation as an engine: bytes in, events out. No socket, no clock; both roles.

The owner of the connection
- gives what it read to `receive(data, now)` and handles the events;
- after each call writes what `take_output()` returns, if anything, in one write;
- calls `tick(now)` when `next_tick` has come;
- closes the connection after a `Closed` event (when the output is written), and calls `lost()` when the
  connection has ended, whatever ended it.

`now` is any steady number of seconds; it only has to run forward.

Requests of ours are sent with `submit`, at most `window` without an answer. Each carries a token, any object,
which comes back exactly once: in `Response`, in `TimedOut`, in `Unreadable`, from `lost()` (bytes handed out,
no answer: nobody knows whether the peer has it) or from `unsent()` (bytes never left). Only a response that
comes after its `TimedOut` shows the token once more, in `Late`.

Requests of the peer come as `Request` and are answered by the owner with `respond` or `respond_with`, when its
work is on disk and not before. Only enquire_link, unbind and what is refused are answered here.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

import msgspec

from berid.wire.smpp.codes import RESPONSE_BIT, CommandId, CommandStatus, command_name
from berid.wire.smpp.pdu import (
    HEADER_BYTES,
    MAX_PDU_BYTES,
    MAX_SEQUENCE,
    PACK_HEADER,
    UNPACK_HEADER,
    BindReceiver,
    BindTransceiver,
    BindTransmitter,
    DataSmResp,
    DeliverSmResp,
    Pdu,
    PduError,
    SubmitSmResp,
    answer_id_of,
    bad_length,
    decode_body,
    encode,
    encode_bare,
)

_GENERIC_NACK = int(CommandId.GENERIC_NACK)
_ENQUIRE_LINK = int(CommandId.ENQUIRE_LINK)
_ENQUIRE_LINK_RESP = int(CommandId.ENQUIRE_LINK_RESP)
_UNBIND = int(CommandId.UNBIND)
_UNBIND_RESP = int(CommandId.UNBIND_RESP)
_SUBMIT_SM = int(CommandId.SUBMIT_SM)
_DELIVER_SM = int(CommandId.DELIVER_SM)
_SUBMIT_MULTI = int(CommandId.SUBMIT_MULTI)
_DATA_SM = int(CommandId.DATA_SM)
_BINDS = frozenset(
    int(command) for command in (CommandId.BIND_RECEIVER, CommandId.BIND_TRANSMITTER, CommandId.BIND_TRANSCEIVER)
)
_ONE_WAY = frozenset((int(CommandId.OUTBIND), int(CommandId.ALERT_NOTIFICATION)))

_NONE = -1  # no sequence: a broken peer may use any from 0 to 0xFFFFFFFF

LATE_MEMORY = 1_000
"""How many timed-out requests are remembered, so that a response that comes after all can be told whose it is."""

UNBIND_PATIENCE_S = 5.0
"""How long the peer's unbind waits for its answer while requests are under way, either way.

Each of them that is answered in this time is one less whose fate nobody knows. Peers give an unbind some ten
seconds or more before they hang up, so five do not make us look dead.
"""


class Role(Enum):
    """Which end of the conversation this is."""

    ESME = "esme"
    """The client: it binds and submits."""
    SMSC = "smsc"
    """The carrier's side: it is bound to, and delivers."""


class State(Enum):
    """States of SMPP 3.4, section 2.2, and UNBINDING: an unbind is under way, whoever asked."""

    OPEN = "open"
    BOUND_TX = "bound_tx"
    BOUND_RX = "bound_rx"
    BOUND_TRX = "bound_trx"
    UNBINDING = "unbinding"
    CLOSED = "closed"


def _commands(*commands: CommandId) -> frozenset[int]:
    return frozenset(int(command) for command in commands)


_FROM_ESME_TX = _commands(
    CommandId.SUBMIT_SM,
    CommandId.SUBMIT_MULTI,
    CommandId.DATA_SM,
    CommandId.QUERY_SM,
    CommandId.CANCEL_SM,
    CommandId.REPLACE_SM,
)
_FROM_SMSC_RX = _commands(CommandId.DELIVER_SM, CommandId.DATA_SM, CommandId.ALERT_NOTIFICATION)
_ALWAYS = _commands(CommandId.ENQUIRE_LINK)
_BOUND = _ALWAYS | _commands(CommandId.UNBIND)
_NOTHING: frozenset[int] = frozenset()

REQUESTS: Mapping[tuple[Role, State], frozenset[int]] = {
    (Role.ESME, State.OPEN): _ALWAYS | _BINDS,
    (Role.ESME, State.BOUND_TX): _BOUND | _FROM_ESME_TX,
    (Role.ESME, State.BOUND_RX): _BOUND,
    (Role.ESME, State.BOUND_TRX): _BOUND | _FROM_ESME_TX,
    (Role.ESME, State.UNBINDING): _ALWAYS,
    (Role.ESME, State.CLOSED): _NOTHING,
    (Role.SMSC, State.OPEN): _ALWAYS | _commands(CommandId.OUTBIND),
    (Role.SMSC, State.BOUND_TX): _BOUND,
    (Role.SMSC, State.BOUND_RX): _BOUND | _FROM_SMSC_RX,
    (Role.SMSC, State.BOUND_TRX): _BOUND | _FROM_SMSC_RX,
    (Role.SMSC, State.UNBINDING): _ALWAYS,
    (Role.SMSC, State.CLOSED): _NOTHING,
}
"""Which requests a role may send in a state (section 2.3, table 2-1).

replace_sm is allowed to a transceiver too, as 5.0 has it. enquire_link is allowed before the bind: peers send it.
"""

_PEER = {Role.ESME: Role.SMSC, Role.SMSC: Role.ESME}

_BOUND_BY = {
    int(CommandId.BIND_RECEIVER): State.BOUND_RX,
    int(CommandId.BIND_TRANSMITTER): State.BOUND_TX,
    int(CommandId.BIND_TRANSCEIVER): State.BOUND_TRX,
}


class CloseReason(Enum):
    """Why the connection is to be closed."""

    UNBOUND = "unbound"
    """Our unbind was answered."""
    PEER_UNBOUND = "peer_unbound"
    """The peer unbound and has its answer."""
    SILENT = "silent"
    """enquire_link was not answered in time, nor did anything else come: the link is dead though it stands."""
    STREAM_BROKEN = "stream_broken"
    """A command_length made no sense, so nothing after it can be read."""
    NEVER_BOUND = "never_bound"
    """The peer connected and did not bind in time."""
    UNBIND_TIMED_OUT = "unbind_timed_out"
    """An unbind handshake did not end in time."""


class WrongState(Exception):
    """This command may not be sent now: not bound, bound the other way, or on the way out."""


class WindowFull(Exception):
    """`window` requests are without an answer. Look at `room` before submitting."""


class UnknownSequence(Exception):
    """An answer for a request that the peer did not send or that has been answered."""


class Event(msgspec.Struct, gc=False):
    """What `receive` and `tick` return; one of the classes below."""


class Request(Event):
    """The peer asks. Answer it with `respond` or `respond_with` and this sequence.

    outbind and alert_notification come the same way and take no answer.
    """

    sequence: int
    pdu: Pdu


class Response(Event):
    """The answer to a request of ours. `status` 0 is yes; `pdu` may be a GenericNack.

    For a bind, `token` is what `bind` was given, and the session's state is already the new one.
    """

    sequence: int
    status: int
    pdu: Pdu
    token: Any


class TimedOut(Event):
    """No answer within the response timeout. The request has left the window; the peer may have it or not."""

    sequence: int
    token: Any


class Unreadable(Event):
    """A response came for a request of ours, but could not be read; whether it was a yes is unknown."""

    sequence: int
    token: Any
    error: PduError


class Late(Event):
    """A response to nothing that is waiting. `token` is that of a timed-out request, or None if there was none."""

    sequence: int
    status: int
    pdu: Pdu
    token: Any


class Refused(Event):
    """Something of the peer's was not handed up. `status` is the answer it got, if it was a request."""

    sequence: int
    command_id: int
    status: int
    why: str


class Closed(Event):
    """The conversation is over: write the output, close the connection, call `lost`."""

    reason: CloseReason


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits and times of one session. Times in seconds."""

    role: Role
    window: int = 10
    """Most requests of ours without an answer."""
    response_timeout_s: float = 30.0
    """How long a request of ours waits for its response; also the time for a bind and for an unbind."""
    enquire_interval_s: float = 30.0
    """enquire_link is sent when nothing came from the peer for so long."""
    bind_timeout_s: float = 10.0
    """As SMSC: how long a connection may stand without a successful bind."""
    max_unanswered: int = 1_000
    """Most requests of the peer that may wait for our answer; further ones are refused as busy."""
    busy_submit_status: int = CommandStatus.ESME_RTHROTTLED
    """The answer to a submit_sm, submit_multi or data_sm beyond max_unanswered."""
    busy_status: int = CommandStatus.ESME_RX_T_APPN
    """The answer to any other request beyond max_unanswered: try again later."""
    max_pdu_bytes: int = MAX_PDU_BYTES
    """Longest frame taken. The receive buffer never holds more than this and one read."""


class Session:
    """One SMPP conversation over one connection. See the module's text for how to drive it."""

    __slots__ = (
        "_bind",
        "_deadline",
        "_enquire_sent_at",
        "_enquire_sequence",
        "_heard_at",
        "_is_closed",
        "_late",
        "_max_pdu_bytes",
        "_max_unanswered",
        "_may_receive",
        "_may_send",
        "_need",
        "_next_sequence",
        "_output",
        "_peer_unbind_sequence",
        "_pending",
        "_repeated",
        "_settings",
        "_state",
        "_tail",
        "_unanswered",
        "_unbind_sequence",
        "_unsent",
        "_unwritten",
        "_window",
        "enquire_round_trip_s",
    )

    def __init__(self, settings: SessionSettings, now: float) -> None:
        self._settings = settings
        self._window = settings.window
        self._max_pdu_bytes = settings.max_pdu_bytes
        self._max_unanswered = settings.max_unanswered
        self._output: list[bytes] = []
        self._tail = bytearray()
        self._need = HEADER_BYTES
        self._next_sequence = 1
        # Ours, waiting for the peer: sequence -> (expected command id, token, sent at), oldest first.
        self._pending: dict[int, tuple[int, Any, float]] = {}
        self._unwritten: set[int] = set()
        self._late: OrderedDict[int, Any] = OrderedDict()
        self._unsent: list[Any] = []
        # The peer's, waiting for us: sequence -> command id. A peer that uses one sequence for several
        # requests at once is answered as often as it asked: the further ones stand in _repeated.
        self._unanswered: dict[int, int] = {}
        self._repeated: dict[int, list[int]] = {}
        self._bind: tuple[int, int, Any] | None = None
        # Sequences of our unbind, of the peer's unbind and of our enquire_link, while they are open.
        self._unbind_sequence = _NONE
        self._peer_unbind_sequence = _NONE
        self._enquire_sequence = _NONE
        self._enquire_sent_at = 0.0
        self._heard_at = now
        # Until when a bind or an unbind must be done.
        self._deadline = now + settings.bind_timeout_s if settings.role is Role.SMSC else inf
        self.enquire_round_trip_s: float | None = None
        """Seconds from the last answered enquire_link to its answer; None before the first."""
        self._state = State.OPEN
        self._is_closed = False
        self._may_send = _NOTHING
        self._may_receive = _NOTHING
        self._enter(State.OPEN)

    # What is

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    @property
    def room(self) -> int:
        """How many more requests `submit` takes now; 0 if the window is full. The state is not looked at."""
        return max(0, self._window - len(self._pending))

    @property
    def in_flight(self) -> int:
        """How many of our requests wait for their response."""
        return len(self._pending)

    @property
    def oldest_sent_at(self) -> float | None:
        """When the request that waits longest was submitted, on the scale of `now`; None if none waits."""
        for _, _, sent_at in self._pending.values():
            return sent_at
        return None

    @property
    def unanswered(self) -> int:
        """How many of the peer's requests wait for our answer."""
        return len(self._unanswered) + sum(map(len, self._repeated.values()))

    @property
    def next_tick(self) -> float:
        """When `tick` has something to do at the earliest, on the scale of `now`; infinity if never."""
        if self._is_closed:
            return inf
        if self._enquire_sequence != _NONE:
            silent = self._enquire_sent_at + self._settings.response_timeout_s
        elif _UNBIND in self._may_send:
            silent = self._heard_at + self._settings.enquire_interval_s
        else:
            silent = inf
        oldest = self.oldest_sent_at
        overdue = inf if oldest is None else oldest + self._settings.response_timeout_s
        return min(silent, overdue, self._deadline)

    # Sending

    def take_output(self) -> bytes:
        """Return the bytes to write now and forget them; b"" if there are none.

        From here on the requests in them count as written: if the connection ends, `lost` names them.
        """
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._unwritten.clear()
        return data

    def bind(self, pdu: BindReceiver | BindTransmitter | BindTransceiver, now: float, token: object = None) -> int:
        """Send a bind and return its sequence; the answer comes as `Response` with `token`.

        Raises WrongState if this is not the ESME, a bind is under way or done. An answer that does not come
        within the response timeout is `TimedOut`; the state stays OPEN then. Close the connection: the peer may
        take it for bound.
        """
        if self._bind is not None or pdu.command_id not in self._may_send:
            raise WrongState(f"{command_name(pdu.command_id)} in state {self._state.value}")
        sequence = self._take_sequence()
        self._output.append(encode(pdu, sequence))
        self._bind = (sequence, pdu.command_id, token)
        self._deadline = now + self._settings.response_timeout_s
        return sequence

    def submit(self, pdu: Pdu, now: float, token: object = None) -> int:
        """Send a request that takes a place in the window, and return its sequence.

        For submit_sm, submit_multi, data_sm, query_sm, cancel_sm and replace_sm as ESME, deliver_sm and data_sm as SMSC.
        Raises WindowFull, WrongState, or EncodeError; nothing is sent then, and the token is not kept.
        """
        command_id = pdu.command_id
        if command_id not in self._may_send or command_id in _NOT_IN_WINDOW:
            raise WrongState(f"{command_name(command_id)} in state {self._state.value}")
        pending = self._pending
        if len(pending) >= self._window:
            raise WindowFull
        body = pdu.pack_body()
        sequence = self._take_sequence()
        self._output.append(PACK_HEADER(HEADER_BYTES + len(body), command_id, 0, sequence) + body)
        pending[sequence] = (command_id | RESPONSE_BIT, token, now)
        self._unwritten.add(sequence)
        return sequence

    def announce(self, pdu: Pdu) -> int:
        """Send outbind or alert_notification, as SMSC: they have no response. Raises WrongState, EncodeError."""
        if pdu.command_id not in self._may_send or pdu.command_id not in _ONE_WAY:
            raise WrongState(f"{command_name(pdu.command_id)} in state {self._state.value}")
        sequence = self._take_sequence()
        self._output.append(encode(pdu, sequence))
        return sequence

    def unbind(self, now: float) -> None:
        """Begin to leave: `Closed(UNBOUND)` comes with the answer, `Closed(UNBIND_TIMED_OUT)` without.

        Nothing more can be submitted; responses are still taken, and requests of the peer that crossed our
        unbind are still handed up. Wait until `in_flight` is 0 before, or what is in flight ends in `lost`.
        Raises WrongState if not bound.
        """
        if _UNBIND not in self._may_send:
            raise WrongState(f"unbind in state {self._state.value}")
        self._unbind_sequence = self._take_sequence()
        self._output.append(PACK_HEADER(HEADER_BYTES, _UNBIND, 0, self._unbind_sequence))
        may_receive = self._may_receive
        self._enter(State.UNBINDING)
        self._may_receive = may_receive
        self._deadline = now + self._settings.response_timeout_s

    def respond(
        self,
        sequence: int,
        status: int = 0,
        message_id: str = "",
        tlvs: dict[int, bytes] | None = None,
    ) -> bool:
        """Answer a request of the peer; True if the answer goes out, False if the conversation is over.

        `message_id` is for submit_sm and data_sm; deliver_sm takes none. A status other than 0 is a refusal,
        of any request, and needs nothing more. To say yes to anything else, use `respond_with`.
        Raises UnknownSequence if no such request waits, EncodeError if the id or a parameter cannot be carried.
        """
        if self._is_closed:
            return False
        command_id = self._unanswered.get(sequence)
        if command_id is None:
            raise UnknownSequence(sequence)
        if not message_id and not tlvs and (status or command_id == _DELIVER_SM):
            frame = encode_bare(command_id | RESPONSE_BIT, sequence, status)
        else:
            pdu_type = _SIMPLE_RESPONSES.get(command_id)
            if pdu_type is None:
                raise ValueError(f"{command_name(command_id)} is answered with respond_with")
            frame = encode(pdu_type(message_id, tlvs or {}), sequence, status)
        self._answer(sequence, frame, command_id, status)
        return True

    def respond_with(self, sequence: int, pdu: Pdu, status: int = 0) -> bool:
        """Answer a request of the peer with a whole response PDU; otherwise like `respond`.

        A bind's yes makes the state bound. Raises UnknownSequence, EncodeError, and ValueError if `pdu` is not
        the response to that request.
        """
        if self._is_closed:
            return False
        command_id = self._unanswered.get(sequence)
        if command_id is None:
            raise UnknownSequence(sequence)
        if pdu.command_id != command_id | RESPONSE_BIT:
            raise ValueError(f"{command_name(pdu.command_id)} does not answer {command_name(command_id)}")
        self._answer(sequence, encode(pdu, sequence, status), command_id, status)
        return True

    # Receiving

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take what was read from the connection, whole frames or not, and return what it means, in order.

        Never raises, whatever the bytes. After a `Closed` nothing more is taken.
        """
        events: list[Event] = []
        if self._is_closed:
            return events
        self._heard_at = now
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return events
            data = bytes(self._tail)
            self._tail.clear()
        at = 0
        end = len(data)
        max_pdu_bytes = self._max_pdu_bytes
        self._need = HEADER_BYTES
        while end - at >= HEADER_BYTES:
            length, command_id, status, sequence = UNPACK_HEADER(data, at)
            if not HEADER_BYTES <= length <= max_pdu_bytes:
                self._on_broken_stream(bad_length(command_id, sequence), events)
                return events
            stop = at + length
            if stop > end:
                self._need = length
                break
            body = data[at + HEADER_BYTES : stop]
            at = stop
            if command_id & RESPONSE_BIT:
                self._on_response(command_id, status, sequence, body, now, events)
            else:
                self._on_request(command_id, sequence, body, now, events)
            if self._is_closed:
                return events
        if at < end:
            self._tail += data[at:] if at else data
        return events

    def tick(self, now: float) -> list[Event]:
        """Do what time asks for and return what came of it: time-outs, an enquire_link to send, a dead link."""
        events: list[Event] = []
        if self._is_closed:
            return events
        timeout_s = self._settings.response_timeout_s
        overdue = []
        for sequence, (_, token, sent_at) in self._pending.items():
            if now < sent_at + timeout_s:
                break
            overdue.append((sequence, token))
        for sequence, token in overdue:
            del self._pending[sequence]
            self._unwritten.discard(sequence)
            self._late[sequence] = token
            if len(self._late) > LATE_MEMORY:
                self._late.popitem(last=False)
            events.append(TimedOut(sequence, token))
        if now >= self._deadline:
            self._on_deadline(events)
        if self._is_closed:
            return events
        if self._enquire_sequence != _NONE:
            if now >= self._enquire_sent_at + timeout_s:
                if self._heard_at <= self._enquire_sent_at:
                    self._close(CloseReason.SILENT, events)
                # Anything else that came since shows the link alive; the next silence is asked about again.
                self._enquire_sequence = _NONE
        elif _UNBIND in self._may_send and now >= self._heard_at + self._settings.enquire_interval_s:
            self._enquire_sequence = self._take_sequence()
            self._enquire_sent_at = now
            self._output.append(PACK_HEADER(HEADER_BYTES, _ENQUIRE_LINK, 0, self._enquire_sequence))
        return events

    def lost(self) -> list[Any]:
        """Say that the connection has ended. Return the tokens of requests that were written and not answered.

        In the order of their submission. These are uncertain: the peer may have every one of them or none. (The
        token of an open bind is not among them.)
        What never left is in `unsent()`. The state is CLOSED from here on; a second call returns nothing.
        """
        uncertain: list[Any] = []
        for sequence, (_, token, _) in self._pending.items():
            (self._unsent if sequence in self._unwritten else uncertain).append(token)
        self._pending.clear()
        self._unwritten.clear()
        self._unanswered.clear()
        self._repeated.clear()
        self._late.clear()
        self._output.clear()
        self._tail.clear()
        self._enter(State.CLOSED)
        return uncertain

    def unsent(self) -> list[Any]:
        """Return, once, after `lost`, the tokens of requests whose bytes were never taken, in their order."""
        unsent = self._unsent
        self._unsent = []
        return unsent

    # Inside

    def _enter(self, state: State) -> None:
        role = self._settings.role
        self._state = state
        self._is_closed = state is State.CLOSED
        self._may_send = REQUESTS[role, state]
        self._may_receive = REQUESTS[_PEER[role], state]

    def _close(self, reason: CloseReason, events: list[Event]) -> None:
        self._tail.clear()
        self._unanswered.clear()
        self._repeated.clear()
        self._enter(State.CLOSED)
        events.append(Closed(reason))

    def _take_sequence(self) -> int:
        sequence = self._next_sequence
        while sequence in self._pending:  # only after two thousand million others
            sequence = sequence + 1 if sequence < MAX_SEQUENCE else 1
        self._next_sequence = sequence + 1 if sequence < MAX_SEQUENCE else 1
        return sequence

    def _answer(self, sequence: int, frame: bytes, command_id: int, status: int) -> None:
        self._output.append(frame)
        repeated = self._repeated.get(sequence) if self._repeated else None
        if repeated:
            self._unanswered[sequence] = repeated.pop(0)
            if not repeated:
                del self._repeated[sequence]
        else:
            del self._unanswered[sequence]
        if command_id in _BOUND_BY and not status:
            self._deadline = inf
            self._enter(_BOUND_BY[command_id])
        if self._peer_unbind_sequence != _NONE:
            self._answer_unbind_if_idle()

    def _answer_unbind_if_idle(self) -> None:
        """Answer the peer's unbind once nothing is under way either way; `tick` then says Closed at once."""
        if not self._unanswered and not self._pending:
            self._output.append(PACK_HEADER(HEADER_BYTES, _UNBIND_RESP, 0, self._peer_unbind_sequence))
            self._peer_unbind_sequence = _NONE
            self._deadline = -inf

    def _refuse(self, command_id: int, sequence: int, status: int, why: str, events: list[Event]) -> None:
        self._output.append(encode_bare(answer_id_of(command_id), sequence, status))
        events.append(Refused(sequence, command_id, status, why))

    def _on_broken_stream(self, error: PduError, events: list[Event]) -> None:
        self._output.append(encode_bare(_GENERIC_NACK, error.sequence, error.status))
        events.append(Refused(error.sequence, error.command_id, error.status, str(error)))
        self._close(CloseReason.STREAM_BROKEN, events)

    def _on_deadline(self, events: list[Event]) -> None:
        self._deadline = inf
        if self._state is State.UNBINDING:
            if self._unbind_sequence != _NONE:
                self._close(CloseReason.UNBIND_TIMED_OUT, events)
                return
            if self._peer_unbind_sequence != _NONE:
                self._output.append(PACK_HEADER(HEADER_BYTES, _UNBIND_RESP, 0, self._peer_unbind_sequence))
            self._close(CloseReason.PEER_UNBOUND, events)
        elif self._bind is None:
            self._close(CloseReason.NEVER_BOUND, events)
        else:
            sequence, _, token = self._bind
            self._bind = None
            events.append(TimedOut(sequence, token))

    def _on_request(self, command_id: int, sequence: int, body: bytes, now: float, events: list[Event]) -> None:
        unanswered = self._unanswered
        if command_id not in self._may_receive:
            status, why = _why_unexpected(command_id, self._state)
            self._refuse(command_id, sequence, status, why, events)
        elif command_id == _ENQUIRE_LINK:
            self._output.append(PACK_HEADER(HEADER_BYTES, _ENQUIRE_LINK_RESP, 0, sequence))
        elif command_id == _UNBIND:
            self._on_unbind(sequence, now, events)
        elif len(unanswered) >= self._max_unanswered or (self._repeated and self.unanswered >= self._max_unanswered):
            status = self._settings.busy_submit_status if command_id in _SUBMITS else self._settings.busy_status
            self._refuse(command_id, sequence, status, "too many requests wait for an answer", events)
        elif unanswered and self._state is State.OPEN:
            self._refuse(command_id, sequence, CommandStatus.ESME_RALYBND, "a bind is under way", events)
        else:
            try:
                pdu = decode_body(command_id, 0, sequence, body)
            except PduError as error:
                self._refuse(command_id, sequence, error.status, str(error), events)
                return
            if command_id not in _ONE_WAY:
                if sequence in unanswered:
                    self._repeated.setdefault(sequence, []).append(command_id)
                else:
                    unanswered[sequence] = command_id
            events.append(Request(sequence, pdu))

    def _on_unbind(self, sequence: int, now: float, events: list[Event]) -> None:
        if self._state is State.UNBINDING or not (self._unanswered or self._pending):
            # Also when both unbind at once: the peer's yes to ours may never come, its own unbind says as much.
            self._output.append(PACK_HEADER(HEADER_BYTES, _UNBIND_RESP, 0, sequence))
            self._close(CloseReason.PEER_UNBOUND, events)
            return
        self._enter(State.UNBINDING)
        self._peer_unbind_sequence = sequence
        self._deadline = now + UNBIND_PATIENCE_S

    def _on_response(
        self, command_id: int, status: int, sequence: int, body: bytes, now: float, events: list[Event]
    ) -> None:
        entry = self._pending.get(sequence)
        if entry is None or (command_id != entry[0] and command_id != _GENERIC_NACK):
            self._on_other_response(command_id, status, sequence, body, now, events)
            return
        if self._unwritten and sequence in self._unwritten:
            # The peer cannot have seen this request: a guess or an old answer, not the answer.
            self._on_stray_response(command_id, status, sequence, body, events)
            return
        del self._pending[sequence]
        token = entry[1]
        try:
            pdu = decode_body(command_id, status, sequence, body)
        except PduError as error:
            events.append(Unreadable(sequence, token, error))
        else:
            if command_id == _GENERIC_NACK:
                status = _no_if_nack(command_id, status)
            events.append(Response(sequence, status, pdu, token))
        if self._peer_unbind_sequence != _NONE:
            self._answer_unbind_if_idle()

    def _on_other_response(
        self, command_id: int, status: int, sequence: int, body: bytes, now: float, events: list[Event]
    ) -> None:
        """Take an answer to enquire_link, unbind or bind; a generic_nack counts as one, for the peer is there."""
        is_nack = command_id == _GENERIC_NACK
        if sequence == self._enquire_sequence and (is_nack or command_id == _ENQUIRE_LINK_RESP):
            self._enquire_sequence = _NONE
            self.enquire_round_trip_s = now - self._enquire_sent_at
        elif sequence == self._unbind_sequence and (is_nack or command_id == _UNBIND_RESP):
            self._unbind_sequence = _NONE
            self._close(CloseReason.UNBOUND, events)
        elif (
            self._bind is not None
            and sequence == self._bind[0]
            and (is_nack or command_id == self._bind[1] | RESPONSE_BIT)
        ):
            self._on_bind_response(command_id, status, sequence, body, events)
        else:
            self._on_stray_response(command_id, status, sequence, body, events)

    def _on_bind_response(self, command_id: int, status: int, sequence: int, body: bytes, events: list[Event]) -> None:
        assert self._bind is not None
        _, bind_id, token = self._bind
        self._bind = None
        self._deadline = inf
        try:
            pdu = decode_body(command_id, status, sequence, body)
        except PduError as error:
            events.append(Unreadable(sequence, token, error))
            return
        status = _no_if_nack(command_id, status)
        if not status:
            self._enter(_BOUND_BY[bind_id])
        events.append(Response(sequence, status, pdu, token))

    def _on_stray_response(self, command_id: int, status: int, sequence: int, body: bytes, events: list[Event]) -> None:
        try:
            pdu = decode_body(command_id, status, sequence, body)
        except PduError as error:
            events.append(Refused(sequence, command_id, 0, str(error)))
            return
        token = self._late.pop(sequence, None)
        events.append(Late(sequence, _no_if_nack(command_id, status), pdu, token))


_NOT_IN_WINDOW = _BINDS | _ONE_WAY | {_ENQUIRE_LINK, _UNBIND}
_SUBMITS = frozenset((_SUBMIT_SM, _SUBMIT_MULTI, _DATA_SM))
_SIMPLE_RESPONSES: Mapping[int, type[SubmitSmResp] | type[DeliverSmResp] | type[DataSmResp]] = {
    _SUBMIT_SM: SubmitSmResp,
    _DELIVER_SM: DeliverSmResp,
    _DATA_SM: DataSmResp,
}


def _why_unexpected(command_id: int, state: State) -> tuple[int, str]:
    """Return status and reason for a request that this state does not allow."""
    if answer_id_of(command_id) == _GENERIC_NACK and command_id not in _ONE_WAY:
        return CommandStatus.ESME_RINVCMDID, "the command is unknown"
    if command_id in _BINDS and state is not State.OPEN:
        return CommandStatus.ESME_RALYBND, "already bound"
    return CommandStatus.ESME_RINVBNDSTS, f"not allowed in state {state.value}"


def _no_if_nack(command_id: int, status: int) -> int:
    """A generic_nack is a no even if its sender left the status at zero."""
    if command_id == _GENERIC_NACK and not status:
        return int(CommandStatus.ESME_RUNKNOWNERR)
    return status
