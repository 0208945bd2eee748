"""Reads rules of a git revision from git's objects; the work tree and the index stay untouched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tidegate.language.layout import FOLDERS, Use, use_of

SYMBOLIC_LINK, SUBMODULE, FOLDER = "120000", "160000", "040000"

_NOT_FILES = {SYMBOLIC_LINK: "a symbolic link", SUBMODULE: "a submodule", FOLDER: "a folder"}


@dataclass(frozen=True, slots=True)
class GitObject:
    """The object of `REVISION:PATH`: a folder (`tree`) or a file (`blob`), with the digest of its content."""

    name: str
    kind: str
    digest: str


def find(name: str) -> GitObject:
    """Look up `REVISION:PATH`, of the repository of the working directory."""
    # A revision may have colons within braces: HEAD@{10:00}.
    at = name.find(":", name.rfind("}") + 1)
    revision, path = (name, None) if at < 0 else (name[:at], name[at + 1 :])
    if not name or name.startswith("-"):
        raise click.UsageError(f"{name!r} names no git revision: write REVISION:PATH, such as HEAD~1:routing_rules")
    found = _git("rev-parse", "--verify", "--quiet", name)
    if found.returncode or not found.stdout:
        raise _not_found(name, revision, path)
    digest = found.stdout.decode().strip()
    kind = _output("cat-file", "-t", digest).decode().strip()
    if kind not in ("tree", "blob"):
        raise click.UsageError(
            f"{name!r} is a {kind}, and no path in one: write {name}:PATH, such as {name}:routing_rules"
        )
    return GitObject(name, kind, digest)


def content(found: GitObject) -> bytes:
    """Read a file."""
    return _output("cat-file", "blob", found.digest)


def write_rules(found: GitObject, folder: Path) -> None:
    """Write the files of rules into an empty folder, and an empty file for each file that a rules directory refuses."""
    files = {}
    for path, digest in _files_of_rules(found):
        if use_of(path) is Use.READ:
            files[path] = digest
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    answered = _output("cat-file", "--batch", given="".join(f"{digest}\n" for digest in files.values()).encode())
    for path in files:
        header, _, answered = answered.partition(b"\n")
        size = header.rsplit(b" ", 1)[1]
        if not size.isdigit():
            raise click.UsageError(
                f"this clone does not have the content of {path} in {found.name!r}; fetch it (git fetch --refetch)"
            )
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(answered[: int(size)])
        answered = answered[int(size) + 1 :]


def _files_of_rules(found: GitObject) -> Iterator[tuple[str, str]]:
    """Yield the path and the digest of each file that a rules directory reads or refuses."""
    listed = _output("ls-tree", "-r", "-t", "-z", "--full-tree", found.digest)
    for line in listed.decode(errors="surrogateescape").split("\0"):
        if not line:
            continue
        about, _, path = line.partition("\t")
        mode, _, digest = about.split(" ")
        if use_of(path) is Use.SKIPPED:
            continue
        if mode in _NOT_FILES and (use_of(path) is Use.READ or (path in FOLDERS and mode != FOLDER)):
            raise click.UsageError(f"{path} in {found.name!r} is {_NOT_FILES[mode]}, which is not read from a revision")
        if mode != FOLDER:
            yield path, digest


def _not_found(name: str, revision: str, path: str | None) -> click.UsageError:
    place = _git("rev-parse", "--show-prefix")
    if place.returncode:
        return click.UsageError(f"{name!r} is neither a directory nor a bundle, and git says here: {_complaint(place)}")
    if _git("rev-parse", "--verify", "--quiet", f"{revision}^{{object}}").returncode:
        message = f"{name!r} is neither a directory nor a bundle, and git knows no revision {revision!r}"
        if _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
            message += "; this clone is shallow: fetch its history first (git fetch --unshallow)"
        return click.UsageError(message)
    prefix = place.stdout.decode().strip()
    if path is None:
        return click.UsageError(f"{name!r} is neither a directory nor a bundle; for a git revision write {name}:PATH")
    message = f"git revision {revision!r} has no path {path!r}"
    if prefix and path and not _git("rev-parse", "--verify", "--quiet", f"{revision}:{prefix}{path}").returncode:
        message += f"; paths count from the root of the repository: write {revision}:{prefix}{path}"
    return click.UsageError(message)


def _output(*arguments: str, given: bytes = b"") -> bytes:
    done = _git(*arguments, given=given)
    if done.returncode:
        raise click.UsageError(f"git {arguments[0]} failed: {_complaint(done)}")
    return done.stdout


def _git(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    # In English, since its messages are passed on.
    environment = os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(  # noqa: S603  # no shell, and a revision cannot be an option
            ["git", *arguments],  # noqa: S607  # git is the one on the user's PATH
            input=given,
            capture_output=True,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise click.UsageError("git is not installed, and is needed to read a revision") from error
    except (OSError, ValueError) as error:
        raise click.UsageError(f"git cannot be run: {error}") from error


def _complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"
