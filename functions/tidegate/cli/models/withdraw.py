"""`tidegate models withdraw`: what was pushed and never live is removed again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.models.stores import open_stores
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.control.drafts import claimed_units
from tidegate.errors import ModelConfigError
from tidegate.settings import Settings


@click.command()
@click.argument("model", metavar="MODEL[/VERSION]")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, or why it is refused; change nothing.")
@STORE_OPTIONS
@AS_JSON
def withdraw(stores: StoreOptions, model: str, dry_run: bool, as_json: bool) -> None:
    """Remove a model, or one version of it, from the bucket, where it was never live.

    Its name and its version numbers can be used again. What was live stays, since a rollback may need it, and so does what
    somebody publishes just now. Exit code 1: it is refused, or there is nothing of it.
    """
    name, version = parse_model(model)
    settings = resolve_settings(stores, registry=False)
    removed = asyncio.run(_withdraw(settings, name, version, dry_run=dry_run))
    if as_json:
        units = ["config" if each is None else each for each in removed]
        print_json({"ok": True, "bucket": settings.bucket, "dry_run": dry_run, "model": name, "removed": units})
    else:
        words = ["config" if each is None else f"version {each}" for each in removed]
        click.echo(f"{'would remove' if dry_run else 'removed'} {name}: {', '.join(words)}")


def parse_model(text: str) -> tuple[str, int | None]:
    """The model and the version (None: left out) that an argument names."""
    name, slash, version = text.partition("/")
    if slash and not (version.isascii() and version.isdecimal() and not version.startswith("0") and len(version) <= 18):
        raise click.BadParameter(f"{text!r}: a version is a number from 1; write {name}/1", param_hint="MODEL")
    return name, int(version) if slash else None


async def _withdraw(settings: Settings, model: str, version: int | None, *, dry_run: bool) -> Sequence[int | None]:
    models, bundles = open_stores(settings)
    held = await claimed_units(bundles)
    removed = await models.withdraw(model, version, held=held, dry_run=dry_run)
    if not removed:
        what = f"model {model!r}" if version is None else f"version {version} of model {model!r}"
        raise ModelConfigError(f"there is no {what} in bucket {settings.bucket}; `tidegate status` names what is live")
    return removed
