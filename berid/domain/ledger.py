"""Money in double entry: every movement takes from one book of a wallet and puts into another, once, for ever.

A wallet belongs to an account, a mode (test or live) and a currency. Its books are `outside` (where money comes from and
refunds go to), `available`, `held` (set aside for deliveries on their way) and `spent`. Each `LedgerEntry` moves a positive
amount between two of them; the kind says which. So `available + held + spent` equals what came in, at every moment, and
`berid ledger verify` proves it from the entries alone.
"""

from __future__ import annotations

from enum import StrEnum


class EntryKind(StrEnum):
    """What an entry is for."""

    TOPUP = "topup"
    BONUS = "bonus"
    HOLD = "hold"
    CHARGE = "charge"
    RELEASE = "release"
    ADJUST = "adjust"
    """A correction by a person: positive adds to available, negative takes from it."""


BOOKS: dict[EntryKind, tuple[str, str]] = {
    EntryKind.TOPUP: ("outside", "available"),
    EntryKind.BONUS: ("outside", "available"),
    EntryKind.ADJUST: ("outside", "available"),
    EntryKind.HOLD: ("available", "held"),
    EntryKind.CHARGE: ("held", "spent"),
    EntryKind.RELEASE: ("held", "available"),
}
"""From which book to which. There is no refund kind: a price list that gives money back for what did not arrive keeps the
hold until the final state, and releases it then."""


class TopupState(StrEnum):
    """The life of a top-up request. The last three end it."""

    SUBMITTED = "submitted"
    CHECKING = "checking"
    """Somebody of the operator's looks for the money."""
    NEEDS_INFO = "needs_info"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


TOPUP_WAITS = frozenset({TopupState.SUBMITTED, TopupState.CHECKING})
"""It is the operator's turn."""

TOPUP_OPEN = TOPUP_WAITS | {TopupState.NEEDS_INFO}

TOPUP_TARGET_MS = 2 * 3_600_000
"""How soon a top-up should be decided after the account has said all: providers of this market promise two hours."""


def effect(kind: EntryKind, amount_micros: int) -> tuple[int, int, int]:
    """How an entry changes (available, held, spent)."""
    source, target = BOOKS[kind]
    change = {"outside": 0, "available": 0, "held": 0, "spent": 0}
    change[source] -= amount_micros
    change[target] += amount_micros
    return change["available"], change["held"], change["spent"]
