"""Reading files of a model without being hurt by them: no devices, nothing endless, nothing larger than expected."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from tidegate.triton.checks.findings import Report

_POINTERS = (b"version https://git-lfs.github.com/spec/", b"/annex/objects/")
_MACHINE_PATH = re.compile(
    r"(?:file://)?/(?:home|root|Users|mnt|media|data|models?|workspace|srv|scratch|content|kaggle|dbfs|nfs|efs|tmp|var/tmp|"
    r"Volumes|private|storage|work)/\S.*|~/\S.*|[A-Za-z]:[\\/](?![\\/])\S.*",
)
"""Paths that exist on the machine of whoever wrote them; `/opt/tritonserver`, `/usr` and `/dev` are in every image."""


def regular_size(path: Path) -> int | None:
    """The size of a regular file in bytes, links followed; None for everything else and for what cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file; empty where it cannot be read."""
    if regular_size(path) is None:
        return b""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def read_text(path: Path, file: str, report: Report, max_bytes: int) -> str | None:
    """The text of a file in UTF-8; None, and a finding, where it is none. The arguments are those of `read_data`."""
    data = read_data(path, file, report, max_bytes)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        report("unreadable", "this is not UTF-8 text", "save it with the encoding UTF-8", file=file, line=line)
        return None


def read_data(path: Path, file: str, report: Report, max_bytes: int) -> bytes | None:
    """The content of a file that should hold text; None, and a finding, where it cannot be read.

    Args:
        path: where it is.
        file: its name in findings.
        report: takes what is wrong.
        max_bytes: the largest size that is read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            report("unreadable", "this is no file", "put a text file here", file=file)
            return None
        with path.open("rb") as opened:
            data = opened.read(max_bytes + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        report("unreadable", f"cannot be read: {reason}", "check the link, the owner and the permissions", file=file)
        return None
    if len(data) > max_bytes:
        report("unreadable", f"larger than {max_bytes:,} bytes", "move data out of it", file=file)
        return None
    return data


def real(path: Path) -> Path:
    """Where links lead. Unlike `Path.resolve` in older versions of Python, it gives a link to itself as it is."""
    return Path(os.path.realpath(path))


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer of Git LFS or git-annex that stands for the real one."""
    head = read_head(path, 200)
    return head.startswith(_POINTERS[0]) or (len(head) < 200 and head.startswith(_POINTERS[1]))


def is_machine_path(text: str) -> bool:
    """Whether a text is a path that only some machines have."""
    return _MACHINE_PATH.fullmatch(text) is not None
