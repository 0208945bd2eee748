"""Rules by the name that a user gives: a directory, a compiled bundle, either in a git revision, or what is live.

`live:` is what is live in the stores of a stack, `live:~1` what was live before that.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.analysis.compare.comparable import as_files
from tidegate.analysis.compare.revision import Revision, decompiled, open_revision
from tidegate.cli import progress
from tidegate.cli.columns import say
from tidegate.cli.findings import end_with_findings, findings_json
from tidegate.cli.json_output import print_json
from tidegate.cli.rules import git_rules
from tidegate.cli.stacks import StoreOptions, resolve_settings
from tidegate.errors import BundleError, RulesError
from tidegate.files import read_regular
from tidegate.language.compiler import emit
from tidegate.language.directory import read_directory
from tidegate.language.program import Program
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.rules.bundle import MAX_BYTES

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane

LIVE = "live:"
_LIVE_NAME = re.compile(r"live:(?:~(?P<back>[0-9]{1,2}))?")


@dataclass(frozen=True, slots=True)
class NamedRules:
    """Rules that a user named. `has_files`: they are those of a directory."""

    program: Program
    engine: Engine
    bundle: bytes
    has_files: bool


def sound_program(directory: Path, *, as_json: bool) -> Program:
    """Read the rules of a directory; print their findings, if any, and end the command with exit code 1."""
    program, findings = read_directory(directory)
    if findings:
        end_with_findings(findings, as_json=as_json)
    return program


def named_rules(name: str, stack: str | None, *, as_json: bool, as_written: bool = False) -> NamedRules:
    """Read the rules that the argument RULES names; findings end the command as in `sound_program`.

    `as_written`: as their files are, also where their targets were resolved.
    """
    refuse_idle_stack(stack, name)
    path = Path(name)
    if not name.startswith(LIVE) and _exists(path) and path.is_dir():
        progress.note(f"compiling {name}")
        program = sound_program(path, as_json=as_json)
        bundle = emit(program)
        return NamedRules(program, load_bundle(bundle), bundle, has_files=True)
    revision = read_revision(name, "RULES", as_json=as_json, stack=stack)
    if as_written:
        revision = as_files(revision)
    return NamedRules(decompiled(revision), revision.engine, revision.bundle.data, has_files=False)


def refuse_idle_stack(stack: str | None, *names: str | None) -> None:
    """Refuse `--stack` where no argument names what is live, since it would have no effect."""
    if stack is not None and not any(name is not None and name.startswith(LIVE) for name in names):
        raise click.UsageError("--stack says where to find `live:`, and no argument names that: leave it out")


def read_revision(name: str, argument: str, *, as_json: bool, stack: str | None = None) -> Revision:
    """Read the rules that `name` names; what exists decides between a directory, a bundle and a git revision.

    Rules that do not compile are printed under the name of their argument, and end the command with exit code 1. `stack` is
    the address that `--stack` gives, if any, for `live:`.
    """
    progress.note(f"reading {name}")
    try:
        return open_revision(_live_bundle(name, stack) if name.startswith(LIVE) else _bundle(name))
    except RulesError as error:
        if as_json:
            side = argument.lstrip("-").lower()
            print_json({"ok": False, "side": side, "findings": findings_json(error.findings)})
        else:
            say(f"{argument} ({name}): {error}", err=True)
        raise click.exceptions.Exit(1) from error
    except BundleError as error:
        raise click.BadParameter(f"{name}: {error}", param_hint=argument) from error
    except click.UsageError as error:
        raise click.BadParameter(error.message, param_hint=argument) from error
    except OSError as error:
        raise click.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=argument) from error


def _live_bundle(name: str, stack: str | None) -> bytes:
    """Read the resolved bundle that is live, or was live N flips ago."""
    from tidegate.cli.plane import run_on_plane

    match = _LIVE_NAME.fullmatch(name)
    if match is None:
        raise click.UsageError(f"{name!r} is neither `live:` nor, for what was live N flips ago, `live:~N`")
    back = int(match["back"] or 0)

    async def work(plane: ControlPlane) -> bytes:
        pointer = await plane.reader.pointer()
        if pointer is None:
            raise click.UsageError("nothing is live: nothing was ever published there; `tidegate publish` does")
        if back >= len(pointer.entries):
            raise click.UsageError(f"{name} is before the first of {len(pointer.entries)} flips that are known")
        return await plane.ports.bundles.bundle(pointer.entries[back].revision)

    return run_on_plane(resolve_settings(StoreOptions(stack=stack)), work)


def _bundle(name: str) -> bytes:
    path = Path(name)
    if name and _exists(path):
        return compile_directory(path) if path.is_dir() else read_regular(path, MAX_BYTES)
    found = git_rules.find(name)
    if found.kind == "blob":
        return git_rules.content(found)
    with tempfile.TemporaryDirectory(prefix="tidegate-rules-") as folder:
        git_rules.write_rules(found, Path(folder))
        return compile_directory(folder)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # Longer than a path may be, or with a NUL.
        return False
