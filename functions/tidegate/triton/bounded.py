"""A program that runs a command and its descendants with limited memory, and removes all traces of them.

    python bounded.py LIMIT_BYTES SHARED_MEMORY_PREFIX FOLDER COMMAND…

It kills the descendants, removes the shared memory and the folder, and exits: like the command when that ends; with
`OVER_MEMORY` once the processes use more than LIMIT_BYTES together; on SIGTERM; and when its standard input ends, as it does
with the parent. Orphans of the command become its children, so that none escapes. If the machine runs out of memory, the
kernel kills these processes first.

It imports the standard library alone, and starts in 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

OVER_MEMORY = 97
"""Exit code after the processes exceeded the limit."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory is on Linux
WATCH_S = 0.05
ENDING_S = 0.005
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_FIRST_TO_GO = "1000"


class _EndedError(Exception):
    """SIGTERM was received."""


def run(limit_bytes: int, prefix: str, folder: str, command: list[str]) -> int:
    """Run the command, and return its exit code; a negative one is the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)

    try:
        # Safe, as this process has one thread.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare)  # noqa: S603
        while (code := process.poll()) is None:
            if memory_bytes() > limit_bytes:
                return OVER_MEMORY
            readable, _, _ = select.select([sys.stdin], [], [], WATCH_S)
            if readable and not os.read(sys.stdin.fileno(), 1):
                return -signal.SIGTERM
    except _EndedError:
        return -signal.SIGTERM
    else:
        return code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_all()
        for region in SHARED_MEMORY.glob(f"{prefix}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def memory_bytes() -> int:
    """Return the memory of all descendants, without mapped files."""
    return sum(_own_bytes(pid) for pid in descendants(os.getpid()))


def descendants(pid: int) -> list[int]:
    """Return the ids of the descendants of a process, zombies included."""
    found: list[int] = []
    for thread in _listed(Path(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found + [each for child in found for each in descendants(child)]


def end_all() -> None:
    """Kill every descendant, again until there is none, as they may start others meanwhile."""
    while below := descendants(os.getpid()):
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        select.select([], [], [], ENDING_S)


def _own_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def main(arguments: list[str]) -> None:
    """Run the command, and exit like it."""

    def end(_number: int, _frame: object) -> None:
        raise _EndedError

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_bytes, prefix, folder, *command = arguments
    code = run(int(limit_bytes), prefix, folder, command)
    if code >= 0:
        sys.exit(code)
    with contextlib.suppress(OSError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


if __name__ == "__main__":
    main(sys.argv[1:])
