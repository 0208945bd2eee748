"""Fills and checks the table in which models look facts up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.aws.clients import AwsClients, error_code
from tidegate.aws.fact_files import Fact, FactFile
from tidegate.aws.layout import FACT_VALUE, PARTITION_KEY, SORT_KEY
from tidegate.errors import StoreError
from tidegate.tasks import run_all

BATCH = 25
"""The most items of one BatchWriteItem."""

ATTEMPTS = 10
FIRST_DELAY_S = 0.05
AT_ONCE = 4

SeedProgress = Callable[[str, int, int], None]
"""Callback with the name of a set of facts, how many of them have been written, and how many there are."""


@dataclass(frozen=True, slots=True)
class SeededFacts:
    name: str
    count: int


async def facts_damage(clients: AwsClients, table: str) -> str | None:
    """Return what is wrong with the table of facts, and what to do; None if nothing is known to be."""
    try:
        await clients.call("dynamodb", f"table {table}", lambda dynamodb: dynamodb.describe_table(TableName=table))
    except StoreError as error:
        code = error_code(error.__cause__)
        if code == "ResourceNotFoundException":
            advice = "create it again (on AWS, from a backup), and fill it with `tidegate facts seed`"
            return f"there is no table {table!r} of facts; {advice}"
        # Not every role may ask.
        if code != "AccessDeniedException":
            return f"it is not known whether the table of facts exists: {error}"
    return None


async def seed_facts(
    clients: AwsClients, table: str, files: Iterable[FactFile], progress: SeedProgress | None = None
) -> tuple[SeededFacts, ...]:
    """Write the facts of seed files to a table. Existing facts are replaced, and facts that no file has are left alone.

    Raises:
        ModelConfigError: a seed file is malformed; nothing was written.
        StoreError: DynamoDB did not answer, or refused; what has been written stays.
    """
    read = [(file.name, await asyncio.to_thread(file.read)) for file in files]
    return tuple([await _seed(clients, table, name, facts, progress) for name, facts in read])


async def _seed(
    clients: AwsClients, table: str, name: str, facts: Sequence[Fact], progress: SeedProgress | None
) -> SeededFacts:
    written = 0
    turns = asyncio.Semaphore(AT_ONCE)

    async def write(batch: Sequence[Fact]) -> None:
        nonlocal written
        async with turns:
            await _write(clients, table, [_put(name, fact) for fact in batch])
        written += len(batch)
        if progress is not None:
            progress(name, written, len(facts))

    await run_all(write(facts[first : first + BATCH]) for first in range(0, len(facts), BATCH))
    return SeededFacts(name, len(facts))


def _put(name: str, fact: Fact) -> dict[str, Any]:
    item = {PARTITION_KEY: {"S": fact.key}, SORT_KEY: {"S": name}, FACT_VALUE: {"S": fact.value}}
    return {"PutRequest": {"Item": item}}


async def _write(clients: AwsClients, table: str, puts: list[dict[str, Any]]) -> None:
    left = puts
    for attempt in range(ATTEMPTS):
        if attempt:
            # DynamoDB returns items for which it had no capacity; full jitter keeps writers from retrying together.
            await asyncio.sleep(random.uniform(0, FIRST_DELAY_S * 2**attempt))  # noqa: S311  # no secret
        request = {table: left}
        answer = await clients.call(
            "dynamodb",
            f"writing facts to table {table}",
            lambda dynamodb, request=request: dynamodb.batch_write_item(RequestItems=request),  # type: ignore[misc]
        )
        left = answer.get("UnprocessedItems", {}).get(table, [])
        if not left:
            return
    raise StoreError(f"table {table} took {len(puts) - len(left)} of {len(puts)} facts of a batch; seed again later")
