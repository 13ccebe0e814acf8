"""Pre: the tables of the first release.

Every name of a key, a constraint or an index is written out, so that later steps can rely on it on both databases.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _big(name: str, default: int | None = 0) -> sa.Column[int]:
    """64 bits: an id, a time or money. Without a default it must be given; nothing counts up by itself."""
    return sa.Column(name, _BIG, nullable=False, server_default=_sql(default), autoincrement=False)


def _number(name: str, default: int | None = 0) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default=_sql(default), autoincrement=False)


def _small(name: str, default: int) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger, nullable=False, server_default=_sql(default))


def _text(name: str, default: str | None = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=_sql(None if default is None else f"'{default}'"))


def _key(name: str, default: str | None = "") -> sa.Column[str]:
    """A text that is compared byte by byte, whatever the language of the database."""
    bytewise = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, bytewise, nullable=False, server_default=_sql(None if default is None else f"'{default}'"))


def _sql(default: str | int | None) -> sa.TextClause | None:
    return None if default is None else sa.text(str(default))


def _where(condition: str) -> dict[str, Any]:
    """Arguments that make an index cover only the rows for which the condition holds."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make every table with its indexes."""
    op.create_table(
        "meta",
        _text("key", None),
        _text("value"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "process",
        _number("slot", None),
        _text("name"),
        _big("alive_until_ms"),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_process")),
    )
    op.create_table(
        "account",
        _big("id", None),
        _text("name"),
        _text("state", "active"),
        _text("home"),
        _text("zone", "UTC"),
        _text("language", "en"),
        _text("rules", "{}"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
    )
    op.create_table(
        "application",
        _big("id", None),
        _big("account_id"),
        _text("name"),
        _text("state", "active"),
        _text("services"),
        _text("rules", "{}"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_application")),
    )
    op.create_index(op.f("ix_application_account_id"), "application", ["account_id"])
    op.create_table(
        "token",
        _big("id", None),
        _big("account_id"),
        _big("application_id"),
        _text("kind"),
        _text("mode"),
        _text("label"),
        _text("hint"),
        _text("login"),
        _text("hash"),
        _text("scopes"),
        _big("created_ms"),
        _big("expires_ms"),
        _big("revoked_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
    )
    op.create_index(op.f("ix_token_account_id"), "token", ["account_id"])
    op.create_index(op.f("uq_token_hash"), "token", ["hash"], unique=True)
    op.create_index(op.f("uq_token_login"), "token", ["login"], unique=True, **_where("login <> ''"))
    op.create_table(
        "sender_name",
        _big("id", None),
        _big("account_id"),
        _text("channel"),
        _text("name"),
        _text("country"),
        _text("category", "any"),
        _text("state", "draft"),
        _text("reason"),
        _big("created_ms"),
        _big("updated_ms"),
        _big("expires_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sender_name")),
        sa.UniqueConstraint(
            "account_id",
            "channel",
            "name",
            "country",
            "category",
            name=op.f("uq_sender_name_account_id_channel_name_country_category"),
        ),
    )
    op.create_table(
        "wallet",
        _big("id", None),
        _big("account_id"),
        _text("mode"),
        _text("currency"),
        _big("available_micros"),
        _big("held_micros"),
        _big("spent_micros"),
        _big("credit_limit_micros"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wallet")),
        sa.UniqueConstraint("account_id", "mode", "currency", name=op.f("uq_wallet_account_id_mode_currency")),
    )
    op.create_table(
        "ledger_entry",
        _big("id", None),
        _big("account_id"),
        _big("wallet_id"),
        _text("kind"),
        _big("amount_micros", None),
        _big("message_id"),
        _number("deliveries"),
        _big("at_ms"),
        _text("actor"),
        _text("note"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entry")),
    )
    op.create_index(op.f("ix_ledger_entry_wallet_id_id"), "ledger_entry", ["wallet_id", "id"])
    op.create_table(
        "topup_request",
        _big("id", None),
        _big("account_id"),
        _big("wallet_id"),
        _text("mode"),
        _text("currency"),
        _big("amount_micros", None),
        _text("method"),
        _text("reference"),
        _text("note"),
        _text("state", "submitted"),
        _text("reason"),
        _big("approved_micros"),
        _big("entry_id"),
        _text("asked_by"),
        _text("handled_by"),
        _big("created_ms"),
        _big("submitted_ms"),
        _big("decided_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_topup_request")),
    )
    op.create_index(op.f("ix_topup_request_account_id_id"), "topup_request", ["account_id", "id"])
    op.create_index("ix_topup_request_open", "topup_request", ["wallet_id"], **_where("decided_ms = 0"))
    op.create_table(
        "trial_offer",
        _text("product", None),
        _text("currency"),
        _big("amount_micros", None),
        _big("changed_ms"),
        sa.PrimaryKeyConstraint("product", name=op.f("pk_trial_offer")),
    )
    op.create_table(
        "trial_claim",
        _big("account_id", None),
        _text("product"),
        _big("entry_id"),
        _big("at_ms"),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_trial_claim")),
    )
    op.create_table(
        "international_request",
        _big("id", None),
        _big("account_id"),
        _text("countries"),
        _text("purpose"),
        _number("monthly_volume"),
        _text("state", "submitted"),
        _text("reason"),
        _text("asked_by"),
        _text("handled_by"),
        _big("created_ms"),
        _big("decided_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_international_request")),
    )
    op.create_index(op.f("ix_international_request_account_id_id"), "international_request", ["account_id", "id"])
    op.create_table(
        "attachment",
        _big("id", None),
        _big("account_id"),
        _text("subject"),
        _text("name"),
        _text("type"),
        _number("size_bytes"),
        _text("digest"),
        _big("created_ms"),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
    )
    op.create_index(op.f("ix_attachment_account_id_subject"), "attachment", ["account_id", "subject"])
    op.create_index(op.f("ix_attachment_digest"), "attachment", ["digest"])
    op.create_table(
        "price_list",
        _big("id", None),
        _text("name"),
        _text("channel"),
        _text("currency"),
        _text("charge_on", "sent"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_list")),
        sa.UniqueConstraint("name", "channel", name=op.f("uq_price_list_name_channel")),
    )
    op.create_table(
        "price",
        _big("id", None),
        _big("price_list_id"),
        _text("prefix"),
        _text("operator"),
        _text("category"),
        _big("amount_micros", None),
        _big("from_ms"),
        _big("until_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price")),
    )
    op.create_index(op.f("ix_price_price_list_id"), "price", ["price_list_id"])
    op.create_table(
        "price_use",
        _big("account_id", None),
        _big("price_list_id", None),
        _number("rank"),
        sa.PrimaryKeyConstraint("account_id", "price_list_id", name=op.f("pk_price_use")),
    )
    op.create_table(
        "connector",
        _big("id", None),
        _text("name", None),
        _text("channel"),
        _text("kind"),
        _text("mode"),
        _text("state", "on"),
        _text("settings", "{}"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connector")),
        sa.UniqueConstraint("name", name=op.f("uq_connector_name")),
    )
    op.create_table(
        "connector_lease",
        _big("connector_id", None),
        _number("slot"),
        _big("until_ms"),
        sa.PrimaryKeyConstraint("connector_id", name=op.f("pk_connector_lease")),
    )
    op.create_table(
        "route",
        _big("id", None),
        _text("name", None),
        _number("rank", 100),
        _text("mode"),
        _text("channel"),
        _text("match", "{}"),
        _text("connectors", "[]"),
        _text("uncertain", "{}"),
        _text("state", "on"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_route")),
        sa.UniqueConstraint("name", name=op.f("uq_route_name")),
    )
    op.create_table(
        "message",
        _big("id", None),
        _big("account_id"),
        _big("application_id"),
        _text("mode"),
        _text("channel"),
        _text("dialect"),
        _text("sender"),
        _text("category"),
        _small("priority", 1),
        _text("body"),
        _text("body_kind", "text"),
        _text("alphabet"),
        _number("parts", 1),
        _text("reference"),
        _text("cancel_key"),
        _text("options"),
        _text("state", "open"),
        _number("total"),
        _big("first_id"),
        _big("last_id"),
        _big("cost_micros"),
        _text("currency"),
        _text("refused"),
        _big("created_ms"),
        _big("due_ms"),
        _big("expires_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
    )
    op.create_index(op.f("ix_message_account_id_id"), "message", ["account_id", "id"])
    op.create_index(
        op.f("ix_message_cancel_key"), "message", ["account_id", "cancel_key"], **_where("cancel_key <> ''")
    )
    op.create_index(op.f("ix_message_loading"), "message", ["id"], **_where("state = 'loading'"))
    op.create_index(op.f("ix_message_waiting"), "message", ["account_id", "due_ms"], **_where("due_ms > 0"))
    op.create_table(
        "delivery",
        _big("id", None),
        _big("message_id"),
        _big("account_id"),
        _text("recipient"),
        _text("country"),
        _text("state"),
        _text("reason"),
        _number("units"),
        _big("price_micros"),
        _big("wallet_id"),
        _text("charge_on"),
        _text("money", "held"),
        _big("route_id"),
        _big("connector_id"),
        _number("attempt"),
        _number("parts_left"),
        _small("in_doubt", 0),
        _text("carrier_ids"),
        _big("sent_ms"),
        _big("final_ms"),
        _big("expires_ms"),
        _big("report_ms"),
        _text("report_code"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(op.f("ix_delivery_uncertain"), "delivery", ["connector_id", "recipient"], **_where("in_doubt > 0"))
    op.create_table(
        "carrier_ref",
        _big("connector_id", None),
        _key("key", None),
        _big("delivery_id"),
        _number("part"),
        _big("sent_ms"),
        sa.PrimaryKeyConstraint("key", "connector_id", name=op.f("pk_carrier_ref")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parked_report",
        _big("id", None),
        _big("connector_id"),
        _key("key"),
        _text("recipient"),
        _text("report"),
        _big("at_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parked_report")),
    )
    op.create_index(op.f("ix_parked_report_connector_id_key"), "parked_report", ["connector_id", "key"])
    op.create_index(op.f("ix_parked_report_connector_id_recipient"), "parked_report", ["connector_id", "recipient"])
    op.create_table(
        "event",
        _big("delivery_id", None),
        _big("id", None),
        _text("kind"),
        _big("at_ms"),
        _text("detail"),
        sa.PrimaryKeyConstraint("delivery_id", "id", name=op.f("pk_event")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job",
        _big("id", None),
        _text("kind"),
        _key("lane"),
        _small("priority", 1),
        _big("account_id"),
        _big("due_ms"),
        _big("lease_until_ms"),
        _number("slot"),
        _number("attempts"),
        _big("buried_ms"),
        _text("why"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_index(op.f("ix_job_buried"), "job", ["buried_ms"], **_where("buried_ms > 0"))
    op.create_index(op.f("ix_job_leased"), "job", ["lease_until_ms"], **_where("attempts > 0"))
    op.create_index(
        op.f("ix_job_ready"),
        "job",
        ["lane", "priority", "account_id", "due_ms", "id"],
        **_where("lease_until_ms = 0 AND buried_ms = 0"),
    )
    op.create_table(
        "spend",
        _big("wallet_id", None),
        _big("day", None),
        _big("application_id", None),
        _big("micros", None),
        sa.PrimaryKeyConstraint("wallet_id", "day", "application_id", name=op.f("pk_spend")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "idempotency",
        _big("application_id", None),
        _key("key", None),
        _text("body_hash"),
        _text("answer"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("application_id", "key", name=op.f("pk_idempotency")),
    )
    op.create_table(
        "callback_endpoint",
        _big("id", None),
        _big("account_id"),
        _big("application_id"),
        _text("kind", "native"),
        _text("url"),
        _text("host"),
        _text("sealed_secret"),
        _text("events"),
        _number("batch_max", 1),
        _text("state", "on"),
        _text("description"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callback_endpoint")),
    )
    op.create_index(op.f("ix_callback_endpoint_account_id"), "callback_endpoint", ["account_id"])
    op.create_table(
        "callback",
        _big("id", None),
        _big("account_id"),
        _big("endpoint_id"),
        _big("delivery_id"),
        _text("event"),
        _text("payload"),
        _big("created_ms"),
        _big("bundle_id"),
        _number("bundled"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callback")),
    )
    op.create_index(op.f("ix_callback_endpoint_id_id"), "callback", ["endpoint_id", "id"])
    op.create_table(
        "callback_try",
        _big("callback_id", None),
        _big("id", None),
        _big("at_ms"),
        _number("status"),
        _text("error"),
        _number("elapsed_ms"),
        sa.PrimaryKeyConstraint("callback_id", "id", name=op.f("pk_callback_try")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "inbound",
        _big("id", None),
        _big("account_id"),
        _big("connector_id"),
        _text("channel"),
        _text("sender"),
        _text("recipient"),
        _text("body"),
        _text("keyword"),
        _big("received_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound")),
    )
    op.create_index(op.f("ix_inbound_account_id_id"), "inbound", ["account_id", "id"])
    op.create_table(
        "inbound_part",
        _big("connector_id", None),
        _text("sender", None),
        _text("recipient", None),
        _number("reference", None),
        _number("number", None),
        _number("total"),
        _text("body"),
        _big("received_ms"),
        sa.PrimaryKeyConstraint(
            "connector_id", "sender", "recipient", "reference", "number", name=op.f("pk_inbound_part")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "number",
        _text("number", None),
        _big("account_id"),
        _big("application_id"),
        _text("channel", "sms"),
        _big("created_ms"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_number")),
    )
    op.create_table(
        "suppression",
        _big("account_id", None),
        _text("recipient", None),
        _text("channel", None),
        _text("reason"),
        _text("source"),
        _number("all_traffic"),
        _big("at_ms"),
        _big("removed_ms"),
        _big("version"),
        sa.PrimaryKeyConstraint("account_id", "recipient", "channel", name=op.f("pk_suppression")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_suppression_version"), "suppression", ["version"])
    op.create_table(
        "consent",
        _big("id", None),
        _big("account_id"),
        _text("brand"),
        _text("type"),
        _text("recipient"),
        _text("recipient_type"),
        _text("status"),
        _text("source"),
        _big("consent_ms"),
        _big("recorded_ms"),
        _number("is_current", 1),
        _big("version"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
    )
    op.create_index(op.f("ix_consent_account_id_id"), "consent", ["account_id", "id"])
    op.create_index(
        op.f("uq_consent_current"),
        "consent",
        ["account_id", "recipient", "type", "brand", "recipient_type"],
        unique=True,
        **_where("is_current = 1"),
    )
    op.create_index(op.f("ix_consent_version"), "consent", ["version"], **_where("is_current = 1"))
    op.create_table(
        "consent_rule",
        _big("account_id", None),
        _text("country", None),
        _number("is_required"),
        sa.PrimaryKeyConstraint("account_id", "country", name=op.f("pk_consent_rule")),
    )
    op.create_table(
        "rule_pack",
        _text("country", None),
        _number("version", None),
        _text("body"),
        _big("from_ms"),
        _big("made_ms"),
        sa.PrimaryKeyConstraint("country", "version", name=op.f("pk_rule_pack")),
    )
    op.create_table(
        "audit",
        _big("id", None),
        _big("account_id"),
        _text("actor"),
        _text("action"),
        _text("subject"),
        _text("detail"),
        _big("at_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_account_id_id"), "audit", ["account_id", "id"])
    op.create_table(
        "request_log",
        _big("id", None),
        _big("at_ms"),
        _big("account_id"),
        _big("application_id"),
        _text("mode"),
        _text("request_id"),
        _text("method"),
        _text("path"),
        _text("dialect"),
        _number("status"),
        _text("kinds"),
        _big("elapsed_us"),
        _text("address"),
        _text("agent"),
        _big("message_id"),
        _text("parameters"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_log")),
    )
    op.create_index(op.f("ix_request_log_account_id_id"), "request_log", ["account_id", "id"])
    op.create_table(
        "incident",
        _big("id", None),
        _big("account_id"),
        _text("service"),
        _text("title"),
        _text("state", "open"),
        _big("started_ms"),
        _big("ended_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    op.create_table(
        "otp",
        _big("id", None),
        _big("account_id"),
        _big("application_id"),
        _text("mode"),
        _text("recipient"),
        _text("country"),
        _text("purpose"),
        _text("digest"),
        _text("state", "open"),
        _number("checks_left"),
        _number("checks_used"),
        _big("message_id"),
        _big("delivery_id"),
        _big("created_ms"),
        _big("expires_ms"),
        _big("verified_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_otp")),
    )
    op.create_index("ix_otp_recipient", "otp", ["application_id", "recipient", "created_ms"])
