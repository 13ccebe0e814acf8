"""The conversation: both ends joined by hand, one end against crafted bytes, and hostile peers."""

import math
import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berid.wire.smpp import pdu as p
from berid.wire.smpp import session as s
from berid.wire.smpp.codes import CommandId, CommandStatus, Tag
from berid.wire.smpp.session import (
    Closed,
    CloseReason,
    Event,
    Late,
    Refused,
    Request,
    Response,
    Role,
    Session,
    SessionSettings,
    State,
    TimedOut,
    UnknownSequence,
    Unreadable,
    WindowFull,
    WrongState,
)

ESME = SessionSettings(Role.ESME, window=3, response_timeout_s=10.0, enquire_interval_s=30.0)
SMSC = SessionSettings(Role.SMSC, window=3, response_timeout_s=10.0, enquire_interval_s=30.0)

BINDS = [
    (p.BindTransmitter, p.BindTransmitterResp, State.BOUND_TX),
    (p.BindReceiver, p.BindReceiverResp, State.BOUND_RX),
    (p.BindTransceiver, p.BindTransceiverResp, State.BOUND_TRX),
]


def submit(text: bytes = b"hello") -> p.SubmitSm:
    return p.SubmitSm(source_addr="BERID", destination_addr="966501234567", short_message=text)


def deliver(text: bytes = b"hello") -> p.DeliverSm:
    return p.DeliverSm(source_addr="966501234567", destination_addr="BERID", short_message=text)


class Pair:
    """Both ends of one conversation, and the events that each has seen since it was last asked."""

    def __init__(self, esme: SessionSettings = ESME, smsc: SessionSettings = SMSC) -> None:
        self.now = 100.0
        self.esme = Session(esme, self.now)
        self.smsc = Session(smsc, self.now)
        self.esme_events: list[Event] = []
        self.smsc_events: list[Event] = []

    def carry(self) -> None:
        """Carry bytes both ways until neither end has any."""
        while True:
            to_smsc = self.esme.take_output()
            to_esme = self.smsc.take_output()
            if not to_smsc and not to_esme:
                return
            self.smsc_events += self.smsc.receive(to_smsc, self.now)
            self.esme_events += self.esme.receive(to_esme, self.now)

    def at_esme(self) -> list[Event]:
        events, self.esme_events = self.esme_events, []
        return events

    def at_smsc(self) -> list[Event]:
        events, self.smsc_events = self.smsc_events, []
        return events


def bound_pair(
    bind_type: type[p.BindTransmitter | p.BindReceiver | p.BindTransceiver] = p.BindTransceiver,
    esme: SessionSettings = ESME,
    smsc: SessionSettings = SMSC,
) -> Pair:
    pair = Pair(esme, smsc)
    pair.esme.bind(bind_type("berid", "secret"), pair.now)
    pair.carry()
    (asked,) = pair.at_smsc()
    assert isinstance(asked, Request)
    answer = {bind: response for bind, response, _ in BINDS}[bind_type]("carrier")
    pair.smsc.respond_with(asked.sequence, answer)
    pair.carry()
    pair.at_esme()
    return pair


def frame(command_id: int, sequence: int, body: bytes = b"", status: int = 0) -> bytes:
    return struct.pack(">IIII", 16 + len(body), command_id, status, sequence) + body


def answers(data: bytes) -> list[tuple[int, int, int]]:
    """(command id, status, sequence) of each frame in some output."""
    result = []
    at = 0
    while at < len(data):
        length, command_id, status, sequence = struct.unpack_from(">IIII", data, at)
        result.append((command_id, status, sequence))
        at += length
    return result


# Binding


@pytest.mark.parametrize(("bind_type", "response_type", "state"), BINDS)
def test_a_bind_that_is_accepted_binds_both_ends(
    bind_type: type[p.BindTransceiver], response_type: type[p.BindTransceiverResp], state: State
) -> None:
    pair = Pair()
    token = object()
    sequence = pair.esme.bind(bind_type("berid", "secret"), pair.now, token)
    pair.carry()
    assert pair.at_smsc() == [Request(sequence, bind_type("berid", "secret"))]
    assert (pair.esme.state, pair.smsc.state) == (State.OPEN, State.OPEN)
    pair.smsc.respond_with(sequence, response_type("carrier"))
    assert pair.smsc.state is state
    pair.carry()
    assert pair.at_esme() == [Response(sequence, 0, response_type("carrier"), token)]
    assert pair.esme.state is state


def test_a_bind_that_is_refused_leaves_both_ends_open_for_another() -> None:
    pair = Pair()
    sequence = pair.esme.bind(p.BindTransceiver("berid", "wrong"), pair.now)
    pair.carry()
    pair.smsc.respond(sequence, CommandStatus.ESME_RINVPASWD)
    pair.carry()
    (response,) = pair.at_esme()
    assert isinstance(response, Response)
    assert response.status == CommandStatus.ESME_RINVPASWD
    assert (pair.esme.state, pair.smsc.state) == (State.OPEN, State.OPEN)
    pair.esme.bind(p.BindTransceiver("berid", "right"), pair.now)


def test_a_second_bind_is_not_sent_while_one_is_under_way_or_done() -> None:
    pair = Pair()
    pair.esme.bind(p.BindTransceiver(), pair.now)
    with pytest.raises(WrongState):
        pair.esme.bind(p.BindTransceiver(), pair.now)
    with pytest.raises(WrongState):
        bound_pair().esme.bind(p.BindTransceiver(), 0.0)
    with pytest.raises(WrongState):
        pair.smsc.bind(p.BindTransceiver(), pair.now)


def test_a_bind_while_another_waits_or_holds_is_refused_as_already_bound() -> None:
    bind = p.encode(p.BindTransceiver("berid"), 1)
    other = p.encode(p.BindTransceiver("berid"), 2)
    smsc = Session(SMSC, 0.0)
    events = smsc.receive(bind + other, 0.0)
    assert [type(event) for event in events] == [Request, Refused]
    smsc.respond_with(1, p.BindTransceiverResp())
    smsc.take_output()
    smsc.receive(p.encode(p.BindReceiver("berid"), 3), 0.0)
    assert answers(smsc.take_output()) == [(CommandId.BIND_RECEIVER_RESP, CommandStatus.ESME_RALYBND, 3)]


def test_a_bind_without_an_answer_times_out() -> None:
    pair = Pair()
    token = object()
    sequence = pair.esme.bind(p.BindTransceiver(), pair.now, token)
    assert pair.esme.next_tick == 110.0
    assert pair.esme.tick(109.9) == []
    assert pair.esme.tick(110.0) == [TimedOut(sequence, token)]
    assert pair.esme.state is State.OPEN
    assert pair.esme.next_tick == math.inf


def test_a_bind_response_that_cannot_be_read_binds_nothing() -> None:
    pair = Pair()
    sequence = pair.esme.bind(p.BindTransceiver(), pair.now, "token")
    (event,) = pair.esme.receive(frame(CommandId.BIND_TRANSCEIVER_RESP, sequence, b"no end"), pair.now)
    assert isinstance(event, Unreadable)
    assert (event.sequence, event.token) == (sequence, "token")
    assert pair.esme.state is State.OPEN


def test_a_peer_that_never_binds_is_closed() -> None:
    smsc = Session(replace(SMSC, bind_timeout_s=5.0), 100.0)
    assert smsc.next_tick == 105.0
    smsc.receive(frame(CommandId.ENQUIRE_LINK, 1), 104.0)
    assert smsc.tick(104.9) == []
    assert smsc.tick(105.0) == [Closed(CloseReason.NEVER_BOUND)]
    assert smsc.state is State.CLOSED
    assert smsc.next_tick == math.inf


def test_an_outbind_is_handed_up_and_takes_no_answer() -> None:
    pair = Pair()
    sequence = pair.smsc.announce(p.Outbind("carrier", "secret"))
    pair.carry()
    assert pair.at_esme() == [Request(sequence, p.Outbind("carrier", "secret"))]
    assert pair.esme.unanswered == 0


# Requests and responses


def test_a_token_comes_back_with_its_response_in_any_order() -> None:
    pair = bound_pair()
    sequences = [pair.esme.submit(submit(), pair.now, name) for name in ("first", "second", "third")]
    pair.carry()
    assert [event.sequence for event in pair.at_smsc() if isinstance(event, Request)] == sequences
    for sequence in reversed(sequences):
        pair.smsc.respond(sequence, message_id=f"id{sequence}")
    pair.carry()
    assert pair.at_esme() == [
        Response(sequence, 0, p.SubmitSmResp(f"id{sequence}"), token)
        for sequence, token in zip(reversed(sequences), ("third", "second", "first"), strict=True)
    ]


def test_the_window_counts_what_has_no_answer() -> None:
    pair = bound_pair()
    assert pair.esme.room == 3
    for _ in range(3):
        pair.esme.submit(submit(), pair.now)
    assert (pair.esme.room, pair.esme.in_flight) == (0, 3)
    with pytest.raises(WindowFull):
        pair.esme.submit(submit(), pair.now)
    pair.carry()
    (first, *_) = pair.at_smsc()
    assert isinstance(first, Request)
    pair.smsc.respond(first.sequence, message_id="1")
    pair.carry()
    assert (pair.esme.room, pair.esme.in_flight) == (1, 2)


def test_the_oldest_request_without_an_answer_is_known() -> None:
    pair = bound_pair()
    assert pair.esme.oldest_sent_at is None
    first = pair.esme.submit(submit(), 101.0)
    pair.esme.submit(submit(), 102.0)
    pair.carry()
    assert pair.esme.oldest_sent_at == 101.0
    pair.smsc.respond(first)
    pair.carry()
    assert pair.esme.oldest_sent_at == 102.0


def test_a_request_that_cannot_be_encoded_takes_no_place() -> None:
    pair = bound_pair()
    with pytest.raises(p.EncodeError):
        pair.esme.submit(p.SubmitSm(source_addr="x" * 30), pair.now, "token")
    assert pair.esme.room == 3
    assert pair.esme.take_output() == b""
    assert pair.esme.lost() == []


def test_output_is_one_piece_and_is_given_once() -> None:
    pair = bound_pair()
    pair.esme.submit(submit(b"a"), pair.now)
    pair.esme.submit(submit(b"b"), pair.now)
    data = pair.esme.take_output()
    assert [command for command, _, _ in answers(data)] == [CommandId.SUBMIT_SM] * 2
    assert pair.esme.take_output() == b""


def test_a_request_of_the_peer_is_answered_when_the_owner_says_so() -> None:
    pair = bound_pair()
    sequence = pair.smsc.submit(deliver(), pair.now, "receipt 1")
    pair.carry()
    assert pair.at_esme() == [Request(sequence, deliver())]
    assert pair.at_smsc() == []
    assert pair.esme.unanswered == 1
    assert pair.esme.respond(sequence) is True
    assert pair.esme.unanswered == 0
    pair.carry()
    assert pair.at_smsc() == [Response(sequence, 0, p.DeliverSmResp(), "receipt 1")]


def test_an_answer_may_carry_parameters_and_a_refusal_its_status() -> None:
    pair = bound_pair()
    first = pair.smsc.submit(deliver(), pair.now)
    second = pair.smsc.submit(deliver(), pair.now)
    pair.carry()
    pair.esme.respond(first, tlvs={Tag.NETWORK_ERROR_CODE: b"\3\0\1"})
    pair.esme.respond(second, CommandStatus.ESME_RX_T_APPN)
    pair.carry()
    assert pair.at_smsc() == [
        Response(first, 0, p.DeliverSmResp("", {Tag.NETWORK_ERROR_CODE: b"\3\0\1"}), None),
        Response(second, CommandStatus.ESME_RX_T_APPN, p.DeliverSmResp(), None),
    ]


@pytest.mark.parametrize(
    ("request_pdu", "response"),
    [
        (p.QuerySm("a1"), p.QuerySmResp("a1", "", 2)),
        (p.CancelSm(message_id="a1"), p.CancelSmResp()),
        (p.ReplaceSm("a1"), p.ReplaceSmResp()),
        (p.SubmitMulti(destinations=(p.Address(1, 1, "9665"),)), p.SubmitMultiResp("a1")),
        (p.DataSm(destination_addr="9665"), p.DataSmResp("a1")),
    ],
)
def test_the_rarer_requests_are_answered_with_a_whole_pdu(request_pdu: p.Pdu, response: p.Pdu) -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(request_pdu, pair.now, "token")
    pair.carry()
    assert pair.at_smsc() == [Request(sequence, request_pdu)]
    assert pair.smsc.respond_with(sequence, response)
    pair.carry()
    assert pair.at_esme() == [Response(sequence, 0, response, "token")]


def test_an_answer_of_the_wrong_kind_or_to_nothing_is_the_owner_s_mistake() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(p.QuerySm("a1"), pair.now)
    pair.carry()
    with pytest.raises(ValueError, match="does not answer query_sm"):
        pair.smsc.respond_with(sequence, p.SubmitSmResp("a1"))
    with pytest.raises(ValueError, match="respond_with"):
        pair.smsc.respond(sequence)
    assert pair.smsc.unanswered == 1
    pair.smsc.respond(sequence, CommandStatus.ESME_RQUERYFAIL)
    with pytest.raises(UnknownSequence):
        pair.smsc.respond(sequence, CommandStatus.ESME_RQUERYFAIL)
    with pytest.raises(UnknownSequence):
        pair.smsc.respond_with(999, p.QuerySmResp())


def test_an_answer_after_the_end_is_dropped_quietly() -> None:
    pair = bound_pair()
    sequence = pair.smsc.submit(deliver(), pair.now)
    pair.carry()
    pair.esme.lost()
    assert pair.esme.respond(sequence) is False
    assert pair.esme.respond_with(sequence, p.DeliverSmResp()) is False
    assert pair.esme.take_output() == b""


def test_sequences_begin_again_at_one_and_pass_over_what_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_SEQUENCE", 5)
    pair = bound_pair(esme=replace(ESME, window=10))
    assert [pair.esme.submit(submit(), pair.now) for _ in range(4)] == [2, 3, 4, 5]
    pair.carry()
    for sequence in (3, 5):
        pair.smsc.respond(sequence)
    pair.carry()
    assert [pair.esme.submit(submit(), pair.now) for _ in range(3)] == [1, 3, 5]


def test_a_generic_nack_is_the_answer_no() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    nack = frame(CommandId.GENERIC_NACK, sequence, status=CommandStatus.ESME_RINVCMDLEN)
    assert pair.esme.receive(nack, pair.now) == [
        Response(sequence, CommandStatus.ESME_RINVCMDLEN, p.GenericNack(), "token")
    ]


def test_a_generic_nack_that_says_zero_is_still_a_no() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    (response,) = pair.esme.receive(frame(CommandId.GENERIC_NACK, sequence), pair.now)
    assert isinstance(response, Response)
    assert response.status == CommandStatus.ESME_RUNKNOWNERR


def test_a_response_to_nothing_is_told_and_changes_nothing() -> None:
    pair = bound_pair()
    response = p.encode(p.SubmitSmResp("a1"), 999)
    assert pair.esme.receive(response, pair.now) == [Late(999, 0, p.SubmitSmResp("a1"), None)]
    assert pair.esme.room == 3


def test_a_response_of_another_command_does_not_answer() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    (event,) = pair.esme.receive(p.encode(p.DeliverSmResp(), sequence), pair.now)
    assert isinstance(event, Late)
    assert pair.esme.in_flight == 1


def test_a_response_that_comes_twice_counts_once() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    response = p.encode(p.SubmitSmResp("a1"), sequence)
    events = pair.esme.receive(response + response, pair.now)
    assert [type(event) for event in events] == [Response, Late]


def test_a_response_that_cannot_be_read_gives_its_token_back() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    (event,) = pair.esme.receive(frame(CommandId.SUBMIT_SM_RESP, sequence, b"no end"), pair.now)
    assert isinstance(event, Unreadable)
    assert (event.sequence, event.token) == (sequence, "token")
    assert pair.esme.room == 3
    assert pair.esme.take_output() == b""


def test_a_response_to_what_was_never_written_is_not_believed() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    (event,) = pair.esme.receive(p.encode(p.SubmitSmResp("forged"), sequence), pair.now)
    assert isinstance(event, Late)
    assert event.token is None
    assert pair.esme.lost() == []
    assert pair.esme.unsent() == ["token"]


# Time


def test_a_request_without_an_answer_times_out_and_its_late_answer_is_known() -> None:
    pair = bound_pair()
    first = pair.esme.submit(submit(), 100.0, "first")
    second = pair.esme.submit(submit(), 101.0, "second")
    pair.carry()
    assert pair.esme.next_tick == 110.0
    assert pair.esme.tick(110.5) == [TimedOut(first, "first")]
    assert pair.esme.room == 2
    pair.smsc.respond(first, message_id="a1")
    pair.smsc.respond(second, message_id="a2")
    pair.carry()
    assert pair.at_esme() == [
        Late(first, 0, p.SubmitSmResp("a1"), "first"),
        Response(second, 0, p.SubmitSmResp("a2"), "second"),
    ]
    again = pair.esme.receive(p.encode(p.SubmitSmResp("a1"), first), 111.0)
    assert again == [Late(first, 0, p.SubmitSmResp("a1"), None)]


def test_no_more_than_so_many_late_answers_are_expected() -> None:
    pair = bound_pair(esme=replace(ESME, window=s.LATE_MEMORY + 1))
    sequences = [pair.esme.submit(submit(), 100.0, number) for number in range(s.LATE_MEMORY + 1)]
    pair.esme.take_output()
    assert len(pair.esme.tick(110.0)) == s.LATE_MEMORY + 1
    (oldest,) = pair.esme.receive(p.encode(p.SubmitSmResp(), sequences[0]), 111.0)
    (next_oldest,) = pair.esme.receive(p.encode(p.SubmitSmResp(), sequences[1]), 111.0)
    assert isinstance(oldest, Late)
    assert isinstance(next_oldest, Late)
    assert (oldest.token, next_oldest.token) == (None, 1)


def test_silence_is_asked_about_and_the_round_trip_measured() -> None:
    pair = bound_pair()
    assert pair.esme.next_tick == 130.0
    assert pair.esme.tick(129.9) == []
    assert pair.esme.take_output() == b""
    assert pair.esme.tick(130.0) == []
    question = pair.esme.take_output()
    assert answers(question)[0][0] == CommandId.ENQUIRE_LINK
    assert pair.esme.next_tick == 140.0
    assert pair.smsc.receive(question, 130.1) == []
    assert pair.esme.enquire_round_trip_s is None
    assert pair.esme.receive(pair.smsc.take_output(), 130.25) == []
    assert pair.esme.enquire_round_trip_s == pytest.approx(0.25)
    assert pair.esme.next_tick == pytest.approx(160.25)


def test_a_peer_that_answers_no_enquire_link_is_dead() -> None:
    pair = bound_pair()
    token_sequence = pair.esme.submit(submit(), 129.0, "token")
    pair.esme.tick(130.0)
    pair.esme.take_output()
    assert pair.esme.tick(140.0) == [TimedOut(token_sequence, "token"), Closed(CloseReason.SILENT)]
    assert pair.esme.state is State.CLOSED


def test_traffic_shows_that_a_link_is_alive_even_if_enquire_link_is_ignored() -> None:
    pair = bound_pair()
    pair.esme.tick(130.0)
    pair.esme.take_output()
    pair.esme.receive(p.encode(deliver(), 7), 135.0)
    assert pair.esme.tick(140.0) == []
    assert pair.esme.state is State.BOUND_TRX
    assert pair.esme.next_tick == 165.0


def test_a_nack_to_enquire_link_is_a_sign_of_life() -> None:
    pair = bound_pair()
    pair.esme.tick(130.0)
    ((_, _, sequence),) = answers(pair.esme.take_output())
    assert pair.esme.receive(frame(CommandId.GENERIC_NACK, sequence, status=3), 131.0) == []
    assert pair.esme.tick(141.0) == []
    assert pair.esme.state is State.BOUND_TRX


@pytest.mark.parametrize("role", list(Role))
def test_enquire_link_is_answered_without_the_owner(role: Role) -> None:
    session = Session(SessionSettings(role), 0.0)
    assert session.receive(frame(CommandId.ENQUIRE_LINK, 77), 0.0) == []
    assert answers(session.take_output()) == [(CommandId.ENQUIRE_LINK_RESP, 0, 77)]


# States


@pytest.mark.parametrize(
    ("bind_type", "pdu", "allowed"),
    [
        (p.BindTransmitter, submit(), True),
        (p.BindTransceiver, submit(), True),
        (p.BindReceiver, submit(), False),
        (p.BindReceiver, p.QuerySm("a1"), False),
        (p.BindReceiver, p.DataSm(), False),
        (p.BindTransmitter, p.ReplaceSm("a1"), True),
        (p.BindTransceiver, deliver(), False),
        (p.BindTransceiver, p.EnquireLink(), False),
        (p.BindTransceiver, p.Unbind(), False),
        (p.BindTransceiver, p.SubmitSmResp(), False),
    ],
)
def test_an_esme_may_send_what_its_bind_allows(bind_type: type[p.BindTransceiver], pdu: p.Pdu, allowed: bool) -> None:
    pair = bound_pair(bind_type)
    if allowed:
        pair.esme.submit(pdu, pair.now)
        assert pair.esme.in_flight == 1
    else:
        with pytest.raises(WrongState):
            pair.esme.submit(pdu, pair.now)


@pytest.mark.parametrize(
    ("bind_type", "pdu", "allowed"),
    [
        (p.BindReceiver, deliver(), True),
        (p.BindTransceiver, deliver(), True),
        (p.BindTransmitter, deliver(), False),
        (p.BindTransceiver, p.DataSm(), True),
        (p.BindTransceiver, submit(), False),
    ],
)
def test_an_smsc_may_send_what_the_bind_allows(bind_type: type[p.BindTransceiver], pdu: p.Pdu, allowed: bool) -> None:
    pair = bound_pair(bind_type)
    if allowed:
        pair.smsc.submit(pdu, pair.now)
        assert pair.smsc.in_flight == 1
    else:
        with pytest.raises(WrongState):
            pair.smsc.submit(pdu, pair.now)


def test_nothing_is_submitted_before_a_bind_or_after_the_end() -> None:
    session = Session(ESME, 0.0)
    with pytest.raises(WrongState):
        session.submit(submit(), 0.0)
    with pytest.raises(WrongState):
        session.unbind(0.0)
    session.lost()
    with pytest.raises(WrongState):
        session.submit(submit(), 0.0)


@pytest.mark.parametrize(
    ("bind_type", "pdu", "expected"),
    [
        (None, submit(), (CommandId.SUBMIT_SM_RESP, CommandStatus.ESME_RINVBNDSTS)),
        (None, p.Unbind(), (CommandId.UNBIND_RESP, CommandStatus.ESME_RINVBNDSTS)),
        (p.BindReceiver, submit(), (CommandId.SUBMIT_SM_RESP, CommandStatus.ESME_RINVBNDSTS)),
        (p.BindReceiver, p.QuerySm(), (CommandId.QUERY_SM_RESP, CommandStatus.ESME_RINVBNDSTS)),
        (p.BindTransceiver, deliver(), (CommandId.DELIVER_SM_RESP, CommandStatus.ESME_RINVBNDSTS)),
        (p.BindTransceiver, p.Outbind(), (CommandId.GENERIC_NACK, CommandStatus.ESME_RINVBNDSTS)),
        (p.BindTransceiver, p.AlertNotification(), (CommandId.GENERIC_NACK, CommandStatus.ESME_RINVBNDSTS)),
    ],
)
def test_what_a_state_does_not_allow_is_refused_and_not_handed_up(
    bind_type: type[p.BindTransceiver] | None, pdu: p.Pdu, expected: tuple[int, int]
) -> None:
    smsc = Pair().smsc if bind_type is None else bound_pair(bind_type).smsc
    (event,) = smsc.receive(p.encode(pdu, 50), 100.0)
    assert isinstance(event, Refused)
    assert (event.sequence, event.command_id, event.status) == (50, pdu.command_id, expected[1])
    assert answers(smsc.take_output()) == [(*expected, 50)]


def test_an_alert_notification_is_handed_up_without_an_answer() -> None:
    pair = bound_pair(p.BindReceiver)
    alert = p.AlertNotification(1, 1, "966501234567")
    sequence = pair.smsc.announce(alert)
    pair.carry()
    assert pair.at_esme() == [Request(sequence, alert)]
    assert pair.esme.unanswered == 0
    with pytest.raises(WrongState):
        pair.smsc.announce(deliver())


# Leaving


def test_an_unbind_is_answered_and_both_ends_close() -> None:
    pair = bound_pair()
    pair.esme.unbind(pair.now)
    assert pair.esme.state is State.UNBINDING
    with pytest.raises(WrongState):
        pair.esme.submit(submit(), pair.now)
    pair.carry()
    assert pair.at_smsc() == [Closed(CloseReason.PEER_UNBOUND)]
    assert pair.at_esme() == [Closed(CloseReason.UNBOUND)]
    assert (pair.esme.state, pair.smsc.state) == (State.CLOSED, State.CLOSED)


def test_an_unbind_without_an_answer_ends_in_time() -> None:
    pair = bound_pair()
    pair.esme.unbind(pair.now)
    pair.esme.take_output()
    assert pair.esme.next_tick == 110.0
    assert pair.esme.tick(110.0) == [Closed(CloseReason.UNBIND_TIMED_OUT)]


def test_what_crossed_our_unbind_is_still_taken_and_answered() -> None:
    pair = bound_pair()
    submitted = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    pair.at_smsc()
    pair.esme.unbind(pair.now)
    delivered = pair.smsc.submit(deliver(), pair.now, "mo")
    pair.smsc.respond(submitted, message_id="a1")
    events = pair.esme.receive(pair.smsc.take_output(), pair.now)
    assert events == [
        Request(delivered, deliver()),
        Response(submitted, 0, p.SubmitSmResp("a1"), "token"),
    ]
    assert pair.esme.respond(delivered) is True
    pair.carry()
    assert Closed(CloseReason.UNBOUND) in pair.at_esme()


def test_the_peer_s_unbind_waits_for_what_is_under_way() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    pair.at_smsc()
    pair.esme.unbind(pair.now)
    pair.carry()
    assert pair.at_smsc() == []
    assert pair.smsc.state is State.UNBINDING
    assert pair.smsc.respond(sequence, message_id="a1") is True
    pair.carry()
    assert pair.at_esme() == [
        Response(sequence, 0, p.SubmitSmResp("a1"), "token"),
        Closed(CloseReason.UNBOUND),
    ]
    assert pair.smsc.next_tick <= pair.now
    assert pair.smsc.tick(pair.now) == [Closed(CloseReason.PEER_UNBOUND)]
    assert pair.smsc.take_output() == b""


def test_the_peer_s_unbind_waits_for_its_own_answers_to_us() -> None:
    pair = bound_pair()
    sequence = pair.smsc.submit(deliver(), pair.now, "receipt")
    pair.carry()
    pair.at_esme()
    pair.esme.unbind(pair.now)
    pair.carry()
    assert pair.smsc.state is State.UNBINDING
    pair.esme.respond(sequence)
    pair.carry()
    assert pair.at_smsc() == [Response(sequence, 0, p.DeliverSmResp(), "receipt")]
    assert pair.esme.state is State.CLOSED
    assert pair.smsc.lost() == []


def test_the_peer_s_unbind_does_not_wait_for_ever() -> None:
    pair = bound_pair()
    pair.esme.submit(submit(), pair.now)
    pair.carry()
    pair.esme.unbind(pair.now)
    pair.carry()
    pair.smsc_events.clear()
    assert pair.smsc.next_tick == pair.now + s.UNBIND_PATIENCE_S
    assert pair.smsc.tick(pair.now + s.UNBIND_PATIENCE_S) == [Closed(CloseReason.PEER_UNBOUND)]
    assert [command for command, _, _ in answers(pair.smsc.take_output())] == [CommandId.UNBIND_RESP]


def test_an_unbind_with_the_sequence_zero_is_one_all_the_same() -> None:
    pair = bound_pair()
    sequence = pair.esme.submit(submit(), pair.now)
    pair.carry()
    assert pair.smsc.receive(frame(CommandId.UNBIND, 0), pair.now) == []
    pair.smsc.respond(sequence)
    assert [command for command, _, _ in answers(pair.smsc.take_output())] == [
        CommandId.SUBMIT_SM_RESP,
        CommandId.UNBIND_RESP,
    ]


@pytest.mark.parametrize("command_id", [CommandId.UNBIND_RESP, CommandId.ENQUIRE_LINK_RESP, CommandId.GENERIC_NACK])
@pytest.mark.parametrize("sequence", [0, 0xFFFFFFFF])
def test_an_answer_to_an_unbind_or_enquire_link_that_was_not_sent_changes_nothing(
    command_id: int, sequence: int
) -> None:
    pair = bound_pair()
    (event,) = pair.esme.receive(frame(command_id, sequence), pair.now)
    assert isinstance(event, Late)
    assert pair.esme.state is State.BOUND_TRX


def test_nothing_new_is_taken_from_a_peer_that_is_leaving() -> None:
    pair = bound_pair()
    pair.esme.submit(submit(), pair.now)
    pair.carry()
    pair.at_smsc()
    unbind = frame(CommandId.UNBIND, 60)
    more = p.encode(submit(), 61)
    (event,) = pair.smsc.receive(unbind + more, pair.now)
    assert isinstance(event, Refused)
    assert event.status == CommandStatus.ESME_RINVBNDSTS
    pair.smsc.take_output()
    pair.smsc.receive(frame(CommandId.ENQUIRE_LINK, 62), pair.now)
    assert answers(pair.smsc.take_output()) == [(CommandId.ENQUIRE_LINK_RESP, 0, 62)]


def test_two_unbinds_that_cross_end_both_ends() -> None:
    pair = bound_pair()
    pair.esme.unbind(pair.now)
    pair.smsc.unbind(pair.now)
    pair.carry()
    assert pair.at_esme() == [Closed(CloseReason.PEER_UNBOUND)]
    assert pair.at_smsc() == [Closed(CloseReason.PEER_UNBOUND)]


# The end of a connection


def test_lost_names_exactly_what_was_written_and_not_answered_in_order() -> None:
    pair = bound_pair(esme=replace(ESME, window=10))
    answered = pair.esme.submit(submit(), pair.now, "answered")
    pair.esme.submit(submit(), pair.now, "written 1")
    timed_out = pair.esme.submit(submit(), 0.0, "timed out")
    pair.esme.submit(submit(), pair.now, "written 2")
    pair.carry()
    pair.smsc.respond(answered)
    pair.carry()
    pair.esme.submit(submit(), pair.now, "unwritten 1")
    pair.esme.submit(submit(), pair.now, "unwritten 2")
    assert timed_out
    assert pair.esme.lost() == ["written 1", "timed out", "written 2"]
    assert pair.esme.unsent() == ["unwritten 1", "unwritten 2"]
    assert pair.esme.state is State.CLOSED
    assert pair.esme.lost() == []
    assert pair.esme.unsent() == []


def test_what_timed_out_is_not_lost_again() -> None:
    pair = bound_pair()
    pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    assert len(pair.esme.tick(pair.now + 10)) == 1
    assert pair.esme.lost() == []


def test_lost_still_names_the_uncertain_after_a_close() -> None:
    pair = bound_pair()
    pair.esme.submit(submit(), pair.now, "token")
    pair.carry()
    pair.esme.receive(b"\xff" * 16, pair.now)
    assert pair.esme.state is State.CLOSED
    assert pair.esme.lost() == ["token"]


# Hostile and broken peers


def test_a_stream_in_any_pieces_gives_the_same_events() -> None:
    stream = b"".join(p.encode(deliver(bytes([65 + n]) * n), n + 10) for n in range(20))
    whole = bound_pair(esme=replace(ESME, max_unanswered=100)).esme.receive(stream, 101.0)
    assert len(whole) == 20
    rng = random.Random(7)
    for _ in range(30):
        session = bound_pair(esme=replace(ESME, max_unanswered=100)).esme
        events: list[Event] = []
        at = 0
        while at < len(stream):
            size = rng.choice((1, 3, 15, 16, 17, 100, 1_000))
            events += session.receive(stream[at : at + size], 101.0)
            at += size
        assert events == whole


def test_a_stream_octet_by_octet_gives_the_same_events() -> None:
    session = bound_pair().esme
    stream = p.encode(deliver(), 10) + p.encode(deliver(b"x" * 200), 11)
    events = [event for octet in stream for event in session.receive(bytes([octet]), 101.0)]
    assert events == [Request(10, deliver()), Request(11, deliver(b"x" * 200))]


@pytest.mark.parametrize("length", [0, 1, 15, 1_001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_hostile_length_closes_the_stream_with_a_nack(length: int) -> None:
    session = bound_pair(smsc=replace(SMSC, max_pdu_bytes=1_000)).smsc
    header = struct.pack(">IIII", length, CommandId.SUBMIT_SM, 0, 9)
    events = session.receive(header + b"x" * 5_000, 101.0)
    assert [type(event) for event in events] == [Refused, Closed]
    assert events[-1] == Closed(CloseReason.STREAM_BROKEN)
    assert answers(session.take_output()) == [(CommandId.GENERIC_NACK, CommandStatus.ESME_RINVCMDLEN, 9)]
    assert session.receive(p.encode(submit(), 1), 101.0) == []


def test_the_largest_allowed_frame_is_taken_and_one_octet_more_is_not() -> None:
    payload = p.DataSm(tlvs={Tag.MESSAGE_PAYLOAD: b"x" * 500})
    data = p.encode(payload, 5)
    exact = bound_pair(smsc=replace(SMSC, max_pdu_bytes=len(data))).smsc
    assert exact.receive(data, 101.0) == [Request(5, payload)]
    short = bound_pair(smsc=replace(SMSC, max_pdu_bytes=len(data) - 1)).smsc
    assert Closed(CloseReason.STREAM_BROKEN) in short.receive(data, 101.0)


def test_a_malformed_request_is_refused_and_the_stream_goes_on() -> None:
    session = bound_pair().smsc
    bad = frame(CommandId.SUBMIT_SM, 20, b"\0\5\0" + b"x" * 40)
    unknown = frame(0x777, 21)
    good = p.encode(submit(), 22)
    events = session.receive(bad + unknown + good, 101.0)
    assert [type(event) for event in events] == [Refused, Refused, Request]
    assert answers(session.take_output()) == [
        (CommandId.SUBMIT_SM_RESP, CommandStatus.ESME_RINVSRCADR, 20),
        (CommandId.GENERIC_NACK, CommandStatus.ESME_RINVCMDID, 21),
    ]


def test_a_malformed_or_unknown_response_is_never_answered() -> None:
    session = bound_pair().esme
    events = session.receive(
        frame(0x80000777, 20) + frame(CommandId.SUBMIT_SM_RESP, 21, b"no end") + frame(CommandId.GENERIC_NACK, 0),
        101.0,
    )
    assert [type(event) for event in events] == [Refused, Refused, Late]
    assert session.take_output() == b""


def test_requests_beyond_what_may_wait_are_refused_as_busy() -> None:
    session = bound_pair(smsc=replace(SMSC, max_unanswered=2)).smsc
    stream = b"".join(p.encode(submit(), 20 + n) for n in range(3)) + p.encode(p.QuerySm("a"), 23)
    events = session.receive(stream, 101.0)
    assert [type(event) for event in events] == [Request, Request, Refused, Refused]
    assert answers(session.take_output()) == [
        (CommandId.SUBMIT_SM_RESP, CommandStatus.ESME_RTHROTTLED, 22),
        (CommandId.QUERY_SM_RESP, CommandStatus.ESME_RX_T_APPN, 23),
    ]
    session.respond(20, message_id="a1")
    assert [type(event) for event in session.receive(p.encode(submit(), 24), 101.0)] == [Request]


def test_the_busy_answers_are_the_owner_s_choice() -> None:
    busy = replace(
        ESME, max_unanswered=1, busy_status=CommandStatus.ESME_RMSGQFUL, busy_submit_status=CommandStatus.ESME_RSYSERR
    )
    session = bound_pair(esme=busy).esme
    session.receive(b"".join(p.encode(deliver(), 20 + n) for n in range(2)) + p.encode(p.DataSm(), 22), 101.0)
    assert answers(session.take_output()) == [
        (CommandId.DELIVER_SM_RESP, CommandStatus.ESME_RMSGQFUL, 21),
        (CommandId.DATA_SM_RESP, CommandStatus.ESME_RSYSERR, 22),
    ]


def test_a_peer_that_uses_one_sequence_twice_is_answered_twice() -> None:
    session = bound_pair(smsc=replace(SMSC, max_unanswered=3)).smsc
    stream = p.encode(submit(), 20) + p.encode(submit(b"b"), 20) + p.encode(p.QuerySm("a"), 20) + p.encode(submit(), 20)
    events = session.receive(stream, 101.0)
    assert [type(event) for event in events] == [Request, Request, Request, Refused]
    assert session.unanswered == 3
    session.take_output()
    session.respond(20, message_id="first")
    session.respond(20, message_id="second")
    session.respond_with(20, p.QuerySmResp("a"))
    assert session.unanswered == 0
    assert [command for command, _, _ in answers(session.take_output())] == [
        CommandId.SUBMIT_SM_RESP,
        CommandId.SUBMIT_SM_RESP,
        CommandId.QUERY_SM_RESP,
    ]
    with pytest.raises(UnknownSequence):
        session.respond(20)


def test_a_slow_peer_s_half_frame_takes_no_more_memory_than_the_limit() -> None:
    session = bound_pair(smsc=replace(SMSC, max_pdu_bytes=10_000)).smsc
    session.receive(struct.pack(">IIII", 10_000, CommandId.SUBMIT_SM, 0, 9), 101.0)
    for _ in range(9_983):
        assert session.receive(b"x", 101.0) == []
    (event,) = session.receive(b"x", 101.0)
    assert isinstance(event, Refused)
    assert session.receive(p.encode(submit(), 10), 101.0) == [Request(10, submit())]


@given(st.lists(st.binary(max_size=100), max_size=10), st.sampled_from([Role.ESME, Role.SMSC]), st.booleans())
@settings(max_examples=300)
def test_arbitrary_bytes_never_raise(pieces: list[bytes], role: Role, is_bound: bool) -> None:
    pair = bound_pair() if is_bound else Pair()
    session = pair.esme if role is Role.ESME else pair.smsc
    for piece in pieces:
        session.receive(piece, 101.0)
        session.take_output()
    session.tick(200.0)
    session.lost()


frames = st.builds(
    frame,
    st.sampled_from([*sorted(CommandId), 0x777, 0x80000777]),
    st.integers(0, 8),
    st.one_of(st.binary(max_size=60), st.just(p.encode(submit(), 1)[16:]), st.just(b"a1\0"), st.just(b"")),
    st.sampled_from([0, 0, 0, 8, 0x58]),
)


@given(st.lists(frames, max_size=25), st.booleans(), st.integers(1, 200))
@settings(max_examples=400, deadline=None)
def test_arbitrary_frames_never_raise_and_every_token_comes_back_once(
    stream: list[bytes], as_esme: bool, piece: int
) -> None:
    pair = bound_pair(esme=replace(ESME, window=8), smsc=replace(SMSC, window=8))
    session = pair.esme if as_esme else pair.smsc
    request: p.Pdu = submit() if as_esme else deliver()
    given_out = [object() for _ in range(8)]
    for token in given_out[:5]:
        session.submit(request, 100.0, token)
    session.take_output()
    for token in given_out[5:]:
        session.submit(request, 105.0, token)
    data = b"".join(stream)
    events: list[Event] = []
    for at in range(0, len(data), piece):
        events += session.receive(data[at : at + piece], 101.0)
    events += session.tick(111.0)
    come_back = [event.token for event in events if isinstance(event, Response | TimedOut | Unreadable)]
    come_back += session.lost()
    come_back += session.unsent()
    assert sorted(map(id, come_back)) == sorted(map(id, given_out))
