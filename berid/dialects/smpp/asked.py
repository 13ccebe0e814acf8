"""query_sm and cancel_sm: questions about a message by the id that its submit's response gave.

That is the id of a delivery for submit_sm and data_sm, and of the whole message for submit_multi.
"""

from __future__ import annotations

from datetime import UTC, datetime

from berid.base.ids import read
from berid.dialects.smpp.codes import STATES
from berid.dialects.smpp.submit import Unfit, read_number, sender_name
from berid.dialects.smpp.told import error_code
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import RefusalKind, Refused
from berid.domain.message import FINAL, State
from berid.flow.cancel import cancel
from berid.flow.ports import Runtime
from berid.store import messages
from berid.store.messages import DeliveryRecord, MessageRecord
from berid.wire.smpp.codes import CommandStatus, MessageState
from berid.wire.smpp.pdu import CancelSm, QuerySm, QuerySmResp
from berid.wire.smpp.times import format_absolute


async def query_message(rt: Runtime, caller: Caller, pdu: QuerySm) -> QuerySmResp:
    """What has become of a message. Raises `Unfit`, `Refused`, `StoreAway`.

    The date is there once the state is final. Of a message to several it is told what the one furthest behind says:
    ENROUTE while one is under way, DELIVERED when all are delivered, else the state of the first that was not.
    """
    _check(caller, Scope.STATUS)
    unknown = Unfit(CommandStatus.ESME_RINVMSGID, RefusalKind.NOT_FOUND)
    owner, deliveries = await _find(rt, caller, pdu.message_id, unknown)
    if pdu.source_addr and sender_name(pdu.source_addr) != owner.sender:
        raise Unfit(CommandStatus.ESME_RQUERYFAIL, RefusalKind.NOT_FOUND)
    decisive = min(deliveries, key=_order)
    state = State(decisive.state)
    ended_ms = max(delivery.final_ms for delivery in deliveries) if state in FINAL else 0
    return QuerySmResp(
        pdu.message_id,
        format_absolute(datetime.fromtimestamp(ended_ms / 1000, UTC)) if ended_ms else "",
        STATES[state],
        min(error_code(decisive.reason), 255),
    )


async def cancel_message(rt: Runtime, caller: Caller, pdu: CancelSm) -> None:
    """Cancel a message that still waits; of one to several, all that wait. Raises `Unfit`, `Refused`, `StoreAway`.

    ESME_RCANCELFAIL says that nothing waited, or not all of it. A whole service_type cannot be cancelled at once.
    """
    _check(caller, Scope.SEND)
    failed = Unfit(CommandStatus.ESME_RCANCELFAIL, RefusalKind.NOT_CANCELLABLE)
    if not pdu.message_id:
        raise failed
    unknown = Unfit(CommandStatus.ESME_RINVMSGID, RefusalKind.NOT_FOUND)
    owner, deliveries = await _find(rt, caller, pdu.message_id, unknown)
    if pdu.source_addr and sender_name(pdu.source_addr) != owner.sender:
        raise failed
    if pdu.destination_addr:
        number = read_number(pdu.dest_addr_ton, pdu.destination_addr, caller.account.home)
        if number not in {delivery.recipient for delivery in deliveries}:
            raise failed
    done = await cancel(rt, caller.account.id, [owner])
    if not done.cancelled or done.too_late:
        raise failed


def _check(caller: Caller, scope: Scope) -> None:
    refusals = check_caller(caller, scope, None)
    if refusals:
        raise Refused(*refusals)


async def _find(
    rt: Runtime, caller: Caller, message_id: str, unknown: Unfit
) -> tuple[MessageRecord, list[DeliveryRecord]]:
    """The message behind an id that the application was given, with its deliveries; raises `unknown` if there is
    none."""
    identifier = read("dlv", message_id)
    if identifier is None:
        raise unknown
    account_id, mode = caller.account.id, caller.mode
    async with rt.store.read() as tx:
        found = await messages.find_delivery(tx, account_id, mode, identifier)
        if found is not None:
            delivery, owner = found
            deliveries = [delivery]
        else:
            whole = await messages.find(tx, account_id, mode, identifier)
            if whole is None:
                raise unknown
            owner = whole
            deliveries = await messages.deliveries(tx, account_id, owner, 0, owner.total)
    is_his = owner.dialect == caller.dialect and owner.application_id == caller.application.id
    if not is_his or len(deliveries) != owner.total:
        raise unknown
    return owner, deliveries


def _order(delivery: DeliveryRecord) -> int:
    """Which of several deliveries speaks for all: the lowest."""
    state = State(delivery.state)
    if state not in FINAL:
        return 0
    return 2 if STATES[state] is MessageState.DELIVERED else 1
