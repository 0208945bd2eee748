"""Validate an archive of rules from anybody: whether they may go live, and every reason why not.

It is unpacked into a folder of its own: nothing is written elsewhere, and everything is bounded.
"""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from tidegate.analysis.proving import prove
from tidegate.errors import Finding, RulesError
from tidegate.language.source import MAX_FILE_BYTES

MOST_ARCHIVE_BYTES = 16 * 1024 * 1024
MOST_FILES = 2_000
MOST_UNPACKED_BYTES = 64 * 1024 * 1024

MOST_FINDINGS = 200
"""Findings of a kind that a verdict lists; it says how many there are."""

MOST_TEXT = 500

ARCHIVE = "the archive"
_HOW = "make it in the rules directory: `zip -r ../rules.zip .`"
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of validating an archive of rules.

    Attributes:
        revision: of the bundle that the rules compile to, before versions are resolved; None where they do not.
        summary: what was proved, or the number of errors, in one line.
        errors: what keeps the rules from going live, of the archive, the rules and their analysis.
        failures: cases that fail, and errors of the case files.
        warnings: what does not keep them from going live.
        uncovered: how many rules no passing case decides.
    """

    sha256: str
    revision: str | None
    summary: str
    errors: tuple[Finding, ...] = ()
    failures: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    passed: int = 0
    uncovered: int = 0

    @property
    def accepted(self) -> bool:
        return not (self.errors or self.failures)

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": "accepted" if self.accepted else "refused",
            "sha256": self.sha256,
            "revision": self.revision or "",
            "summary": self.summary,
            "errors": _listed(self.errors),
            "failed_cases": _listed(self.failures),
            "warnings": _listed(self.warnings),
            "counts": {
                "errors": len(self.errors),
                "failed_cases": len(self.failures),
                "warnings": len(self.warnings),
                "passed_cases": self.passed,
                "rules_without_case": self.uncovered,
            },
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored verdict: whether the archive was accepted, its digest, and the revision of its rules."""

    accepted: bool
    sha256: str
    revision: str
    summary: str


def read_verdict(document: bytes) -> Judged:
    """Read a verdict from its object. Raises `ValueError`: it is not a verdict."""
    try:
        found = json.loads(document)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    names = ("status", "sha256", "revision", "summary")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in names):
        raise ValueError(f"it lacks one of {', '.join(names)}")
    return Judged(found["status"] == "accepted", found["sha256"], found["revision"], found["summary"])


def validate_archive(archive: bytes, *, at: float) -> Verdict:
    """Unpack, compile, analyse and test rules, for the time `at` in Unix seconds."""
    digest = sha256(archive).hexdigest()
    with tempfile.TemporaryDirectory(prefix="tidegate-rules-") as folder:
        try:
            unpack_rules(archive, Path(folder))
        except RulesError as error:
            return Verdict(digest, None, _refusal(error.findings, ()), error.findings)
        proof = prove(folder, at=at)
    cases = proof.cases
    return Verdict(
        digest,
        proof.revision,
        f"{proof.summary}; {cases.summary()}" if proof.holds else _refusal(proof.errors, cases.failures),
        proof.errors,
        cases.failures,
        proof.warnings,
        cases.passed,
        len(cases.uncovered),
    )


def _refusal(errors: tuple[Finding, ...], failures: tuple[Finding, ...]) -> str:
    return f"refused: {len(errors)} error{'s' * (len(errors) != 1)}, {len(failures)} failed case{'s' * (len(failures) != 1)}"


def _listed(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "file": finding.file,
            "line": finding.line,
            "rule": finding.rule,
            "message": finding.message[:MOST_TEXT],
            "hint": finding.hint[:MOST_TEXT],
        }
        for finding in tuple(findings)[:MOST_FINDINGS]
    ]


def unpack_rules(archive: bytes, folder: Path) -> None:
    """Unpack a ZIP archive, whose top holds fleet.yaml and objectives/, into an empty folder.

    Raises:
        RulesError: it is not a complete archive, holds what would be written elsewhere, or is larger than an archive of rules may
            be. What was unpacked until then is left.
    """
    if len(archive) > MOST_ARCHIVE_BYTES:
        raise refused(
            ARCHIVE,
            f"the archive has {len(archive)} bytes, more than {MOST_ARCHIVE_BYTES}",
            "leave out what is not a rule",
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
        raise refused(ARCHIVE, f"it is not a readable ZIP archive: {error}", _HOW) from error


def refused(file: str, message: str, hint: str) -> RulesError:
    return RulesError([Finding(file, 0, "", message, hint)])


def _problems(entries: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    if len(entries) > MOST_FILES:
        yield Finding(
            ARCHIVE, 0, "", f"it has {len(entries)} files, more than {MOST_FILES}", "leave out what is not a rule"
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
        return f"it has {entry.file_size} bytes, more than {MAX_FILE_BYTES}", "leave out what is not a rule"
    return None


def _unpack(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one file. Return its size; the sizes in the archive's directory are not trusted."""
    most = min(MAX_FILE_BYTES, left)
    with opened.open(entry) as packed:
        data = packed.read(most + 1)
    if len(data) > most:
        message = (
            f"unpacked, it or the archive is larger than may be ({MAX_FILE_BYTES} and {MOST_UNPACKED_BYTES} bytes)"
        )
        raise refused(entry.filename, message, "leave out what is not a rule")
    target = folder / entry.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise refused(entry.filename[:200], f"it cannot be unpacked: {error.strerror}", _HOW) from error
    return len(data)
