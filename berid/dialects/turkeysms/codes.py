"""The provider's codes: what each says, which one answers which refusal, and in which order they are checked.

The texts are the provider's own, letter for letter: clients show them, and some compare them. Source: the code table of its
V3 documentation; HTTP statuses are those of its V4 documentation, and V3 answers 200 whatever happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import State

SENT = "TS-1024"
NOT_RECEIVED = "TS-1022"
NOT_YET = "TS-1023"
KEY_IS_GOOD = "TS-1000"
QUERY_DONE = "TS-1040"
LOGIN_DONE = "TS-1046"
STATUS_DONE = "TS-1064"
INCORRECT = "TS-1033"
WAIT = "TS-1060"

SUCCESS = "operation_success"
"""What the provider says after a query."""

TEXTS: dict[str, str] = {
    SENT: "The message was sent successfully",
    "TS-1025": "The mobile number has not been entered. The phone number is empty",
    "TS-1026": "Message text is empty .. No message text has been written",
    "TS-1027": "There is insufficient balance in your account",
    "TS-1028": "Sender ID is not active for your account",
    "TS-1029": "The Sender ID does not exist .. Please make sure you type correctly",
    "TS-1030": "Your account is inactive with the SMS service provider",
    "TS-1031": "The api-key is invalid",
    "TS-1032": "The number to which the message is sent is international outside Turkey. "
    "Your account is not activated for international SMS",
    INCORRECT: "The data sent through the link is incorrect",
    "TS-1034": "The mobile number to which the message was sent is invalid",
    "TS-1050": "Contact key is empty and not written",
    "TS-1051": "Sending title is empty and not written",
    "TS-1052": "Message ID is not written",
    WAIT: "Exceeded the limit of the number of messages in the last minute",
    "TS-1061": "Contact key is not active for sending (POST)",
    "TS-1062": "Contact key is not active for sending (GET)",
    "TS-1063": "Checking message status is not active for the contact key",
    STATUS_DONE: "Message status check is successful",
    "TS-1065": "Checking balance is not active for your account's contact key",
    NOT_RECEIVED: "The number did not receive the message",
    NOT_YET: "The number out of coverage did not receive the message yet",
    "TS-1070": "Scheduled Sending - Date not specified or invalid. Please enter a valid date.",
    "TS-1071": "Scheduled Sending - Time not specified or invalid. Please enter a valid time.",
    "TS-1072": "Cannot send a scheduled message with a date or time in the past. Please check the date and time again.",
}

PERMISSION = ""
"""In place of a code: the one that says that a key may not do this; it differs by path and method."""

CHECK_ORDER = (
    INCORRECT, "TS-1050", "TS-1031", "TS-1030", PERMISSION, "TS-1051", "TS-1025", "TS-1026", "TS-1029", "TS-1028",
    "TS-1034", "TS-1032", "TS-1070", "TS-1071", "TS-1072", WAIT, "TS-1027",
)  # fmt: skip
"""Of several things that are wrong with a request, the caller hears of the one that stands first here."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the caller hears for one kind of refusal: the code, and the HTTP status on V4.

    `tells_why` replaces the code's text by the refusal's own sentence, where the text would be about something else.
    """

    code: str
    status: int = 400
    tells_why: bool = False


REFUSALS: dict[RefusalKind, Words] = {
    RefusalKind.MALFORMED: Words(INCORRECT),
    RefusalKind.TOKEN_MISSING: Words("TS-1050", 401),
    RefusalKind.TOKEN_INVALID: Words("TS-1031", 401),
    RefusalKind.ACCOUNT_INACTIVE: Words("TS-1030", 403),
    RefusalKind.SCOPE_MISSING: Words(PERMISSION, 403),
    RefusalKind.SERVICE_MISSING: Words(PERMISSION, 403),
    RefusalKind.API_OFF: Words(PERMISSION, 403),
    RefusalKind.ADDRESS_NOT_ALLOWED: Words(PERMISSION, 403),
    RefusalKind.SENDER_MISSING: Words("TS-1051"),
    RefusalKind.RECIPIENT_MISSING: Words("TS-1025"),
    RefusalKind.CONTENT_MISSING: Words("TS-1026"),
    RefusalKind.SENDER_UNKNOWN: Words("TS-1029"),
    RefusalKind.SENDER_INACTIVE: Words("TS-1028", 403),
    RefusalKind.SENDER_EXPIRED: Words("TS-1028", 403),
    RefusalKind.RECIPIENT_INVALID: Words("TS-1034"),
    RefusalKind.INTERNATIONAL_OFF: Words("TS-1032", 403),
    RefusalKind.COUNTRY_NOT_ALLOWED: Words("TS-1032", 403),
    RefusalKind.SCHEDULE_DATE_INVALID: Words("TS-1070"),
    RefusalKind.SCHEDULE_TIME_INVALID: Words("TS-1071"),
    RefusalKind.SCHEDULE_PAST: Words("TS-1072"),
    RefusalKind.RATE_LIMIT: Words(WAIT, 403),
    RefusalKind.OTP_LIMIT: Words(WAIT, 403),
    RefusalKind.BALANCE_ZERO: Words("TS-1027", 403),
    RefusalKind.BALANCE_SHORT: Words("TS-1027", 403),
    # The provider has no code for what follows.
    RefusalKind.RECIPIENTS_TOO_MANY: Words(INCORRECT),
    RefusalKind.CONTENT_INVALID: Words(INCORRECT),
    RefusalKind.SUPPRESSED: Words(INCORRECT),
    RefusalKind.NO_OPT_IN: Words(INCORRECT),
    RefusalKind.QUIET_HOURS: Words(INCORRECT),
    RefusalKind.NO_ROUTE: Words(INCORRECT),
    RefusalKind.NO_PRICE: Words(INCORRECT),
    RefusalKind.SPEND_CAP: Words(INCORRECT),
    RefusalKind.IDEMPOTENCY_CONFLICT: Words(INCORRECT),
    RefusalKind.NOT_CANCELLABLE: Words(INCORRECT),
    RefusalKind.WRONG_STATE: Words(INCORRECT),
    RefusalKind.SELF_APPROVAL: Words(INCORRECT),
    RefusalKind.NOT_FOUND: Words("TS-1052", 404, tells_why=True),
    RefusalKind.STORE_AWAY: Words(WAIT, 503),
}
"""The words for every kind, and by their order which of several refusals the caller hears.

A kind for which the provider has no code is TS-1033, or TS-1060 where the same request will be taken after a while: that is
the one code that clients wait after. The header X-Berid-Code tells the kind itself.
"""

_RANK = {kind: rank for rank, kind in enumerate(REFUSALS)}

RECEIVED_TEXT = "Number received the message"
"""The status text of a message that arrived; as the code of a sending, TS-1024 has another one."""

STATUS: dict[State, str] = {
    State.SCHEDULED: NOT_YET,
    State.HELD: NOT_YET,
    State.QUEUED: NOT_YET,
    State.SENDING: NOT_YET,
    State.UNCERTAIN: NOT_YET,
    State.SENT: NOT_YET,
    State.DELIVERED: SENT,
    State.READ: SENT,
    State.UNDELIVERED: NOT_RECEIVED,
    State.EXPIRED: NOT_YET,
    State.REJECTED: NOT_RECEIVED,
    State.FAILED: NOT_RECEIVED,
    State.CANCELLED: NOT_RECEIVED,
}
"""The status code of every state of a delivery. What expired was out of coverage, and may still be reported as received."""


def first_of(refusals: Sequence[Refusal]) -> Refusal:
    """The one of several refusals that the caller hears."""
    return min(refusals, key=lambda refusal: _RANK[refusal.kind])


def status_text(code: str) -> str:
    """The text beside the status code of a delivery."""
    return RECEIVED_TEXT if code == SENT else TEXTS[code]
