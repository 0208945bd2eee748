"""The bundle: the compiled rules as bytes.

Lines of UTF-8 JSON, each ended by a newline. The first says what the bytes are::

    {"checksum": "<CRC-32 of everything after this line>", "format": "tidegate-bundle", "format_version": 1, "lines": N}

The second is the manifest (fleet, layers, targets, callers, and which lines belong to which objective). Each objective has
one line for its index and one for each of its rules. Rules are decoded when they first match, so a bundle of 10 000 rules
loads in milliseconds. The bytes are canonical (sorted keys, no spaces): equal rules give equal bytes.

The revision of a bundle is the SHA-256 of its bytes in hexadecimal (64 digits). That of a resolved bundle (see `resolved`)
is `<rules>.<SHA-256 of its bytes>`, where `<rules>` is the revision of the rules that it was resolved from: the first part
names the files, and all of it names what serves. The header of a resolved bundle has the first part as `rules`.

| module | has |
|---|---|
| `manifest` | the second line |
| `tables` | the line of an objective's index |
| `rule` | the line of a rule |

Every record is an immutable class with a `Record` beside it that has the kind of each member; nothing else knows the keys of
the JSON. The records that only a bundle has are named tuples: a cold start pays five times as much to define a frozen dataclass.
A decoder raises `UnfitError`, or another of `UNFIT`, for what no encoder writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from zlib import crc32

from tidegate.errors import BundleError
from tidegate.rules.bundle.json_values import UNFIT, UnfitError, json_object
from tidegate.rules.bundle.json_values import encode as encode  # for others
from tidegate.rules.bundle.manifest import Manifest, ObjectiveEntry, decode_manifest, encode_manifest
from tidegate.rules.bundle.tables import IndexMasks, decode_tables
from tidegate.rules.sticky import HASH_VERSION

FORMAT = "tidegate-bundle"
FORMAT_VERSION = 1
"""The version of the format: raise it with every change of the meaning of the bytes, or of their form."""

MAX_BYTES = 1 << 30
"""The largest bundle that is read from a file; 10 000 rules take some 5 MB."""

FIRST_LINE = 2
"""The first line of an objective, after the header and the manifest."""

RESOLVED = "."
"""Separator of the revision of the rules and the digest of their resolution."""

SHORT, SHORT_RESOLUTION = 12, 6
"""The number of digits of a revision that people see."""

MAX_HEADER_BYTES = 4096
"""The first line of a bundle is shorter; that of another file need not be."""


def revision_of(data: bytes) -> str:
    """Return the revision of a bundle's bytes."""
    digest = sha256(data).hexdigest()
    rules = (json_object(bytes(data[:MAX_HEADER_BYTES]).partition(b"\n")[0]) or {}).get("rules")
    return digest if rules is None else f"{rules}{RESOLVED}{digest}"


def rules_of(revision: str) -> str:
    """Return the part that names the rules: the same for the same files, whatever models they resolve to."""
    return revision.partition(RESOLVED)[0]


def resolution_of(revision: str) -> str | None:
    """Return the part that names the resolution of the targets; None if they were not resolved."""
    return revision.partition(RESOLVED)[2] or None


def short_revision(revision: str, among: Iterable[str] = ()) -> str:
    """Return a revision for people: its first digits; with `.` and some digits of the resolution if `among` has the same rules
    resolved to something else."""
    rules, resolution = rules_of(revision), resolution_of(revision)
    others = {resolution_of(each) for each in among if rules_of(each) == rules} - {resolution}
    return rules[:SHORT] + (f"{RESOLVED}{resolution[:SHORT_RESOLUTION]}" if resolution and others else "")


def begins_revision(text: str, revision: str) -> bool:
    """Return whether a text that a person wrote begins a revision: that of the rules or, after a point, the resolution."""
    rules, point, resolution = text.partition(RESOLVED)
    return rules_of(revision).startswith(rules) and (
        not point or (resolution_of(revision) or "").startswith(resolution)
    )


def revision_json(revision: str | None) -> dict[str, str | None]:
    """Return a revision as members of a JSON object: that of the rules, and the digest of their resolution."""
    if not revision:
        return {"revision": None, "resolution": None}
    return {"revision": rules_of(revision), "resolution": resolution_of(revision)}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle taken apart. `lines` are all of it, with the header and the manifest."""

    revision: str
    manifest: Manifest
    lines: Sequence[bytes]

    @property
    def rules(self) -> str:
        """The revision of the rules, whatever their targets were resolved to (64 hexadecimal digits)."""
        return rules_of(self.revision)

    @property
    def data(self) -> bytes:
        return b"\n".join([*self.lines, b""])

    def tables(self, entry: ObjectiveEntry) -> IndexMasks:
        return decode_tables(self.lines[entry.line])

    def rule_lines(self, entry: ObjectiveEntry, count: int) -> Sequence[bytes]:
        lines = self.lines[entry.line + 1 : entry.line + 1 + count]
        if len(lines) != count or count < 1:
            raise UnfitError("rules are missing")
        return lines


def pack(manifest: Manifest, lines: Sequence[bytes], rules: str | None = None) -> bytes:
    """Return the bytes of a bundle. The manifest has places of `lines`, of which the first is `FIRST_LINE`; `rules` is the
    revision of the rules that a resolved bundle was made from."""
    body = b"\n".join([encode_manifest(manifest), *lines, b""])
    return _header(body, len(lines) + FIRST_LINE, rules) + b"\n" + body


def unpack(data: bytes) -> Bundle:
    """Split a bundle into its parts, and check that it is complete.

    Raises:
        BundleError: the bytes are not a bundle, are of a format version that this code does not read, or are damaged.
    """
    first, _, body = bytes(data).partition(b"\n")
    header = json_object(first[:MAX_HEADER_BYTES])
    if header is None or header.get("format") != FORMAT:
        raise BundleError("not a Tidegate bundle: the first line is not its header; compile the rules directory again")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise _other_version("format", version, FORMAT_VERSION)
    lines = data.split(b"\n")
    # The checksum does not cover the header, so the header is compared with the one that these bytes would have.
    if lines.pop() != b"" or first != _header(body, len(lines), header.get("rules")):
        raise BundleError(
            "the bundle is damaged: its lines or its checksum do not agree with its header; fetch it again"
        )
    try:
        manifest = decode_manifest(lines[1])
    except UNFIT as error:
        raise damaged("the manifest", error) from error
    if manifest.hash_version != HASH_VERSION:
        raise _other_version("hash", manifest.hash_version, HASH_VERSION)
    return Bundle(revision_of(data), manifest, lines)


def damaged(place: str, error: Exception) -> BundleError:
    """Return the error for a bundle with a right checksum and a place that the compiler would not write."""
    reason = f": {error}" if isinstance(error, UnfitError) else ""
    return BundleError(
        f"the bundle is damaged: {place} is not what the compiler writes{reason}; compile the rules again"
    )


def _other_version(what: str, has: object, reads: int) -> BundleError:
    return BundleError(
        f"the bundle has {what} version {has!r}, and this Tidegate reads version {reads}: publish the rules again with "
        "this Tidegate, or load the bundle with the one that wrote it"
    )


def _header(body: bytes, lines: int, rules: str | None) -> bytes:
    resolved = {} if rules is None else {"rules": rules}
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "checksum": f"{crc32(body):08x}", "lines": lines}
    return encode(about | resolved)
