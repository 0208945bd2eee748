"""`tidegate rules compile`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STACK
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.cli.rules.revisions import named_rules
from tidegate.rules.bundle import revision_json


@click.command(name="compile")
@click.argument("rules")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle's file."
)
@STACK
@AS_JSON
def compile_(rules: str, output: Path, stack: str | None, as_json: bool) -> None:
    """Compile RULES to a bundle. RULES is a rules directory, one in a git revision (HEAD~1:routing_rules), or `live:`, what
    is live, which has the versions of its models too.

    Equal rules give equal bytes; the revision is their SHA-256. Nothing is written where the rules have errors.
    """
    found = named_rules(rules, stack, as_json=as_json)
    try:
        output.write_bytes(found.bundle)
    except OSError as error:
        raise click.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from error
    if as_json:
        print_json({"file": str(output), "size_bytes": len(found.bundle), **revision_json(found.engine.revision)})
    else:
        say(f"{output}: {len(found.bundle)} bytes, revision {found.engine.rules}")
