"""Lines of JSON in a file or on standard output, written by a thread, so that a slow disk or pipe holds no request up."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Mapping
from typing import Any

from tidegate.errors import SettingsError

OFF = "off"
STDOUT = "stdout"
FLUSH_S = 0.1
MOST_BYTES = 4 * 1024 * 1024
"""Bytes that wait to be written; further lines are dropped, and counted."""

_CLOSE_S = 2.0
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


class LogFile:
    """Appends lines to a file. Used on one event loop.

    When lines had to be dropped, a line `{"dropped": n}` follows once the file takes lines again.

    `waiting_bytes` is how much has still to be written.

    Args:
        target: the path of the file, which is created, or `stdout`.

    Raises:
        SettingsError: the file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._file = _opened(target)
        self._lines: list[bytes] = []
        self.waiting_bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A daemon, since a pipe without a reader blocks it for ever.
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    def write(self, fields: Mapping[str, Any]) -> None:
        """Add a line, which is written within `FLUSH_S`; drop it if too much waits to be written."""
        with self._lock:
            is_full = self.waiting_bytes >= MOST_BYTES
            self._dropped += is_full
            dropped = 0 if is_full else self._dropped
            self._dropped -= dropped
        if dropped:
            self._add({"dropped": dropped})
        if not is_full:
            self._add(fields)

    def close(self) -> None:
        """Write what waits, for a bounded time."""
        self.flush()
        self._blocks.put(None)
        self._writer.join(_CLOSE_S)

    def _add(self, fields: Mapping[str, Any]) -> None:
        line = _encode(fields).encode() + b"\n"
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(line)
        with self._lock:
            self.waiting_bytes += len(line)

    def flush(self) -> None:
        """Give the writer the lines so far."""
        if self._lines:
            self._blocks.put(b"".join(self._lines))
            self._lines.clear()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            view = memoryview(block)
            lost = 0
            try:
                while view:
                    view = view[os.write(self._file, view) :]
            except OSError:
                # Such as a full disk, which may take later lines.
                lost = bytes(view).count(b"\n")
            with self._lock:
                self.waiting_bytes -= len(block)
                self._dropped += lost
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
