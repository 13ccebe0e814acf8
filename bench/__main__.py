"""`python -m bench`: the benchmark of the product, floor beside figure, in one run.

Everything runs on this machine: server, fake carrier, callback receiver and load generator share its cores, each in a process
of its own. Trust ratios and CPU per message first, rates second. docs/performance.md says what was measured where.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import floors, rows
from bench.stage import slow_sync

ROWS = {
    "accepted": rows.accepted,
    "groups": rows.groups,
    "through": rows.through,
    "bulk": rows.bulk,
    "overtaking": rows.overtaking,
    "history": rows.history,
}
RESULTS = Path(__file__).parent / "results"


async def run(only: list[str], stores: list[str], size: rows.Size, slow: bool) -> dict[str, Any]:
    """Run the rows and print each as soon as it is there."""
    found: dict[str, Any] = {}

    def note(name: str, figures: Any) -> None:
        found[name] = figures
        print(f"\n{name}")
        _print(figures, "  ")
        sys.stdout.flush()

    if "floor" in only:
        note("floor: bare ASGI answer", await rows.floor(size))
        for store in stores:
            note(f"floor: bare grouped insert, {store}", await floors.grouped_inserts(store))
    if "engine" in only:
        said = subprocess.run([sys.executable, "-m", "bench.smpp_engine"], capture_output=True, text=True, check=True)
        note("floor: SMPP engine alone", said.stdout.strip().splitlines())
    preload = slow_sync() if slow else ""
    if slow and not preload:
        print("no C compiler: the runs with 2 ms added to every sync are left out")
    for store in stores:
        for name, row in ROWS.items():
            if name not in only:
                continue
            note(f"{name}, {store}", await row(store, "", size))
            if preload and name in ("accepted", "through", "bulk"):
                note(f"{name}, {store}, every sync 2 ms longer", await row(store, preload, size))
    return found


def _print(figures: Any, indent: str) -> None:
    if isinstance(figures, list):
        for line in figures:
            print(f"{indent}{line}")
        return
    for name, value in figures.items():
        if isinstance(value, dict) and name not in ("answers", "states"):
            print(f"{indent}{name}")
            _print(value, indent + "  ")
        else:
            print(f"{indent}{name:32} {value}")


def main() -> None:
    """The command line."""
    names = ["floor", "engine", *ROWS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds a row")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--store", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--no-slow", action="store_true", help="leave out the runs with slower syncs")
    options = parser.parse_args()
    started = time.time()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, load average {Path('/proc/loadavg').read_text().strip()}"
    )
    size = rows.QUICK if options.quick else rows.FULL
    found = asyncio.run(run(options.only, options.store, size, not options.no_slow))
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{time.time() - started:.0f} s; kept in bench/results/{target.name}")


if __name__ == "__main__":
    main()
