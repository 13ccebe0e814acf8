"""Write the generated pages of docs/: `python -m tools.docs`. A test fails when one is stale."""

from collections.abc import Callable
from pathlib import Path

from berid import cli, config
from berid.channels.sms import settings as connectors
from berid.dialects.native import problems

ROOT = Path(__file__).resolve().parent.parent
PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": cli.reference,
    "docs/config.md": config.reference,
    "docs/connectors.md": connectors.reference,
    "docs/errors.md": problems.page,
}
"""Every generated page and the function that gives its text."""


def main() -> None:
    """Write every page whose text has changed."""
    for name, text_of in PAGES.items():
        page = ROOT / name
        text = text_of()
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
            print(f"wrote {name}")


if __name__ == "__main__":
    main()
