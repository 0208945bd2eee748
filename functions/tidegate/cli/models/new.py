"""`tidegate models new`: another model, from one that there is."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.models.options import IN_MODELS
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.ports.model_units import check_name
from tidegate.triton.retraining import copy_model


@click.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="MODEL", help="The model that is copied.")
@IN_MODELS
@AS_JSON
def new(name: str, source: str, models: Path, as_json: bool) -> None:
    """Copy a model's folder to NAME, which its configs say then. An ensemble's steps stay those that it calls.

    Nothing is overwritten, and no rule is changed.
    """
    check_name(name)
    folder = copy_model(models, source, name)
    if as_json:
        print_json({"ok": True, "model": name, "from": source, "folder": str(folder)})
    else:
        say(f"{folder}: copied from {source}. Next: edit it, and name it under models in fleet.yaml and in a rule")
