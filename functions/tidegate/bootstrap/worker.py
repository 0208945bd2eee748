"""A process that does the gateway's heavy work: `python -P -m tidegate.bootstrap.worker FD PARENT`, which `workers.py` starts.

It ends when the other end of its socket is closed, and with its parent, whatever it works on.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import traceback

from tidegate.bootstrap.frames import frame, receive_frame
from tidegate.bootstrap.parent import end_with_parent
from tidegate.web.heavy import perform

MOST_MEMORY_BYTES = 3 * 1024 * 1024 * 1024
NICENESS = 10
"""The event loop goes first where there are too few cores for both."""


def main(descriptor: int, parent: int) -> None:
    end_with_parent(parent)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    with socket.socket(fileno=descriptor) as connection:
        while (parts := receive_frame(connection)) is not None:
            try:
                answer = perform(bytes(parts[0]).decode(), parts[1:])
            except Exception as error:  # noqa: BLE001  # said below, and this process ends
                # Without its text, which may have values of the request; at once, as the end of the socket ends this process.
                place = "".join(traceback.format_tb(error.__traceback__))
                print(f"a worker failed: {type(error).__name__}\n{place}", end="", file=sys.stderr, flush=True)
                raise SystemExit(1) from None
            connection.sendall(frame([answer]))
            connection.sendall(answer)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
