"""Parameters in the shapes that clients write, by rows."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from berid.dialects.turkeysms.reading import choice_of, due_of, id_of, items_of, numbers_of, text_of
from berid.domain.errors import RefusalKind, Refused

ISTANBUL = ZoneInfo("Europe/Istanbul")


def kind_of(error: pytest.ExceptionInfo[Refused]) -> RefusalKind:
    """The one kind of a refusal."""
    (refusal,) = error.value.refusals
    return refusal.kind


@pytest.mark.parametrize(
    ("value", "text"),
    [("Hi", "Hi"), (" Hi ", " Hi "), (None, ""), ("", ""), (" \n", ""), (123456, "123456"), (0, "0"), (1.5, "1.5")],
)
def test_text_is_text_or_a_number(value: Any, text: str) -> None:
    assert text_of({"text": value}, "text") == text


@pytest.mark.parametrize("value", [True, ["Hi"], {"a": 1}])
def test_other_types_are_no_text(value: Any) -> None:
    with pytest.raises(Refused) as error:
        text_of({"text": value}, "text")
    assert kind_of(error) is RefusalKind.MALFORMED


def test_the_paths_own_name_comes_before_its_twin() -> None:
    both = {"mobile": "1", "sentto": "2"}
    assert text_of(both, "mobile", "sentto") == "1"
    assert text_of(both, "sentto", "mobile") == "2"
    assert text_of({"mobile": " ", "sentto": "2"}, "mobile", "sentto") == "2"


@pytest.mark.parametrize(("value", "choice"), [(0, 0), ("1", 1), (" 2 ", 2), ("", 9), (None, 9)])
def test_choices_are_numbers_or_digits(value: Any, choice: int) -> None:
    assert choice_of({"lang": value}, (0, 1, 2), 9, "sms_lang", "lang") == choice


@pytest.mark.parametrize("value", [3, -1, "x", "12", 1.0, "٢", "²", True, [1], {}])
def test_other_choices_are_malformed(value: Any) -> None:
    with pytest.raises(Refused) as error:
        choice_of({"lang": value}, (0, 1, 2), 9, "lang")
    assert kind_of(error) is RefusalKind.MALFORMED


@pytest.mark.parametrize("value", ["x1", "²", "-1", "1.0", "9" * 17, [1], True])
def test_what_is_no_id_is_malformed(value: Any) -> None:
    with pytest.raises(Refused) as error:
        id_of({"sms_id": value}, "sms_id")
    assert kind_of(error) is RefusalKind.MALFORMED


@pytest.mark.parametrize(("value", "identifier"), [("", 0), (None, 0), (5, 5), (" 1000007721 ", 1000007721)])
def test_ids_are_numbers_or_digits(value: Any, identifier: int) -> None:
    assert id_of({"sms_id": value}, "sms_id") == identifier


@pytest.mark.parametrize(
    ("value", "usable", "rejected"),
    [
        ("905321234567", ["905321234567"], []),
        (905321234567, ["905321234567"], []),
        (9.05321234567e11, ["905321234567"], []),
        ("+90 (532) 123-45-67", ["905321234567"], []),
        (" 00905321234567 ", ["905321234567"], []),
        ("05321234567", ["905321234567"], []),
        ("5321234567", ["905321234567"], []),
        (5321234567, ["905321234567"], []),
        ("4915112345678", ["4915112345678"], []),
        (["905321234567", " ", None, ""], ["905321234567"], []),
        ("905321234567,,905321234567", ["905321234567", "905321234567"], []),
        ('["905321234567", "5421234567"]', ["905321234567", "905421234567"], []),
        ("90500000000", [], ["90500000000"]),
        ("902121234567", [], ["902121234567"]),
        ("x" * 1_000_000, [], ["x" * 64]),
        ([True, [1], {}, 0.5, "x"], [], ["", "", "", "", "x"]),
        ("", [], []),
        ([], [], []),
        (None, [], []),
    ],
)
async def test_recipients_in_every_shape(value: Any, usable: list[str], rejected: list[str]) -> None:
    assert await numbers_of(items_of({"sentto": value}, "sentto", "mobile")) == (usable, rejected)


@pytest.mark.parametrize("value", [True, False, {"a": 1}])
def test_recipients_of_other_types_are_malformed(value: Any) -> None:
    with pytest.raises(Refused) as error:
        items_of({"sentto": value}, "sentto")
    assert kind_of(error) is RefusalKind.MALFORMED


@pytest.mark.parametrize(
    ("switch", "day", "moment", "planned"),
    [
        (None, None, None, None),
        (0, "2026-12-01", "10:00", None),
        ("0", "rubbish", "rubbish", None),
        (None, "", "", None),
        (1, "2026-12-01", "10:00", "2026-12-01T10:00"),
        ("1", "2026-12-01", "9:05", "2026-12-01T09:05"),
        (1, " 2026-12-01 ", "10:00:30", "2026-12-01T10:00:30"),
        (None, "2026-12-01", "10:00", "2026-12-01T10:00"),
    ],
)
def test_planned_times_are_those_of_istanbul(switch: Any, day: Any, moment: Any, planned: str | None) -> None:
    fields = {"scheduled_sms": switch, "scheduled_date": day, "scheduled_time": moment}
    due_ms, faults = due_of({name: value for name, value in fields.items() if value is not None}, ISTANBUL)
    assert faults == []
    expected = datetime.fromisoformat(f"{planned}+03:00").timestamp() * 1000 if planned else None
    assert due_ms == expected


@pytest.mark.parametrize(
    ("day", "moment", "kind"),
    [
        ("", "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        ("01.12.2026", "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        ("20261201", "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        ("2026-W49-2", "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        ("2026-02-30", "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        (["2026-12-01"], "10:00", RefusalKind.SCHEDULE_DATE_INVALID),
        ("2026-12-01", "", RefusalKind.SCHEDULE_TIME_INVALID),
        ("2026-12-01", "24:00", RefusalKind.SCHEDULE_TIME_INVALID),
        ("2026-12-01", "10", RefusalKind.SCHEDULE_TIME_INVALID),
        ("2026-12-01", "10:00+03:00", RefusalKind.SCHEDULE_TIME_INVALID),
        ("2026-12-01", {}, RefusalKind.SCHEDULE_TIME_INVALID),
    ],
)
def test_planned_times_that_cannot_be_read_are_a_fault(day: Any, moment: Any, kind: RefusalKind) -> None:
    _, faults = due_of({"scheduled_sms": 1, "scheduled_date": day, "scheduled_time": moment}, ISTANBUL)
    assert [fault.kind for fault in faults] == [kind]


def test_switch_is_on_or_off() -> None:
    with pytest.raises(Refused) as error:
        due_of({"scheduled_sms": "maybe"}, ISTANBUL)
    assert kind_of(error) is RefusalKind.MALFORMED
