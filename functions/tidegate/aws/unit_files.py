"""The files of one unit in the bucket: finding those that are missing or differ, sending them, and removing others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tidegate.aws.formats import Manifest, StoredFile
from tidegate.aws.layout import model_key
from tidegate.aws.objects import Listed, Objects
from tidegate.aws.upload import Check, Uploader
from tidegate.errors import ConflictError, StoreError
from tidegate.model_layout import version_of
from tidegate.model_units import UnitFile, unit_name
from tidegate.tasks import run_all

ATTEMPTS = 5
Progress = Callable[[str, int], None]
"""Callback with a file's path and how many of its bytes have been sent."""


class UnitFiles:
    """The files of a unit; none while it is withdrawn.

    `check_current` raises if another push took over, and is called before an object is replaced or removed. `to_send` is known
    after `compare`.
    """

    def __init__(
        self, objects: Objects, model: str, version: int | None, files: Sequence[UnitFile], check_current: Check
    ) -> None:
        self.to_send: tuple[UnitFile, ...] = ()
        self._objects = objects
        self._model = model
        self._version = version
        self._files = files
        self._check_current = check_current
        self._etags: dict[str, str] = {}

    async def compare(self, listed: Iterable[Listed], committed: Manifest | None) -> None:
        """Find the files to send, from the model's objects and the ETags in the `committed` manifest."""
        there = {found.key: found for found in listed}
        found = [there.get(self._key(each)) for each in self._files]
        known = {} if committed is None else {stored.file.path: stored.etag for stored in committed.files}
        right = await run_all(self._is_right(each, one, known) for each, one in zip(self._files, found, strict=True))
        self._etags = {each.file.path: one.etag for each, one in zip(self._files, found, strict=True) if one}
        self.to_send = tuple(each for each, is_right in zip(self._files, right, strict=True) if not is_right)

    async def send(self, uploader: Uploader, progress: Progress) -> None:
        """Send the files `to_send`. Raises `ConflictError` if another push took over, `ModelConfigError` if a file changed."""
        if any(each.file.path in self._etags for each in self.to_send):
            await self._check_current()
        await run_all(self._send(uploader, each, progress) for each in self.to_send)

    async def tidy(self) -> None:
        """Remove what a push of other files left, and check that all files of this one are there.

        Raises:
            ConflictError: another push took over.
            StoreError: another writer changed a file.
        """
        prefix = model_key(self._model, "" if self._version is None else f"{self._version}/")
        there = {found.key: found for found in await self._objects.list(prefix) if self._holds(found.key)}
        wanted = {self._key(each): each for each in self._files}
        changed = [
            each for key, each in wanted.items() if key not in there or there[key].etag != self._etags[each.file.path]
        ]
        strays = [key for key in there if key not in wanted]
        if changed or strays:
            await self._check_current()
        for each in changed:
            # A push of the same files may have sent it again: encrypted objects then have another ETag.
            found = await self._objects.head(self._key(each))
            if found is None or not _matches(found, each):
                raise StoreError(
                    f"{unit_name(self._model, self._version)}: {each.file.path} was changed by someone else meanwhile; push again"
                )
            self._etags[each.file.path] = found.etag
        for key in strays:
            await self._objects.delete(key)

    def stored(self) -> tuple[StoredFile, ...]:
        return tuple(StoredFile(each.file, self._etags[each.file.path]) for each in self._files)

    async def _send(self, uploader: Uploader, each: UnitFile, progress: Progress) -> None:
        path, key = each.file.path, self._key(each)
        etag = self._etags.get(path)
        for _ in range(ATTEMPTS):
            sent = [0]

            def add(count: int, sent: list[int] = sent) -> None:
                sent[0] += count
                progress(path, sent[0])

            written = await uploader.send(
                self._model, key, each, etag=etag, check_current=self._check_current, sent=add
            )
            if written is None:
                found = await self._objects.head(key)
                etag = found.etag if found else None
                if found is not None and _matches(found, each):
                    written = found.etag
            if written is not None:
                self._etags[path] = written
                progress(path, each.file.size_bytes)
                return
            await self._check_current()
        raise ConflictError(
            f"{unit_name(self._model, self._version)}: {path} is written by someone else again and again; push again later"
        )

    async def _is_right(self, each: UnitFile, found: Listed | None, known: dict[str, str]) -> bool:
        if found is None or found.size_bytes != each.file.size_bytes:
            return False
        if known.get(each.file.path) == found.etag:
            return True
        head = await self._objects.head(found.key)
        return head is not None and _matches(head, each)

    def _holds(self, key: str) -> bool:
        """Return whether a key of the model belongs to this unit."""
        if self._version is not None:
            return True
        first, separator, _ = key.removeprefix(model_key(self._model)).partition("/")
        return not separator or version_of(first) is None

    def _key(self, each: UnitFile) -> str:
        return model_key(self._model, each.file.path)


def _matches(found: Listed, each: UnitFile) -> bool:
    return (found.sha256, found.size_bytes) == (each.file.sha256, each.file.size_bytes)
