"""Rules from an archive in the bucket, published exactly as they were validated."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tidegate.aws.layout import ARCHIVE_SUFFIX, RULES, verdict_key
from tidegate.aws.objects import Objects
from tidegate.bootstrap.rules_sources import ProvedRules
from tidegate.control.rules_archive import MOST_ARCHIVE_BYTES, Judged, read_verdict, refused, unpack_rules
from tidegate.errors import RulesError
from tidegate.ports.sources import CheckedRules
from tidegate.rules.bundle import revision_of, short_revision

AGAIN = "upload it again, and wait for its verdict"


@dataclass(slots=True)
class ArchivedRules:
    """A `RulesSource` of the archive `key` in the bucket, whose content must have the digest `digest` (SHA-256, hexadecimal)
    and a verdict that accepts exactly that content. Use it as a context: it unpacks the archive into a folder of its own."""

    objects: Objects
    key: str
    digest: str
    _folder: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _rules: ProvedRules | None = field(default=None, init=False)

    def __enter__(self) -> ArchivedRules:
        return self

    def __exit__(self, *_error: object) -> None:
        self._folder.close()

    @property
    def path(self) -> Path:
        """The folder that the archive was unpacked into: only after `check`, and within the context."""
        assert self._rules is not None, "check comes first"
        return self._rules.path

    async def check(self) -> CheckedRules:
        """Read the archive and its verdict, and prove the rules again.

        Raises:
            RulesError: the archive is missing, differs from the validated one, its verdict refuses it, or its rules
                mean something else here than to the validator.
            StoreError: the bucket did not answer.
        """
        data = await self._archive()
        judged = await self._judged()
        folder = Path(self._folder.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-rules-")))
        await asyncio.to_thread(unpack_rules, data, folder)
        self._rules = ProvedRules(folder)
        checked = await self._rules.check()
        if revision_of(checked.bundle) != judged.revision:
            message = f"its rules compile to revision {short_revision(revision_of(checked.bundle))} here, and the validator had "
            message += f"{short_revision(judged.revision)}: the two are different versions of Tidegate"
            raise refused(self.key, message, "deploy the functions and the agent's image of one version")
        return checked

    async def test(self, checked: CheckedRules) -> str:
        assert self._rules is not None, "check comes first"
        return await self._rules.test(checked)

    async def _archive(self) -> bytes:
        if not self.key.startswith(RULES) or not self.key.endswith(ARCHIVE_SUFFIX):
            raise refused(self.key, "it is not the key of an archive of rules", f"name {RULES}<name>{ARCHIVE_SUFFIX}")
        found = await self.objects.head(self.key)
        if found is not None and found.size_bytes > MOST_ARCHIVE_BYTES:
            raise refused(self.key, f"it has more than {MOST_ARCHIVE_BYTES} bytes", "leave out what is not rules")
        stored = None if found is None else await self.objects.get(self.key)
        if stored is None:
            raise refused(self.key, "there is no such object in the bucket", "upload it first")
        digest = sha256(stored.data).hexdigest()
        if digest != self.digest:
            message = f"its SHA-256 is {digest}, not {self.digest}: it is another archive than was asked for"
            raise refused(self.key, message, "name the digest that its verdict has, once you have read that")
        return stored.data

    async def _judged(self) -> Judged:
        key = verdict_key(self.key)
        stored = await self.objects.get(key)
        if stored is None:
            raise refused(self.key, "it has no verdict", "wait for validate_rules, or call it")
        try:
            judged = read_verdict(stored.data)
        except ValueError as error:
            raise refused(key, f"it is not a verdict: {error}", AGAIN) from error
        if judged.sha256 != self.digest:
            raise refused(self.key, f"its verdict is on another archive, with SHA-256 {judged.sha256[:64]}", AGAIN)
        if not judged.accepted:
            raise RulesError([*refused(self.key, judged.summary, f"read {key} for every reason").findings])
        return judged
