"""Commands about the process and its database: serve, demo, migrate, backup, restore, check, config."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berid import config as settings
from berid.base import log
from berid.cli.here import At, Failed, Here, facts_of, moment
from berid.config import Config
from berid.flow.doctor import Level, examine, obstacle
from berid.store import backup as backups
from berid.store import schema

if TYPE_CHECKING:
    from berid.app import App


async def serve_platform(*, at: At) -> None:
    """Run the platform until SIGTERM or SIGINT; then finish what is on the wire and stop."""
    from berid.app import serve
    from berid.demo import write_privately

    _log(at.config)
    ready_file = at.config.ready_file

    with ExitStack() as at_end:

        def announce(app: App) -> None:
            if ready_file is not None:
                at_end.callback(ready_file.unlink, missing_ok=True)  # not before it is ours
                write_privately(ready_file, json.dumps(listening(app), indent=2) + "\n")

        await _serving(at.config, serve(at.config, announce))


async def serve_demo(*, at: At) -> None:
    """Run everything on this machine, with simulated carriers, test money and tokens that are printed."""
    from berid.demo import run, settle

    _log(at.config)

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # A pipe that nobody reads would fill, and hold up everything.
    await _serving(settle(at.config), run(at.config, say, has_reader=sys.stdout.isatty()))


async def migrate(*, at: At) -> None:
    """Bring the database to the shape that this release needs. Makes it if there is none."""
    applied = await schema.migrate(at.config.database_url)
    at.say(f"Applied {', '.join(applied)}." if applied else "The database is up to date.", applied=applied)


async def backup(folder: Path, /, *, at: At) -> None:
    """Copy the database into an empty folder while it is in use. The master key is not in the copy: keep it elsewhere.

    Parameters
    ----------
    folder
        Where the copy and its manifest go.
    """
    manifest = await backups.backup(at.config.database_url, folder, at.clock)
    _tell(at, manifest)


async def restore(folder: Path, /, *, at: At) -> None:
    """Bring a backup back into an empty database. Put its master key in place before you start the platform.

    Parameters
    ----------
    folder
        The folder of the backup.
    """
    manifest = await backups.restore(folder, at.config.database_url, at.clock)
    _tell(at, manifest)


async def check(*, at: At) -> int:
    """Look whether the database, the key, the clock, the disk, the ports and the carriers are as they must be.

    Ends with 1 if anything is not. Changes nothing.
    """
    found = await examine(at.config, at.clock)
    at.show((facts_of(each, "") | {"id": each.id} for each in found), "")
    return int(any(each.level is Level.ERROR for each in found))


async def show_config(*, at: At) -> None:
    """Print the settings in force and where each comes from; secrets are not shown."""
    rows = [{"setting": each.name, "value": each.value, "from": each.source} for each in settings.describe(at.config)]
    at.show(rows, "")


def listening(app: App) -> dict[str, object]:
    """What the ready file of a platform in earnest says: where it listens."""
    return {"http_port": app.ports.http, "https_port": app.ports.https, "smpp_port": app.ports.smpp}


async def _serving(config: Config, work: Coroutine[Any, Any, None]) -> None:
    """Run a server; what keeps it from starting is a sentence."""
    # Imported here, with the parts of a server: the other commands start in half the time without them.
    from berid.app import AlreadyRunning
    from berid.demo import InEarnest
    from berid.dialects import BrokenDialect
    from berid.trace import TracingMissing

    found = obstacle(config)
    if found is not None:
        work.close()
        raise Failed(found.sentence, found.hint)
    try:
        await work
    except (AlreadyRunning, BrokenDialect, InEarnest, TracingMissing) as error:
        raise Failed(str(error)) from None


def _log(config: Config) -> None:
    log.setup(config.log.level, config.log.format)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _tell(at: Here, manifest: backups.Manifest) -> None:
    size = f"{manifest.file_bytes / (1 << 20):.1f} MiB"
    at.say(
        f"{size} of {moment(manifest.made_ms)}, step {manifest.step}. {manifest.not_included}",
        made_at=moment(manifest.made_ms),
        file=manifest.file,
        bytes=manifest.file_bytes,
        sha256=manifest.sha256,
        step=manifest.step,
    )
