"""What the console needs of the rules directory of a stack: the files, the line of each rule, and the cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tidegate.files import read_regular
from tidegate.language.layout import KNOWN_FILES, OBJECTIVES, read_layout
from tidegate.language.source import MAX_FILE_BYTES, read_source


def read_rules(root: Path) -> dict[str, Any]:
    """Read a directory::

        {"revision": what it compiles to, or null, "lines": {objective: {rule: line}}, "cases": {objective: [case]},
         "files": {objective: the file that declares it}, "broken": [file with a mistake], "memory_mb": {model: declared}}

    What cannot be read is left out: the commands and the publish report it.
    """
    # By the child process that reads alone.
    from tidegate.analysis.cases.reading import read_cases
    from tidegate.language.compiler import emit
    from tidegate.language.directory import read_directory
    from tidegate.rules.bundle import revision_of

    program, findings = read_directory(root)
    lines: dict[str, dict[str, int]] = {}
    files: dict[str, str] = {}
    for path in read_layout(root).of(OBJECTIVES):
        source = read_source(path, path.name)
        data = source.data if isinstance(source.data, dict) else {}
        name, rules = data.get("objective"), data.get("rules")
        if isinstance(name, str) and isinstance(rules, list):
            files[name] = path.relative_to(root).as_posix()
            lines[name] = {
                rule["id"]: source.line(("rules", place))
                for place, rule in enumerate(rules)
                if isinstance(rule, dict) and isinstance(rule.get("id"), str)
            }
    cases, _ = read_cases(root, {each.name for each in program.objectives})
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        found.setdefault(case.objective, []).append(
            {"name": case.name, "context": dict(case.context), "at": case.at, "expect": dict(case.expect)}
        )
    demand = program.world.demand
    declared = {model: demand.declared_mb(model) for model in (*demand.models, *demand.steps)}
    return {
        "revision": None if findings else revision_of(emit(program)),
        "lines": lines,
        "files": files,
        "broken": sorted({each.file for each in findings}),
        "cases": found,
        "memory_mb": {model: size for model, size in declared.items() if size is not None},
    }


def state_of(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file of a directory does: names, times and sizes. No file is opened."""
    found = []
    for name, path in read_layout(root).read.items():
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def shown_files(root: Path, objective: str, declared: Mapping[str, str], broken: Iterable[str]) -> list[dict[str, str]]:
    """Return the files of an objective, those that all objectives share, and those that are `broken`, as the author wrote them."""
    layout = read_layout(root)
    own = declared.get(objective, f"{OBJECTIVES}/{objective}.yaml")
    wanted = [own, *(f"{stem}{suffix}" for stem in KNOWN_FILES for suffix in (".yaml", ".yml"))]
    wanted += [name for name in layout.read if name.startswith("cases/") and PurePosixPath(name).stem == objective]
    found = ((name, layout.read[name]) for name in dict.fromkeys([*wanted, *broken]) if name in layout.read)
    return [{"path": name, "text": text} for name, text in _texts(found)]


def all_files(root: Path) -> dict[str, bytes]:
    """Return every file of a directory that is read, by its path; those that vanish meanwhile are left out."""
    found = {}
    for name, path in read_layout(root).read.items():
        try:
            found[name] = read_regular(path, MAX_FILE_BYTES)
        except OSError:
            continue
    return found


def _texts(files: Iterable[tuple[str, Path]]) -> Iterable[tuple[str, str]]:
    for name, path in files:
        try:
            yield name, read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig", "replace")
        except OSError:
            continue
