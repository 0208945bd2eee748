"""The live bundle in a file of this machine: what resolvers serve, also while the store does not answer and after a restart."""

from __future__ import annotations

import os
from pathlib import Path

from tidegate.errors import BundleError, StoreError
from tidegate.files import read_regular
from tidegate.ports import LiveEntry, Pointer
from tidegate.rules.bundle import MAX_BYTES, revision_of

NAME = "live.bundle"


class SavedBundle:
    """A `BundleSource` of the one bundle in a folder. Its writer replaces the file, so a reader never sees a part of one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._read: tuple[str, bytes] | None = None

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """Return the pointer to the bundle in the file; it costs one look at the file while that is the same."""
        try:
            found = self._file.stat()
            tag = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
            if known is not None and known.tag == tag:
                return known
            data = read_regular(self._file, MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self._file} cannot be read: {error.strerror}") from error
        revision = revision_of(data)
        self._read = revision, data
        return Pointer((LiveEntry(revision, 1, "", found.st_mtime),), tag)

    async def bundle(self, revision: str) -> bytes:
        """Return the bundle that `pointer` has found.

        Raises:
            BundleError: it is another one.
        """
        found, self._read = self._read, None
        if found is None or found[0] != revision:
            raise BundleError("the saved bundle was replaced while it was read")
        return found[1]

    def write(self, data: bytes) -> None:
        """Replace the bundle, durably.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            replace_file(self._file, data)
        except OSError as error:
            raise StoreError(f"{self._file} cannot be written: {error.strerror}") from error


def replace_file(file: Path, data: bytes) -> None:
    """Write a file under another name, and rename it once it is on the disk. Only its user can read it.

    Raises:
        OSError: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
