"""A Berid process of its own: started with its own folder and ports, killed, started again, its log read.

berid = BeridProcess(folder, database_url, {"BERID_VALIDITY_OTP_S": "5"})
await berid.start()                     # returns when it serves; berid.url says where
berid.kill()                            # SIGKILL, as a loss of power to the process
await berid.start("start.after_commit:3")   # armed to kill itself there
await berid.ended(10)
await berid.stop()                      # SIGTERM; the exit code
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

START_S = 30.0
"""How long a start may take. Two busy cores make it ten times as long as an idle machine."""

POLL_S = 0.02

_RUN = "import sys; from berid.cli import main; sys.exit(main())"


class NotServing(RuntimeError):
    """The process did not come to serve, or did not end in time. The text holds the end of its log."""


class BeridProcess:
    """One `berid serve`. `settings` are environment variables; `before` is a command that it is started under."""

    def __init__(
        self, folder: Path, database_url: str, settings: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.settings = dict(settings or {})
        self.before = tuple(before)
        self.url = ""
        self.log_file = folder / "log"
        self._ready = folder / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, failpoint: str = "") -> None:
        """Start it and return when it serves. Raises `NotServing`; with a `failpoint` its early death is no error."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ready.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BERID_")}
        environment |= {
            "BERID_DATA_DIR": str(self.folder),
            "BERID_DATABASE_URL": self.database_url,
            "BERID_READY_FILE": str(self._ready),
            "BERID_HTTP_PORT": "0",
            "BERID_SMPP_PORT": "0",
            "BERID_NET_ALLOWED_NETWORKS": "127.0.0.0/8",
            "BERID_LOG_FORMAT": "text",
            **self.settings,
        }
        if failpoint:
            environment["BERID_FAILPOINT"] = failpoint
        command = [*self.before, sys.executable, "-c", _RUN, "serve"]
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        end_s = time.monotonic() + START_S
        while not self._ready.exists():
            if self._process.poll() is not None and failpoint:
                return
            if self._process.poll() is not None or time.monotonic() > end_s:
                self.kill()
                raise NotServing(f"the process does not serve; its log ends with\n{self.log[-3000:]}")
            await asyncio.sleep(POLL_S)
        ports = json.loads(self._ready.read_text())
        self.url = f"http://127.0.0.1:{ports['http_port']}"

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs or if it was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """All that it and those before it in this folder wrote."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def signal(self, number: int) -> None:
        """Send it any signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ended(self, timeout_s: float) -> int:
        """Wait until it has ended by itself; its exit code, negative for a signal. Raises `NotServing`."""
        assert self._process is not None
        end_s = time.monotonic() + timeout_s
        while (code := self._process.poll()) is None:
            if time.monotonic() > end_s:
                raise NotServing(
                    f"the process did not end within {timeout_s:g} s; its log ends with\n{self.log[-3000:]}"
                )
            await asyncio.sleep(POLL_S)
        return code

    async def stop(self, timeout_s: float = 50.0) -> int:
        """SIGTERM, and wait; the exit code. Raises `NotServing` when it takes longer than that."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended(timeout_s)
