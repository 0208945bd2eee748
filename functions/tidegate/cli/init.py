"""`tidegate init`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import click

from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import FOLDER, not_written

TEMPLATE = Path(__file__).parent / "project"


@click.command()
@click.argument("directory", type=FOLDER, default=Path())
@AS_JSON
def init(directory: Path, as_json: bool) -> None:
    """Write a first project into DIRECTORY (default: here): rules with cases, and an ensemble that runs on the local stack.

    Nothing is overwritten: if one of the files exists already, nothing is written at all.
    """
    files = sorted(file for file in TEMPLATE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    written = {directory / file.relative_to(TEMPLATE): file for file in files}
    _refuse_existing(written)
    for target, file in written.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                stream.write(file.read_bytes())
        except OSError as error:
            raise not_written(target, error, "DIRECTORY") from error
    rules, models = (shlex.quote(str(directory / name)) for name in ("routing_rules", "triton_models"))
    steps = [
        f"tidegate rules check {rules} --models {models}",
        f"tidegate rules test {rules}",
        f"tidegate models check {models}",
        "tidegate up" if directory == Path() else f"tidegate up --rules {rules} --models {models}",
        f"read {directory / 'README.md'}: the first request",
    ]
    if as_json:
        print_json({"directory": str(directory), "files": list(map(str, written)), "next": steps})
        return
    for target in written:
        click.echo(f"{target}: written")
    click.echo("Next:")
    for step in steps:
        click.echo(f"  {step}")


def _refuse_existing(targets: Iterable[Path]) -> None:
    """Refuse to begin if one of the files exists, or one of their folders cannot be made."""
    for target in targets:
        try:
            if target.exists() or target.is_symlink():
                message = f"{target} is there already, and nothing is overwritten: name another directory"
                raise click.BadParameter(message, param_hint="DIRECTORY")
            nearest = next(each for each in target.parents if each.exists() or each.is_symlink())
        except OSError as error:
            raise not_written(target, error, "DIRECTORY") from error
        if not nearest.is_dir():
            message = f"{nearest} is there already and is not a folder: name another directory"
            raise click.BadParameter(message, param_hint="DIRECTORY")
