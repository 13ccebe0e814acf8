"""Management: what an account may change of its own (the right `manage`), and what the operator may of all (`operator`).

The account is always the token's, never the request's; only paths below `/operator` name accounts. Every change is a verb of
`flow.manage` or `flow.consent`, which writes it down in the audit trail with the token that made it.
"""

from __future__ import annotations

from berid.dialects.native.manage import attachments, books, carriers, international, operator, people, senders, topups

ENDPOINTS = (
    *people.ENDPOINTS,
    *senders.ENDPOINTS,
    *attachments.ENDPOINTS,
    *topups.ENDPOINTS,
    *international.ENDPOINTS,
    *books.ENDPOINTS,
    *operator.ENDPOINTS,
    *carriers.ENDPOINTS,
)
"""All of management."""
