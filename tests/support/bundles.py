"""Bundles by their lines, whatever these hold."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from tidegate.rules.bundle import FORMAT, FORMAT_VERSION, encode


def sealed(lines: list[bytes], **header: Any) -> bytes:
    """A bundle of these lines (a manifest, and those that it refers to) with a header that fits them, but for `header`."""
    body = b"\n".join([*lines, b""])
    fitting = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "checksum": f"{crc32(body):08x}",
        "lines": len(lines) + 1,
    }
    return encode(fitting | header) + b"\n" + body
