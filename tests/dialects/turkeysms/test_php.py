"""The print_r form, byte for byte."""

import pytest

from berid.dialects.turkeysms.php import print_r


def test_scalars_are_as_php_prints_them_but_for_booleans() -> None:
    body = {"result": True, "sms_id": 1000007721, "result_code": "TS-1024", "empty": "", "no": False}
    assert print_r(body) == (
        b"Array\n(\n    [result] => true\n    [sms_id] => 1000007721\n    [result_code] => TS-1024\n"
        b"    [empty] => \n    [no] => false\n)\n"
    )


def test_lists_and_mappings_are_nested_as_php_nests_them() -> None:
    assert print_r({"a": [{"b": 1}, "c"], "d": 2}) == (
        b"Array\n(\n    [a] => Array\n        (\n            [0] => Array\n                (\n"
        b"                    [b] => 1\n                )\n\n            [1] => c\n        )\n\n    [d] => 2\n)\n"
    )


@pytest.mark.parametrize("character", list("'[]\\\n\r\x0b\x0c\x85\u2028\u2029"))
def test_no_value_can_end_a_string_or_begin_a_line(character: str) -> None:
    text = print_r({"name": f"a{character}b"}).decode()
    assert len(text.splitlines()) == 4
    value = text.splitlines()[2].removeprefix("    [name] => ")
    assert len(value) == 3
    assert not set(value) & set("'[]\\")
