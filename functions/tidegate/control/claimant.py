"""Find out whether the process that left a claim has certainly ended, so that no process waits for it."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

UNKNOWN = "0" * 12


@functools.cache
def _machine() -> str:
    """Return an id that only processes with the same table of process ids share; `UNKNOWN` if the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return UNKNOWN
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]


def origin() -> str:
    """Return the prefix of the ids of this process's claims: `<machine>-<process id>`."""
    return f"{_machine()}-{os.getpid()}"


def has_ended(claim_id: str) -> bool:
    """Return whether the process that made a claim's id ran on this machine and has ended; False if that is uncertain."""
    parts = claim_id.split("-")
    if len(parts) != 4 or parts[1] == UNKNOWN or parts[1] != _machine() or not parts[2].isdecimal():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except (OverflowError, PermissionError):
        return False
    return False
