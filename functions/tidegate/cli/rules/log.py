"""A log of contexts as a stream of bytes: a file or standard input, plain or gzip by its content; and its skipped lines."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import click

from tidegate.cli import progress
from tidegate.cli.columns import count

LOG = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
STANDARD_INPUT = Path("-")

NAMED_LINES_PER_REASON = 5
_GZIP = b"\x1f\x8b"
_PIPE = "decompress it into --log -"
_UNREAD = {
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", f"{_PIPE} (zstd -dc)"),
    b"BZh": ("compressed by bzip2", f"{_PIPE} (bzip2 -dc)"),
    b"\xfd7zXZ": ("compressed by xz", f"{_PIPE} (xz -dc)"),
    b"PK\x03\x04": ("a zip archive", f"{_PIPE} (unzip -p)"),
}
"""Formats that are recognised by their first bytes, and refused."""


class LogFile:
    """An open log, with its name in messages, and its size as it is stored (None if it is not a file)."""

    def __init__(self, name: str, stored: io.BufferedReader) -> None:
        self.name = name
        self.size_bytes = _size_bytes(stored)
        self._stored, self._read_bytes = stored, 0
        try:
            head = stored.peek(6)[:6]
        except OSError as error:
            raise _unreadable(name, error) from error
        for magic, (form, hint) in _UNREAD.items():
            if head.startswith(magic):
                raise click.BadParameter(f"{name} is {form}, and only gzip is read; {hint}", param_hint="--log")
        # `read1` returns what has arrived so far: a pipe is followed, and nothing is lost if a gzip stream is cut off.
        self._read1: Callable[[int], bytes]
        self._read1 = gzip.GzipFile(fileobj=stored).read1 if head.startswith(_GZIP) else stored.read1

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes of the log, none at its end."""
        try:
            data = self._read1(size)
        except gzip.BadGzipFile:
            raise
        except OSError as error:
            raise _unreadable(self.name, error) from error
        self._read_bytes += len(data)
        return data

    def position_bytes(self) -> int:
        """Return how much was read: stored bytes if `size_bytes` is known, else decompressed ones."""
        return self._stored.tell() if self.size_bytes is not None else self._read_bytes


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[LogFile]:
    """Open a log, or standard input for `-`. One that cannot be read is wrong usage."""
    if path == STANDARD_INPUT:
        yield LogFile("standard input", _standard_input())
        return
    try:
        stored = path.open("rb")
    except OSError as error:
        raise _unreadable(str(path), error) from error
    with stored:
        yield LogFile(str(path), stored)


def _standard_input() -> io.BufferedReader:
    # None if the program was started without one.
    if sys.stdin is None:
        raise click.BadParameter("standard input is closed", param_hint="--log")
    stream = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))


def _size_bytes(stored: io.BufferedReader) -> int | None:
    try:
        status = os.fstat(stored.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _unreadable(name: str, error: OSError) -> click.BadParameter:
    return click.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint="--log")


def shown_reading(log: LogFile) -> Callable[[], None]:
    """Return a function that shows how far a log has been read."""
    return lambda: progress.note(
        f"reading {log.name}, {log.position_bytes() / 1e6:,.0f} MB", log.position_bytes(), log.size_bytes
    )


class Skipped:
    """Counts the lines that were not used by the reason, and keeps the numbers of the first few."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}

    def add(self, line: int, reason: str) -> None:
        """Count a line."""
        self._counts[reason] += 1
        first = self._first.setdefault(reason, [])
        if len(first) < NAMED_LINES_PER_REASON:
            first.append(line)

    def as_list(self) -> list[dict[str, Any]]:
        """Return the reasons as plain JSON values, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))
        return [{"reason": reason, "lines": lines, "first_lines": self._first[reason]} for reason, lines in ordered]

    def words(self) -> str:
        """Return the reasons in one line."""
        return "; ".join(
            f"{count(each['lines'], 'line')} skipped: {each['reason']}, first in line {each['first_lines'][0]}"
            for each in self.as_list()
        )
