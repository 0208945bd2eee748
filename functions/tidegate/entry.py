"""The start of the program `tidegate`: Ctrl-C ends it with exit code 130 and without a traceback, also while it imports."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the signal's number."""


def main() -> None:
    """Run the command line."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from tidegate.cli import main as command

    try:
        # From here on Ctrl-C is an exception, which lets go of what a command holds.
        signal.signal(signal.SIGINT, before)
        command(prog_name="tidegate")
    except KeyboardInterrupt:
        # It came before the command could catch it.
        raise SystemExit(INTERRUPTED) from None
    finally:
        # The work is done: a late Ctrl-C must not kill the ending interpreter in place of the command's exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
