"""Compile a rules directory to a bundle.

`python -m tidegate.language.compiler DIR` writes the bundle to standard output, so that a running process can compile in a
child without stalling its own requests; it exits with 1 and the findings on standard error where the rules are wrong.
"""

from __future__ import annotations

import sys
from os import PathLike

from tidegate.errors import RulesError
from tidegate.language.directory import read_directory
from tidegate.language.indexing import index_tables
from tidegate.language.program import Program
from tidegate.language.semantics import resolve_target
from tidegate.rules.bundle import FIRST_LINE, pack
from tidegate.rules.bundle.manifest import Manifest, ObjectiveEntry
from tidegate.rules.bundle.rule import encode_rule
from tidegate.rules.bundle.tables import encode_tables


def compile_directory(path: str | PathLike[str]) -> bytes:
    program, findings = read_directory(path)
    if findings:
        raise RulesError(findings)
    return emit(program)


def emit(program: Program) -> bytes:
    world = program.world
    lines: list[bytes] = []
    objectives: dict[str, ObjectiveEntry] = {}
    for objective in sorted(program.objectives, key=lambda each: each.name):
        objectives[objective.name] = ObjectiveEntry(objective.contract, objective.targets, FIRST_LINE + len(lines))
        lines.append(encode_tables(index_tables(objective)))
        lines += map(encode_rule, objective.rules)
    names = {name for entry in objectives.values() for name in entry.targets}
    names.update(name for caller in (program.callers or {}).values() for name in caller.overrides or ())
    manifest = Manifest(
        world.fleet,
        {name: layer.key for name, layer in world.layers.items()},
        {name: resolve_target(name, world.fleet.aliases) for name in names},
        objectives,
        program.callers,
    )
    return pack(manifest, lines)


def main(arguments: list[str]) -> int:
    """Compile the directory named by the only argument to standard output; the exit code is 0, or 1 with findings."""
    try:
        data = compile_directory(arguments[0])
    except RulesError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
