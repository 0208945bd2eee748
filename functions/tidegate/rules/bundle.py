"""The bundle: the compiled rules as bytes.

Lines of UTF-8 JSON, each ended by a newline. The first says what the bytes are::

    {"checksum": "<CRC-32 of everything after this line>", "format": "tidegate-bundle", "format_version": 1, "lines": N}

the second is the manifest (fleet, layers, targets, and which lines belong to which objective), and each objective has one
line for its index and one for each of its rules. Rules' lines are decoded only when a rule first matches, so a bundle of
10 000 rules loads in milliseconds. The bytes are canonical (sorted keys, no spaces): equal rules give equal bytes, and
the revision is their SHA-256.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from zlib import crc32

from tidegate.errors import BundleError, ContextError

FORMAT = "tidegate-bundle"
FORMAT_VERSION = 1

MAX_BYTES = 1 << 30
"""The largest bundle that is read from a file; 10 000 rules take some 5 MB."""

UNFIT = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    ContextError,
)
"""What taking lines apart can raise that are whole and yet not what the compiler writes."""

MAX_HEADER_BYTES = 4096
"""The first line of a bundle is shorter; that of another file need not be."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle taken apart: `revision` (hexadecimal SHA-256 of the bytes), the manifest, and all lines as bytes."""

    revision: str
    manifest: dict[str, Any]
    lines: list[bytes]


def revision_of(data: bytes) -> str:
    """The revision of a bundle's bytes: their SHA-256 in hexadecimal (64 characters)."""
    return sha256(data).hexdigest()


def encode(value: Any) -> bytes:
    """One canonical line, without its newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def pack(manifest: dict[str, Any], lines: list[bytes]) -> bytes:
    """The bytes of a bundle from its manifest and the lines that the manifest refers to (from line 2 on)."""
    body = b"\n".join([encode(manifest), *lines, b""])
    return _header(body, len(lines) + 2) + b"\n" + body


def unpack(data: bytes) -> Bundle:
    """Take a bundle apart and check that it is whole.

    Raises:
        BundleError: the bytes are no bundle, are of a format version that this code does not read, or are damaged.
    """
    first, _, body = bytes(data).partition(b"\n")
    header = _object(first[:MAX_HEADER_BYTES])
    if header is None or header.get("format") != FORMAT:
        raise BundleError("not a Tidegate bundle: the first line is not its header; compile the rules directory again")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle format version {version!r} is not supported; this Tidegate reads version {FORMAT_VERSION}: "
            "compile the rules with this version, or load the bundle with the version that wrote it"
        )
    lines = data.split(b"\n")
    # The checksum does not cover the header, so the header is compared with the one that these bytes would have.
    if lines.pop() != b"" or first != _header(body, len(lines)):
        raise BundleError(
            "the bundle is damaged: its lines or its checksum do not agree with its header; fetch it again"
        )
    manifest = _object(lines[1]) if len(lines) > 1 else None
    if manifest is None:
        raise BundleError("the bundle is damaged: its second line is not a manifest; compile the rules again")
    return Bundle(revision_of(data), manifest, lines)


def _object(line: bytes) -> dict[str, Any] | None:
    """A line that is a JSON object; None for any other."""
    try:
        value = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _header(body: bytes, lines: int) -> bytes:
    return encode(
        {"format": FORMAT, "format_version": FORMAT_VERSION, "checksum": f"{crc32(body):08x}", "lines": lines}
    )
