"""The tie between the processes of a local stack: what one gets of its parent's environment, and how it ends with it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_HIDDEN = ("TIDEGATE_", "AWS_")


def environment_without_secrets() -> dict[str, str]:
    """The variables for a process that reads what strangers send: no settings and no credentials, which are not its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process with the thread of process `parent` that started it, however busy this one is; exit
    where that has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)
