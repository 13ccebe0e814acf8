"""Certificates of our own listeners: how one is loaded, and how a renewed one is taken without a restart."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from berid.base.clock import Clock

log = logging.getLogger("berid.tls")

LOOK_S = 10.0
"""How often the age of a certificate's files is looked at."""


def load(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a listener needs to speak TLS: `certificate` with its chain and its private `key`, both PEM.

    Raises OSError, whose `filename` is the file that cannot be read, and ssl.SSLError for files that are no certificate with
    its key, or a key that is locked by a password.
    """
    for file in (certificate, key):
        with file.open("rb"):  # the ssl module does not say which of the two is missing
            pass
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # A password, even an empty one, makes a locked key an error and not a question at the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


async def follow(context: ssl.SSLContext, certificate: Path, key: Path, clock: Clock, listener: str) -> None:
    """Load the files into `context` again whenever they have changed, for ever; what cannot be used is logged, and the old
    certificate stays. `listener` names it in the log.

    They are tried in a context of their own first: OpenSSL takes the new certificate before it sees that the key does not
    belong to it, and a context in that state greets nobody. Two files cannot be renewed at once, so this does happen.
    """
    seen = _ages(certificate, key)
    while True:
        await clock.sleep(LOOK_S)
        try:
            changed = _ages(certificate, key)
            if changed == seen:
                continue
            load(certificate, key)
            context.load_cert_chain(certificate, key, password="")
            seen = changed
            log.info("a renewed certificate is in use", extra={"listener": listener})
        except OSError as error:
            log.error("a renewed certificate cannot be used", extra={"listener": listener, "why": str(error)})


def _ages(*files: Path) -> tuple[int, ...]:
    return tuple(file.stat().st_mtime_ns for file in files)
