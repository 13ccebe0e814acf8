"""What may be said in how many parts, billed as how many units; and how it is written at the end."""

from __future__ import annotations

import pytest

from berid.base.text import PartBytes, decode, pack
from berid.channels.sms import channel
from berid.channels.sms.content import MAX_PARTS, encode, reference_of, unpack_raw
from berid.domain.errors import RefusalKind, Refused
from berid.domain.message import Content, Draft, RawPart
from tests.support.builders import make_outgoing, make_submission

TURK, SAUDI = "905551112233", "966501234567"


def shown(parts: list[PartBytes]) -> str:
    """What a handset makes of the parts."""
    return "".join(decode(part.data, part.data_coding, part.udh) for part in parts)


@pytest.mark.parametrize(
    ("text", "policy", "alphabet", "parts"),
    [
        ("Hello", "auto", "gsm7", 1),
        ("x" * 160, "auto", "gsm7", 1),
        ("x" * 161, "auto", "gsm7", 2),
        ("€" * 80, "auto", "gsm7", 1),
        ("şifreniz", "auto", "ucs2", 1),
        ("ş" * 71, "auto", "ucs2", 2),
        ("şifreniz", "turkish", "gsm7_tr_single", 1),
        ("ş" * 100, "turkish", "gsm7_tr_locking", 1),
        ("plain", "turkish", "gsm7", 1),
        ("şifreniz ığdır", "plain", "gsm7", 1),
        ("مرحبا", "plain", "ucs2", 1),
        ("Hello", "ucs2", "ucs2", 1),
        ("😀" * 35, "auto", "ucs2", 1),
        ("x" * 153 * MAX_PARTS, "auto", "gsm7", MAX_PARTS),
    ],
)
def test_policy_chooses_the_alphabet_and_the_handset_shows_the_text(
    text: str, policy: str, alphabet: str, parts: int
) -> None:
    prepared = channel.prepare(make_submission(SAUDI, content=Content(text, policy)))
    assert (prepared.alphabet, prepared.parts, prepared.body_kind) == (alphabet, parts, "text")
    assert prepared.drafts == [Draft(SAUDI, parts)]
    encoded = encode(make_outgoing(body=prepared.body, alphabet=prepared.alphabet, parts=parts))
    assert len(encoded) == parts
    assert shown(encoded) == prepared.body


def test_plain_policy_folds_only_what_gsm_lacks() -> None:
    assert channel.prepare(make_submission(TURK, content=Content("Çok ğüzel İş", "plain"))).body == "Çok güzel Is"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (Content(""), RefusalKind.CONTENT_MISSING),
        (Content("a\0b"), RefusalKind.CONTENT_INVALID),
        (Content("a\ud800"), RefusalKind.CONTENT_INVALID),
        (Content("x" * (153 * MAX_PARTS + 1)), RefusalKind.CONTENT_INVALID),
        (Content("x", "klingon"), RefusalKind.CONTENT_INVALID),
        (Content("", raw=RawPart(b"", b"", 0)), RefusalKind.CONTENT_MISSING),
        (Content("", raw=RawPart(b"\x05\x00\x03\x01\x02", b"x", 0)), RefusalKind.CONTENT_INVALID),
        (Content("", raw=RawPart(b"", b"x" * 161, 0)), RefusalKind.CONTENT_INVALID),
        (Content("", raw=RawPart(b"", b"x" * 141, 8)), RefusalKind.CONTENT_INVALID),
        (Content("", raw=RawPart(b"\x05\x00\x03\x01\x02\x01", b"x" * 154, 0)), RefusalKind.CONTENT_INVALID),
    ],
)
def test_content_that_no_carrier_takes_is_refused_without_quoting_it(content: Content, kind: RefusalKind) -> None:
    with pytest.raises(Refused) as caught:
        channel.prepare(make_submission(SAUDI, content=content))
    (refusal,) = caught.value.refusals
    assert refusal.kind is kind
    assert refusal.detail
    assert "xx" not in refusal.detail


@pytest.mark.parametrize(
    ("text", "policy", "inside", "abroad"),
    [
        ("x" * 160, "auto", 1, 1),
        ("ş" * 155, "turkish", 1, 1),
        ("ş" * 75, "auto", 2, 2),
        ("[" * 80, "auto", 1, 1),
        ("ş" * 150 + "€" * 3, "turkish", 2, 1),
        ("ı" * 156, "turkish", 2, 2),
        ("x" * 161, "ucs2", 3, 3),
    ],
)
def test_commercial_tiers_bill_inside_turkey_only(text: str, policy: str, inside: int, abroad: int) -> None:
    submission = make_submission(TURK, SAUDI, content=Content(text, policy), billing="turkeysms")
    units = {draft.recipient: draft.units for draft in channel.prepare(submission).drafts}
    assert units == {TURK: inside, SAUDI: abroad}


@pytest.mark.parametrize(
    ("text", "policy", "bare", "with_footer"),
    [("x" * 155, "auto", 1, 1), ("x" * 156, "auto", 1, 2), ("ş" * 150, "turkish", 1, 1), ("ş" * 66, "auto", 1, 2)],
)
def test_what_operators_append_is_counted_inside_turkey_only(
    text: str, policy: str, bare: int, with_footer: int
) -> None:
    for billing, inside in (("turkeysms", bare), ("turkeysms:0", bare), ("turkeysms:5", with_footer)):
        submission = make_submission(TURK, SAUDI, content=Content(text, policy), billing=billing)
        prepared = channel.prepare(submission)
        assert [draft.units for draft in prepared.drafts] == [inside, prepared.parts]


def test_commercial_tiers_can_differ_from_the_parts_on_the_wire() -> None:
    # The locking table has no è, so each ş takes two septets on the wire, while the tariff counts one.
    text = "ş" * 80 + "è" * 75
    prepared = channel.prepare(make_submission(TURK, SAUDI, content=Content(text, "turkish"), billing="turkeysms"))
    assert [draft.units for draft in prepared.drafts] == [1, 2]
    assert prepared.parts == 2


def test_exact_parts_are_billed_without_a_tariff() -> None:
    text = "ş" * 80 + "è" * 75
    prepared = channel.prepare(make_submission(TURK, content=Content(text, "turkish")))
    assert [draft.units for draft in prepared.drafts] == [2]


def test_every_recipient_has_a_draft_in_order_also_a_repeated_one() -> None:
    recipients = [SAUDI, TURK, SAUDI]
    prepared = channel.prepare(make_submission(*recipients))
    assert [draft.recipient for draft in prepared.drafts] == recipients


@pytest.mark.parametrize(
    "raw",
    [
        RawPart(b"\x05\x00\x03\x2a\x02\x01", b"half", 0),
        RawPart(b"", bytes(range(140)), 4),
        RawPart(b"\x06\x05\x04\x0b\x84\x23\xf0", b"", 4),
    ],
)
def test_raw_part_comes_out_as_it_went_in(raw: RawPart) -> None:
    prepared = channel.prepare(make_submission(SAUDI, content=Content("", raw=raw)))
    assert (prepared.body_kind, prepared.parts) == ("raw", 1)
    assert unpack_raw(prepared.body) == raw
    outgoing = make_outgoing(body=prepared.body, body_kind="raw", alphabet=prepared.alphabet)
    assert encode(outgoing) == [PartBytes(raw.udh, raw.data, raw.data_coding)]


@pytest.mark.parametrize("wide", [False, True])
def test_parts_of_one_delivery_share_a_reference_that_its_neighbours_lack(wide: bool) -> None:
    text = "مرحبا " * 30
    # Ids as they are made one after the other: next in the same millisecond, and some milliseconds on.
    identifier = 12_345 << 13
    ids = [identifier, identifier + 32, identifier + 64, identifier + (7 << 13), identifier + (200 << 13)]
    references = []
    for delivery_id in ids:
        parts = encode(make_outgoing(body=text, alphabet="ucs2", parts=3, delivery_id=delivery_id), wide)
        assert shown(parts) == text
        found = {part.udh[3:5] if wide else part.udh[3:4] for part in parts}
        assert len(found) == 1
        assert [part.udh[-1] for part in parts] == list(range(1, len(parts) + 1))
        references.append(found.pop())
    # 7 ms and no sequence look like 0 ms and a sequence of 7, not like the 0, 1 and 2 here.
    assert len(set(references)) == len(ids)


def test_delivery_that_is_sent_again_keeps_its_reference() -> None:
    assert reference_of(987_654_321) == reference_of(987_654_321)
    assert 0 <= reference_of(2**53 - 1) < 2**16


def test_national_tables_survive_the_reference() -> None:
    text = "ığdır şeker " * 30
    parts = encode(make_outgoing(body=text, alphabet="gsm7_tr_locking", parts=3))
    assert shown(parts) == text


def test_packed_parts_are_what_a_phone_would_unpack() -> None:
    (part,) = encode(make_outgoing(body="hellohello"))
    assert pack(part.data).hex() == "e8329bfd4697d9ec37"


def test_unknown_connector_kind_is_named() -> None:
    with pytest.raises(ValueError, match="no connector kind 'pigeon'; there is smpp"):
        channel.check_settings("pigeon", {})


GOOD = {"host": "smsc.example", "system_id": "berid", "password": "secret"}


@pytest.mark.parametrize(
    "settings",
    [
        GOOD,
        GOOD | {"password": "sealed:" + "ab" * 40},
        GOOD | {"rate": 12, "binds": 3, "window": 1, "long_messages": "udh16", "bind_type": "pair"},
        GOOD | {"error_classes": {"ESME_RSUBMITFAIL": "temporary", "0x0412": "throttled", "1042": "connector"}},
    ],
)
def test_settings_that_make_a_connector_are_taken(settings: dict[str, object]) -> None:
    channel.check_settings("smpp", settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hots": "x"}, "there is no setting 'hots'; the nearest is host"),
        ({"port": 0}, "port: 0 is not a whole number from 1 to 65535"),
        ({"port": "2775"}, "port: '2775' is not a whole number"),
        ({"binds": 0}, "binds: 0 is not a whole number from 1 to 100"),
        ({"rate": -1}, "rate: -1 is not a number, 0 or more, in parts per second"),
        ({"rate": float("nan")}, "rate: nan is not a number"),
        ({"tls": 1}, "tls: 1 is not true or false"),
        ({"bind_type": "both"}, "bind_type: 'both' is not one of transceiver, transmitter, receiver, pair"),
        ({"host": ""}, "host must be a name"),
        ({"system_id": ""}, "system_id must not be empty"),
        ({"system_id": "a" * 16}, "system_id must have at most 15 characters"),
        ({"password": "a" * 9}, "password must have at most 8 characters"),
        ({"password": 12345678}, "password: its value is not text"),
        ({"response_timeout_s": 0}, "response_timeout_s must be more than 0"),
        ({"error_classes": {"ESME_RFOO": "temporary"}}, "'ESME_RFOO' is no command status"),
        ({"error_classes": {"0x58": "sometimes"}}, "error_classes: .* is not a table from statuses to permanent"),
        ({"error_classes": {"0": "temporary"}}, "0 is success"),
        ({"submit_id_form": "octal"}, "submit_id_form: 'octal' is not one of as_is, hex, decimal, either"),
    ],
)
def test_settings_that_make_none_are_refused_in_words(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        channel.check_settings("smpp", GOOD | change)


def test_all_troubles_are_told_at_once_and_passwords_are_not_quoted() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        channel.check_settings("smpp", {"port": -5, "password": ["hunter22"], "colour": "red"})
    text = str(caught.value)
    assert all(word in text for word in ("port", "colour", "host is missing", "system_id is missing"))
    assert "hunter22" not in text
