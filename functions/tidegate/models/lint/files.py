"""Reads files of a model safely: no devices, and nothing larger than expected."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

from tidegate.files import read_regular
from tidegate.models.lint.findings import Report

_POINTERS = (b"version https://git-lfs.github.com/spec/", b"/annex/objects/")
_MACHINE_PATH = re.compile(
    r"(?:file://)?/(?:home|root|Users|mnt|media|data|models?|workspace|srv|scratch|content|kaggle|dbfs|nfs|efs|tmp|var/tmp|"
    r"Volumes|private|storage|work)/\S.*|~/\S.*|[A-Za-z]:[\\/](?![\\/])\S.*",
)
"""Paths of one machine; `/opt/tritonserver`, `/usr` and `/dev` are in every image."""


def regular_size(path: Path) -> int | None:
    """Return the size of a regular file in bytes, links followed; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a regular file; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        if regular_size(path) is not None:
            with path.open("rb") as file:
                return file.read(size)
    return b""


def read_text(path: Path, file: str, report: Report, max_bytes: int) -> str | None:
    """Return the text of a file in UTF-8, read as by `read_data`; None, and a finding, if it is not UTF-8."""
    data = read_data(path, file, report, max_bytes)
    return None if data is None else decode_text(data, file, report)


def decode_text(data: bytes, file: str, report: Report) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        report("unreadable", "this is not UTF-8 text", "save it with the encoding UTF-8", file=file, line=line)
        return None


def read_data(path: Path, file: str, report: Report, max_bytes: int) -> bytes | None:
    """Return the content of a file; None, and a finding, if it cannot be read or is larger. `file` is its name in findings."""
    try:
        return read_regular(path, max_bytes)
    except OSError as error:
        message = f"cannot be read: {error.strerror or type(error).__name__}"
        hint = "check the link, the owner and the permissions"
        if error.errno in (errno.EISDIR, errno.EINVAL):
            message, hint = "this is not a file", "put a text file here"
        elif error.errno == errno.EFBIG:
            message, hint = f"larger than {max_bytes:,} bytes", "move data out of it"
        report("unreadable", message, hint, file=file)
        return None


def real(path: Path) -> Path:
    """Resolve links; unlike `Path.resolve` of older Pythons, also one to itself."""
    return Path(os.path.realpath(path))


def is_pointer(path: Path) -> bool:
    """Return whether a file is a pointer of Git LFS or git-annex in place of the real one."""
    head = read_head(path, 200)
    return head.startswith(_POINTERS[0]) or (len(head) < 200 and head.startswith(_POINTERS[1]))


def is_machine_path(text: str) -> bool:
    return _MACHINE_PATH.fullmatch(text) is not None
