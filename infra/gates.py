"""Checks that end a command before it changes anything: a prerequisite is missing, the deployed stage cannot be updated to the
synthesized one, or the question was not confirmed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from infra.account import Account
    from infra.settings import Settings
    from infra.shards import Shard

WHAT_CANNOT_CHANGE = "see docs/operations.md#what-cannot-change"


def ready_account(
    stage: str,
    settings: Settings,
    shards: tuple[Shard, ...],
    stacks: tuple[str, ...],
    bootstrap_version: int,
    build: Path,
) -> Account:
    """Return the account if it has everything that a deployment of `stacks` needs."""
    import boto3

    from infra.account import preflight
    from infra.amis import pinned
    from infra.function_assets import find_assets

    result = preflight(stage, settings, stacks, bootstrap_version, boto3.Session())
    missing = list(result.missing)
    if "Fleet" in stacks:
        missing += [
            f"the setting ami.{kind}: run `make infra-amis STAGE={stage} MOVE=1`"
            for kind in sorted({"gpu" if shard.gpus else "cpu" for shard in shards})
            if pinned(settings, kind) is None
        ]
    if "Functions" in stacks and find_assets(build, settings) is None:
        missing.append("the functions' assets: run `make package`")
    if result.account is not None and not missing and not result.unchecked:
        return result.account
    click.echo("error: nothing was changed. Missing:", err=True)
    for each in missing:
        click.echo(f"  - {each}", err=True)
    for each in result.unchecked:
        click.echo(f"  - not looked at: {each}", err=True)
    click.echo(
        "docs/operations.md has the first deployment step by step. Without an account, `make infra-check` makes and audits "
        "the templates, and `make up` runs the whole stack on this machine.",
        err=True,
    )
    raise click.exceptions.Exit(1)


def refuse_what_cannot_become(out: Path, region: str, stage: str, stacks: tuple[str, ...]) -> None:
    """Exit with the reasons if the deployed stage cannot be changed to the assembly in the folder `out`."""
    import boto3

    from infra.upgrade.check import refusals
    from infra.upgrade.deployment import read_assembly, read_deployed

    new = read_assembly(out)
    deployed = read_deployed(new.names, boto3.client("cloudformation", region_name=region))
    reasons = refusals(deployed, new, stacks)
    if not reasons:
        return
    click.echo(f"error: nothing was changed: stage {stage} as it is deployed cannot become this:", err=True)
    for each in reasons:
        click.echo(f"  - {each}", err=True)
    click.echo(WHAT_CANNOT_CHANGE, err=True)
    raise click.exceptions.Exit(1)


def refuse_undeployed_settings(out: Path, region: str, stage: str, settings: Settings) -> None:
    """Exit if CloudFormation would keep or delete something else than the settings say."""
    import boto3

    from infra.destroying import undeployed_settings
    from infra.upgrade.deployment import read_assembly, read_deployed

    cloudformation = boto3.client("cloudformation", region_name=region)
    names = read_assembly(out).names
    storage = read_deployed({"Storage": names["Storage"]}, cloudformation).templates.get("Storage", {})
    differences = list(undeployed_settings(settings, storage, names, cloudformation))
    if not differences:
        return
    click.echo(
        "error: nothing was destroyed: CloudFormation follows what is deployed, which is not what the settings say:",
        err=True,
    )
    for each in differences:
        click.echo(f"  - {each}", err=True)
    click.echo(f"deploy the settings first (`make infra STAGE={stage}`), and run this again", err=True)
    raise click.exceptions.Exit(1)


def confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        click.echo("error: nothing was changed: there is no terminal for the question; set YES=1 (--yes)", err=True)
        raise click.exceptions.Exit(1)
    if not click.confirm(question):
        click.echo("nothing was changed")
        raise click.exceptions.Exit(1)
