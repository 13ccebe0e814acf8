"""Proof that "accepted" means "on disk": the system calls of one accepted message, in their order.

The process runs under strace. Of the calls between the request and its answer those are shown that write to the database,
make the disk keep it, and write the answer. The sync must have returned before the answer leaves.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from tests.support.process import BeridProcess
from tests.support.site import make_site

_CALLS = ("read", "recvfrom", "write", "writev", "sendto", "pwrite64", "fdatasync", "fsync")
_SYNCED = re.compile(r"(?:fdatasync|fsync)(?:\(\d+\)| resumed>.*\))\s*= 0")
_ANSWERED = re.compile(r'"HTTP/1\.1 201')


class NoStrace(RuntimeError):
    """strace is not installed."""


async def trace(folder: Path) -> tuple[list[str], bool]:
    """The calls from the request on, and whether a sync lies between the last write and the answer. Raises `NoStrace`."""
    strace = shutil.which("strace")
    if strace is None:
        raise NoStrace("strace is not installed; on Debian: apt install strace")
    out = folder / "calls"
    async with make_site(folder, f"sqlite:///{folder}/berid.db") as site:
        # -D: strace steps aside, so that the process we started is Berid itself.
        before = (strace, "-D", "-f", "-s", "64", "-o", str(out), "-e", f"trace={','.join(_CALLS)}")
        traced = BeridProcess(folder, site.database_url, site.berid.settings, before)
        site.processes.append(traced)
        site.berid = traced
        await traced.start()
        await site.accepted("966500001000")
        await traced.stop()
        while "+++ exited" not in out.read_text(errors="replace")[-200:]:
            await asyncio.sleep(0.05)
    lines = out.read_text(errors="replace").splitlines()
    start = next(number for number, line in enumerate(lines) if '"POST /api/v1/messages' in line)
    end = next(number for number, line in enumerate(lines) if number > start and _ANSWERED.search(line))
    between = [line for line in lines[start : end + 1] if "sync" in line or "pwrite64" in line or "HTTP/1.1" in line]
    last_write = max(number for number, line in enumerate(between) if "pwrite64" in line)
    return between, any(_SYNCED.search(line) for line in between[last_write:])
