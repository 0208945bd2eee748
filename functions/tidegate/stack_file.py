"""The file by which commands of the same user find a stack on this machine, with what opens its operators' endpoints.

It is in `$XDG_RUNTIME_DIR/tidegate`, else in `$XDG_CACHE_HOME/tidegate/stacks` or `~/.cache/tidegate/stacks`, whatever the
settings are, as those of a command need not be those of the stack. Only its owner can read it. Standard library alone:
every command that looks for a stack imports this.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.errors import StackError
from tidegate.files import read_regular

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MOST_BYTES = 64 * 1024
LONGEST_SOCKET = 100
"""Bytes of a Unix socket's path: the system takes 107."""


@dataclass(frozen=True, slots=True)
class StackFile:
    """A running stack: its gateway's address and its process, what opens `GET /v1/fleet` and the management endpoints of its
    Triton servers, and where the control plane itself answers `GET /v1/fleet`, whatever its gateway does (None: nowhere)."""

    url: str
    pid: int
    operator_token: str = field(repr=False)
    management_secret: str = field(repr=False)
    socket: Path | None = None


def folder() -> Path:
    """Return where the files of this user's stacks are. Raises `OSError` where that is unknown."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "tidegate"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "tidegate" / "stacks"
    except RuntimeError as error:
        raise OSError(str(error)) from error


def socket_of(port: int) -> Path | None:
    """Return where the control plane of the stack at a port answers; None where the path is too long for the system."""
    path = folder() / f"up-{port}.sock"
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET else None


@contextlib.contextmanager
def written(stack: StackFile) -> Iterator[Path]:
    """Write the file of a stack so that only its user can read it, and remove it afterwards, unless another stack has replaced
    it."""
    path = folder() / f"up-{urlsplit(stack.url).port}.json"
    draft = path.with_name(f".{path.name}.{stack.pid}")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(stack), file, default=str)
        draft.replace(path)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield path
    finally:
        known = _read(path)
        if known is not None and known.pid == stack.pid:
            path.unlink(missing_ok=True)


def prepare() -> None:
    """Create the folder of the files, and remove what killed stacks have left there. Raises `OSError` if others could write
    into it."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(1, f"{place} is not a folder of this user's own")
    # It may have been there already; the socket in it has no other lock for a moment.
    place.chmod(0o700)
    for path in place.glob("up-*.json"):
        known = _read(path)
        if known is not None and not _runs(known.pid):
            for left in (path, path.with_suffix(".sock")):
                left.unlink(missing_ok=True)
    for draft in place.glob(".up-*.json.*"):
        if draft.suffix[1:].isdecimal() and not _runs(int(draft.suffix[1:])):
            draft.unlink(missing_ok=True)


def find(url: str) -> StackFile | None:
    """Return the file of this user's running stack at an address of this machine, or None.

    The file of a killed stack does not count: whatever listens on its port now must not be sent its token.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in LOOPBACK or parts.port is None:
            return None
        known = _read(folder() / f"up-{parts.port}.json")
    except (OSError, ValueError):
        return None
    return known if known is not None and _runs(known.pid) else None


def _runs(pid: int) -> bool:
    """Return whether a process of this user has a number."""
    try:
        return (Path("/proc") / str(pid)).stat().st_uid == os.geteuid()
    except OSError:
        return False


def _read(path: Path) -> StackFile | None:
    """Return the file, unless another user owns it or could read it."""
    try:
        found = path.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            return None
        members = json.loads(read_regular(path, MOST_BYTES))
        socket = members["socket"]
        return StackFile(
            str(members["url"]),
            int(members["pid"]),
            str(members["operator_token"]),
            str(members["management_secret"]),
            None if socket is None else Path(socket),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
