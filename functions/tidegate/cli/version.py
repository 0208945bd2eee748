"""`tidegate version`."""

from __future__ import annotations

import platform

import click

from tidegate import __version__
from tidegate.cli.rules.options import AS_JSON, print_json


@click.command()
@AS_JSON
def version(as_json: bool) -> None:
    """Show the versions of Tidegate, of the Python that runs it, and of the machine."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        click.echo(f"tidegate {__version__}, Python {platform.python_version()}, {platform.platform()}")
