"""The kinds of settings: each makes a field of `Settings` that knows its meaning, what it takes, and how to read it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any


def whole(default: int | None, doc: str, minimum: float = 0, maximum: float = math.inf) -> Any:
    return _bounded(int, "a whole number", default, doc, minimum, maximum)


def number(default: float, doc: str, minimum: float = 0, maximum: float = math.inf) -> Any:
    return _bounded(float, "a number", default, doc, minimum, maximum)


def text(default: str | None, doc: str, pattern: str, words: str, *, is_secret: bool = False) -> Any:
    """A setting that is a text; `words` say what `pattern` matches as a whole. A secret is never shown."""

    def parse(text: str) -> str | None:
        if not text and default is None:
            return None
        if not re.fullmatch(pattern, text):
            raise ValueError(words if is_secret else f"{words}, not {text!r}")
        return text

    return _setting(default, doc, words, parse, is_secret=is_secret)


def secret(what: str, doc: str, fewest: int = 16) -> Any:
    words = f"a {what} of {fewest} to 256 printable characters without a blank"
    return text(None, doc, f"[!-~]{{{fewest},256}}", words, is_secret=True)


def url(doc: str) -> Any:
    return text(None, doc, r"https?://[^/\s?#]+/?", "an http:// or https:// address without a path")


def table_name(doc: str) -> Any:
    words = "the name of a table (3 to 255 letters, digits, '_', '-' and '.')"
    return text(None, doc, r"[A-Za-z0-9_.-]{3,255}", words)


def switch(doc: str, *, default: bool) -> Any:
    def parse(text: str) -> bool:
        if text not in ("true", "false", ""):
            raise ValueError(f"true or false, not {text!r}")
        return text == "true" if text else default

    return _setting(default, doc, "true or false", parse)


def path(doc: str, default: str | None = None) -> Any:
    known = None if default is None else Path(default)
    return _setting(known, doc, "a path", lambda text: Path(text).expanduser() if text else known)


def _bounded(
    kind: type[int] | type[float], words: str, default: float | None, doc: str, low: float, high: float
) -> Any:
    is_open = high == math.inf

    def parse(text: str) -> float | None:
        if default is None and not text:
            return None
        try:
            value: float = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or not math.isfinite(value):
            raise ValueError(f"{words} {f'of at least {low}' if is_open else f'from {low} to {high}'}, not {text!r}")
        return value

    return _setting(default, doc, f"{words}, {f'at least {low}' if is_open else f'{low} to {high}'}", parse)


def _setting(default: Any, doc: str, takes: str, parse: Callable[[str], Any], *, is_secret: bool = False) -> Any:
    """A field that `parse` reads from a variable's text; it raises `ValueError` with what would be right."""
    metadata = {"doc": doc, "takes": takes, "parse": parse, "is_secret": is_secret}
    return field(default=default, repr=not is_secret, metadata=metadata)
