"""Make the virtual environment in .venv: `python3 tools/setup.py run` or `python3 tools/setup.py dev`.

`run` installs what the platform needs, `dev` adds what its tests need. Both install exactly the files
that requirements.txt or requirements-dev.txt pin by hash, and put two things beside them, so that the
package is used in place: a path file that names this folder, and the `berid` command. Nothing outside
.venv is written.

Needs nothing but Python 3.11 or newer with its standard library, and pip 22.3 or newer, either for that
Python or as its ensurepip. A second run sees by a stamp that nothing has changed and ends at once. A
changed requirements file or a Python that is gone makes it work again.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = {"run": "requirements.txt", "dev": "requirements-dev.txt"}
OLDEST_PYTHON = (3, 11)
OLDEST_PIP = (22, 3)  # the first that installs into another interpreter with --python

# The command asks its own folder for the interpreter, so that a moved or copied checkout still works.
COMMAND = '#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/python" -m berid "$@"\n'


def main() -> None:
    """Bring .venv to the state that the named set of requirements asks for."""
    wanted = sys.argv[1] if len(sys.argv) == 2 else ""
    if wanted not in REQUIREMENTS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(REQUIREMENTS)}")
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "Berid needs Python 3.11 or newer; this is {}.{}.\nName another: make PYTHON=python3.11 ...".format(
                *sys.version_info
            )
        )
    with open(__file__) as this_file:
        fcntl.flock(this_file, fcntl.LOCK_EX)  # a second `make` waits, then finds it done
        if not is_current(wanted):
            install(wanted)


def is_current(wanted: str) -> bool:
    """Whether .venv works here and holds the wanted requirements; what `dev` installs serves `run` too."""
    sets = ["run", "dev"] if wanted == "run" else [wanted]
    return is_working() and any(_stamp(name).is_file() and _stamp(name).read_text() == mark(name) for name in sets)


def is_working() -> bool:
    """Whether .venv has an interpreter that starts: a copied folder may point to a Python that is gone."""
    return PYTHON.exists() and subprocess.run([PYTHON, "-c", ""], check=False, capture_output=True).returncode == 0


def mark(name: str) -> str:
    """What the stamp of an up-to-date installation says: the contents of everything that decides it."""
    parts = [(ROOT / REQUIREMENTS[name]).read_bytes(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install(wanted: str) -> None:
    """Create .venv if it does not work, install the requirements, and stamp the result."""
    if not is_working():
        # Without pip inside: Debian's python3 has no ensurepip unless python3-venv is installed as well.
        command = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)]
        run(command, "cannot make a virtual environment in .venv")
    for name in REQUIREMENTS:
        _stamp(name).unlink(missing_ok=True)
    print(f"Installing {REQUIREMENTS[wanted]} into .venv ...", flush=True)
    # The file names every package needed, so nothing is left to resolve. Byte code is made at first use.
    options = ["--quiet", "--no-deps", "--no-compile", "--require-hashes", "--disable-pip-version-check"]
    run(
        [*pip(), "install", *options, "-r", str(ROOT / REQUIREMENTS[wanted])],
        "pip could not install the requirements; its last lines above say why",
    )
    put_berid_in_place()
    _stamp(wanted).write_text(mark(wanted))


def pip() -> list[str]:
    """The command that runs pip for .venv: this Python's own, or the one that ensurepip puts inside."""
    answer = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True)
    if answer.returncode == 0 and _version(answer.stdout.split()[1]) >= OLDEST_PIP:
        return [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    missing = "pip is missing for this Python. Install it, on Debian: apt install python3-pip"
    run([str(PYTHON), "-m", "ensurepip", "--default-pip"], missing)
    return [str(PYTHON), "-m", "pip"]


def put_berid_in_place() -> None:
    """Let .venv import the package from this folder, and give it the `berid` command."""
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([PYTHON, "-c", question], text=True).strip())
    # A relative line in a path file is read from the file's own folder.
    (packages / "berid.pth").write_text(os.path.relpath(ROOT, packages) + "\n")
    command = PYTHON.with_name("berid")
    command.write_text(COMMAND)
    command.chmod(0o755)


def run(command: list[str], failure: str) -> None:
    """Run a command whose output the user sees; end with the sentence `failure` if it does not succeed."""
    if subprocess.run(command).returncode != 0:
        sys.exit(f"make setup: {failure}.")


def _stamp(name: str) -> Path:
    return VENV / f".{name}-stamp"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


if __name__ == "__main__":
    main()
