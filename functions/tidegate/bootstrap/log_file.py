"""Lines of JSON in a file or on standard output, written by a thread, so that a slow disk or pipe holds no request up."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import Final

from tidegate.errors import SettingsError

OFF = "off"
STDOUT = "stdout"
FLUSH_S: Final = 0.1
MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes that wait to be written; further lines are dropped, and counted."""

_CLOSE_S = 2.0


class LogFile:
    """Appends lines to a file. Used on one event loop.

    When lines had to be dropped, a line `{"dropped": n}` follows once the file takes lines again.

    Args:
        target: the path of the file, which is created, or `stdout`.

    Raises:
        SettingsError: the file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._file = _opened(target)
        self._lines: list[bytes] = []
        # The loop's own counts and the writer's: each changes only its own, so that no line needs a lock.
        self._taken_bytes = 0
        self._dropped = 0
        self._done_bytes = 0
        self._lost = 0
        self._reported = 0
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A daemon, since a pipe without a reader blocks it for ever.
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    @property
    def waiting_bytes(self) -> int:
        """How much has still to be written."""
        return self._taken_bytes - self._done_bytes

    def write(self, line: bytes) -> None:
        """Add a line, given without its end, which is written within `FLUSH_S`; drop it if too much waits to be written."""
        if self._taken_bytes - self._done_bytes >= MOST_BYTES:
            self._dropped += 1
            return
        missing = self._dropped + self._lost - self._reported
        if missing:
            self._reported += missing
            self._add(b'{"dropped":%d}' % missing)
        self._add(line)

    def close(self) -> None:
        """Write what waits, for a bounded time."""
        self.flush()
        self._blocks.put(None)
        self._writer.join(_CLOSE_S)

    def _add(self, line: bytes) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(line)
        self._taken_bytes += len(line) + 1

    def flush(self) -> None:
        """Give the writer the lines so far."""
        if self._lines:
            self._lines.append(b"")
            self._blocks.put(b"\n".join(self._lines))
            self._lines.clear()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            view = memoryview(block)
            try:
                while view:
                    # Apart: mypyc evaluates the bounds of a slice of such an object twice.
                    written = os.write(self._file, view)
                    view = view[written:]
            except OSError:
                # Such as a full disk, which may take later lines.
                self._lost += bytes(view).count(b"\n")
            self._done_bytes += len(block)
        os.close(self._file)


def check_log(target: str) -> None:
    """Check that the file of a log can be written.

    Raises:
        SettingsError: it cannot be opened.
    """
    os.close(_opened(target))


def _opened(target: str) -> int:
    try:
        if target == STDOUT:
            return os.dup(1)
        return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise SettingsError(f"TIDEGATE_ACCESS_LOG: {target} cannot be opened: {error.strerror}") from error
