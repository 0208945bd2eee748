"""Where resolvers listen, and the folder of their state."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.bootstrap.resolver_process import bound
from tidegate.errors import SettingsError, StackError


@dataclass(frozen=True, slots=True)
class Places:
    """Where resolvers listen: ports of addresses that all of them bind, and Unix sockets that they inherit.

    With `is_shared` false there is a port for each of them, so that a proxy can tell them apart.
    """

    ports: tuple[tuple[str, int], ...] = ()
    sockets: tuple[socket.socket, ...] = ()
    is_shared: bool = True

    def arguments(self, number: int) -> list[str]:
        """Return the places of a resolver, by its number from 0, as its process takes them."""
        ports = self.ports if self.is_shared else self.ports[number : number + 1]
        return [*(f"{host}:{port}" for host, port in ports), *(str(each.fileno()) for each in self.sockets)]


@contextlib.contextmanager
def reserved(listen: Sequence[str], *, is_shared: bool = True) -> Any:
    """Reserve places to listen at, `HOST:PORT` (0: any free port) or `unix:PATH`, and yield them. They are given back afterwards.

    Raises:
        StackError: one cannot be used.
    """
    with contextlib.ExitStack() as held:
        ports, sockets = [], []
        for place in listen:
            try:
                if place.startswith("unix:"):
                    path = Path(place.removeprefix("unix:"))
                    sockets.append(_unix(path))
                    held.callback(path.unlink, missing_ok=True)
                    held.callback(sockets[-1].close)
                else:
                    host, _, port = place.rpartition(":")
                    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
                        # Without SO_REUSEPORT, so that no other resolver's port is shared by mistake.
                        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        free.bind((host.strip("[]"), int(port)))
                        number = free.getsockname()[1]
                    # Bound and not listening: it keeps others away, and gets no connection.
                    held.callback(bound(host, number).close)
                    ports.append((host, number))
            except OSError as error:
                raise StackError(
                    f"{place} cannot be listened at: {error.strerror}; name another with --listen"
                ) from error
        yield Places(tuple(ports), tuple(sockets), is_shared)


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            # Of a process that was killed; one that lives still accepts.
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(path)) == 0:
                    raise OSError(98, "another process listens there")
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def state_folder(path: Path) -> Path:
    """Create the folder of a resolver's state, or check that it is this user's alone. It is this process's until it ends.

    Raises:
        SettingsError: it cannot be used, or another process uses it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise SettingsError(
                f"{path} must be a folder that only this user can write to: resolvers serve the rules in it"
            )
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"another process uses {path}: give each one a folder of its own (--state)") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be used as the folder of the state: {error.strerror}") from error
    return path
