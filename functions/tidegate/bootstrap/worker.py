"""A process that does the gateway's heavy work: `python -m tidegate.bootstrap.worker FD`, which `workers.py` starts.

It ends when the other end of its socket is closed.
"""

from __future__ import annotations

import os
import resource
import socket
import sys

from tidegate.bootstrap.frames import frame, receive_frame
from tidegate.web.heavy import perform

MOST_MEMORY_BYTES = 3 * 1024 * 1024 * 1024
NICENESS = 10
"""The event loop goes first where there are too few cores for both."""


def main(descriptor: int) -> None:
    """Do one piece of work after another."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    with socket.socket(fileno=descriptor) as connection:
        while (parts := receive_frame(connection)) is not None:
            answer = perform(bytes(parts[0]).decode(), parts[1:])
            connection.sendall(frame([answer]))
            connection.sendall(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
