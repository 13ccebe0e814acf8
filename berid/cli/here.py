"""What every command gets: the settings, the database or the office, and one way to say what came of it."""

from __future__ import annotations

import getpass
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from berid import config
from berid.base import ids
from berid.base.clock import Clock, SystemClock
from berid.base.money import format_micros, parse_micros
from berid.flow.manage import Office, open_office
from berid.flow.ports import Runtime
from berid.metrics import Metrics
from berid.net import Outbound
from berid.store import Tx, accounts, directory, open_store, schema

URL_ENV = "BERID_URL"
TOKEN_ENV = "BERID_TOKEN"  # noqa: S105 - the name of a variable

_OWNERS = {
    "account_id": "acc",
    "application_id": "app",
    "message_id": "msg",
    "wallet_id": "wal",
    "connector_id": "con",
    "price_list_id": "prl",
    "entry_id": "ent",
}
"""The prefix of the ids that a record mentions."""


class Failed(Exception):
    """A command could not do what it should: what is wrong, and what to do about it."""

    def __init__(self, sentence: str, fix: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fix = fix


@dataclass(slots=True)
class Here:
    """Where a command runs. `env` is the environment, `flags` are settings given on the command line."""

    env: Mapping[str, str]
    flags: Mapping[str, object]
    config_file: Path | None = None
    is_json: bool = False
    clock: Clock = field(default_factory=SystemClock)
    _config: config.Config | None = None

    @property
    def config(self) -> config.Config:
        """The settings in force. Raises `ConfigError`."""
        if self._config is None:
            ours = {name: value for name, value in self.env.items() if name not in (URL_ENV, TOKEN_ENV)}
            self._config = config.load(self.config_file, ours, self.flags)
        return self._config

    @property
    def actor(self) -> str:
        """Who does it, for the audit trail."""
        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # a user id without a name, as in containers
            return "cli"

    @asynccontextmanager
    async def office(self) -> AsyncIterator[Office]:
        """The office, to change something. Raises what `open_office` raises."""
        async with open_office(self.config, self.clock) as office:
            yield office

    @asynccontextmanager
    async def office_of(self, account: str) -> AsyncIterator[tuple[Office, int]]:
        """The office, and the id of the account that somebody means by an id or a name. Raises `Failed` as well."""
        async with self.office() as office:
            async with office.store.read() as tx:
                owner = await account_id(tx, account)
            yield office, owner

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        """As much of a process as the flow's verbs need; it serves no lane and no carrier."""
        async with self.office() as office, Outbound() as http:
            async with office.store.read() as tx:
                business = await directory.load(tx, with_books=False)
            yield Runtime(
                config=self.config,
                clock=self.clock,
                ids=office.ids,
                slot=0,
                vault=office.vault,
                store=office.store,
                http=http,
                metrics=Metrics(),
                channels={},
                directory=business,
            )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """The database, to read. Raises `SchemaOutdated` and `StoreAway`."""
        await schema.check(self.config.database_url)
        store = await open_store(self.config.database_url, self.clock)
        try:
            async with store.read() as tx:
                yield tx
        finally:
            await store.close()

    def say(self, sentence: str, **facts: object) -> None:
        """Tell what was done: a sentence, or with --json its facts as an object."""
        if self.is_json:
            write(msgspec.json.encode(facts))
        else:
            console().print(Text(sentence))

    def show(self, rows: Iterable[Mapping[str, object]], empty: str) -> None:
        """Show a list: a table, or with --json an array of objects. `empty` is said instead of an empty table."""
        found = list(rows)
        if self.is_json:
            write(msgspec.json.encode(found))
        elif not found:
            console().print(Text(empty))
        else:
            table = Table(*(name.replace("_", " ") for name in found[0]), box=box.SIMPLE, pad_edge=False)
            for row in found:
                table.add_row(*(Text(_cell(value)) for value in row.values()))
            console().print(table)

    def show_records(self, found: Iterable[Any], kind: str, empty: str, without: Sequence[str] = ()) -> None:
        """Show records of the store as `facts_of` tells them, `without` some of these facts."""
        rows = (facts_of(each, kind) for each in found)
        self.show(({name: row[name] for name in row if name not in without} for row in rows), empty)

    def show_one(self, facts: Mapping[str, object]) -> None:
        """Show one thing: a line for each fact, or with --json an object."""
        if self.is_json:
            write(msgspec.json.encode(facts))
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), Text(_cell(value)))
        console().print(table)


At = Annotated[Here, Parameter(parse=False)]
"""The parameter by which a command gets its `Here`."""


def console() -> Console:
    """Standard output. Only a person's terminal has a width; what a program reads is not folded."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 1_000, soft_wrap=False)


def write(line: bytes) -> None:
    """A line on standard output, as it is."""
    sys.stdout.write(line.decode() + "\n")


def facts_of(record: Any, kind: str) -> dict[str, object]:
    """A record of the store as people read it: ids with their prefix (`kind` is its own), times and amounts in words."""
    facts: dict[str, object] = {}
    for name in record.__slots__:
        value = getattr(record, name)
        if name == "id":
            facts[name] = ids.show(kind, value)
        elif name in _OWNERS:
            facts[name.removesuffix("_id")] = ids.show(_OWNERS[name], value) if value else ""
        elif name.endswith("_ms"):
            facts["at" if name == "at_ms" else name.removesuffix("_ms") + "_at"] = moment(value)
        elif name.endswith("_micros"):
            facts[name.removesuffix("_micros")] = format_micros(value)
        else:
            facts[name] = sorted(value) if isinstance(value, frozenset) else value
    return facts


def moment(at_ms: int) -> str:
    """A time as people and programs read it; empty for never."""
    if not at_ms:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_moment(text: str) -> int:
    """A date or time that somebody typed, in milliseconds; without a zone it is UTC. Raises `Failed`."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise Failed(f"{text!r} is not a time", "write a date such as 2027-01-31, or 2027-01-31T18:00+03:00") from None
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)


def amount_of(text: str) -> int:
    """The micros of an amount that somebody typed. Raises `Failed`."""
    try:
        return parse_micros(text)
    except ValueError as error:
        raise Failed(f"the amount cannot be read: {error}", "write it as 250 or 99.90") from None


def read_id(kind: str, text: str) -> int:
    """The number behind an id that somebody typed, with or without its prefix. Raises `Failed`."""
    found = ids.read(kind, text)
    if found is None:
        raise Failed(f"{text!r} is not an id", f"ids look like {kind}_230480168747039; the list commands show them")
    return found


async def account_id(tx: Tx, text: str) -> int:
    """The account that somebody means by an id or a name. Raises `Failed`."""
    found = ids.read("acc", text)
    if found is None or not await accounts.has_account(tx, found):
        found = await accounts.account_named(tx, text)
    if found is None:
        raise Failed(f"there is no account {text!r}", "berid account list shows all")
    return found


def pairs(given: Sequence[str]) -> dict[str, str]:
    """What NAME=VALUE arguments say. Raises `Failed`."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Failed(f"{each!r} does not say what to set", "write NAME=VALUE")
        found[name.strip()] = value
    return found


def text_of(file: Path) -> str:
    """The text of a file that somebody named; - is standard input. Raises `Failed`."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read: {error}") from None


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "  ".join(f"{name}={_cell(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)
