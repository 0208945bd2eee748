"""`tidegate models version`: what was changed of a model becomes its next version."""

from __future__ import annotations

import asyncio
import difflib
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from tidegate.cli.columns import confirmed, say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.models.options import IN_MODELS
from tidegate.cli.models.stores import open_stores
from tidegate.cli.models.withdraw import parse_model
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.ports import ModelStore
from tidegate.triton.retraining import NextVersion, apply_version, plan_version


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@IN_MODELS
@click.option("--rules", type=DIRECTORY, help="The rules directory; routing_rules where there is one.")
@click.option("--keep-pins", is_flag=True, help="Leave ensembles and rules that name the version before as they are.")
@click.option("--offline", is_flag=True, help="Ask no store what was pushed: the version's files are copied.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be changed; change nothing.")
@STORE_OPTIONS
@AS_JSON
def version(
    stores: StoreOptions,
    model: str,
    models: Path,
    rules: Path | None,
    keep_pins: bool,
    offline: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make what was changed of MODEL its next version, and have ensembles and rules name it. `tidegate publish` makes it live.

    The version whose files in the folder are not those that were pushed becomes a new version folder, and gets back what was
    pushed. Whoever pins it, steps of ensembles, rules, aliases and cases, names the new one; an ensemble that was live gets a
    copy under another name for that, as all versions of one share a config. All is shown as a diff first, and asked for.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: give --yes, or --dry-run")
    name, before = parse_model(model)
    if rules is None and Path("routing_rules").is_dir():
        rules = Path("routing_rules")
    store: ModelStore | None = None
    if not offline:
        store, _ = open_stores(resolve_settings(stores, registry=False))
    plan = asyncio.run(plan_version(models, rules, store, name, before, keep_pins=keep_pins))
    if not as_json:
        _show(plan, models)
    if not dry_run:
        if not (yes or confirmed("Do it?")):
            raise click.exceptions.Exit(1)
        apply_version(models, plan)
    if as_json:
        print_json(
            {
                "ok": True,
                "dry_run": dry_run,
                "model": plan.model,
                "before": plan.before,
                "version": plan.version,
                "restored": plan.restored is not None,
                "copies": dict(plan.copies),
                "files": [str(path) for path in plan.edits],
                "diff": "".join(_diff(plan)),
                "notes": list(plan.notes),
            }
        )
    elif dry_run:
        say("dry run: nothing was changed")
    else:
        publish = shlex.join(["tidegate", "publish", "--rules", str(rules or "routing_rules"), "--models", str(models)])
        say(f"{plan.model}/{plan.version} is there. Where no stack follows the rules, make it live:")
        say(f"  {publish}")


def _show(plan: NextVersion, models: Path) -> None:
    folder = models / plan.model
    if plan.restored is None:
        say(f"{folder / str(plan.before)} is copied to {folder / str(plan.version)}")
    else:
        say(
            f"{folder / str(plan.before)} becomes {folder / str(plan.version)}; {plan.before} gets back what was pushed"
        )
    for ensemble, copy in plan.copies.items():
        say(f"{models / ensemble} was live, so it is copied to {models / copy}")
    for line in _diff(plan):
        click.echo(line, nl=False)
    for note in plan.notes:
        say(f"note: {note}")


def _diff(plan: NextVersion) -> Iterator[str]:
    for path, (before, after) in plan.edits.items():
        lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(path), str(path), n=1)
        yield from (line if line.endswith("\n") else line + "\n" for line in lines)
