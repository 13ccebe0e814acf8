"""Every table, in one place: the metadata from which SQLAlchemy builds ordinary queries and against which the schema
steps in `migrations/` are checked. Times are milliseconds UTC, money is micros, 0 stands for "never" and "nobody".

The hot path (`hot_sqlite.py`, `hot_postgres.py`) writes `message`, `delivery`, `carrier_ref`, `event`, `ledger_entry`,
`wallet`, `job`, `idempotency`, `callback`, `callback_try` and `parked_report` by its own statements. Their indexes are few and
grow at the right edge (ids are time-ordered) or are partial, so that a large history does not slow a new message.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both; on SQLite the word INTEGER makes a primary key the row's own address."""


_KEY = Text().with_variant(Text(collation="C"), "postgresql")
"""Texts that only machines read and the path's indexes compare: byte by byte, not by the rules of a language, as most PostgreSQL
databases would by themselves."""


def _id() -> Column[int]:
    return Column("id", _BIG, primary_key=True, autoincrement=False)


def _ref(name: str) -> Column[int]:
    return Column(name, _BIG, nullable=False, server_default=text("0"))


def _ms(name: str) -> Column[int]:
    return Column(name, _BIG, nullable=False, server_default=text("0"))


def _number(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text(str(default)))


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{default}'"))


meta = Table("meta", metadata, Column("key", Text, primary_key=True), _text("value"))
"""Facts about the whole store: `version` rises with every change that a process must notice; `alive_ms` is the last beat."""

process = Table(
    "process",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    _text("name"),
    _ms("alive_until_ms"),
)
"""Who holds which id slot. A process that stops renewing loses its slot, its connectors and its leases."""

account = Table(
    "account",
    metadata,
    _id(),
    _text("name"),
    _text("state", "active"),
    _text("home"),
    _text("zone", "UTC"),
    _text("language", "en"),
    _text("rules", "{}"),
    _ms("created_ms"),
)

application = Table(
    "application",
    metadata,
    _id(),
    _ref("account_id"),
    _text("name"),
    _text("state", "active"),
    _text("services"),
    _text("rules", "{}"),
    _ms("created_ms"),
    Index(None, "account_id"),
)

token = Table(
    "token",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("application_id"),
    _text("kind"),
    _text("mode"),
    _text("label"),
    _text("hint"),
    _text("login"),
    _text("hash"),
    _text("scopes"),
    _ms("created_ms"),
    _ms("expires_ms"),
    _ms("revoked_ms"),
    Index(None, "account_id"),
    Index("uq_token_hash", "hash", unique=True),
    Index(
        "uq_token_login",
        "login",
        unique=True,
        sqlite_where=text("login <> ''"),
        postgresql_where=text("login <> ''"),
    ),
)
"""`hint` is the first characters, for people to recognise it by; `login` an SMPP system_id; `scopes` words with spaces."""

sender_name = Table(
    "sender_name",
    metadata,
    _id(),
    _ref("account_id"),
    _text("channel"),
    _text("name"),
    _text("country"),
    _text("category", "any"),
    _text("state", "draft"),
    _text("reason"),
    _ms("created_ms"),
    _ms("updated_ms"),
    _ms("expires_ms"),
    UniqueConstraint("account_id", "channel", "name", "country", "category"),
)

wallet = Table(
    "wallet",
    metadata,
    _id(),
    _ref("account_id"),
    _text("mode"),
    _text("currency"),
    Column("available_micros", _BIG, nullable=False, server_default=text("0")),
    Column("held_micros", _BIG, nullable=False, server_default=text("0")),
    Column("spent_micros", _BIG, nullable=False, server_default=text("0")),
    Column("credit_limit_micros", _BIG, nullable=False, server_default=text("0")),
    UniqueConstraint("account_id", "mode", "currency"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("wallet_id"),
    _text("kind"),
    Column("amount_micros", _BIG, nullable=False),
    _ref("message_id"),
    _number("deliveries"),
    _ms("at_ms"),
    _text("actor"),
    _text("note"),
    Index(None, "wallet_id", "id"),
)
"""Immutable. Entries of one message and kind in one commit are one row, with the count of deliveries they stand for."""

topup_request = Table(
    "topup_request",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("wallet_id"),
    _text("mode"),
    _text("currency"),
    Column("amount_micros", _BIG, nullable=False),
    _text("method"),
    _text("reference"),
    _text("note"),
    _text("state", "submitted"),
    _text("reason"),
    Column("approved_micros", _BIG, nullable=False, server_default=text("0")),
    _ref("entry_id"),
    _text("asked_by"),
    _text("handled_by"),
    _ms("created_ms"),
    _ms("submitted_ms"),
    _ms("decided_ms"),
    Index(None, "account_id", "id"),
    Index(
        "ix_topup_request_open",
        "wallet_id",
        sqlite_where=text("decided_ms = 0"),
        postgresql_where=text("decided_ms = 0"),
    ),
)
"""Money that accounts say they have paid. `submitted_ms` is when the account last said all; `entry_id` what the yes entered."""

trial_offer = Table(
    "trial_offer",
    metadata,
    Column("product", Text, primary_key=True),
    _text("currency"),
    Column("amount_micros", _BIG, nullable=False),
    _ms("changed_ms"),
)
"""What the operator gives to whoever tries a product."""

trial_claim = Table(
    "trial_claim",
    metadata,
    Column("account_id", _BIG, primary_key=True, autoincrement=False),
    _text("product"),
    _ref("entry_id"),
    _ms("at_ms"),
)
"""Accounts that have had their trial credit: the key sees to it that nobody has it twice."""

international_request = Table(
    "international_request",
    metadata,
    _id(),
    _ref("account_id"),
    _text("countries"),
    _text("purpose"),
    _number("monthly_volume"),
    _text("state", "submitted"),
    _text("reason"),
    _text("asked_by"),
    _text("handled_by"),
    _ms("created_ms"),
    _ms("decided_ms"),
    Index(None, "account_id", "id"),
)
"""Wishes to write to other countries; `countries` are words with spaces, none of them for all."""

attachment = Table(
    "attachment",
    metadata,
    _id(),
    _ref("account_id"),
    _text("subject"),
    _text("name"),
    _text("type"),
    _number("size_bytes"),
    _text("digest"),
    _ms("created_ms"),
    Column("content", LargeBinary, nullable=False),
    Index(None, "account_id", "subject"),
    Index(None, "digest"),
)
"""Files of accounts: deposit slips and papers. `content` is sealed, `subject` the public id of what it belongs to ("": nothing
yet), `digest` the SHA-256 of the file. The content is last: SQLite reads through it to whatever comes behind."""

price_list = Table(
    "price_list",
    metadata,
    _id(),
    _text("name"),
    _text("channel"),
    _text("currency"),
    _text("charge_on", "sent"),
    _ms("created_ms"),
    UniqueConstraint("name", "channel"),
)

price = Table(
    "price",
    metadata,
    _id(),
    _ref("price_list_id"),
    _text("prefix"),
    _text("operator"),
    _text("category"),
    Column("amount_micros", _BIG, nullable=False),
    _ms("from_ms"),
    _ms("until_ms"),
    Index(None, "price_list_id"),
)

price_use = Table(
    "price_use",
    metadata,
    Column("account_id", _BIG, nullable=False),
    Column("price_list_id", _BIG, nullable=False),
    _number("rank"),
    PrimaryKeyConstraint("account_id", "price_list_id"),
)
"""Which lists an account buys by, in order; account 0 is the default of all that name none for a channel."""

connector = Table(
    "connector",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    _text("channel"),
    _text("kind"),
    _text("mode"),
    _text("state", "on"),
    _text("settings", "{}"),
    _ms("created_ms"),
)

connector_lease = Table(
    "connector_lease",
    metadata,
    Column("connector_id", _BIG, primary_key=True, autoincrement=False),
    _number("slot"),
    _ms("until_ms"),
)
"""Which process runs a connector. Only it opens the binds and leases the lane."""

route = Table(
    "route",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    _number("rank", 100),
    _text("mode"),
    _text("channel"),
    _text("match", "{}"),
    _text("connectors", "[]"),
    _text("uncertain", "{}"),
    _text("state", "on"),
)

message = Table(
    "message",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("application_id"),
    _text("mode"),
    _text("channel"),
    _text("dialect"),
    _text("sender"),
    _text("category"),
    Column("priority", SmallInteger, nullable=False, server_default=text("1")),
    _text("body"),
    _text("body_kind", "text"),
    _text("alphabet"),
    _number("parts", 1),
    _text("reference"),
    _text("cancel_key"),
    _text("options"),
    _text("state", "open"),
    _number("total"),
    _ref("first_id"),
    _ref("last_id"),
    Column("cost_micros", _BIG, nullable=False, server_default=text("0")),
    _text("currency"),
    _text("refused"),
    _ms("created_ms"),
    _ms("due_ms"),
    _ms("expires_ms"),
    Index(None, "account_id", "id"),
    Index(
        "ix_message_cancel_key",
        "account_id",
        "cancel_key",
        sqlite_where=text("cancel_key <> ''"),
        postgresql_where=text("cancel_key <> ''"),
    ),
    Index(
        "ix_message_loading",
        "id",
        sqlite_where=text("state = 'loading'"),
        postgresql_where=text("state = 'loading'"),
    ),
    Index(
        "ix_message_waiting",
        "account_id",
        "due_ms",
        sqlite_where=text("due_ms > 0"),
        postgresql_where=text("due_ms > 0"),
    ),
)
"""`body_kind`: text, raw (a part split by the customer), sealed, erased. `state`: loading (pages still coming, nothing leaves),
open, cancelled. Its deliveries have ids from `first_id` to `last_id`, and other messages' may lie between."""

delivery = Table(
    "delivery",
    metadata,
    _id(),
    _ref("message_id"),
    _ref("account_id"),
    _text("recipient"),
    _text("country"),
    _text("state"),
    _text("reason"),
    _number("units"),
    Column("price_micros", _BIG, nullable=False, server_default=text("0")),
    _ref("wallet_id"),
    _text("charge_on"),
    _text("money", "held"),
    _ref("route_id"),
    _ref("connector_id"),
    _number("attempt"),
    _number("parts_left"),
    Column("in_doubt", SmallInteger, nullable=False, server_default=text("0")),
    _text("carrier_ids"),
    _ms("sent_ms"),
    _ms("final_ms"),
    _ms("expires_ms"),
    _ms("report_ms"),
    _text("report_code"),
    Index(
        "ix_delivery_uncertain",
        "connector_id",
        "recipient",
        sqlite_where=text("in_doubt > 0"),
        postgresql_where=text("in_doubt > 0"),
    ),
    postgresql_with={"fillfactor": 50},
)
"""`sent_ms`, `connector_id`, `carrier_ids` and `attempt` tell the journal's line *sent* if there is none; `report_ms` and
`report_code`, of the receipt that found it delivered, with `final_ms` the line *delivered*, as long as `report_ms` is not 0.
`in_doubt` is 1 while the state is *uncertain*.

A delivery is changed three times on its way. PostgreSQL writes a changed row beside the old one and leaves the indexes alone, if
there is room on the page and nothing has changed that an index or its condition names. So no index names what changes on the
ordinary way, the state first of all, and half of each page is left for the rows' next versions: the room of the last ones is
used again without waiting for a vacuum."""

carrier_ref = Table(
    "carrier_ref",
    metadata,
    Column("connector_id", _BIG, nullable=False),
    Column("key", _KEY, nullable=False),
    _ref("delivery_id"),
    _number("part"),
    _ms("sent_ms"),
    PrimaryKeyConstraint("key", "connector_id"),
    sqlite_with_rowid=False,
)
"""Carriers' ids of parts whose receipt is still of interest; a row goes when its receipt has been settled for good."""

parked_report = Table(
    "parked_report",
    metadata,
    _id(),
    _ref("connector_id"),
    Column("key", _KEY, nullable=False, server_default=text("''")),
    _text("recipient"),
    _text("report"),
    _ms("at_ms"),
    Index(None, "connector_id", "key"),
    Index(None, "connector_id", "recipient"),
)
"""Receipts that came before the response that names their id, or for nothing we know; swept after a time."""

event = Table(
    "event",
    metadata,
    Column("delivery_id", _BIG, nullable=False),
    Column("id", _BIG, nullable=False),
    _text("kind"),
    _ms("at_ms"),
    _text("detail"),
    PrimaryKeyConstraint("delivery_id", "id"),
    sqlite_with_rowid=False,
)
"""The journal of a delivery: one typed line a step, what portal and support read. What happens to nearly every delivery its own
row tells (`domain/journal.py`)."""

job = Table(
    "job",
    metadata,
    _id(),
    _text("kind"),
    Column("lane", _KEY, nullable=False, server_default=text("''")),
    Column("priority", SmallInteger, nullable=False, server_default=text("1")),
    _ref("account_id"),
    _ms("due_ms"),
    _ms("lease_until_ms"),
    _number("slot"),
    _number("attempts"),
    _ms("buried_ms"),
    _text("why"),
    Index(
        "ix_job_ready",
        "lane",
        "priority",
        "account_id",
        "due_ms",
        "id",
        sqlite_where=text("lease_until_ms = 0 AND buried_ms = 0"),
        postgresql_where=text("lease_until_ms = 0 AND buried_ms = 0"),
    ),
    Index(
        "ix_job_leased",
        "lease_until_ms",
        sqlite_where=text("attempts > 0"),
        postgresql_where=text("attempts > 0"),
    ),
    Index(
        "ix_job_buried",
        "buried_ms",
        sqlite_where=text("buried_ms > 0"),
        postgresql_where=text("buried_ms > 0"),
    ),
)
"""Durable work. The id is that of its subject: a delivery (`dispatch`, `resolve`) or a bundle of callbacks (`callback`).
`attempts` is not 0 if it has been leased, even if nobody holds the lease any more."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("application_id", _BIG, nullable=False),
    Column("key", _KEY, nullable=False),
    _text("body_hash"),
    _text("answer"),
    _ms("created_ms"),
    PrimaryKeyConstraint("application_id", "key"),
)
"""The answers that repeated requests get. An ordinary table also on SQLite: callers choose the keys, most of them at random, and
rows that stand in the order of such keys make every new one touch a page of its own with all that it holds, and split pages."""

spend = Table(
    "spend",
    metadata,
    Column("wallet_id", _BIG, nullable=False),
    Column("day", _BIG, nullable=False),
    Column("application_id", _BIG, nullable=False),
    Column("micros", _BIG, nullable=False),
    PrimaryKeyConstraint("wallet_id", "day", "application_id"),
    sqlite_with_rowid=False,
)
"""What the messages accepted on a day have cost so far, for spending limits; `day` is the ordinal of the account's date. The
ledger has the truth; this is its sum where it is asked for at every message."""

callback_endpoint = Table(
    "callback_endpoint",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("application_id"),
    _text("kind", "native"),
    _text("url"),
    _text("host"),
    _text("sealed_secret"),
    _text("events"),
    _number("batch_max", 1),
    _text("state", "on"),
    _text("description"),
    _ms("created_ms"),
    Index(None, "account_id"),
)

callback = Table(
    "callback",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("endpoint_id"),
    _ref("delivery_id"),
    _text("event"),
    _text("payload"),
    _ms("created_ms"),
    _ref("bundle_id"),
    _number("bundled"),
    Index(None, "endpoint_id", "id"),
)
"""One event for one endpoint, as it will be or was told. Events of one commit for one endpoint that takes batches are a
*bundle* and told together: `bundle_id` is the id of the first of them, or its own for one that is told by itself. `bundled`
says of the first how many they are, and is 0 for the others; their ids are SLOTS apart. A bundle is pending while a job of its
id exists."""

callback_try = Table(
    "callback_try",
    metadata,
    Column("callback_id", _BIG, nullable=False),
    Column("id", _BIG, nullable=False),
    _ms("at_ms"),
    _number("status"),
    _text("error"),
    _number("elapsed_ms"),
    PrimaryKeyConstraint("callback_id", "id"),
    sqlite_with_rowid=False,
)
"""Calls to receivers. `callback_id` is the bundle that was told."""

inbound = Table(
    "inbound",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("connector_id"),
    _text("channel"),
    _text("sender"),
    _text("recipient"),
    _text("body"),
    _text("keyword"),
    _ms("received_ms"),
    Index(None, "account_id", "id"),
)
"""Messages from people to us."""

inbound_part = Table(
    "inbound_part",
    metadata,
    Column("connector_id", _BIG, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("reference", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    _number("total"),
    _text("body"),
    _ms("received_ms"),
    PrimaryKeyConstraint("connector_id", "sender", "recipient", "reference", "number"),
    sqlite_with_rowid=False,
)
"""Parts of a long message from a person, until the last one is here."""

number = Table(
    "number",
    metadata,
    Column("number", Text, primary_key=True),
    _ref("account_id"),
    _ref("application_id"),
    _text("channel", "sms"),
    _ms("created_ms"),
)
"""The numbers and names that people can write to, and whose they are."""

audit = Table(
    "audit",
    metadata,
    _id(),
    _ref("account_id"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    _text("detail"),
    _ms("at_ms"),
    Index(None, "account_id", "id"),
)

request_log = Table(
    "request_log",
    metadata,
    _id(),
    _ms("at_ms"),
    _ref("account_id"),
    _ref("application_id"),
    _text("mode"),
    _text("request_id"),
    _text("method"),
    _text("path"),
    _text("dialect"),
    _number("status"),
    _text("kinds"),
    Column("elapsed_us", _BIG, nullable=False, server_default=text("0")),
    _text("address"),
    _text("agent"),
    _ref("message_id"),
    _text("parameters"),
    Index(None, "account_id", "id"),
)
"""What was asked at the web doors, redacted. Lines of callers who are nobody's are account 0's."""

suppression = Table(
    "suppression",
    metadata,
    Column("account_id", _BIG, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("channel", Text, nullable=False),
    _text("reason"),
    _text("source"),
    _number("all_traffic"),
    _ms("at_ms"),
    _ms("removed_ms"),
    _ref("version"),
    PrimaryKeyConstraint("account_id", "recipient", "channel"),
    Index(None, "version"),
    sqlite_with_rowid=False,
)
"""Who must not be written to, as it is now. `channel` may be `all`; `all_traffic` 1 refuses more than promotional messages. An
entry that was taken out stays, with `removed_ms`. `version` is the store's when the row last changed: what a process must read
again is what is newer than its directory."""

consent = Table(
    "consent",
    metadata,
    _id(),
    _ref("account_id"),
    _text("brand"),
    _text("type"),
    _text("recipient"),
    _text("recipient_type"),
    _text("status"),
    _text("source"),
    _ms("consent_ms"),
    _ms("recorded_ms"),
    _number("is_current", 1),
    _ref("version"),
    Index(None, "account_id", "id"),
    Index(
        "uq_consent_current",
        "account_id",
        "recipient",
        "type",
        "brand",
        "recipient_type",
        unique=True,
        sqlite_where=text("is_current = 1"),
        postgresql_where=text("is_current = 1"),
    ),
    Index(
        "ix_consent_version",
        "version",
        sqlite_where=text("is_current = 1"),
        postgresql_where=text("is_current = 1"),
    ),
)
"""What recipients told brands about commercial messages, every word of it: the proof of consent. The last record of each is
current. `version` as in `suppression`."""

consent_rule = Table(
    "consent_rule",
    metadata,
    Column("account_id", _BIG, nullable=False),
    Column("country", Text, nullable=False),
    _number("is_required"),
    PrimaryKeyConstraint("account_id", "country"),
)
"""Whether an account asks for recorded consent in a country, where that differs from the country's rule pack."""

rule_pack = Table(
    "rule_pack",
    metadata,
    Column("country", Text, nullable=False),
    Column("version", Integer, nullable=False),
    _text("body"),
    _ms("from_ms"),
    _ms("made_ms"),
    PrimaryKeyConstraint("country", "version"),
)
"""Rules of a country that the operator set; they win over those that the platform comes with. `body` is JSON, as
`domain.rules.RulePack` has it; of two that begin together the higher version counts."""

incident = Table(
    "incident",
    metadata,
    _id(),
    _ref("account_id"),
    _text("service"),
    _text("title"),
    _text("state", "open"),
    _ms("started_ms"),
    _ms("ended_ms"),
)
"""What is wrong with the platform, for the public to see; account 0 is the platform's own. `state`: open, closed."""

otp = Table(
    "otp",
    metadata,
    _id(),
    _ref("account_id"),
    _ref("application_id"),
    _text("mode"),
    _text("recipient"),
    _text("country"),
    _text("purpose"),
    _text("digest"),
    _text("state", "open"),
    _number("checks_left"),
    _number("checks_used"),
    _ref("message_id"),
    _ref("delivery_id"),
    _ms("created_ms"),
    _ms("expires_ms"),
    _ms("verified_ms"),
    Index("ix_otp_recipient", "application_id", "recipient", "created_ms"),
)
"""One-time passwords, by keyed hash only. `state`: open, verified, replaced (a newer one was sent)."""
