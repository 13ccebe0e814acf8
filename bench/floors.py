"""What the databases and the disk give before anything of ours is done."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.stage import database
from berid.store.hot_postgres import connect

GROUP = 32
"""Rows of one commit: as many messages as one holds when 64 connections send them one by one."""

SECONDS = 5.0

_TABLE = "CREATE TABLE bare (id bigint PRIMARY KEY, recipient text, body text, at_ms bigint)"


async def grouped_inserts(kind: str) -> dict[str, Any]:
    """The floor of acceptance on disk: rows of four columns, so many in a commit, and nothing else."""
    with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder), "") as url:
        took_s: list[float] = []
        until = time.perf_counter() + SECONDS
        if kind == "sqlite":
            connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(_TABLE)
            while time.perf_counter() < until:
                begun = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO bare VALUES (?, ?, ?, ?)", _rows(len(took_s)))
                connection.execute("COMMIT")
                took_s.append(time.perf_counter() - begun)
            connection.close()
        else:
            server = await connect(url)
            await server.execute(_TABLE)
            while time.perf_counter() < until:
                begun = time.perf_counter()
                await server.execute(
                    "INSERT INTO bare SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])",
                    *map(list, zip(*_rows(len(took_s)), strict=True)),
                )
                took_s.append(time.perf_counter() - begun)
            await server.close()
    return {"rows/s": round(GROUP * len(took_s) / sum(took_s)), "rows a commit": GROUP} | commit_times(took_s)


def _rows(group: int) -> list[tuple[int, str, str, int]]:
    return [(group * GROUP + place, "966501234567", "Everything must go", 0) for place in range(GROUP)]


def commit_times(took_s: list[float]) -> dict[str, float]:
    """How long commits, or syncs, took."""
    ordered = sorted(took_s)
    return {f"p{share} ms": round(1000 * ordered[len(ordered) * share // 100], 1) for share in (50, 99)}


class Disk:
    """A file that is written and synced as a commit is: how long the disk itself takes, which others may be using as well."""

    def __init__(self) -> None:
        self._file, name = tempfile.mkstemp(prefix="berid-bench-")
        Path(name).unlink()  # it lives as long as this process
        os.pwrite(self._file, bytes(8192), 0)
        self.took_s: list[float] = []

    def sync(self) -> None:
        """Write two pages over, and wait for the disk."""
        begun = time.perf_counter()
        os.pwrite(self._file, bytes(8192), 0)
        os.fdatasync(self._file)
        self.took_s.append(time.perf_counter() - begun)
