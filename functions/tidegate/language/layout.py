"""Decides which files of a rules directory are read, refused or skipped.

Nothing that could be meant as rules is skipped: a `callers.YAML` that is not read would let everybody call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

from tidegate.errors import Finding, printable
from tidegate.language.words import did_you_mean

SUFFIXES = (".yaml", ".yml")
KNOWN_FILES = ("fleet", "layers", "callers")
OBJECTIVES, CASES, IMAGES, SCHEMA = "objectives", "cases", "images", "schema"
"""The folders of a rules directory; `images` says what servers hold, and `schema` has generated files for editors."""

FOLDERS = (OBJECTIVES, CASES, IMAGES, SCHEMA)

MOST_REFUSED = 100
"""Most files that are reported, since somebody may have named the wrong directory."""

MOST_FOLDERS_DEEP = 8

_PROSE = ("readme", "license", "owners", "codeowners")
_PROSE_SUFFIXES = ("", ".txt", ".md")


class Use(Enum):
    """How the compiler treats a file in a rules directory."""

    READ = "read"
    REFUSED = "refused"
    SKIPPED = "skipped"


def use_of(path: str) -> Use:
    """Return how the compiler treats a file, by its path relative to the rules directory.

    Skipped are editors' and systems' files (`.#x.yaml`, `.x.yaml.swp`, `x.yaml~`, `#x.yaml#`, everything in a folder whose
    name begins with a dot), prose (`*.md`; `README`, `LICENSE`, `OWNERS` and `CODEOWNERS`, also as `.txt`) and the generated
    `schema/*.json`. Refused is what is neither, a hidden `.callers.yaml` too.
    """
    folder, name = PurePosixPath(path).parent, PurePosixPath(path).name
    if any(part.startswith(".") for part in folder.parts) or _is_skipped(name):
        return Use.SKIPPED
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    match str(folder):
        case ".":
            return Use.READ if suffix in SUFFIXES and stem in KNOWN_FILES else Use.REFUSED
        case "objectives" | "cases" | "images":
            return Use.READ if suffix in SUFFIXES and not name.startswith(".") else Use.REFUSED
        case "schema":
            return Use.SKIPPED if suffix == ".json" else Use.REFUSED
    return Use.REFUSED


def _is_skipped(name: str) -> bool:
    if name.startswith("."):
        return name.startswith((".#", "._")) or PurePosixPath(name).suffix.lower() not in (*SUFFIXES, ".json")
    if name.endswith("~") or (name.startswith("#") and name.endswith("#")):
        return True
    path = PurePosixPath(name.lower())
    return path.suffix == ".md" or (path.stem in _PROSE and path.suffix in _PROSE_SUFFIXES)


@dataclass(slots=True)
class RulesLayout:
    """The files of a rules directory that are read, by their paths relative to it, in order; and a finding for each file that is
    refused, and for each folder that cannot be listed."""

    root: Path
    read: dict[str, Path] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def named(self, stem: str) -> Path | None:
        """Return a file of `KNOWN_FILES`; None if it is missing."""
        return self.read.get(f"{stem}.yaml") or self.read.get(f"{stem}.yml")

    def of(self, folder: str) -> list[Path]:
        """Return the files of `objectives`, `cases` or `images`."""
        return [path for name, path in self.read.items() if name.startswith(f"{folder}/")]


def read_layout(root: Path) -> RulesLayout:
    """List a rules directory. No file is opened."""
    layout = RulesLayout(root)
    _list(root, "", layout)
    for stem in KNOWN_FILES:
        if all(f"{stem}{suffix}" in layout.read for suffix in SUFFIXES):
            layout.findings.append(Finding(f"{stem}.yml", 0, "", f"both {stem}.yaml and {stem}.yml exist", "keep one"))
    return layout


def _list(folder: Path, prefix: str, layout: RulesLayout) -> None:
    try:
        entries = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        message = f"the folder cannot be listed: {error.strerror}"
        layout.findings.append(Finding(printable(prefix) or ".", 0, "", message, "check its owner and permissions"))
        return
    for name in entries:
        path, place = f"{prefix}{name}", folder / name
        use = use_of(path)
        # By name alone: a folder or a dangling link `callers.yaml` is read too, and that fails with a finding.
        if use is Use.READ:
            layout.read[path] = place
        elif len(layout.findings) >= MOST_REFUSED and path not in FOLDERS:
            continue
        elif _is_listed(path, place):
            _list(place, f"{path}/", layout)
        elif use is Use.REFUSED:
            layout.findings.append(Finding(printable(path), 0, "", "this file is not read", printable(_hint(path))))


def _is_listed(path: str, place: Path) -> bool:
    # Links are followed to the folders that are read, as a mounted volume has them, and to no others, which may lead anywhere.
    # Unlike `Path.is_dir`, this is False where the path cannot be accessed.
    is_folder = os.path.isdir(place)  # noqa: PTH112
    if path in FOLDERS or not is_folder:
        return is_folder
    return not (place.is_symlink() or place.name.startswith(".")) and path.count("/") < MOST_FOLDERS_DEEP


def _hint(path: str) -> str:
    folder, name = PurePosixPath(path).parent, PurePosixPath(path).name
    right = f"{PurePosixPath(name.lower()).stem}.yaml"
    if str(folder) == ".":
        suffix = PurePosixPath(name).suffix.lower()
        if right.removesuffix(".yaml") in KNOWN_FILES and (suffix in (*SUFFIXES, ".json", "")):
            return f"rename it to {right}"
        hint = did_you_mean(name, [f"{stem}.yaml" for stem in KNOWN_FILES], "file")
        return f"{hint}; objectives belong in {OBJECTIVES}/, other files outside the directory"
    top = folder.parts[0]
    if top in (OBJECTIVES, CASES):
        renamed = f"{top}/{PurePosixPath(name.removeprefix('.')).stem}.yaml"
        where = "subfolders are not read" if len(folder.parts) > 1 else "rules are in files that end in .yaml"
        return f"{where}: move it to {renamed}, or out of the directory"
    return f"objectives belong directly in {OBJECTIVES}/, cases in {CASES}/, other files outside the directory"
