"""Our words in the numbers of SMPP: a command_status for every refusal, a message_state for every state.

Clients act on a few statuses and show the others. By custom they try again by themselves after ESME_RSYSERR,
ESME_RTHROTTLED, ESME_RMSGQFUL and ESME_RX_T_APPN; so these four, and only these, are answers to what may be sent again
as it is. Two statuses are of SMPP 5.0 (ESME_RPROHIBITED, ESME_RSERTYPUNAUTH): 3.4 has no words for "not with these
rights", and a client that does not know them takes them for a final no, which they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import State
from berid.wire.smpp.codes import CommandStatus, MessageState

REFUSALS: Final[Mapping[RefusalKind, CommandStatus]] = MappingProxyType(
    {
        # Not the message's fault: the same again may succeed.
        RefusalKind.STORE_AWAY: CommandStatus.ESME_RSYSERR,
        # Who asks.
        RefusalKind.TOKEN_MISSING: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.TOKEN_INVALID: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.ACCOUNT_INACTIVE: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.API_OFF: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.ADDRESS_NOT_ALLOWED: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.SCOPE_MISSING: CommandStatus.ESME_RPROHIBITED,
        RefusalKind.SERVICE_MISSING: CommandStatus.ESME_RSERTYPUNAUTH,
        # What is asked, in the order of the PDU's fields.
        RefusalKind.MALFORMED: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.SENDER_MISSING: CommandStatus.ESME_RINVSRCADR,
        RefusalKind.SENDER_UNKNOWN: CommandStatus.ESME_RINVSRCADR,
        RefusalKind.SENDER_INACTIVE: CommandStatus.ESME_RINVSRCADR,
        RefusalKind.SENDER_EXPIRED: CommandStatus.ESME_RINVSRCADR,
        RefusalKind.RECIPIENTS_TOO_MANY: CommandStatus.ESME_RINVNUMDESTS,
        RefusalKind.RECIPIENT_MISSING: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.RECIPIENT_INVALID: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.COUNTRY_NOT_ALLOWED: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.INTERNATIONAL_OFF: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.NO_ROUTE: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.NO_PRICE: CommandStatus.ESME_RINVDSTADR,
        RefusalKind.SCHEDULE_DATE_INVALID: CommandStatus.ESME_RINVSCHED,
        RefusalKind.SCHEDULE_TIME_INVALID: CommandStatus.ESME_RINVSCHED,
        RefusalKind.SCHEDULE_PAST: CommandStatus.ESME_RINVSCHED,
        RefusalKind.CONTENT_MISSING: CommandStatus.ESME_RINVMSGLEN,
        RefusalKind.CONTENT_INVALID: CommandStatus.ESME_RINVMSGLEN,
        # Rules about people and money.
        RefusalKind.SUPPRESSED: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.NO_OPT_IN: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.QUIET_HOURS: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.BALANCE_ZERO: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.BALANCE_SHORT: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.SPEND_CAP: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.OTP_LIMIT: CommandStatus.ESME_RSUBMITFAIL,
        # Too fast: looked at last, so that what can never succeed is not tried again for ever.
        RefusalKind.RATE_LIMIT: CommandStatus.ESME_RTHROTTLED,
        # About what was accepted before.
        RefusalKind.NOT_FOUND: CommandStatus.ESME_RINVMSGID,
        RefusalKind.NOT_CANCELLABLE: CommandStatus.ESME_RCANCELFAIL,
        RefusalKind.IDEMPOTENCY_CONFLICT: CommandStatus.ESME_RSUBMITFAIL,
        # About the business, which no PDU asks for.
        RefusalKind.WRONG_STATE: CommandStatus.ESME_RSUBMITFAIL,
        RefusalKind.SELF_APPROVAL: CommandStatus.ESME_RSUBMITFAIL,
    }
)
"""The answer to each kind of refusal. Of several refusals the customer hears the one that stands first here."""

_RANKS: Final = {kind: rank for rank, kind in enumerate(REFUSALS)}

STATES: Final[Mapping[State, MessageState]] = MappingProxyType(
    {
        State.SCHEDULED: MessageState.ENROUTE,
        State.HELD: MessageState.ENROUTE,
        State.QUEUED: MessageState.ENROUTE,
        State.SENDING: MessageState.ENROUTE,
        State.UNCERTAIN: MessageState.ENROUTE,
        State.SENT: MessageState.ENROUTE,
        State.DELIVERED: MessageState.DELIVERED,
        State.READ: MessageState.DELIVERED,
        State.UNDELIVERED: MessageState.UNDELIVERABLE,
        State.EXPIRED: MessageState.EXPIRED,
        State.REJECTED: MessageState.REJECTED,
        State.FAILED: MessageState.UNDELIVERABLE,
        State.CANCELLED: MessageState.DELETED,
    }
)
"""What a receipt and query_sm_resp say of each state (SMPP 3.4, section 5.2.28). ENROUTE is all that is not yet
decided."""


def status_of(refusals: Iterable[Refusal]) -> CommandStatus:
    """The one status that answers for these refusals, of which there is at least one."""
    return REFUSALS[min((refusal.kind for refusal in refusals), key=_RANKS.__getitem__)]
