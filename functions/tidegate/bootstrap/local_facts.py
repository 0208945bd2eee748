"""The facts of a local stack: the table that its models look them up in, filled from the folder of models."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.facts import seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.ports.fact_files import look_for_fact_files
from tidegate.settings import Settings

logger = logging.getLogger(__name__)


async def seed_local_facts(settings: Settings, models: Path) -> None:
    """Create the table of facts and write the facts of every model of a folder to it; nothing where none has any.

    Raises:
        ModelConfigError: a seed file is malformed; it names the line.
        StoreError: the local AWS did not answer.
    """
    files = await asyncio.to_thread(look_for_fact_files, models)
    if not files or settings.facts_table is None:
        return
    clients = AwsClients(AwsConfig.from_settings(settings))
    await provision_facts(clients, settings.facts_table)
    for seeded in await seed_facts(clients, settings.facts_table, files):
        logger.info("facts: %d of %s in table %s", seeded.count, seeded.name, settings.facts_table)
