"""Alphabets, parts and bytes of a short message. gsmcodecs is the second opinion on the tables of TS 23.038."""

from itertools import pairwise

import gsmcodecs  # noqa: F401  registers the codecs gsm23.038-<locking>-<single>
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.base.text import (
    DATA_CODING_GSM,
    DATA_CODING_UCS2,
    Alphabet,
    BadText,
    Encoding,
    Part,
    PartBytes,
    Policy,
    analyse,
    commercial_parts,
    decode,
    encode_parts,
    fold_turkish,
    pack,
    split,
    unpack,
)

CODECS = {
    Alphabet.GSM7: "gsm23.038-0-0",
    Alphabet.GSM7_TR_SINGLE: "gsm23.038-0-1",
    Alphabet.GSM7_TR_LOCKING: "gsm23.038-1-0",
}
HEADERS = {
    Alphabet.GSM7: b"",
    Alphabet.GSM7_TR_SINGLE: b"\x03\x24\x01\x01",
    Alphabet.GSM7_TR_LOCKING: b"\x03\x25\x01\x01",
}
BOTH_TABLES = b"\x06\x25\x01\x01\x24\x01\x01"
GSM_CODES = [code for code in range(128) if code != 0x1B]


def _alphabet_of(codec: str) -> str:
    """Every character of one pair of tables, as the second opinion has it."""
    plain = bytes(GSM_CODES).decode(codec)
    escaped = (bytes((0x1B, code)).decode(codec, "ignore") for code in GSM_CODES)
    return plain + "".join(escaped)


CHARACTERS = {alphabet: _alphabet_of(codec) for alphabet, codec in CODECS.items()}

sendable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400)
turkish = st.text(st.sampled_from(CHARACTERS[Alphabet.GSM7_TR_SINGLE]), max_size=700)
gsm = st.text(st.sampled_from(CHARACTERS[Alphabet.GSM7]), max_size=700)
emoji = st.text(st.sampled_from("aş€😀"), max_size=400)
some_text = st.one_of(sendable, turkish, gsm, emoji)


# Tables


@pytest.mark.parametrize(("alphabet", "codec"), CODECS.items())
def test_every_code_of_the_main_table_reads_as_the_standard_says(alphabet: Alphabet, codec: str) -> None:
    for code in GSM_CODES:
        assert decode(bytes((code,)), 0, HEADERS[alphabet]) == bytes((code,)).decode(codec)


@pytest.mark.parametrize(("alphabet", "codec"), CODECS.items())
def test_every_code_behind_an_escape_reads_as_the_standard_says(alphabet: Alphabet, codec: str) -> None:
    for code in GSM_CODES:
        pair = bytes((0x1B, code))
        expected = pair.decode(codec, "ignore") or bytes((code,)).decode(codec)
        assert decode(pair, 0, HEADERS[alphabet]) == expected


@pytest.mark.parametrize(("alphabet", "codec"), CODECS.items())
def test_every_character_of_an_alphabet_is_written_as_the_standard_says(alphabet: Alphabet, codec: str) -> None:
    for character in CHARACTERS[alphabet]:
        [part] = encode_parts(character, Encoding(alphabet, 0, 1), reference=0)
        assert part == PartBytes(HEADERS[alphabet], character.encode(codec), DATA_CODING_GSM)


@pytest.mark.parametrize("alphabet", CODECS)
def test_an_alphabet_holds_nothing_but_its_tables(alphabet: Alphabet) -> None:
    held = set()
    for code_point in range(1, 0x10000):
        if not 0xD800 <= code_point < 0xE000:
            try:
                encode_parts(chr(code_point), Encoding(alphabet, 0, 1), reference=0)
            except BadText:
                continue
            held.add(chr(code_point))
    assert held == set(CHARACTERS[alphabet])


@pytest.mark.parametrize(
    ("letter", "single", "locking"),
    [
        ("Ğ", "1b47", "0b"),
        ("İ", "1b49", "40"),
        ("Ş", "1b53", "1c"),
        ("ç", "1b63", "60"),
        ("€", "1b65", "04"),
        ("ğ", "1b67", "0c"),
        ("ı", "1b69", "07"),
        ("ş", "1b73", "1d"),
        ("Ç", "09", "09"),
        ("ö", "7c", "7c"),
        ("ü", "7e", "7e"),
        ("@", "00", "00"),
    ],
)
def test_turkish_letters_stand_at_the_places_of_a21_and_a31(letter: str, single: str, locking: str) -> None:
    for alphabet, code in ((Alphabet.GSM7_TR_SINGLE, single), (Alphabet.GSM7_TR_LOCKING, locking)):
        [part] = encode_parts(letter, Encoding(alphabet, 0, 1), reference=0)
        assert part.data.hex() == code


def test_naming_both_turkish_tables_would_never_be_cheaper_than_the_locking_one() -> None:
    with_both = _alphabet_of("gsm23.038-1-1")
    assert set(with_both) == set(CHARACTERS[Alphabet.GSM7_TR_LOCKING])
    for character in with_both:
        [part] = encode_parts(character, Encoding(Alphabet.GSM7_TR_LOCKING, 0, 1), reference=0)
        assert len(part.data) <= len(character.encode("gsm23.038-1-1"))


# Choice and measure


@pytest.mark.parametrize(
    ("text", "allowed", "expected"),
    [
        ("", Policy.AUTO, Encoding(Alphabet.GSM7, 0, 1)),
        ("", Policy.UCS2, Encoding(Alphabet.UCS2, 0, 1)),
        ("hello", Policy.AUTO, Encoding(Alphabet.GSM7, 5, 1)),
        ("hello", Policy.TURKISH, Encoding(Alphabet.GSM7, 5, 1)),
        ("hello", Policy.UCS2, Encoding(Alphabet.UCS2, 5, 1)),
        ("Çöü", Policy.AUTO, Encoding(Alphabet.GSM7, 3, 1)),
        ("5€ [a]", Policy.AUTO, Encoding(Alphabet.GSM7, 9, 1)),
        ("şeker", Policy.AUTO, Encoding(Alphabet.UCS2, 5, 1)),
        ("şeker", Policy.TURKISH, Encoding(Alphabet.GSM7_TR_SINGLE, 6, 1)),
        ("şeker ş", Policy.TURKISH, Encoding(Alphabet.GSM7_TR_SINGLE, 9, 1)),
        ("مرحبا", Policy.TURKISH, Encoding(Alphabet.UCS2, 5, 1)),
        ("مرحبا", Policy.AUTO, Encoding(Alphabet.UCS2, 5, 1)),
        ("ok 😀", Policy.AUTO, Encoding(Alphabet.UCS2, 5, 1)),
        ("`", Policy.AUTO, Encoding(Alphabet.UCS2, 1, 1)),
        ("\x1b", Policy.AUTO, Encoding(Alphabet.UCS2, 1, 1)),
        # Many Turkish letters: pairs take a second part, the locking table does not.
        ("ş" * 78, Policy.TURKISH, Encoding(Alphabet.GSM7_TR_LOCKING, 78, 1)),
        ("ş" * 77, Policy.TURKISH, Encoding(Alphabet.GSM7_TR_SINGLE, 154, 1)),
        # è is not in the locking table, so single shift it is, however many pairs.
        ("è" + "ş" * 78, Policy.TURKISH, Encoding(Alphabet.GSM7_TR_SINGLE, 157, 2)),
        # The locking table has € for one septet, which helps a text without a Turkish letter.
        ("€" * 80, Policy.TURKISH, Encoding(Alphabet.GSM7, 160, 1)),
        ("€" * 81, Policy.TURKISH, Encoding(Alphabet.GSM7_TR_LOCKING, 81, 1)),
        ("€" * 81, Policy.AUTO, Encoding(Alphabet.GSM7, 162, 2)),
    ],
)
def test_the_cheapest_permitted_alphabet_is_chosen(text: str, allowed: Policy, expected: Encoding) -> None:
    assert analyse(text, allowed) == expected


@pytest.mark.parametrize(
    ("unit", "allowed", "alphabet", "limits"),
    [
        ("a", Policy.AUTO, Alphabet.GSM7, (160, 153, 152)),
        ("ş", Policy.AUTO, Alphabet.UCS2, (70, 67, 66)),
        ("م", Policy.AUTO, Alphabet.UCS2, (70, 67, 66)),
        ("a", Policy.UCS2, Alphabet.UCS2, (70, 67, 66)),
    ],
)
def test_a_part_begins_right_behind_the_limit(
    unit: str, allowed: Policy, alphabet: Alphabet, limits: tuple[int, int, int]
) -> None:
    single, narrow, wide = limits
    for wide_reference, chained in ((False, narrow), (True, wide)):
        for length, parts in (
            (single, 1),
            (single + 1, 2),
            (2 * chained, 2),
            (2 * chained + 1, 3),
            (7 * chained, 7),
            (7 * chained + 1, 8),
        ):
            encoding = analyse(unit * length, allowed, wide_reference)
            assert encoding == Encoding(alphabet, length, parts)
            assert len(split(unit * length, encoding, wide_reference)) == parts


@pytest.mark.parametrize("wide_reference", [False, True])
def test_turkish_parts_begin_right_behind_the_limit(wide_reference: bool) -> None:
    chained = 148 if wide_reference else 149
    start = "èş"  # è keeps the text out of the locking table; three septets
    for septets, parts in ((155, 1), (156, 2), (2 * chained, 2), (2 * chained + 1, 3)):
        text = start + "a" * (septets - 3)
        expected = Encoding(Alphabet.GSM7_TR_SINGLE, septets, parts)
        assert analyse(text, Policy.TURKISH, wide_reference) == expected
    for septets, parts in ((155, 1), (156, 2), (2 * chained, 2), (2 * chained + 1, 3)):
        encoding = Encoding(Alphabet.GSM7_TR_LOCKING, septets, parts)
        assert len(split("ş" * septets, encoding, wide_reference)) == parts


@pytest.mark.parametrize(
    ("text", "allowed", "lengths"),
    [
        ("a" * 158 + "€", Policy.AUTO, [160]),
        ("a" * 159 + "€", Policy.AUTO, [153, 8]),
        ("a" * 152 + "€" + "b" * 7, Policy.AUTO, [152, 9]),  # the pair would be cut, so it moves on whole
        ("a" * 151 + "€" + "b" * 8, Policy.AUTO, [153, 8]),
        ("a" * 152 + "€" + "b" * 151, Policy.AUTO, [152, 153]),  # 305 septets, and the lost one fits
        ("a" * 152 + "€" + "b" * 152, Policy.AUTO, [152, 153, 1]),  # 306 septets, but one was lost at the cut
        ("è" + "a" * 152 + "ş", Policy.TURKISH, [155]),
        ("è" + "a" * 153 + "ş", Policy.TURKISH, [149, 7]),
        ("è" + "a" * 147 + "ş" + "b" * 6, Policy.TURKISH, [148, 8]),
        ("ğ" * 68 + "😀", Policy.AUTO, [70]),
        ("ğ" * 69 + "😀", Policy.AUTO, [67, 4]),
        ("ğ" * 66 + "😀" + "ğ" * 3, Policy.AUTO, [66, 5]),  # the surrogate pair moves on whole
        ("😀" * 35, Policy.AUTO, [70]),
        ("😀" * 36, Policy.AUTO, [66, 6]),
        ("😀" * 67, Policy.AUTO, [66, 66, 2]),
    ],
)
def test_a_pair_is_never_cut(text: str, allowed: Policy, lengths: list[int]) -> None:
    encoding = analyse(text, allowed)
    parts = split(text, encoding)
    assert [part.units for part in parts] == lengths
    assert "".join(part.text for part in parts) == text
    assert encoding.parts == len(lengths)


def test_split_says_which_text_each_part_has() -> None:
    text = "a" * 152 + "€" + "b" * 7
    assert split(text, analyse(text)) == [Part("a" * 152, 152), Part("€bbbbbbb", 9)]


@given(some_text)
def test_ucs2_never_takes_fewer_parts_than_a_gsm_alphabet_that_holds_the_text(text: str) -> None:
    in_ucs2 = analyse(text, Policy.UCS2)
    assert in_ucs2.alphabet is Alphabet.UCS2
    assert in_ucs2.units == len(text.encode("utf-16-be")) // 2
    turkish_allowed = analyse(text, Policy.TURKISH)
    auto = analyse(text)
    assert turkish_allowed.parts <= auto.parts <= in_ucs2.parts


@given(some_text, st.sampled_from(Policy))
def test_the_default_alphabet_is_used_exactly_when_the_whole_text_is_in_it(text: str, allowed: Policy) -> None:
    fits = set(text) <= set(CHARACTERS[Alphabet.GSM7])
    assert (analyse(text, Policy.AUTO).alphabet is Alphabet.GSM7) == fits
    alphabet = analyse(text, allowed).alphabet
    if alphabet is not Alphabet.UCS2:
        assert set(text) <= set(CHARACTERS[alphabet])


# Bytes


@given(some_text, st.sampled_from(Policy), st.integers(0, 0xFFFFF), st.booleans())
def test_what_was_encoded_decodes_to_the_same_text(
    text: str, allowed: Policy, reference: int, wide_reference: bool
) -> None:
    encoding = analyse(text, allowed, wide_reference)
    parts = encode_parts(text, encoding, reference, wide_reference)
    pieces = split(text, encoding, wide_reference)
    assert len(parts) == len(pieces) == encoding.parts
    for part, piece in zip(parts, pieces, strict=True):
        assert decode(part.data, part.data_coding, part.udh) == piece.text
        if part.data_coding == DATA_CODING_UCS2:
            assert len(part.udh) + len(part.data) <= 140
            assert len(part.data) == 2 * piece.units
        else:
            assert max(part.data, default=0) < 128
            assert len(part.data) == piece.units
            assert len(part.udh) + len(pack(part.data, len(part.udh))) <= 140
    assert "".join(piece.text for piece in pieces) == text


@given(some_text, st.sampled_from(Policy), st.booleans())
def test_no_cut_could_come_later(text: str, allowed: Policy, wide_reference: bool) -> None:
    encoding = analyse(text, allowed, wide_reference)
    pieces = split(text, encoding, wide_reference)
    for piece, following in pairwise(pieces):
        first = split(following.text[0], Encoding(encoding.alphabet, 0, 1))[0]
        limits = {Alphabet.UCS2: (67, 66), Alphabet.GSM7: (153, 152)}
        limit = limits.get(encoding.alphabet, (149, 148))[wide_reference]
        assert piece.units <= limit < piece.units + first.units


@pytest.mark.parametrize(
    ("text", "allowed", "wide_reference", "headers"),
    [
        ("a", Policy.AUTO, False, [""]),
        ("ğ", Policy.AUTO, False, [""]),
        ("ğ", Policy.TURKISH, True, ["03240101"]),
        ("ğ" * 155, Policy.TURKISH, False, ["03250101"]),
        ("a" * 161, Policy.AUTO, False, ["050003340201", "050003340202"]),
        ("a" * 161, Policy.AUTO, True, ["06080412340201", "06080412340202"]),
        ("م" * 71, Policy.AUTO, False, ["050003340201", "050003340202"]),
        ("èğ" + "a" * 153, Policy.TURKISH, False, ["080003340201240101", "080003340202240101"]),
        ("ğ" * 156, Policy.TURKISH, True, ["09080412340201250101", "09080412340202250101"]),
    ],
)
def test_the_header_names_reference_total_number_and_table(
    text: str, allowed: Policy, wide_reference: bool, headers: list[str]
) -> None:
    encoding = analyse(text, allowed, wide_reference)
    parts = encode_parts(text, encoding, 0x1234, wide_reference)
    assert [part.udh.hex() for part in parts] == headers


def test_a_text_of_255_parts_is_the_longest() -> None:
    longest = "a" * 153 * 255
    assert len(encode_parts(longest, analyse(longest), 1)) == 255
    too_long = longest + "a"
    assert analyse(too_long).parts == 256
    with pytest.raises(BadText, match="256 parts"):
        encode_parts(too_long, analyse(too_long), 1)


@pytest.mark.parametrize(
    "text", ["secret\ud83d", "secret" + chr(0xDE00), "secret\0", "secretş\0", "secret\ude00\ud83d"]
)
@pytest.mark.parametrize("allowed", Policy)
def test_lone_surrogates_and_nuls_are_refused_without_showing_the_text(text: str, allowed: Policy) -> None:
    with pytest.raises(BadText) as caught:
        analyse(text, allowed)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    for alphabet in Alphabet:
        with pytest.raises(BadText):
            encode_parts(text, Encoding(alphabet, 0, 1), reference=0)
        with pytest.raises(BadText):
            split(text, Encoding(alphabet, 0, 1))
    with pytest.raises(BadText):
        commercial_parts(text, allowed)


def test_the_refusal_says_where_the_text_is_bad() -> None:
    with pytest.raises(BadText, match="a lone surrogate at index 2"):
        analyse("ab\ud800")
    with pytest.raises(BadText, match="a NUL at index 1"):
        analyse("a\0b")


@given(st.text(st.characters(), max_size=200), st.sampled_from(Policy))
def test_any_string_is_measured_or_refused(text: str, allowed: Policy) -> None:
    bad = "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)
    if bad:
        with pytest.raises(BadText):
            analyse(text, allowed)
    else:
        assert analyse(text, allowed).parts >= 1


def test_an_alphabet_that_does_not_hold_the_text_is_refused() -> None:
    with pytest.raises(BadText, match="gsm7_tr_locking"):
        encode_parts("è", Encoding(Alphabet.GSM7_TR_LOCKING, 1, 1), reference=0)


# Packed septets


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("hellohello", "e8329bfd4697d9ec37"),
        ("", ""),
        ("a", "61"),
        ("@", "00"),
        ("aaaaaaaa", "e170381c0e87c3"),
    ],
)
def test_eight_septets_take_seven_octets(text: str, packed: str) -> None:
    [part] = encode_parts(text, analyse(text), reference=0)
    assert pack(part.data).hex() == packed


@pytest.mark.parametrize(("udh_octets", "fill_bits"), [(0, 0), (4, 3), (6, 1), (7, 0), (9, 5), (10, 4), (3, 4), (5, 2)])
def test_septets_start_at_a_septet_boundary_behind_the_header(udh_octets: int, fill_bits: int) -> None:
    assert (udh_octets * 8 + fill_bits) % 7 == 0
    assert pack(b"\x01", udh_octets) == (1 << fill_bits).to_bytes((fill_bits + 14) // 8, "little")


@pytest.mark.parametrize(("header", "septets"), [(0, 160), (4, 155), (6, 153), (7, 152), (9, 149), (10, 148)])
def test_a_full_part_fills_the_140_octets_when_packed(header: int, septets: int) -> None:
    assert header + len(pack(b"\x7f" * septets, header)) <= 140
    assert header + len(pack(b"\x7f" * (septets + 1), header)) > 140


@given(st.binary(max_size=170).map(lambda octets: bytes(octet & 0x7F for octet in octets)), st.integers(0, 20))
def test_unpacking_gives_back_what_was_packed(septets: bytes, udh_octets: int) -> None:
    packed = pack(septets, udh_octets)
    assert unpack(packed, udh_octets, len(septets)) == septets
    if not septets.endswith(b"\0"):
        assert unpack(packed, udh_octets) == septets


def test_seven_spare_bits_are_padding_and_not_an_at_sign() -> None:
    assert unpack(pack(b"abcdefg")) == b"abcdefg"
    assert unpack(pack(b"abcdefg\0")) == b"abcdefg"
    assert unpack(pack(b"abcdefg\0"), septets=8) == b"abcdefg\0"


@given(turkish, st.booleans())
def test_packed_parts_decode_too(text: str, wide_reference: bool) -> None:
    encoding = analyse(text, Policy.TURKISH, wide_reference)
    for part in encode_parts(text, encoding, 1, wide_reference):
        if part.data and part.data[-1] != 0:
            packed = pack(part.data, len(part.udh))
            assert decode(packed, 0, part.udh, packed=True) == decode(part.data, 0, part.udh)


# What comes in


@pytest.mark.parametrize(
    ("data", "data_coding", "udh", "text"),
    [
        (b"", 0, b"", ""),
        (b"\x00\x02\x1b\x65", 0, b"", "@$€"),
        (b"\x1b", 0, b"", " "),
        (b"a\x1b\x1bb", 0, b"", "a b"),
        (b"\x1ba", 0, b"", "a"),
        (b"a\x80\xffb", 0, b"", "a\ufffd\ufffdb"),
        (b"\x1b\x80", 0, b"", "\ufffd"),
        (b"\x1b\x73", 0, b"", "s"),
        (b"\x1b\x73", 0, b"\x03\x24\x01\x01", "ş"),
        (b"\x1d\x1b\x3c", 0, b"\x03\x25\x01\x01", "ş["),
        (b"\x1d\x1b\x73\x1b\x65\x04", 0, BOTH_TABLES, "şş€€"),
        (b"\x1b\x1d", 0, BOTH_TABLES, "ş"),
        (b"\x1d", 0, b"\x03\x25\x01\x02", "æ"),
        (b"\x1b\x73", 0, b"\x08\x00\x03\x01\x02\x01\x24\x01\x01", "ş"),
        (b"\x1b\x73", 0, b"\x03\x24\x01", "s"),
        (b"\x1b\x73", 0, b"\xff\x24", "s"),
        (b"\x1b\x73", 0, b"\x00\x24\x01\x01", "s"),
        (b"\x1b\x73", 0, b"\x04\x24\x02\x01\x01", "s"),
        (b"abc\xe9", 1, b"", "abc\ufffd"),
        (b"caf\xe9\x00", 3, b"", "café\ufffd"),
        (b"\xbf", 6, b"", "П"),
        (b"\xe0", 7, b"", "א"),
        (b"\xe9", 4, b"", "é"),
        (b"\x06\x45", 8, b"", "م"),
        (b"\xd8\x3d\xde\x00", 8, b"", "😀"),
        (b"\xd8\x3d\x00a", 8, b"", "\ufffda"),
        (b"\xde\x00\x00a", 8, b"", "\ufffda"),
        (b"\x00a\x00", 8, b"", "a\ufffd"),
        (b"\xd8\x3d", 8, b"", "\ufffd"),
        (b"\x00\x00\x00a", 8, b"", "\ufffda"),
        (b"\x00", 0x10, b"", "@"),
        (b"\xe9", 0x14, b"", "é"),
        (b"\x06\x45", 0x18, b"", "م"),
        (b"\x00", 0x1C, b"", "@"),
        (b"\x00", 0x90, b"", "@"),
        (b"\x00", 0xC8, b"", "@"),
        (b"\x00", 0xD0, b"", "@"),
        (b"\x06\x45", 0xE0, b"", "م"),
        (b"\x00", 0xF0, b"", "@"),
        (b"\xe9", 0xF5, b"", "é"),
    ],
)
def test_received_data_reads_as(data: bytes, data_coding: int, udh: bytes, text: str) -> None:
    assert decode(data, data_coding, udh) == text


@given(st.binary(max_size=160), st.integers(-1, 300), st.binary(max_size=12), st.booleans())
def test_whatever_comes_in_becomes_text_that_could_go_out(
    data: bytes, data_coding: int, udh: bytes, packed: bool
) -> None:
    assert analyse(decode(data, data_coding, udh, packed)).parts >= 1


# Letters and money


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("çğıİşĞŞ", "cgiIsGS"),
        ("ÇÖÜöü", "ÇÖÜöü"),
        ("Güle güle, Ayşe! â é ß م 😀", "Güle güle, Ayse! â é ß م 😀"),
        ("", ""),
    ],
)
def test_only_the_seven_letters_outside_gsm_are_folded(text: str, folded: str) -> None:
    assert fold_turkish(text) == folded


@given(turkish)
def test_folded_turkish_text_is_in_the_default_alphabet(text: str) -> None:
    assert analyse(fold_turkish(text)).alphabet is Alphabet.GSM7
    assert len(fold_turkish(text)) == len(text)


@pytest.mark.parametrize(
    ("unit", "mode", "tiers"),
    [
        ("a", Policy.AUTO, (160, 306, 459, 612, 765, 918, 1071)),
        ("a", Policy.TURKISH, (160, 306, 459, 612, 765, 918, 1071)),
        ("ü", Policy.AUTO, (160, 306, 459, 612, 765, 918, 1071)),
        ("ş", Policy.TURKISH, (155, 298, 447, 596, 745, 894, 1043)),
        ("ş", Policy.AUTO, (70, 134, 201, 268, 335, 402, 469)),
        ("م", Policy.TURKISH, (70, 134, 201, 268, 335, 402, 469)),
        ("a", Policy.UCS2, (70, 134, 201, 268, 335, 402, 469)),
    ],
)
def test_operators_bill_by_tiers(unit: str, mode: Policy, tiers: tuple[int, ...]) -> None:
    for parts, most in enumerate(tiers, start=1):
        assert commercial_parts(unit * most, mode) == parts
        assert commercial_parts(unit * (most + 1), mode) == parts + 1


@pytest.mark.parametrize(
    ("text", "mode", "footer_len", "parts"),
    [
        ("", Policy.AUTO, 0, 1),
        ("a" * 155, Policy.AUTO, 5, 1),
        ("a" * 156, Policy.AUTO, 5, 2),
        ("a" * 301, Policy.AUTO, 5, 2),
        ("a" * 302, Policy.AUTO, 5, 3),
        ("ş" * 150, Policy.TURKISH, 5, 1),
        ("ş" * 151, Policy.TURKISH, 5, 2),
        ("م" * 65, Policy.AUTO, 5, 1),
        ("م" * 66, Policy.AUTO, 5, 2),
        ("€" * 80, Policy.AUTO, 0, 1),
        ("€" * 80 + "a", Policy.AUTO, 0, 2),
        ("ş" * 153 + "€", Policy.TURKISH, 0, 1),
        ("ş" * 154 + "€", Policy.TURKISH, 0, 2),
        (r"^{}\[]~|€" + "a" * 142, Policy.AUTO, 0, 1),
        (r"^{}\[]~|€" + "a" * 143, Policy.AUTO, 0, 2),
        ("م€" * 35, Policy.AUTO, 0, 1),
        ("😀" * 35, Policy.AUTO, 0, 1),
        ("😀" * 36, Policy.AUTO, 0, 2),
    ],
)
def test_footer_and_costly_characters_count_in_the_bill(text: str, mode: Policy, footer_len: int, parts: int) -> None:
    assert commercial_parts(text, mode, footer_len) == parts


def test_the_bill_and_the_wire_count_apart() -> None:
    text = "è" + "ş" * 154
    assert commercial_parts(text, Policy.TURKISH) == 1
    assert analyse(text, Policy.TURKISH) == Encoding(Alphabet.GSM7_TR_SINGLE, 309, 3)
