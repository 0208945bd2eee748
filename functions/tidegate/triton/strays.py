"""Processes that outlive the server whose models started them, as those in a session of their own do.

They have left the server's group, and whoever would adopt them may have been killed with it. What they cannot leave is the
environment that they were started with, which names a folder that no other server has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

ROUNDS = 40
PAUSE_S = 0.005


def end_strays(name: str, value: str) -> None:
    """Kill every process that was started with a variable of this value, until there is none, as they may start others
    meanwhile; for some 0.2 s at the most. Those of other users are out of reach."""
    variable = f"{name}={value}".encode()
    for _ in range(ROUNDS):
        strays = [pid for pid in _processes() if variable in _environment(pid)]
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    return []


def _environment(pid: int) -> list[bytes]:
    """The variables that a process was started with; none of one that has ended, or is another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
