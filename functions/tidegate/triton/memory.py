"""How much memory this machine, or the container that this process runs in, has left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""The files of a limit, of what is used of it and of what that consists of, below the root of version 2 and of version 1;
and the name in the last one of cached files, which the kernel drops before anything else."""


def available_bytes(root: Path = Path("/")) -> int:
    """The bytes that processes can take before something is swapped out or ended.

    Args:
        root: the folder that has `proc` and `sys`.
    """
    return min(_left(root))


def _left(root: Path) -> Iterator[int]:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
    for *names, cached in _CGROUPS:
        try:
            limit, used, parts = ((root / "sys/fs/cgroup" / name).read_text().strip() for name in names)
        except OSError:
            continue
        if limit != "max":
            sizes = dict(line.split(maxsplit=1) for line in parts.splitlines())
            yield max(0, int(limit) - max(0, int(used) - int(sizes.get(cached, 0))))
