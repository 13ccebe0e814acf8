"""The program that writes SQLite's file: one connection, WAL, full sync, in a process of its own.

`hot_sqlite.py` starts it as `python writer.py DESCRIPTOR` and speaks to it through that socket. It runs nothing but the
statements it is sent, imports nothing but the standard library, and ends when the socket does, after what it is doing. A
signal to all processes of a service (Ctrl-C, or its end) is not for it.

A message is four octets of length and a value in the interpreter's own format (`marshal`): both ends are the same
interpreter. First come the arguments of `Writer`; then each request is `(version, steps, is_last)`. Steps are run in an open
transaction, which begins with the first request and is committed with the one that `is_last`. The next request may come
before the answer to the last. The answer is `(DONE, results)`, a list of rows for every step that gives rows, or, after
everything since the beginning was undone,

- `(CONFLICT, text)`: a step did not change, or give, as many rows as it expected;
- `(FAILED, code, kind, text)`: SQLite's result code (0 if there is none), the kind of the exception and what it says.

What comes after that with the same version, or an older one, counted on what was undone: it is a conflict as well.

A step is `(how, statement, values, expected)`: `ONE` runs it once, `EACH` once for each of the values, `INSERT` puts rows
in, many at a time: its statement ends with `VALUES`. `expected` is -1 where any number will do.

The log is folded into the database (a *checkpoint*) in two steps, since nobody may wait for megabytes to be copied: another
connection copies most of it while commits go on, then, between two commits, this one copies the little that came meanwhile,
so that the log can begin at its start again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import sqlite3
import struct
import sys
import time
from itertools import chain
from threading import Thread
from typing import Any

ONE, EACH, INSERT = 0, 1, 2
DONE, CONFLICT, FAILED = 0, 1, 2

MANY = 16
"""Rows of one INSERT, while there are so many: half the time of one statement for each; more rows save no more."""

LOCK_WAIT_S = 0.025
"""While another process (the command line) holds the write lock, we ask for it this often."""

FAILPOINT = "BERID_FAILPOINT"
"""As in `base/failpoint.py`, of which this program knows nothing: `writer.before_commit:N` and `writer.after_commit:N` end it the
N-th time."""


class Writer:
    """The connection that writes, and what keeps its log short."""

    def __init__(self, path: str, pragmas: tuple[str, ...], fold_after: int, lock_tries: int) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        self.folder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in pragmas:
            self.connection.execute(f"PRAGMA {pragma}")
        self._fold_after = fold_after
        self._lock_tries = lock_tries
        self._folded = 0
        """The changes that had been made when the last folding began."""
        self._refused = -1
        """The version of the last transaction that came to nothing."""
        self.folding: Thread | None = None
        """Who does the first step."""
        self.is_nearly_folded = False
        """Whether the second is to be done."""
        name, _, count = os.environ.get(FAILPOINT, "").partition(":")
        self._failpoint, self._passes_left = name, int(count or 1)

    def run(self, version: int, steps: list[tuple[int, str, Any, int]], is_last: bool) -> tuple[Any, ...]:
        """Do what a request asks; gives its answer."""
        if version <= self._refused:
            return CONFLICT, "what came before it was undone"
        try:
            if not self.connection.in_transaction:
                self._begin()
            results: list[list[tuple[Any, ...]]] = []
            for step in steps:
                wrong = self._do(*step, results)
                if wrong:
                    self._refused = version
                    self.undo()
                    return CONFLICT, wrong
            if is_last:
                self._pass("writer.before_commit")
                self.connection.commit()
                self._pass("writer.after_commit")
            return DONE, results
        except Exception as error:
            self._refused = version
            self.undo()
            return FAILED, getattr(error, "sqlite_errorcode", 0), type(error).__name__, str(error)

    def _do(self, how: int, statement: str, values: Any, expected: int, results: list[list[tuple[Any, ...]]]) -> str:
        """One step; gives what is wrong with its count, if anything is."""
        if how == EACH:
            count = self.connection.executemany(statement, values).rowcount
        elif how == INSERT:
            count = self._insert(statement, values)
        else:
            cursor = self.connection.execute(statement, values)
            count = cursor.rowcount
            if cursor.description:
                results.append(cursor.fetchall())
                count = len(results[-1])
        return "" if expected in (-1, count) else f"{count} rows in place of {expected}: {statement[:60]}"

    def undo(self) -> None:
        """Undo what is open. After an error of the disk there may be nothing left to undo, or no way to do it yet."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.rollback()

    def fold(self) -> None:
        """What is to be done between two commits: keep the log short."""
        if self.is_nearly_folded:
            self.is_nearly_folded = False
            checkpoint(self.connection)
        changes = self.connection.total_changes
        if changes - self._folded >= self._fold_after and (self.folding is None or not self.folding.is_alive()):
            self._folded = changes
            self.folding = Thread(target=self._fold, daemon=True)
            self.folding.start()

    def close(self) -> None:
        """Let both connections go."""
        if self.folding is not None:
            self.folding.join()
        self.folder.close()
        self.connection.close()

    def _fold(self) -> None:
        self.is_nearly_folded = checkpoint(self.folder)

    def _begin(self) -> None:
        for tries in range(self._lock_tries, -1, -1):
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or not tries:
                    raise
                time.sleep(LOCK_WAIT_S)

    def _insert(self, statement: str, rows: list[tuple[Any, ...]]) -> int:
        one = f"({', '.join('?' * len(rows[0]))})"
        alone = len(rows) % MANY
        count = self.connection.executemany(f"{statement} {one}", rows[:alone]).rowcount if alone else 0
        if len(rows) >= MANY:
            many = f"{statement} {', '.join([one] * MANY)}"
            for start in range(alone, len(rows), MANY):
                count += self.connection.execute(many, tuple(chain.from_iterable(rows[start : start + MANY]))).rowcount
        return count

    def _pass(self, name: str) -> None:
        if name == self._failpoint:
            self._passes_left -= 1
            if not self._passes_left:
                os.kill(os.getpid(), signal.SIGKILL)


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy from the log what no reader still needs there; waits for nobody. False if that failed: the log only grows, and
    what was committed is safe in it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error:
        return False
    return True


def main(descriptor: int) -> None:
    """Serve one socket until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    incoming = connection.makefile("rb", buffering=1 << 18)

    def read() -> Any:
        """The next message. Raises `EOFError` when there is none, or not all of one."""
        head = incoming.read(4)
        if len(head) < 4:
            raise EOFError
        return marshal.loads(incoming.read(struct.unpack("<I", head)[0]))  # noqa: S302  from the one that started us

    def answer(value: tuple[Any, ...]) -> None:
        packed = marshal.dumps(value)
        connection.sendall(struct.pack("<I", len(packed)) + packed)

    try:
        writer = Writer(*read())
        answer((DONE, []))
        while True:
            version, steps, is_last = read()
            if steps is None:
                writer.undo()
                answer((DONE, []))
                continue
            answer(writer.run(version, steps, is_last))
            if is_last:
                writer.fold()
    except sqlite3.Error as error:  # the file cannot be opened
        answer((FAILED, error.sqlite_errorcode, type(error).__name__, str(error)))
    except (EOFError, ConnectionError):
        pass  # whoever asked is gone; what was not committed is undone with the connection


if __name__ == "__main__":
    main(int(sys.argv[1]))
