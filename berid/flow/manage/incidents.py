"""Incidents: what the operator tells the public is wrong with the platform, until it is over."""

from __future__ import annotations

from berid.base.ids import show
from berid.flow.manage.office import Office, missing, note, unfit
from berid.store import incidents


async def open_incident(office: Office, actor: str, service: str, title: str) -> incidents.IncidentRecord:
    """Tell the public that something is wrong, from now on. `service` is what it concerns, `title` a sentence.

    Raises `Refused` if one of them is empty.
    """
    service, title = service.strip(), title.strip()
    if not service:
        raise unfit("service", "say which service is concerned, such as SMS")
    if not title:
        raise unfit("title", "an incident needs a sentence that says what is wrong")
    now_ms = office.clock.now_ms()
    record = incidents.IncidentRecord(office.ids.next(), service, title, incidents.OPEN, now_ms, 0)
    async with office.store.transaction() as tx:
        await incidents.add_incident(tx, record)
        await note(office, tx, actor, 0, "incident.open", show("inc", record.id), service=service, title=title)
    return record


async def close_incident(office: Office, actor: str, incident_id: int) -> None:
    """Tell the public that an incident is over. Raises `Refused` if it does not go on."""
    async with office.store.transaction() as tx:
        if not await incidents.end_incident(tx, incident_id, office.clock.now_ms()):
            raise missing("incident that goes on")
        await note(office, tx, actor, 0, "incident.close", show("inc", incident_id))
