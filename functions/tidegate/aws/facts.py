"""Fills the table that models look facts up in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.aws.clients import AwsClients, error_code
from tidegate.aws.layout import FACT_VALUE, PARTITION_KEY, SORT_KEY
from tidegate.errors import StoreError
from tidegate.ports.fact_files import Fact, FactFile

BATCH = 25
"""The most items of one BatchWriteItem."""

ATTEMPTS = 10
FIRST_DELAY_S = 0.05
AT_ONCE = 4

SeedProgress = Callable[[str, int, int], None]
"""Callback with the name of the set of facts, how many have been written, and how many there are."""


@dataclass(frozen=True, slots=True)
class SeededFacts:
    """What a seed wrote: the name of the set of facts, and how many."""

    name: str
    count: int


async def facts_damage(clients: AwsClients, table: str) -> str:
    """What is wrong with the table of facts, in words, and what to do; empty where nothing is known to be."""
    try:
        found = await clients.call("dynamodb", f"table {table}", lambda dynamodb: _state(dynamodb, table))
    except StoreError as error:
        return f"whether the table of facts is there is not known: {error}"
    advice = "create it again (on AWS, from a backup), and fill it with `tidegate facts seed`"
    return "" if found else f"there is no table {table!r} of facts; {advice}"


def _state(dynamodb: Any, table: str) -> bool:
    """Whether a table is there; true, too, for whom that is no business of."""
    from botocore.exceptions import ClientError

    try:
        dynamodb.describe_table(TableName=table)
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return False
        if error_code(error) != "AccessDeniedException":
            raise
    return True


async def seed_facts(
    clients: AwsClients, table: str, files: Iterable[FactFile], progress: SeedProgress | None = None
) -> tuple[SeededFacts, ...]:
    """Write the facts of seed files to a table. All files are read and checked before the first is written.

    A fact that is there is replaced, so seeding again changes nothing; what no file has stays as it is.

    Raises:
        ModelConfigError: a file is no seed file; nothing was written.
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

    try:
        async with asyncio.TaskGroup() as group:
            for first in range(0, len(facts), BATCH):
                group.create_task(write(facts[first : first + BATCH]))
    except* StoreError as errors:
        raise errors.exceptions[0] from None
    return SeededFacts(name, len(facts))


def _put(name: str, fact: Fact) -> dict[str, Any]:
    item = {PARTITION_KEY: {"S": fact.key}, SORT_KEY: {"S": name}, FACT_VALUE: {"S": fact.value}}
    return {"PutRequest": {"Item": item}}


async def _write(clients: AwsClients, table: str, puts: list[dict[str, Any]]) -> None:
    left = puts
    for attempt in range(ATTEMPTS):
        if attempt:
            # DynamoDB gives back what it had no capacity for; full jitter keeps writers from coming back together.
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
