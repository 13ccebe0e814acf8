"""Reading, placing and checking telephone numbers. The phonenumbers library is the second opinion."""

import random
import re
import subprocess
import sys
from importlib.resources import files

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberType

from berid.base.phone import (
    Kind,
    country_name,
    country_of,
    international,
    is_possible,
    is_valid,
    lenient,
    normalise_tr,
    place_of,
)
from tools import phone_data

DATA = (files("berid.base") / "data" / "phone.txt").read_text(encoding="utf-8")
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)

# Countries that share a calling code, and prefixes longer than our table's, with a larger neighbour. By the library's own
# rule a number that both hold is the neighbour's; these are the ones whose blocks part too far down for the table.
LARGER_NEIGHBOUR = {"BL": "GP", "MF": "GP", "CC": "AU", "CX": "AU"}

# In Chile 600 is a fixed number with nine digits and a call centre with ten or eleven, and those are many more.
CHILEAN_600 = "56600123456"


# Strict


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("966500000000", "966500000000"),
        ("905321234567", "905321234567"),
        ("12345678", "12345678"),
        ("123456789012345", "123456789012345"),
        ("1234567", None),
        ("1234567890123456", None),
        ("+966500000000", None),
        ("00966500000000", None),
        ("0500000000", None),
        ("966 500000000", None),
        (" 966500000000", None),
        ("966500000000\n", None),
        ("٩٦٦٥٠٠٠٠٠٠٠٠", None),
        ("96650000000a", None),
        ("", None),
    ],
)
def test_only_plain_international_digits_pass_the_strict_reader(text: str, number: str | None) -> None:
    assert international(text) == number


# Lenient


@pytest.mark.parametrize(
    ("text", "country", "number"),
    [
        ("+90 (532) 123-45-67", None, "905321234567"),
        ("0090.532.123.45.67", None, "905321234567"),
        ("90/532/1234567", None, "905321234567"),
        ("+00905321234567", None, "905321234567"),
        ("\u202a+90 532 123 45 67\u202c", None, "905321234567"),
        ("+966\u00a050\u2011123\u20134567", None, "966501234567"),
        ("٠٠٩٦٦٥٠١٢٣٤٥٦٧", None, "966501234567"),
        ("+۹۸۹۱۲۳۴۵۶۷۸۹", None, "989123456789"),
        ("905321234567", "TR", "905321234567"),
        ("+905321234567", "SA", "905321234567"),
        ("0532 123 45 67", "TR", "905321234567"),
        ("532 123 45 67", "TR", "905321234567"),
        ("(0212) 123 45 67", "TR", "902121234567"),
        ("0850 123 45 67", "TR", "908501234567"),
        ("0501234567", "SA", "966501234567"),
        ("050 123 4567", "SA", "966501234567"),
        ("٠٥٠١٢٣٤٥٦٧", "SA", "966501234567"),
        ("501234567", "SA", "966501234567"),
        ("966501234567", "SA", "966501234567"),
        ("0112345678", "SA", "966112345678"),
        ("00966501234567", "TR", "966501234567"),
        ("966501234567", "TR", "966501234567"),
        ("905321234567", "SA", "905321234567"),
        ("50012345", "KW", "96550012345"),
        ("+50012345", "KW", "50012345"),
        ("(212) 555-1234", "US", "12125551234"),
        ("1 212 555 1234", "US", "12125551234"),
        ("8 (912) 345-67-89", "RU", "79123456789"),
        ("06 20 123 4567", "HU", "36201234567"),
        ("020 7946 0958", "GB", "442079460958"),
        ("347 123 4567", "IT", "393471234567"),
        ("0532 123 45 67", None, None),
        ("0532 123 45 67", "XX", None),
        ("0532 123 45", "TR", None),
        ("+0532 123 45 67", "TR", None),
        ("90532+1234567", None, None),
        ("905321234567;905331234567", None, None),
        ("phone 905321234567", None, None),
        ("+", "TR", None),
        ("00", "TR", None),
        ("0", "TR", None),
        ("", "TR", None),
    ],
)
def test_what_people_write_becomes_the_number_they_mean(text: str, country: str | None, number: str | None) -> None:
    assert lenient(text, country) == number


@given(st.from_regex(r"(90|966)5[0-9]{8}", fullmatch=True), st.sampled_from(["TR", "SA", None]))
def test_the_lenient_reader_leaves_possible_numbers_alone(number: str, country: str | None) -> None:
    if is_possible(number):
        assert lenient(number, country) == lenient("+" + number, country) == number


@pytest.mark.parametrize("region", ["TR", "SA", "AE", "EG", "KW", "GB", "DE", "FR", "US", "RU", "IN", "BR", "CN"])
def test_mobile_numbers_are_understood_as_their_country_writes_them(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    assert example is not None
    as_written = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
    assert lenient(as_written, region) == _digits(example)


# TurkeySMS


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("905321234567", "905321234567"),
        ("+90 532 123 45 67", "905321234567"),
        ("0090 532 1234567", "905321234567"),
        ("05321234567", "905321234567"),
        ("5321234567", "905321234567"),
        ("5050300074", "905050300074"),
        (" 90 5 32 123 45 67 ", "905321234567"),
        ("90(532)123-45-67", "905321234567"),
        ("905000000000", "905000000000"),
        ("5123456789", "905123456789"),
        ("90500000000", None),
        ("9050000000000", None),
        ("902121234567", None),
        ("02121234567", None),
        ("+905", None),
        ("966501234567", "966501234567"),
        ("+966 50 123 4567", "966501234567"),
        ("00966501234567", "966501234567"),
        ("96650123456", None),
        ("0501234567", None),
        ("12125551234", "12125551234"),
        ("999501234567", None),
        ("2121234567", None),
        ("abc", None),
        ("", None),
    ],
)
def test_recipients_of_turkeysms_are_read_by_its_rules(text: str, number: str | None) -> None:
    assert normalise_tr(text) == number


# Places


@pytest.mark.parametrize(
    ("digits", "country", "name", "operator", "kind"),
    [
        ("905321234567", "TR", "Turkey", "Turkcell", Kind.MOBILE),
        ("905421234567", "TR", "Turkey", "Vodafone", Kind.MOBILE),
        ("905051234567", "TR", "Turkey", "Turk Telekom", Kind.MOBILE),
        ("905551234567", "TR", "Turkey", "Turk Telekom", Kind.MOBILE),
        ("905616123456", "TR", "Turkey", "Turkcell", Kind.MOBILE),
        ("905161612345", "TR", "Turkey", "Turkcell", Kind.MOBILE),
        ("905102201234", "TR", "Turkey", "Netgsm", Kind.MOBILE),
        ("905102991234", "TR", "Turkey", None, Kind.MOBILE),
        ("905123456789", "TR", "Turkey", None, Kind.OTHER),
        ("902121234567", "TR", "Turkey", None, Kind.FIXED),
        ("908501234567", "TR", "Turkey", None, Kind.OTHER),
        ("904441444", "TR", "Turkey", None, Kind.OTHER),
        ("966501234567", "SA", "Saudi Arabia", "STC", Kind.MOBILE),
        ("966551234567", "SA", "Saudi Arabia", "STC", Kind.MOBILE),
        ("966541234567", "SA", "Saudi Arabia", "Mobily", Kind.MOBILE),
        ("966561234567", "SA", "Saudi Arabia", "Mobily", Kind.MOBILE),
        ("966591234567", "SA", "Saudi Arabia", "Zain", Kind.MOBILE),
        ("966570123456", "SA", "Saudi Arabia", "Virgin", Kind.MOBILE),
        ("966576123456", "SA", "Saudi Arabia", "Lebara", Kind.MOBILE),
        ("966579512345", "SA", "Saudi Arabia", "STC", Kind.MOBILE),
        ("966579012345", "SA", "Saudi Arabia", "Lebara", Kind.MOBILE),
        ("966112345678", "SA", "Saudi Arabia", None, Kind.FIXED),
        ("12125551234", "US", "United States", None, Kind.UNKNOWN),
        ("14165551234", "CA", "Canada", None, Kind.UNKNOWN),
        ("18762101234", "JM", "Jamaica", None, Kind.MOBILE),
        ("18095551234", "DO", "Dominican Republic", None, Kind.UNKNOWN),
        ("17875551234", "PR", "Puerto Rico", None, Kind.UNKNOWN),
        ("18005551234", "US", "United States", None, Kind.OTHER),
        ("79123456789", "RU", "Russia", None, Kind.MOBILE),
        ("77012345678", "KZ", "Kazakhstan", None, Kind.MOBILE),
        ("77172123456", "KZ", "Kazakhstan", None, Kind.FIXED),
        ("447400123456", "GB", "United Kingdom", None, Kind.MOBILE),
        ("447781123456", "GG", "Guernsey", None, Kind.MOBILE),
        ("447624123456", "IM", "Isle of Man", None, Kind.MOBILE),
        ("393471234567", "IT", "Italy", None, Kind.MOBILE),
        ("390669812345", "VA", "Vatican", None, Kind.FIXED),
        ("38343201234", "XK", "Kosovo", None, Kind.MOBILE),
        ("22507012345", "CI", "Ivory Coast", None, Kind.MOBILE),
    ],
)
def test_a_number_belongs_where_its_longest_prefix_says(
    digits: str, country: str, name: str, operator: str | None, kind: Kind
) -> None:
    place = place_of(digits)
    assert place is not None
    assert (place.country_iso2, place.country_name_en, place.operator, place.kind) == (country, name, operator, kind)
    assert country_of(digits) == country
    assert country_name(country) == name


@pytest.mark.parametrize("digits", ["881612345678", "870123456789", "999123456789", "0905321234567", "9", "", "+90532"])
def test_satellites_and_nonsense_belong_nowhere(digits: str) -> None:
    assert place_of(digits) is None
    assert country_of(digits) is None
    assert not is_possible(digits)


def test_every_country_of_the_library_has_a_name_that_print_r_can_carry() -> None:
    for region in REGIONS:
        name = country_name(region)
        assert name, region
        assert not set("'[]()|\n") & set(name)
    assert country_name("XX") is None
    assert country_name("tr") is None


# Lengths


@pytest.mark.parametrize(
    ("digits", "possible"),
    [
        ("905321234567", True),
        ("905000000000", True),
        ("90500000000", False),
        ("9053212345678", False),
        ("904441444", True),
        ("966500000000", True),
        ("96650000000", False),
        ("9665000000000", False),
        ("971501234567", True),
        ("97150123456", False),
        ("97141234567", True),
        ("12125551234", True),
        ("1212555123", False),
        ("491701234567", True),
        ("4917012345678", True),
        ("90532123456x", False),
        ("90532123456\u0667", False),
        ("90532123456²", False),
    ],
)
def test_a_number_must_have_a_length_its_country_uses(digits: str, possible: bool) -> None:
    assert is_possible(digits) is possible


@pytest.mark.parametrize(
    ("digits", "valid"),
    [
        ("905321234567", True),
        ("905201234567", False),
        ("90500000000", False),
        ("966501234567", True),
        ("966601234567", False),
        ("12125551234", True),
        ("9", False),
        ("", False),
        ("+905321234567", False),
        ("999123456789", False),
        ("1234567890123456789012345", False),
    ],
)
def test_validity_is_the_librarys_word(digits: str, valid: bool) -> None:
    assert is_valid(digits) is valid


# Any input


@given(
    st.one_of(st.text(), st.text("0123456789+ -()٠۵", max_size=20)),
    st.sampled_from(["TR", "SA", "US", "AT", "XX", None]),
)
def test_no_text_makes_a_reader_fail(text: str, country: str | None) -> None:
    for number in (international(text), lenient(text, country), normalise_tr(text)):
        assert number is None or re.fullmatch(r"[1-9][0-9]{7,14}", number)
    place = place_of(text)
    assert country_of(text) == (place.country_iso2 if place else None)
    assert not is_possible(text) or re.fullmatch("[0-9]+", text)
    assert not is_valid(text) or re.fullmatch("[0-9]+", text)


# The second opinion


def _digits(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:]


@pytest.mark.parametrize("kind", [PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE])
def test_the_example_numbers_of_all_countries_are_placed_right(kind: int) -> None:
    expected_kinds = {
        PhoneNumberType.MOBILE: {Kind.MOBILE},
        PhoneNumberType.FIXED_LINE: {Kind.FIXED},
        PhoneNumberType.FIXED_LINE_OR_MOBILE: {Kind.UNKNOWN},
    }
    seen = 0
    for region in REGIONS:
        example = phonenumbers.example_number_for_type(region, kind)
        if example is None:
            continue
        seen += 1
        digits = _digits(example)
        place = place_of(digits)
        assert place is not None, digits
        library_region = phonenumbers.region_code_for_number(example)
        assert library_region is not None
        assert place.country_iso2 in (library_region, LARGER_NEIGHBOUR.get(library_region)), digits
        if digits != CHILEAN_600:
            assert place.kind in expected_kinds[phonenumbers.number_type(example)] | {Kind.UNKNOWN}, digits
        assert is_possible(digits), digits
        assert is_valid(digits), digits
    assert seen > 230


def test_numbers_near_the_examples_are_placed_as_the_library_places_them() -> None:
    chance = random.Random(20261122)
    seen = wrong_country = wrong_kind = impossible_mobile = 0
    for region in REGIONS:
        for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE, PhoneNumberType.TOLL_FREE):
            example = phonenumbers.example_number_for_type(region, kind)
            if example is None:
                continue
            digits = _digits(example)
            keep = len(str(example.country_code)) + 2
            for _ in range(8):
                other = digits[:keep] + "".join(chance.choice("0123456789") for _ in digits[keep:])
                number = phonenumbers.parse("+" + other)
                if _digits(number) != other or not phonenumbers.is_valid_number(number):
                    continue
                seen += 1
                place = place_of(other)
                number_type = phonenumbers.number_type(number)
                wrong_country += place is None or place.country_iso2 != phonenumbers.region_code_for_number(number)
                if number_type == PhoneNumberType.MOBILE:
                    wrong_kind += place is None or place.kind not in (Kind.MOBILE, Kind.UNKNOWN)
                    impossible_mobile += not is_possible(other)
    assert seen > 2000
    assert wrong_country <= seen * 0.01
    assert wrong_kind <= seen * 0.005
    assert impossible_mobile == 0


def test_every_length_of_mobile_numbers_is_in_the_table() -> None:
    for region in REGIONS:
        metadata = PhoneMetadata.metadata_for_region(region)
        example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
        if metadata is None or metadata.mobile is None or example is None:
            continue
        place = place_of(_digits(example))
        assert place is not None
        if place.country_iso2 == region:
            code_length = len(str(metadata.country_code))
            assert {code_length + length for length in metadata.mobile.possible_length} <= place.lengths, region


# The data file


def test_data_file_is_what_its_tool_makes_of_the_installed_library() -> None:
    """If this fails after an upgrade of phonenumbers: python -m tools.phone_data."""
    made = re.search(r"^# Made: (\d{4}-\d\d-\d\d)$", DATA, re.MULTILINE)
    assert made is not None
    assert phone_data.table(made[1]) == DATA


def test_placing_a_number_does_not_load_the_library() -> None:
    script = (
        "import sys; from berid.base import phone;"
        "assert phone.country_of('905321234567') == 'TR';"
        "assert 'phonenumbers' not in sys.modules;"
        "assert phone.is_valid('905321234567');"
        "assert 'phonenumbers' in sys.modules;"
        "assert not [name for name in sys.modules if 'carrierdata' in name or 'geodata' in name]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
