"""Unpacks an archive of rules that anybody may have made: nothing leaves its folder, and nothing in it is without bound."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

from tidegate.errors import Finding, RulesError
from tidegate.rules.source import MAX_FILE_BYTES

MOST_ARCHIVE_BYTES = 16 * 1024 * 1024
MOST_FILES = 2_000
MOST_UNPACKED_BYTES = 64 * 1024 * 1024

_HOW = "make it in the rules directory: `zip -r ../rules.zip .`"
_ENCRYPTED = 0x1


def unpack_rules(archive: bytes, folder: Path) -> None:
    """Unpack a ZIP archive of a rules directory.

    Args:
        archive: the archive, whose top holds fleet.yaml and objectives/.
        folder: an empty folder.

    Raises:
        RulesError: it is no whole archive, holds what would be written elsewhere, or is larger than an archive of rules
            may be. What was unpacked until then is left.
    """
    if len(archive) > MOST_ARCHIVE_BYTES:
        raise refused(
            "", f"the archive has {len(archive)} bytes, more than {MOST_ARCHIVE_BYTES}", "leave out what is no rule"
        )
    try:
        with zipfile.ZipFile(BytesIO(archive)) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            problems = list(_problems(entries))
            if problems:
                raise RulesError(problems)
            left = MOST_UNPACKED_BYTES
            for entry in entries:
                left -= _unpack(opened, entry, folder, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise refused("", f"it is no ZIP archive that can be read: {error}", _HOW) from error


def refused(file: str, message: str, hint: str) -> RulesError:
    """The error of an archive, or of one file in it."""
    return RulesError([Finding(file or "the archive", 0, "", message, hint)])


def _problems(entries: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    """What is wrong with an archive by its directory alone."""
    if len(entries) > MOST_FILES:
        yield Finding(
            "the archive", 0, "", f"it has {len(entries)} files, more than {MOST_FILES}", "leave out what is no rule"
        )
        return
    seen: set[str] = set()
    for entry in entries:
        problem = _problem(entry)
        if problem is None and entry.filename in seen:
            problem = ("the archive has it twice", "keep one")
        seen.add(entry.filename)
        if problem is not None:
            yield Finding(entry.filename[:200], 0, "", *problem)
    if "fleet.yaml" not in seen and "fleet.yml" not in seen:
        yield Finding("fleet.yaml", 0, "", "the top of the archive does not hold it", _HOW)


def _problem(entry: zipfile.ZipInfo) -> tuple[str, str] | None:
    # `orig_filename` is the name before zipfile cut it at a null byte.
    name = entry.orig_filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or any(each in name for each in "\\:\0"):
        return "its path is not a plain one below the archive's top", _HOW
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link or a special file", "put the file itself into the archive"
    if entry.flag_bits & _ENCRYPTED:
        return "it is encrypted", "rules are read without a password"
    if entry.file_size > MAX_FILE_BYTES:
        return f"it has {entry.file_size} bytes, more than {MAX_FILE_BYTES}", "leave out what is no rule"
    return None


def _unpack(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one file; its size. What the directory says of sizes is not believed."""
    most = min(MAX_FILE_BYTES, left)
    with opened.open(entry) as packed:
        data = packed.read(most + 1)
    if len(data) > most:
        message = (
            f"unpacked, it or the archive is larger than may be ({MAX_FILE_BYTES} and {MOST_UNPACKED_BYTES} bytes)"
        )
        raise refused(entry.filename, message, "leave out what is no rule")
    target = folder / entry.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise refused(entry.filename[:200], f"it cannot be unpacked: {error.strerror}", _HOW) from error
    return len(data)
