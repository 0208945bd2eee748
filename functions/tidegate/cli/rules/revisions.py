"""Rules by what a user names them: a directory, a compiled bundle, either in a git revision, or what is live."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from tidegate.cli.rules import git_rules
from tidegate.cli.rules.compiled import compiled, findings_json
from tidegate.cli.rules.live import check_stack, is_live, read_live
from tidegate.cli.rules.options import print_json
from tidegate.errors import BundleError, RulesError
from tidegate.files import read_regular
from tidegate.rules import Engine, compile_directory
from tidegate.rules.bundle import MAX_BYTES, resolution_of
from tidegate.rules.compare.revision import Revision, open_revision
from tidegate.rules.program import Program
from tidegate.rules.resolved import rules_bundle


@dataclass(frozen=True, slots=True)
class NamedRules:
    """Rules that a user named: their program, engine and bundle. `has_files`: they are a directory's."""

    program: Program
    engine: Engine
    bundle: bytes
    has_files: bool


def named_rules(name: str, stack: str | None, *, as_json: bool, as_written: bool = False) -> NamedRules:
    """The rules that the argument RULES stands for; `as_written`: as their files are, also where their targets were resolved.
    Rules with findings end the command as in `compiled`.

    Raises:
        click.BadParameter: as `read_revision`.
    """
    check_stack(stack, name)
    path = Path(name)
    if not is_live(name) and _exists(path) and path.is_dir():
        return NamedRules(*compiled(path, as_json=as_json), has_files=True)
    from tidegate.rules.decompiled import decompiled

    revision = read_revision(name, "RULES", as_json=as_json, stack=stack)
    revision = as_files(revision) if as_written else revision
    return NamedRules(decompiled(revision), revision.engine, revision.bundle.data, has_files=False)


def as_files(revision: Revision) -> Revision:
    """A resolved revision as its files compile, so that it can be compared with rules that are not resolved."""
    is_resolved = resolution_of(revision.bundle.revision) is not None
    return open_revision(rules_bundle(revision.bundle.data)) if is_resolved else revision


def read_revision(name: str, argument: str, *, as_json: bool, stack: str | None = None) -> Revision:
    """The rules that `name` stands for, opened for comparison; what is there decides between a directory, a bundle and a
    git revision; `live:` is what is live in the stores of `stack`, or of the stack that is found. Rules that do not compile are printed, with whose they are, and end the command with exit code 1.

    Args:
        name: what the user wrote.
        argument: what the command calls it.
        as_json: whether findings are printed as JSON.

    Raises:
        click.BadParameter: there is nothing of that name, or it is neither rules nor a bundle.
    """
    try:
        return open_revision(read_live(name, stack) if is_live(name) else _bundle(name))
    except RulesError as error:
        if as_json:
            side = argument.lstrip("-").lower()
            print_json({"ok": False, "side": side, "findings": findings_json(error.findings)})
        else:
            click.echo(f"{argument} ({name}): {error}", err=True)
        raise click.exceptions.Exit(1) from error
    except BundleError as error:
        raise click.BadParameter(f"{name}: {error}", param_hint=argument) from error
    except click.UsageError as error:
        raise click.BadParameter(error.message, param_hint=argument) from error
    except OSError as error:
        raise click.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=argument) from error


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
