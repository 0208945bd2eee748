"""What the kernel says of a process (https://man7.org/linux/man-pages/man5/proc.5.html)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

_CPU_TICKS, _STARTED_TICKS, _PAGES = (11, 12), 19, 21
"""Fields of `/proc/PID/stat` after the command's name, which may hold blanks and brackets."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """A process: its CPU time, memory, descriptors, and when it started (Unix seconds)."""

    cpu_s: float
    resident_bytes: int
    open_files: int
    started_at: float


def process_figures(pid: int) -> ProcessFigures | None:
    """Return the figures of a process of the same user; None if it has ended, or where there is no `/proc`."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        open_files = sum(1 for _ in (folder / "fd").iterdir())
    except (OSError, StopIteration):
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return ProcessFigures(
        sum(int(fields[field]) for field in _CPU_TICKS) / ticks_per_s,
        int(fields[_PAGES]) * os.sysconf("SC_PAGE_SIZE"),
        open_files,
        int(booted.split()[1]) + int(fields[_STARTED_TICKS]) / ticks_per_s,
    )


class LoopLag:
    """Measures how late the event loop is; `seconds` is the last measure."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self.seconds = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._every_s
            await asyncio.sleep(self._every_s)
            self.seconds = max(0.0, loop.time() - due)
