"""Rules by what a user names them: a directory, a compiled bundle, or either in a git revision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tidegate.cli.rules import git_rules
from tidegate.errors import BundleError
from tidegate.rules import compile_directory
from tidegate.rules.compare.revision import Revision, open_revision


def read_revision(name: str, argument: str) -> Revision:
    """The rules that `name` stands for; what is there decides between a directory, a bundle and a git revision.

    Args:
        name: what the user wrote.
        argument: what the command calls it.

    Raises:
        RulesError: they do not compile.
        click.BadParameter: there is nothing of that name, or it is neither rules nor a bundle.
    """
    try:
        return open_revision(_bundle(name))
    except BundleError as error:
        raise click.BadParameter(f"{name}: {error}", param_hint=argument) from error
    except click.UsageError as error:
        raise click.BadParameter(error.message, param_hint=argument) from error
    except OSError as error:
        raise click.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=argument) from error


def _bundle(name: str) -> bytes:
    path = Path(name)
    if name and _exists(path):
        return compile_directory(path) if path.is_dir() else path.read_bytes()
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
