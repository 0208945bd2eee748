"""A pseudo-terminal on which a command runs."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.stack import ROOT, eventually

TIMEOUT_S = 300
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """What is shown on a terminal."""

    def __init__(self) -> None:
        self.side, self.other = pty.openpty()
        self.shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def text(self) -> str:
        """All that was ever shown, without control codes."""
        return CODES.sub("", self.shown.decode(errors="replace"))

    @property
    def screen(self) -> list[str]:
        """The lines that stand there: a line that was erased or returned to, is gone."""
        lines = [""]
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|\n)", self.shown.decode(errors="replace")):
            if part in ("\r\n", "\n"):
                lines.append("")
            elif part == "\r":
                pass
            elif part == "\x1b[2K":
                lines[-1] = ""
            elif re.fullmatch(r"\x1b\[[0-9]*A", part):
                del lines[-1:]
                lines = lines or [""]
            elif not part.startswith("\x1b["):
                lines[-1] += part
        return [line for line in lines if line]

    def begin(self) -> None:
        os.close(self.other)
        self._reader.start()

    def end(self) -> None:
        self._reader.join(TIMEOUT_S)
        os.close(self.side)

    def wait_for(self, text: str) -> None:
        """Wait until a text was shown."""
        assert eventually(lambda: text in self.text), self.text

    def _read(self) -> None:
        # A terminal whose other side is closed gives an error in place of an end.
        try:
            while part := os.read(self.side, 65536):
                self.shown += part
        except OSError:
            return


@contextmanager
def on_terminal(
    *arguments: object, variables: Mapping[str, str] | None = None, **streams: Any
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """Run `tidegate` in a process of its own with standard error, or further streams that are `None`, on a terminal."""
    terminal = Terminal()
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": None, **streams}
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", *map(str, arguments)],
        # A shell that runs tests in the background has Ctrl-C switched off, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT / "functions"), **(variables or {})},
        **{name: terminal.other if stream is None else stream for name, stream in given.items()},
    )
    terminal.begin()
    try:
        yield process, terminal
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        terminal.end()
