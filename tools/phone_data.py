"""Write berid/base/data/phone.txt, the table of countries and prefixes that `berid.base.phone` reads.

    python -m tools.phone_data

The source is the metadata of libphonenumber (Apache-2.0), as the installed `phonenumbers` package carries it. That
package keeps some 200 MB in memory once its operators and towns are loaded, and takes 15 µs and more per question. What
the path of a message asks (which country, kind and operator, can it be so long) fits in a few thousand prefixes.

How the prefixes come about: for each calling code the patterns of all its countries are unrolled into *boxes*, one set
of digits per place. A walk down the digits keeps, for every country and kind, the boxes that still match, and stops where
only one country and kind is left, or at PREFIX_DIGITS, where the larger share decides. The tree that remains is written
as the shortest list in which the longest matching prefix gives the answer. A prefix that nobody holds takes the answer of
its neighbours: new blocks are mostly opened beside old ones.
"""

import importlib.util
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path

import phonenumbers
from phonenumbers.carrierdata import CARRIER_DATA

TARGET = Path(__file__).resolve().parent.parent / "berid" / "base" / "data" / "phone.txt"

PREFIX_DIGITS = 7
"""How far the walk goes, calling code included."""
SHORTER = {91: 6}
"""India hands out mobile and fixed numbers in alternating small blocks: a seventh digit would make the list fourfold."""
MAJORITY = 0.9
"""The share of the numbers behind a full-length prefix that a kind must have, else the kind is unknown."""

OPERATOR_COUNTRIES = ("AE", "BH", "KW", "OM", "QA", "SA", "TR")
"""Countries whose operators are listed."""

NAMES = {
    "AC": "Ascension Island",
    "CD": "Democratic Republic of the Congo",
    "CI": "Ivory Coast",
    "MK": "North Macedonia",
    "SX": "Sint Maarten",
    "SZ": "Eswatini",
    "TA": "Tristan da Cunha",
    "XK": "Kosovo",
}
"""Names that the metadata lacks, has out of date, or writes with an apostrophe (which breaks print_r readers)."""

KINDS = {
    "mobile": ("mobile",),
    "fixed": ("fixed_line",),
    "other": ("toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan"),
}

Box = tuple[str, ...]  # for each place the digits that may stand there
Language = frozenset[Box]
Place = tuple[str, str]  # country, kind
Living = tuple[tuple[Place, Language], ...]  # what still matches behind a prefix, the main country first
Node = Place | None | list["Node"]  # decided, held by nobody, or one node per next digit

NO_NUMBERS: Language = frozenset()


def main() -> None:
    """Write the file, and say how much it holds."""
    text = table(datetime.now(UTC).date().isoformat())
    TARGET.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{TARGET.name}: {len(text.encode())} bytes, {len(text.split())} words\n")


def table(made: str) -> str:
    """The whole text of the file, for the day `made`."""
    codes = {
        code: regions
        for code, regions in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items())
        if regions != ("001",)  # satellites and the like belong to no country
    }
    lines = [
        "# Countries, kinds and operators of telephone numbers by prefix. Made by tools/phone_data.py; do not edit.",
        f"# Source: metadata of libphonenumber (Apache-2.0) in phonenumbers {phonenumbers.__version__}",
        f"# Made: {made}",
        "",
        "[countries] ISO2|English name|calling code|trunk prefix|lengths without calling code: mobile|fixed|other",
        *sorted(_country(region, code) for code, regions in codes.items() for region in regions),
        "",
        "[kinds] ISO2|kind|prefixes, the longest match counts",
        *_by_value(entry for code, regions in codes.items() for entry in _kinds(code, regions)),
        "",
        "[operators] ISO2|operator to whom the block was given (numbers move)|prefixes, the longest match counts",
        *_by_value(_operators()),
    ]
    return "\n".join(lines) + "\n"


def _by_value(entries: Iterator[tuple[str, str, str]]) -> list[str]:
    """Lines of (country, value, prefix) entries, all prefixes of one value on one line."""
    prefixes = defaultdict(list)
    for country, value, prefix in entries:
        prefixes[country, value].append(prefix)
    return [f"{country}|{value}|{' '.join(sorted(found))}" for (country, value), found in sorted(prefixes.items())]


def _country(region: str, code: int) -> str:
    metadata = _metadata(region)
    lengths = []
    for sources in KINDS.values():
        known = {length for source in sources for length in _lengths(metadata, source)}
        lengths.append(",".join(str(length) for length in sorted(known)))
    trunk = metadata.national_prefix or ""
    return "|".join((region, _name(region), str(code), trunk, *lengths))


def _metadata(region: str) -> phonenumbers.PhoneMetadata:
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    assert metadata is not None
    return metadata


def _lengths(metadata: phonenumbers.PhoneMetadata, source: str) -> tuple[int, ...]:
    description = getattr(metadata, source)
    if description is None or not description.national_number_pattern:
        return ()
    return tuple(length for length in description.possible_length or () if length > 0)


def _name(region: str) -> str:
    if region in NAMES:
        return NAMES[region]
    names = _names()[region]
    name = names["en"]
    while name.startswith("*"):  # "the same as in that language"
        name = names[name[1:]]
    return name.replace(" Of ", " of ").replace(" And ", " and ").replace(" The ", " the ")


@cache
def _names() -> dict[str, dict[str, str]]:
    """The names of countries by language, from a module loaded without its package, which would load every city on earth."""
    path = Path(phonenumbers.__file__).parent / "geodata" / "locale.py"
    spec = importlib.util.spec_from_file_location("phonenumbers.geodata.locale", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names: dict[str, dict[str, str]] = module.LOCALE_DATA
    return names


# Kinds


def _kinds(code: int, regions: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """The prefixes of one calling code as (country, kind, prefix)."""
    living = tuple(
        ((region, kind), NO_NUMBERS.union(*(_language(_metadata(region), source) for source in sources)))
        for region in regions
        for kind, sources in KINDS.items()
    )
    tree = _walk(living, SHORTER.get(code, PREFIX_DIGITS) - len(str(code)))
    for prefix, (country, kind) in _entries(tree, str(code), None):
        yield country, kind, prefix


def _language(metadata: phonenumbers.PhoneMetadata, source: str) -> Language:
    description = getattr(metadata, source)
    pattern = description.national_number_pattern if description else None
    return _unroll(pattern) if pattern else NO_NUMBERS


@cache
def _unroll(pattern: str) -> Language:
    """The boxes of a pattern. Patterns of the metadata are finite and made of digits, sets, groups, | ? and {}."""
    at = 0

    def alternatives() -> set[Box]:
        nonlocal at
        boxes = sequence()
        while pattern[at : at + 1] == "|":
            at += 1
            boxes |= sequence()
        return boxes

    def sequence() -> set[Box]:
        nonlocal at
        boxes: set[Box] = {()}
        while at < len(pattern) and pattern[at] not in "|)":
            piece = atom()
            least, most = times()
            repeated = {
                tuple(digits for box in choice for digits in box)
                for count in range(least, most + 1)
                for choice in product(piece, repeat=count)
            }
            boxes = {front + back for front in boxes for back in repeated}
        return boxes

    def atom() -> set[Box]:
        nonlocal at
        if pattern.startswith("(?:", at):
            at += 3
            boxes = alternatives()
            assert pattern[at] == ")"
            at += 1
            return boxes
        start = at
        if pattern[at] == "[":
            at = pattern.index("]", at) + 1
            return {(_digits_of_set(pattern[start + 1 : at - 1]),)}
        if pattern.startswith("\\d", at):
            at += 2
            return {("0123456789",)}
        assert pattern[at].isdigit(), pattern
        at += 1
        return {(pattern[start],)}

    def times() -> tuple[int, int]:
        nonlocal at
        if pattern[at : at + 1] == "?":
            at += 1
            return 0, 1
        if pattern[at : at + 1] == "{":
            end = pattern.index("}", at)
            least, _, most = pattern[at + 1 : end].partition(",")
            at = end + 1
            return int(least), int(most or least)
        return 1, 1

    boxes = alternatives()
    assert at == len(pattern), pattern
    return frozenset(boxes)


def _digits_of_set(inside: str) -> str:
    inside = inside.replace("\\d", "0-9")
    digits: set[str] = set()
    for at, character in enumerate(inside):
        if character == "-":
            digits |= {str(digit) for digit in range(int(inside[at - 1]), int(inside[at + 1]) + 1)}
        else:
            digits.add(character)
    return "".join(sorted(digits))


def _walk(living: Living, digits_left: int) -> Node:
    """The tree of answers behind a prefix, with at most `digits_left` more digits."""
    places = _places(living)
    if not places:
        return None
    if len(places) == 1:
        return next(iter(places))
    if digits_left == 0:
        return _most_common(places)
    return [_walk(_behind(living, digit), digits_left - 1) for digit in "0123456789"]


def _places(living: Living) -> Counter[Place]:
    """Which places are still possible, and how many numbers each has."""
    seen: dict[tuple[str, Language], str] = {}
    for (country, kind), language in living:
        if language:
            seen.setdefault((kind, language), country)  # what two countries share goes to the main one
    places: Counter[Place] = Counter()
    for (kind, language), country in seen.items():
        if kind == "fixed" and seen.get(("mobile", language)) == country:
            continue  # one pattern for both: counted below
        shared = kind == "mobile" and seen.get(("fixed", language)) == country
        places[country, "unknown" if shared else kind] += sum(math.prod(map(len, box)) for box in language)
    return places


def _most_common(places: Counter[Place]) -> Place:
    if any(kind in ("mobile", "unknown") for _, kind in places):
        # A person's telephone must not be taken for a free number; the reverse does little harm.
        places = Counter({place: numbers for place, numbers in places.items() if place[1] != "other"})
    countries: Counter[str] = Counter()
    for (country, _), numbers in places.items():
        countries[country] += numbers
    country = countries.most_common(1)[0][0]
    kinds = Counter({kind: numbers for (held_by, kind), numbers in places.items() if held_by == country})
    kind, numbers = kinds.most_common(1)[0]
    return country, kind if numbers >= MAJORITY * countries[country] else "unknown"


def _behind(living: Living, digit: str) -> Living:
    return tuple(
        (place, frozenset(box[1:] for box in language if box and digit in box[0])) for place, language in living
    )


def _entries(node: Node, prefix: str, above: Place | None) -> Iterator[tuple[str, Place]]:
    """The fewest (prefix, place) entries at and below `prefix` that do, when a shorter entry already says `above`."""
    if node is None:
        return
    if not isinstance(node, list):
        if node != above:
            yield prefix, node
        return
    below, else_below = _entries_below(node)
    best = min(sorted(below), key=below.__getitem__)
    if above is not None and below.get(above, else_below) <= below[best] + 1:
        best = above
    else:
        yield prefix, best
    for digit, child in enumerate(node):
        yield from _entries(child, f"{prefix}{digit}", best)


def _entries_below(children: list[Node]) -> tuple[dict[Place, int], int]:
    """How many entries the children need, by the place that is said above them; the second number is for any other."""
    needs = [_entries_needed(child) for child in children]
    places = set().union(*(by_place for by_place, _ in needs))
    return (
        {place: sum(by_place.get(place, otherwise) for by_place, otherwise in needs) for place in places},
        sum(otherwise for _, otherwise in needs),
    )


def _entries_needed(node: Node) -> tuple[dict[Place, int], int]:
    """How many entries a node and all below it need, in the same form."""
    if node is None:
        return {}, 0
    if not isinstance(node, list):
        return {node: 0}, 1
    below, else_below = _entries_below(node)
    with_own_entry = 1 + min(below.values())
    return {place: min(count, with_own_entry) for place, count in below.items()}, min(else_below, with_own_entry)


# Operators


def _operators() -> Iterator[tuple[str, str, str]]:
    """The blocks of operators as (country, operator, prefix)."""
    for country in OPERATOR_COUNTRIES:
        code = str(phonenumbers.country_code_for_region(country))
        for prefix, names in CARRIER_DATA.items():
            if prefix.startswith(code):
                yield country, names["en"], prefix


if __name__ == "__main__":
    main()
