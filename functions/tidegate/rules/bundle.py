"""The bundle: the compiled rules as bytes.

Lines of UTF-8 JSON, each ended by a newline. The first says what the bytes are::

    {"checksum": "<CRC-32 of everything after this line>", "format": "tidegate-bundle", "format_version": 1, "lines": N}

the second is the manifest (fleet, layers, targets, and which lines belong to which objective), and each objective has one
line for its index and one for each of its rules. Rules' lines are decoded only when a rule first matches, so a bundle of
10 000 rules loads in milliseconds. The bytes are canonical (sorted keys, no spaces): equal rules give equal bytes, and
the revision is their SHA-256.

The header of a resolved bundle (see `resolved`) also has `rules`, the revision of the rules that it was resolved from. Its
own revision is `<rules>.<SHA-256 of its bytes>`: what begins it names the files, and all of it names what serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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

SHORT, SHORT_RESOLUTION = 12, 6
"""How many digits of a revision are shown to people."""

RESOLVED = "."
"""In a revision, between that of the rules and the digest of what they were resolved to."""

MAX_HEADER_BYTES = 4096
"""The first line of a bundle is shorter; that of another file need not be."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle taken apart: its revision as `revision_of` has it, the manifest, and all lines as bytes."""

    revision: str
    manifest: dict[str, Any]
    lines: list[bytes]

    @property
    def rules(self) -> str:
        """The revision of the rules, whatever their targets were resolved to (64 hexadecimal digits)."""
        return rules_of(self.revision)

    @property
    def data(self) -> bytes:
        """The bytes."""
        return b"\n".join([*self.lines, b""])


def revision_of(data: bytes) -> str:
    """The revision of a bundle's bytes: their SHA-256 in hexadecimal (64 digits), after `<rules>.` where it is resolved."""
    digest = sha256(data).hexdigest()
    rules = (_object(bytes(data[:MAX_HEADER_BYTES]).partition(b"\n")[0]) or {}).get("rules")
    return digest if rules is None else f"{rules}{RESOLVED}{digest}"


def rules_of(revision: str) -> str:
    """The part of a revision that names the rules: the same for the same files, whatever models they resolve to."""
    return revision.partition(RESOLVED)[0]


def resolution_of(revision: str) -> str | None:
    """The part of a revision that names what the rules' targets were resolved to; None where they were not resolved."""
    return revision.partition(RESOLVED)[2] or None


def short_revision(revision: str, among: Iterable[str] = ()) -> str:
    """A revision for people: the first digits of that of the rules; with `.` and some of the resolution's, where revisions
    that it stands among have the same rules resolved to something else."""
    rules, resolution = rules_of(revision), resolution_of(revision)
    others = {resolution_of(each) for each in among if rules_of(each) == rules} - {resolution}
    return rules[:SHORT] + (f"{RESOLVED}{resolution[:SHORT_RESOLUTION]}" if resolution and others else "")


def begins_revision(text: str, revision: str) -> bool:
    """Whether a text that a person wrote begins a revision: that of the rules or, after a point, the resolution too."""
    rules, point, resolution = text.partition(RESOLVED)
    return rules_of(revision).startswith(rules) and (
        not point or (resolution_of(revision) or "").startswith(resolution)
    )


def revision_json(revision: str | None) -> dict[str, str | None]:
    """A revision as the members of a JSON object: that of the rules, and the digest of what they resolve to."""
    if not revision:
        return {"revision": None, "resolution": None}
    return {"revision": rules_of(revision), "resolution": resolution_of(revision)}


def encode(value: Any) -> bytes:
    """One canonical line, without its newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def pack(manifest: dict[str, Any], lines: list[bytes], rules: str | None = None) -> bytes:
    """The bytes of a bundle from its manifest and the lines that the manifest refers to (from line 2 on). `rules` is the
    revision of the rules that a resolved bundle was made from."""
    body = b"\n".join([encode(manifest), *lines, b""])
    return _header(body, len(lines) + 2, rules) + b"\n" + body


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
    if lines.pop() != b"" or first != _header(body, len(lines), header.get("rules")):
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


def _header(body: bytes, lines: int, rules: str | None) -> bytes:
    resolved = {} if rules is None else {"rules": rules}
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "checksum": f"{crc32(body):08x}", "lines": lines}
    return encode(about | resolved)
