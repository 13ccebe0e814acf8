"""Callback endpoints: where an account wants to be told of its messages."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from berid.base.ids import show
from berid.base.webhook import new_secret
from berid.domain.report import DEFAULT_EVENTS, DEFAULT_EVENTS_OF_KIND, EVENT_OF_STATE, INBOUND_EVENT, Endpoint
from berid.flow.manage.office import Office, missing, note, unfit
from berid.net import NetError, Network, check_url
from berid.store import Tx, accounts
from berid.store import callbacks as stored

SECRET_PURPOSE = "callback"  # noqa: S105 - what the secret is sealed for, not a secret
"""What an endpoint's secret is sealed for: `vault.open(endpoint.sealed_secret, SECRET_PURPOSE)`."""

BATCH_MAX = 500

EVENTS = frozenset({*EVENT_OF_STATE.values(), INBOUND_EVENT})
"""Every event that an endpoint may ask for."""

WEBHOOK_KIND = "taqnyat"
"""The dialect whose delivery webhook the rules of accounts and applications name (`webhook_url`, `pass_phrase`)."""

WEBHOOK_EVENTS = DEFAULT_EVENTS - {INBOUND_EVENT}

_WEBHOOK_MARK = "webhook_url of the rules"
"""The description of an endpoint that follows the rules; others of its kind are their owner's affair."""


async def create_endpoint(
    office: Office,
    actor: str,
    account_id: int,
    application_id: int,
    url: str,
    events: Iterable[str] = (),
    batch_max: int = 1,
    description: str = "",
    *,
    kind: str = "native",
    allowed_networks: Iterable[Network] = (),
) -> tuple[int, str]:
    """Make an endpoint and return its id and its signing secret, which is not shown again.

    `application_id` 0 means all of the account's. Without `events` it is told those that are usual for its kind.
    `allowed_networks` are the operator's private networks that may be called.
    Raises `Refused`; whether the host can be reached is only seen at the first call.
    """
    chosen = frozenset(events) or DEFAULT_EVENTS_OF_KIND.get(kind, DEFAULT_EVENTS)
    if chosen - EVENTS:
        raise unfit("events", f"there is no event {', '.join(sorted(chosen - EVENTS))}")
    if not 1 <= batch_max <= BATCH_MAX:
        raise unfit("batch_max", f"a call carries 1 to {BATCH_MAX} events")
    try:
        check_url(url, tuple(allowed_networks))
    except NetError as error:
        raise unfit("url", str(error)) from None
    endpoint, secret = _new(office, account_id, application_id, url, chosen, batch_max, kind)
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


async def follow_webhook_url(office: Office, tx: Tx, account_id: int, application_id: int, url: str) -> None:
    """Within a transaction that changes rules: let their delivery webhook go to `url`; "" switches it off.

    `application_id` 0 is for the rules of the account, whose webhook is told of all its applications. Nobody has seen the
    endpoint's secret; who wants to check signatures gets one by changing it.
    """
    found = next(
        (
            each
            for each in await stored.endpoints(tx, account_id)
            if (each.kind, each.application_id, each.description) == (WEBHOOK_KIND, application_id, _WEBHOOK_MARK)
        ),
        None,
    )
    if found is None:
        if url:
            endpoint, _ = _new(office, account_id, application_id, url, WEBHOOK_EVENTS, 1, WEBHOOK_KIND)
            await accounts.add_endpoint(tx, endpoint, _WEBHOOK_MARK, office.clock.now_ms())
    elif url:
        await stored.change_endpoint(tx, account_id, found.id, url=url, host=_host(url), state="on")
    else:
        await stored.change_endpoint(tx, account_id, found.id, state="off")


def _new(
    office: Office,
    account_id: int,
    application_id: int,
    url: str,
    events: frozenset[str],
    batch_max: int,
    kind: str,
) -> tuple[Endpoint, str]:
    """A new endpoint, and its secret in the clear."""
    secret = new_secret()
    endpoint = Endpoint(
        id=office.ids.next(),
        account_id=account_id,
        application_id=application_id,
        kind=kind,
        url=url,
        host=_host(url),
        sealed_secret=office.vault.seal(secret, SECRET_PURPOSE),
        events=events,
        batch_max=batch_max,
        state="on",
    )
    return endpoint, secret


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()
