"""Callback endpoints: where an account wants to be told of its messages."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from berid.base.ids import show
from berid.base.webhook import new_secret
from berid.domain.report import DEFAULT_EVENTS, EVENT_OF_STATE, INBOUND_EVENT, Endpoint
from berid.flow.manage.office import Office, missing, note, unfit
from berid.net import NetError, Network, check_url
from berid.store import accounts

SECRET_PURPOSE = "callback"  # noqa: S105 - what the secret is sealed for, not a secret
"""What an endpoint's secret is sealed for: `vault.open(endpoint.sealed_secret, SECRET_PURPOSE)`."""

BATCH_MAX = 500

EVENTS = frozenset({*EVENT_OF_STATE.values(), INBOUND_EVENT})
"""Every event that an endpoint may ask for."""


async def create_endpoint(
    office: Office,
    actor: str,
    account_id: int,
    application_id: int,
    url: str,
    events: Iterable[str] = DEFAULT_EVENTS,
    batch_max: int = 1,
    description: str = "",
    *,
    kind: str = "native",
    allowed_networks: Iterable[Network] = (),
) -> tuple[int, str]:
    """Make an endpoint and return its id and its signing secret, which is not shown again.

    `application_id` 0 means all of the account's. `allowed_networks` are the operator's private networks that may be called.
    Raises `Refused`; whether the host can be reached is only seen at the first call.
    """
    chosen = frozenset(events) or DEFAULT_EVENTS
    if chosen - EVENTS:
        raise unfit("events", f"there is no event {', '.join(sorted(chosen - EVENTS))}")
    if not 1 <= batch_max <= BATCH_MAX:
        raise unfit("batch_max", f"a call carries 1 to {BATCH_MAX} events")
    try:
        check_url(url, tuple(allowed_networks))
    except NetError as error:
        raise unfit("url", str(error)) from None
    secret = new_secret()
    endpoint = Endpoint(
        id=office.ids.next(),
        account_id=account_id,
        application_id=application_id,
        kind=kind,
        url=url,
        host=urlsplit(url).netloc.lower(),
        sealed_secret=office.vault.seal(secret, SECRET_PURPOSE),
        events=chosen,
        batch_max=batch_max,
        state="on",
    )
    async with office.store.transaction() as tx:
        if not await accounts.has_account(tx, account_id):
            raise missing("account")
        if application_id and not await accounts.has_application(tx, account_id, application_id):
            raise missing("application")
        await accounts.add_endpoint(tx, endpoint, description, office.clock.now_ms())
        # The path and the query of a URL often hold the receiver's own secret.
        subject = show("cbe", endpoint.id)
        await note(office, tx, actor, account_id, "callback.create", subject, host=endpoint.host, kind=kind)
    return endpoint.id, secret
