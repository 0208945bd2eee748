"""What a command does, on standard error while it prints nothing: a line that comes after a second of silence, on a terminal only.

`group.py` watches every command. What prints, calls `quiet` before; what knows more than the command's name, calls `note`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tidegate.errors import printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.spinner import Spinner

APPEARS_S = 1.0
"""Silence after which the line appears, in seconds."""

_TICK_S = 0.1


class _Line:
    """The line of one command. A thread draws it, so that it also moves while the command computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._began_s = self._silent_since_s = time.monotonic()
        self._text, self._share = "", ""
        self._counted: tuple[float | None, float, float] = (None, 0.0, 0.0)
        self._drawn: tuple[Live, Spinner] | None = None
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._thread.start()

    def note(self, text: str, done: float, total: float | None) -> None:
        now_s = time.monotonic()
        if self._counted[0] != total:
            self._counted = (total, done, now_s)
        _, first, since_s = self._counted
        share = ""
        if total:
            share = f" {done / total:.0%}"
            if done > first and now_s - since_s > APPEARS_S:
                share += f", {(now_s - since_s) * (total - done) / (done - first):,.0f} s left"
        self._text, self._share = printable(text), share

    def quiet(self) -> None:
        with self._lock:
            self._silent_since_s = time.monotonic()
            self._erase()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        # A terminal may be closed meanwhile.
        with contextlib.suppress(OSError):
            while not self._over.wait(_TICK_S):
                with self._lock:
                    if time.monotonic() - self._silent_since_s >= APPEARS_S:
                        self._draw()
            with self._lock:
                self._erase()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        if self._drawn is None:
            console = Console(stderr=True)
            if console.is_dumb_terminal:
                return
            spinner = Spinner("dots")
            # Redirected, standard output would end on standard error.
            live = Live(
                spinner,
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            live.start()
            self._drawn = live, spinner
        live, spinner = self._drawn
        took = f"{self._share} ({time.monotonic() - self._began_s:.0f} s)"
        text = Text(self._text)
        # The spinner and a blank are before it.
        text.truncate(max(1, live.console.width - len(took) - 3), overflow="ellipsis")
        spinner.update(text=text.append(took))
        live.refresh()

    def _erase(self) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()
            self._drawn = None


_line: _Line | None = None


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Show the line during a block, as soon as `note` has said what is done."""
    global _line  # a terminal has one line at its end
    if _line is not None or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    _line = _Line()
    try:
        yield
    finally:
        end()


def note(text: str, done: float = 0, total: float | None = None) -> None:
    """Say what is done now, and how much of it is done, if that is known."""
    if _line is not None:
        _line.note(text, done, total)


def quiet() -> None:
    """Erase the line, since something is printed; it comes again after another second of silence."""
    if _line is not None:
        _line.quiet()


def end() -> None:
    """Erase the line for good: what follows is an answer to wait for, or no work that ends."""
    global _line
    if _line is not None:
        line, _line = _line, None
        line.end()
