"""The command about what was asked of the platform: `berid requests`."""

from __future__ import annotations

import msgspec

from berid.base.ids import first_id_at
from berid.cli.here import At, account_id, facts_of, read_id, read_moment
from berid.domain.errors import RefusalKind
from berid.store import requests
from berid.store.requests import RequestRecord, WantedRequests

_IN_SHORT = ("at", "account", "method", "path", "status", "kinds", "ms", "address", "request_id")
"""What a table has room for; --json says all."""


async def show_requests(
    *,
    account: str = "",
    status: int = 0,
    kind: RefusalKind | None = None,
    path: str = "",
    message: str = "",
    since: str = "",
    limit: int = 50,
    at: At,
) -> None:
    """Show what was asked at the web doors and refused, newest first; all of it with `request_log = "all"`.

    Parameters
    ----------
    account
        Only those of this account, 0 for those of strangers.
    status
        Only those with this HTTP status.
    kind
        Only those refused for this reason.
    path
        Only those of this path, as the API's description writes it.
    message
        Only the one that made this message.
    since
        Only those since this time.
    limit
        How many.
    """
    wanted = WantedRequests(
        status=status,
        kind=kind.value if kind else "",
        path=path,
        message_id=read_id("msg", message) if message else 0,
        since_id=first_id_at(read_moment(since)) if since else 0,
    )
    found: list[RequestRecord] = []
    before_id = 0
    async with at.read() as tx:
        owner = None if not account else 0 if account == "0" else await account_id(tx, account)
        while len(found) < limit:
            page = await requests.page(tx, owner, wanted, before_id, limit - len(found))
            found += page.requests
            before_id = page.next_id
            if not before_id:
                break
    rows = [_facts(each) for each in found]
    at.show(
        rows if at.is_json else [{name: row[name] for name in _IN_SHORT} for row in rows],
        "There are no requests in the log.",
    )


def _facts(record: RequestRecord) -> dict[str, object]:
    facts = facts_of(record, "rql")
    facts["ms"] = record.elapsed_us / 1000
    facts["kinds"] = record.kinds.split()
    facts["parameters"] = msgspec.json.decode(record.parameters) if record.parameters else {}
    del facts["elapsed_us"]
    return facts
