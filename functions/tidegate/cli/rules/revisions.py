"""Rules by what a user names them: a directory, a compiled bundle, or either in a git revision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tidegate.cli.rules import git_rules
from tidegate.cli.rules.compiled import findings_json
from tidegate.cli.rules.options import print_json
from tidegate.errors import BundleError, RulesError
from tidegate.files import read_regular
from tidegate.rules import compile_directory
from tidegate.rules.bundle import MAX_BYTES
from tidegate.rules.compare.revision import Revision, open_revision


def read_revision(name: str, argument: str, *, as_json: bool) -> Revision:
    """The rules that `name` stands for, opened for comparison; what is there decides between a directory, a bundle and a
    git revision. Rules that do not compile are printed, with whose they are, and end the command with exit code 1.

    Args:
        name: what the user wrote.
        argument: what the command calls it.
        as_json: whether findings are printed as JSON.

    Raises:
        click.BadParameter: there is nothing of that name, or it is neither rules nor a bundle.
    """
    try:
        return open_revision(_bundle(name))
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
