"""The provider's "PHP format": what PHP's `print_r` prints of an array.

    Array
    (
        [result] => true
        [sms_id] => 1000007721
    )

Booleans are the words `true` and `false`, as the provider's documentation has them, where PHP itself would print `1` and nothing.
Some clients turn this text into PHP source, so no value may hold what could end a string or look like a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BREAKS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_HARMLESS = str.maketrans({"'": "’", "[": "(", "]": ")", "\\": "/", **dict.fromkeys(_BREAKS, " ")})


def print_r(body: Mapping[str, Any]) -> bytes:
    """An answer in print_r form, in UTF-8. Values are texts, numbers, booleans, lists and mappings of them."""
    lines = ["Array", "("]
    _print_items(lines, body, "    ")
    lines += [")", ""]
    return "\n".join(lines).encode()


def _print_items(lines: list[str], items: Mapping[Any, Any], indent: str) -> None:
    for key, value in items.items():
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            inner = indent + "    "
            lines += [f"{indent}[{key}] => Array", f"{inner}("]
            _print_items(lines, value, inner + "    ")
            lines += [f"{inner})", ""]
        else:
            lines.append(f"{indent}[{key}] => {_plain(value)}")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).translate(_HARMLESS)
