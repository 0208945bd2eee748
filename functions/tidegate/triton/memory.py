"""How much memory this machine, or the container that this process runs in, has left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""The files of a limit and of what is used of it, below the root of version 2 and of version 1."""


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
    for limit, used in _CGROUPS:
        try:
            texts = [(root / "sys/fs/cgroup" / name).read_text().strip() for name in (limit, used)]
        except OSError:
            continue
        if texts[0] != "max":
            yield max(0, int(texts[0]) - int(texts[1]))
