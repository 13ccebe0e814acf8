"""The two ways to say no: a `Refusal` before a message is accepted, a `SendFailure` after.

Both are closed lists. Every dialect maps every `RefusalKind` to its own code and words; a contract test fails when a kind
has no answer in some dialect, so there is no catch-all to hide a new one in.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class RefusalKind(Enum):
    """Why a request was not accepted. The value is the stable public code of the native API."""

    MALFORMED = "malformed"
    """The request could not be read at all: broken JSON, wrong types, an unknown value."""
    TOKEN_MISSING = "token_missing"
    TOKEN_INVALID = "token_invalid"
    """Unknown, revoked or expired; which of them is told to the account, never to the caller."""
    ACCOUNT_INACTIVE = "account_inactive"
    API_OFF = "api_off"
    """Sending through the API is switched off for the account or application."""
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    """The caller's IP address is not on the allow-list."""
    SCOPE_MISSING = "scope_missing"
    """The token is real but lacks the right for this call."""
    SERVICE_MISSING = "service_missing"
    """The application does not include this channel."""
    SENDER_MISSING = "sender_missing"
    SENDER_UNKNOWN = "sender_unknown"
    SENDER_INACTIVE = "sender_inactive"
    SENDER_EXPIRED = "sender_expired"
    RECIPIENT_MISSING = "recipient_missing"
    RECIPIENT_INVALID = "recipient_invalid"
    RECIPIENTS_TOO_MANY = "recipients_too_many"
    CONTENT_MISSING = "content_missing"
    CONTENT_INVALID = "content_invalid"
    """Cannot be encoded, is too long, or lacks a required placeholder."""
    COUNTRY_NOT_ALLOWED = "country_not_allowed"
    INTERNATIONAL_OFF = "international_off"
    """The account is not activated for numbers outside its own country."""
    SCHEDULE_DATE_INVALID = "schedule_date_invalid"
    SCHEDULE_TIME_INVALID = "schedule_time_invalid"
    SCHEDULE_PAST = "schedule_past"
    BALANCE_ZERO = "balance_zero"
    BALANCE_SHORT = "balance_short"
    SPEND_CAP = "spend_cap"
    RATE_LIMIT = "rate_limit"
    """Too many in the last second or minute; `retry_after_s` says when to try again."""
    SUPPRESSED = "suppressed"
    """The recipient asked not to be written to."""
    NO_OPT_IN = "no_opt_in"
    QUIET_HOURS = "quiet_hours"
    """Promotional traffic outside the allowed hours, where the rule says refuse instead of hold."""
    NO_ROUTE = "no_route"
    NO_PRICE = "no_price"
    """No price list of the account covers this destination, so it cannot be sold."""
    NOT_FOUND = "not_found"
    NOT_CANCELLABLE = "not_cancellable"
    """What was to be cancelled or edited is no longer waiting."""
    WRONG_STATE = "wrong_state"
    """The thing is in a state from which this does not follow: it was decided already, or somebody was faster."""
    SELF_APPROVAL = "self_approval"
    """Who asks for money does not approve it."""
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    """The idempotency key was used before with another request."""
    OTP_LIMIT = "otp_limit"
    """Too many codes sent to, or checks made for, this number and purpose."""
    STORE_AWAY = "store_away"
    """The store did not answer; nothing was accepted and the same request may be sent again."""


class Refusal(msgspec.Struct, frozen=True):
    """One reason not to accept. `detail` is a sentence for the caller; it never holds a secret, a code or a body."""

    kind: RefusalKind
    detail: str = ""
    field: str = ""
    retry_after_s: float = 0.0


class Refused(Exception):
    """A request was not accepted, for one or more reasons seen at once.

    Each dialect has its own order of precedence and tells its caller one of them; the native API tells all.
    """

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__(", ".join(refusal.kind.value for refusal in refusals))
        self.refusals = refusals


def refused(kind: RefusalKind, detail: str = "", field: str = "", retry_after_s: float = 0.0) -> Refused:
    """One refusal as an exception, for the common case."""
    return Refused(Refusal(kind, detail, field, retry_after_s))


class SendFailure(Exception):
    """A try through one connector that did not end in the carrier's yes. `code` and `text` are the carrier's words."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code} {text}".strip())
        self.code = code
        self.text = text


class Temporary(SendFailure):
    """Nothing reached the carrier, or it said "not now": try again, perhaps through the next connector."""


class Throttled(Temporary):
    """The carrier said "too fast" for longer than the connector was willing to wait."""


class Permanent(SendFailure):
    """The carrier said no to this delivery. Trying again would give the same answer."""


class Uncertain(SendFailure):
    """The bytes left us and no answer came. The carrier may or may not have taken the delivery."""
