"""What the rules commands share: arguments, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
