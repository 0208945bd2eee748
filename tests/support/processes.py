"""What Linux tells of other processes, and ports for them."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
from pathlib import Path

from tidegate.triton.server import reserved_ports

PROC = Path("/proc")
_LISTENS = "0A"
_kept = contextlib.ExitStack()
"""The sockets that keep ports, until this process ends."""


def reserve_port() -> int:
    """A port of 127.0.0.1 for a server to listen on: no other program gets it while this process runs.

    The server must set `SO_REUSEADDR`, as most do.
    """
    (port,) = _kept.enter_context(reserved_ports(1))
    return port


@functools.cache
def refusing_port(number: int = 0) -> int:
    """A port of 127.0.0.1 that refuses connections while this process runs; each number has another."""
    taken = _kept.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    return int(taken.getsockname()[1])


def listener_pid(port: int) -> int:
    """The process that accepts connections on a TCP port of 127.0.0.1: of several that hold its socket, the child."""
    found = listener_pids(port)
    assert found, f"nothing listens on port {port}"
    return next((pid for pid in found if _parent(pid) in found), min(found))


def listener_pids(port: int) -> set[int]:
    """The processes that hold a socket which accepts connections on a TCP port of 127.0.0.1."""
    rows = [line.split() for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENS and int(row[1].partition(":")[2], 16) == port}
    return {pid for pid in pids() if inodes & set(_links(pid))}


def pids() -> list[int]:
    """Every process."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdecimal()]


def children_running(module: str, parent: int) -> list[int]:
    """The processes that run a module and name their parent's process id among its arguments."""
    found = []
    for pid in pids():
        with contextlib.suppress(OSError):
            arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            if module.encode() in arguments and str(parent).encode() in arguments:
                found.append(pid)
    return found


def resident_mib(pid: int) -> float:
    """Memory that a process holds, in MiB."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list((PROC / str(pid) / "fd").iterdir()))


def _links(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for path in (PROC / str(pid) / "fd").iterdir():
            # What is open may be closed while one looks.
            with contextlib.suppress(OSError):
                found.append(str(path.readlink()))
    return found


def _parent(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def end(process: subprocess.Popen[bytes], within_s: float) -> None:
    """End a process by SIGTERM, if it still runs, and close its standard output. Raises `subprocess.TimeoutExpired`: it had to be killed."""
    try:
        if process.poll() is None:
            process.terminate()
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
