"""Finds processes that outlive the server whose models started them, such as those in a session of their own.

They have left the server's process group, but not the environment that they were started with, which has a folder that no
other server uses.
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
    """Kill this user's processes that were started with a variable of this value, again until there is none, as they may start
    others meanwhile, for at most 0.2 s."""
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
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
