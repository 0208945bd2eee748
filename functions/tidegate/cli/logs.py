"""The log on standard error: its level and its format. Standard output is for results.

`tidegate` takes `LOG_OPTIONS` for every command; a command that runs until it is stopped takes them too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

import click

from tidegate.cli import progress
from tidegate.cli.columns import columns, wrapped

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("debug", "info", "warning", "error")
_LEVEL, _FORMAT, _HANDLER = "tidegate.log_level", "tidegate.log_format", "tidegate.log_handler"


def _note(key: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def note(context: click.Context, _: click.Parameter, text: str | None) -> str | None:
        if text is not None:
            context.meta[key] = text
        return text

    return note


def LOG_OPTIONS(command: F) -> F:  # noqa: N802  # click's decorators are constants here
    """Give a command `--log-level` and `--log-format`."""
    for option in (
        click.option(
            "--log-format", type=click.Choice(["text", "json"]), callback=_note(_FORMAT), expose_value=False,
            help="Format of the log on standard error: text (default), or one JSON object a line.",
        ),
        click.option(
            "--log-level", type=click.Choice(LEVELS), callback=_note(_LEVEL), expose_value=False,
            help="Lowest level to log.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def log_to_stderr(level: str = "warning") -> None:
    """Log to standard error, at the level of the options, else at `level`."""
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    logger = logging.getLogger("tidegate")
    handler = meta.get(_HANDLER)
    if handler is None:
        handler = _Handler()
        meta[_HANDLER] = handler
        logger.addHandler(handler)
        if context is not None:
            # A process may run several commands, as tests do: each line is logged once.
            context.find_root().call_on_close(lambda: logger.removeHandler(handler))
    handler.setFormatter(JsonFormatter() if meta.get(_FORMAT) == "json" else TextFormatter())
    logger.setLevel(meta.get(_LEVEL, level).upper())


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        progress.quiet()
        super().emit(record)


class TextFormatter(logging.Formatter):
    """Writes the time in UTC, the level and the message; on a terminal broken between words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        width = columns(err=True) if sys.stderr.isatty() else None
        return text if width is None else "\n".join(wrapped(text, width))


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, and `error`, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)
