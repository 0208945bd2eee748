"""`tidegate facts …`: fill the table that models look facts up in."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.fact_files import FactFile, find_fact_files
from tidegate.aws.facts import SeededFacts, seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.cli.columns import say
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.stacks import STACK, StoreOptions, find_stack, settings_of_stack, sound
from tidegate.settings import Settings

SETTINGS = {"table": "facts_table", "endpoint_url": "aws_endpoint_url", "region": "aws_region"}


@click.group(cls=ReportingGroup)
def facts() -> None:
    """Fill the table that models look facts up in."""


@facts.command(short_help="Write models' seed files to the table.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@STACK
@click.option("--table", callback=sound(SETTINGS), help="DynamoDB table. Default: TIDEGATE_FACTS_TABLE.")
@click.option(
    "--endpoint-url", callback=sound(SETTINGS), help="Address of DynamoDB. Default: TIDEGATE_AWS_ENDPOINT_URL, or AWS."
)
@click.option(
    "--region", callback=sound(SETTINGS), help="AWS region. Default: TIDEGATE_AWS_REGION, or AWS's own settings."
)
@click.option("--create", is_flag=True, help="Create the table if it is missing.")
@AS_JSON
def seed(path: Path, stack: str | None, create: bool, as_json: bool, **named: str | None) -> None:
    """Write the facts of PATH to the table: a seed file, a model's folder, or a model repository.

    A seed file is <model>/facts/<name>.jsonl with lines {"key": …, "value": …}. All files are checked before anything is
    written. A fact that exists is replaced; one that no file has stays.
    """
    changes: dict[str, Any] = {SETTINGS[option]: text for option, text in named.items() if text is not None}
    if stack is not None and changes:
        raise click.UsageError("--stack names the table and where it is: leave it out, or the other options")
    settings = dataclasses.replace(Settings.from_environment(), **changes)
    if stack is None and not changes and settings.facts_table is None:
        stack = find_stack(StoreOptions(), settings)
    if stack is not None:
        settings = settings_of_stack(settings, stack)
    if settings.facts_table is None:
        where = f"{stack} has no table of facts" if stack else "nothing names the table"
        raise click.UsageError(f"{where}: name it with --table, with --stack URL, or in TIDEGATE_FACTS_TABLE")
    files = find_fact_files(path)
    seeded = asyncio.run(_seed(settings, settings.facts_table, files, create=create))
    if as_json:
        print_json({"table": settings.facts_table, "facts": {each.name: each.count for each in seeded}})
    for each in () if as_json else seeded:
        say(f"{each.name}: {each.count} facts in table {settings.facts_table}")


async def _seed(settings: Settings, table: str, files: Sequence[FactFile], *, create: bool) -> tuple[SeededFacts, ...]:
    clients = AwsClients(AwsConfig.from_settings(settings))
    if create:
        await provision_facts(clients, table)
    return await seed_facts(clients, table, files)
