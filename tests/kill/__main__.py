"""`python -m tests.kill`: the whole kill test. Exit code 1 if anything is not as promised."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.kill.run import WINDOW, WIRE, WRITER, Result, kill_again_and_again, verb_failpoints
from tests.kill.trace import NoStrace, trace
from tools import pg


def main() -> int:
    """Run it on the stores that are asked for, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--kills", type=int, default=20, help="deaths at random moments, after the failpoints")
    parser.add_argument("--only", default="", help="only failpoints whose name contains this; '-' for none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--trace", action="store_true", help="only show that the disk keeps a message before the yes to it"
    )
    arguments = parser.parse_args()
    if arguments.trace:
        return _show_trace()
    results = []
    for store in ("sqlite", "postgres"):
        if arguments.store not in (store, "both"):
            continue
        places = (*verb_failpoints(), *WIRE, *(WRITER if store == "sqlite" else ()))
        names = [name for name in places if arguments.only in name]
        print(f"{store}: {len(names)} failpoints, {arguments.kills} kills at random", flush=True)
        with tempfile.TemporaryDirectory(prefix="berid-kill-") as folder:
            if store == "sqlite":
                results.append(_run(Path(folder), f"sqlite:///{folder}/berid.db", names, arguments))
            else:
                with pg.running(durable=True) as url:
                    results.append(_run(Path(folder), url, names, arguments))
    print()
    print(
        f"{'':10}{'deaths':>8}{'accepted':>10}{'submits':>9}{'unanswered':>12}{'uncertain':>11}{'doubled':>9}"
        f"{'told':>8}{'again':>7}{'most uncertain by one death':>30}"
    )
    for result in results:
        most = max(left for _, _, left in result.deaths)
        print(
            f"{result.store:10}{len(result.deaths) - 1:>8}{result.accepted:>10}{result.submits:>9}{result.unanswered:>12}"
            f"{result.uncertain:>11}{result.doubled:>9}{result.callbacks:>8}{result.repeated:>7}{most:>24} of {WINDOW}"
        )
    troubles = [f"{result.store}: {trouble}" for result in results for trouble in result.troubles]
    for trouble in troubles:
        print(trouble)
    print("not as promised" if troubles else "nothing lost, nothing doubled in silence, every coin accounted for")
    return 1 if troubles else 0


def _show_trace() -> int:
    with tempfile.TemporaryDirectory(prefix="berid-trace-") as folder:
        try:
            calls, is_synced = asyncio.run(trace(Path(folder)))
        except NoStrace as error:
            print(error)
            return 2
    print("\n".join(calls))
    print("the sync has returned before the answer leaves" if is_synced else "the answer leaves before any sync")
    return 0 if is_synced else 1


def _run(folder: Path, url: str, names: list[str], arguments: argparse.Namespace) -> Result:
    return asyncio.run(
        kill_again_and_again(folder, url, names, arguments.kills, arguments.seed, lambda line: print(line, flush=True))
    )


if __name__ == "__main__":
    sys.exit(main())
