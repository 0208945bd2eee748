"""Reads files that others control: no devices, no blocking pipes, and no unlimited size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file; symbolic links are followed.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than `max_bytes`.
    """
    # The mode is checked before, since opening a device can have effects, and after, since another process can replace the
    # file. Without O_NONBLOCK, opening a named pipe waits for a writer.
    _refuse_irregular(path.stat().st_mode)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        _refuse_irregular(os.fstat(opened.fileno()).st_mode)
        data = opened.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes")
    return data


def _refuse_irregular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
