"""`tidegate rules schema`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.rules.schemas import FOLDER, SCHEMAS, schema_text

DEFAULT_OUT = Path("routing_rules") / FOLDER


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_OUT,
    show_default=True,
    help="The folder of the schemas.",
)
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail where a file is not as it would be.")
@AS_JSON
def schema(out: Path, only_check: bool, as_json: bool) -> None:
    """Write the JSON Schemas that editors complete and check the rules' files with.

    Exit code 1, with --check: a schema is missing or differs from what this version makes.
    """
    if not out.exists() and not out.parent.is_dir():
        raise click.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    states: dict[Path, str] = {}
    for name in SCHEMAS:
        file = out / f"{name}.json"
        text = schema_text(name)
        try:
            states[file] = _state(file, text)
            if states[file] != "current" and not only_check:
                out.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
                states[file] = "written"
        except OSError as error:
            raise click.BadParameter(f"{file} cannot be used: {error.strerror}", param_hint="--out") from error
    drifted = any(state in ("missing", "differs") for state in states.values())
    if as_json:
        print_json({"ok": not drifted, "files": [{"file": str(file), "state": states[file]} for file in states]})
    else:
        for file, state in states.items():
            click.echo(f"{file}: {state}")
        if drifted:
            click.echo(
                f"error: the schemas are not current: run `tidegate rules schema --out {shlex.quote(str(out))}`",
                err=True,
            )
    if drifted:
        raise click.exceptions.Exit(1)


def _state(file: Path, text: str) -> str:
    if not file.exists():
        return "missing"
    return "current" if file.read_bytes() == text.encode() else "differs"
