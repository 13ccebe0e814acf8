"""What must stay true of the repository itself."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from berid import __version__
from tools import docs

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Written in two halves, so that this file does not hold what it looks for.
INDEXES = re.compile(
    "|".join(["pypi" + r"\.", "python" + "hosted", "index" + "-url", "find" + "-links", "/opt/" + "pypi"])
)
MACHINE_PATHS = re.compile(r"(?<![\w.}])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + r"me/\w+"]) + ")/")


def files() -> list[Path]:
    """Every file that is, or is about to be, part of the repository."""
    if not (ROOT / ".git").exists():  # an unpacked archive
        found = [Path(folder, name) for folder, _, names in os.walk(ROOT) for name in names]
        return [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]
    # Another owner's checkout is read as well: nothing in it is run.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """The files that are text, by their path from the root."""
    found = {}
    for path in files():
        try:
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def pins(name: str) -> dict[str, Version]:
    """Package → version of a requirements file."""
    lines = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {package: Version(version) for package, version in lines}


def assert_pinned(requirements: list[str], file: str) -> None:
    """Each requirement has a version in `file` that satisfies it."""
    versions = pins(file)
    for each in map(Requirement, requirements):
        assert each.name in versions, f"{each.name} is not in {file}; run make lock"
        assert each.specifier.contains(versions[each.name]), (
            f"{each.name} in {file} is not {each.specifier}; run make lock"
        )


def test_lock_of_one_machine_is_not_part_of_the_repository() -> None:
    assert [path.name for path in files() if path.name in ("uv.lock", "pylock.toml")] == []


@pytest.mark.parametrize("pattern", [INDEXES, MACHINE_PATHS], ids=["package index", "machine path"])
def test_no_file_names_a_place_that_others_do_not_have(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_page_names_only_make_targets_that_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^ *|&& )make (\w+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets
    assert {"run", "test"} <= named or page != "README.md"


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, text in texts().items() if name.endswith(".py") and not ast.get_docstring(ast.parse(text))]
    assert silent == []


def test_requirements_are_in_step_with_the_project() -> None:
    run = PROJECT["project"]["dependencies"]
    tracing = PROJECT["project"]["optional-dependencies"]["tracing"]
    assert_pinned(run, "requirements.txt")
    assert_pinned(run + tracing, "requirements-tracing.txt")
    assert_pinned(run + tracing + PROJECT["dependency-groups"]["dev"], "requirements-dev.txt")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-tracing.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_by_hash(name: str) -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / name).read_text(encoding="utf-8").strip())
    assert [block for block in blocks if not re.match(r"[\w.-]+==\S+.*\\\n +--hash=sha256:", block)] == []
    dev = pins("requirements-dev.txt")
    assert {package: version for package, version in pins(name).items() if dev[package] != version} == {}


@pytest.mark.parametrize("page", list(docs.PAGES))
def test_generated_page_is_fresh(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == docs.PAGES[page](), "run make docs"


def test_changelog_tells_of_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert __version__ in headings


def test_what_is_run_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
