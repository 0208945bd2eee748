"""The stores of a local stack, which are in the memory of a process: where that ends, they are filled again.

Servers keep what they hold and the gateway serves what it has meanwhile. What is stored again is what the stack knows: the
revisions that are live or can be rolled back to, the pointer with its history and its marks, the models of those revisions
as they are in the folder now, and the facts. What only others knew is lost, such as models that were pushed ahead of rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.fact_files import look_for_fact_files
from tidegate.aws.facts import seed_facts
from tidegate.aws.local_server import LocalAws
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.aws.provision import provision, provision_copies, provision_facts
from tidegate.control.desired import rollback_revisions
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, units_of
from tidegate.errors import BundleError, ModelConfigError, StackError, TidegateError
from tidegate.model_units import unit_name
from tidegate.ports import BundleStore, ModelStore, Pointer, Unit
from tidegate.rules.bundle import short_revision
from tidegate.settings import Settings

logger = logging.getLogger(__name__)

REMEMBER_S = 0.25
RETRY_S = 1.0

SHADOW_QUEUE = "tidegate-shadow"
"""The queue of copies, where the stack has one."""


@dataclass(frozen=True, slots=True)
class StoredRevision:
    bundle: bytes
    plans: Mapping[str, Plan]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The contents to restore into empty stores: the pointer, and the revisions that are live or can be rolled back to."""

    pointer: Pointer
    revisions: Mapping[str, StoredRevision]


class LocalStores:
    """Keeps the local AWS of a stack running; `settings` name its bucket and tables, and `models` is the folder of models."""

    def __init__(self, aws: LocalAws, settings: Settings, models: Path, plane: ControlPlane) -> None:
        self._aws = aws
        self._settings = settings
        self._models = models
        self._plane = plane
        self._snapshot: Snapshot | None = None

    async def run(self) -> None:
        """Remember what is stored, and start AWS again where it has ended; until cancelled. It runs on then: servers that
        stop after this ask it."""
        ended = asyncio.create_task(self._aws.wait())
        try:
            while True:
                with contextlib.suppress(TidegateError):
                    self._snapshot = await take_snapshot(self._plane, self._snapshot)
                await asyncio.wait([ended], timeout=REMEMBER_S)
                if ended.done():
                    logger.warning("the local AWS has ended, and with it all that was stored; starting it again")
                    await self._start_again()
                    ended = asyncio.create_task(self._aws.wait())
        finally:
            ended.cancel()

    async def _start_again(self) -> None:
        while True:
            try:
                await self._aws.start_again()
                await fill_stores(self._plane.ports.bundles, self._settings, self._models, self._snapshot)
            except (TidegateError, OSError) as error:
                logger.warning("the local AWS could not be filled again, so that is tried once more: %s", error)
                await self._aws.stop()
                await asyncio.sleep(RETRY_S)
            else:
                return


async def take_snapshot(plane: ControlPlane, before: Snapshot | None) -> Snapshot | None:
    """Read what has become live since the snapshot `before`, by the last pointer that this process has read: its fleet reads it
    every second. Raises `StoreError`, `BundleError`."""
    bundles, pointer = plane.ports.bundles, plane.reader.known
    if pointer is None or (before is not None and pointer is before.pointer):
        return before
    known = {} if before is None else dict(before.revisions)
    kept = (pointer.live.revision, *rollback_revisions(pointer, plane.config.keep_revisions))
    for revision in kept:
        if revision not in known:
            with contextlib.suppress(BundleError):
                known[revision] = StoredRevision(await bundles.bundle(revision), await bundles.assignment(revision))
    return Snapshot(pointer, {revision: known[revision] for revision in kept if revision in known})


async def fill_stores(bundles: BundleStore, settings: Settings, models: Path, snapshot: Snapshot | None) -> None:
    """Store again what is known; the pointer last, once all that it needs is there. Raises `TidegateError`."""
    if settings.bucket is None or settings.registry_table is None:
        raise StackError("the stack has no stores of its own")
    clients = AwsClients(AwsConfig.from_settings(settings))
    await provision(clients, settings.bucket, settings.registry_table)
    if settings.shadow_queue_url is not None:
        await provision_copies(clients, SHADOW_QUEUE)
    # A store with empty caches.
    store = S3ModelStore(Objects(clients, settings.bucket))
    try:
        await seed_local_facts(settings, models)
    except (ModelConfigError, OSError) as error:
        logger.warning(
            "the facts could not be stored again; run `tidegate facts seed` once they are repaired: %s", error
        )
    if snapshot is None:
        return
    needed = units_of(plan for each in snapshot.revisions.values() for plan in each.plans.values())
    names = sorted({model for model, _ in needed})
    for model in names:
        try:
            await store.push(model, models / model, lambda *_: None)
        except (StackError, OSError) as error:
            # A folder may have changed since; the servers that hold the model go on.
            logger.warning("model %r could not be stored again: %s", model, error)
    await _seal(store, needed)
    for revision, stored in snapshot.revisions.items():
        await bundles.put_bundle(stored.bundle)
        await bundles.put_assignment(revision, stored.plans)
    await bundles.record(await bundles.restore(snapshot.pointer))
    logger.warning(
        "the local AWS runs again, with revision %s live and %d models stored again from %s; what else had been pushed is lost",
        short_revision(snapshot.pointer.live.revision), len(names), models,
    )  # fmt: skip


async def _seal(models: ModelStore, units: Iterable[Unit]) -> None:
    """Make units immutable, as live units are never drafts; report those that could not be stored again."""
    for unit in sorted(units, key=lambda each: (each[0], each[1] or 0)):
        try:
            await models.seal(await models.pin([unit]))
        except TidegateError:
            logger.warning(
                "%s is not stored as it was: servers that hold it go on, and one that starts cannot load it; put its files "
                "back, and push them with `tidegate models push`",
                unit_name(*unit),
            )


async def seed_local_facts(settings: Settings, models: Path) -> None:
    """Write the facts of every model of a folder to the stack's own table; nothing where none has any. Raises
    `ModelConfigError`: a seed file is malformed; it names the line."""
    files = await asyncio.to_thread(look_for_fact_files, models)
    if not files or settings.facts_table is None:
        return
    clients = AwsClients(AwsConfig.from_settings(settings))
    await provision_facts(clients, settings.facts_table)
    for seeded in await seed_facts(clients, settings.facts_table, files):
        logger.info("facts: %d of %s in table %s", seeded.count, seeded.name, settings.facts_table)
