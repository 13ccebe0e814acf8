"""Places at which a test can end the process as if by SIGKILL, to prove that nothing is lost there.

`BERID_FAILPOINT=name` or `name:N` arms one: the process kills itself at the N-th time it passes (the first, without
N). Unarmed, a failpoint costs one look at an empty dictionary. The names are listed in docs/flow.md; the kill test
visits every one.
"""

from __future__ import annotations

import os
import signal

ENV = "BERID_FAILPOINT"
"""The environment variable that arms one. It is no setting: only tests have a use for it."""


def _read(text: str) -> dict[str, int]:
    name, _, count = text.partition(":")
    return {name: int(count or 1)} if name else {}


armed: dict[str, int] = _read(os.environ.get(ENV, ""))
"""Name → how many more times it may be passed. Look at it before calling `hit` where even a call would cost."""


def hit(name: str) -> None:
    """Pass the failpoint `name`; does not return when its time has come."""
    if name in armed:
        armed[name] -= 1
        if armed[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
