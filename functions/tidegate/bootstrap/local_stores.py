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
from tidegate.aws.local_server import LocalAws
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.aws.provision import provision
from tidegate.bootstrap.local_facts import seed_local_facts
from tidegate.control.desired import rollback_revisions
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, units_of
from tidegate.errors import BundleError, ModelConfigError, StackError, TidegateError
from tidegate.ports import ModelStore, Pointer, Unit
from tidegate.ports.model_units import unit_name
from tidegate.settings import Settings

logger = logging.getLogger(__name__)

REMEMBER_S = 1.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Revision:
    """What is stored of a revision."""

    bundle: bytes
    plans: Mapping[str, Plan]


class LocalStores:
    """Keeps the local AWS of a stack running.

    Args:
        aws: the running one.
        settings: name its bucket and tables.
        models: the folder that models are pushed from.
        plane: the stack's control plane.
    """

    def __init__(self, aws: LocalAws, settings: Settings, models: Path, plane: ControlPlane) -> None:
        self._aws = aws
        self._settings = settings
        self._models = models
        self._plane = plane
        self._pointer: Pointer | None = None
        self._revisions: dict[str, _Revision] = {}

    async def run(self) -> None:
        """Remember what is stored, and start AWS again where it has ended; until cancelled. It runs on then: servers that
        stop after this ask it."""
        ended = asyncio.create_task(self._aws.wait())
        try:
            while True:
                with contextlib.suppress(TidegateError):
                    await self._remember()
                await asyncio.wait([ended], timeout=REMEMBER_S)
                if ended.done():
                    logger.warning("the local AWS has ended, and with it all that was stored; starting it again")
                    await self._start_again()
                    ended = asyncio.create_task(self._aws.wait())
        finally:
            ended.cancel()

    async def _remember(self) -> None:
        """Read what has become live since the last time. Raises `StoreError`, `BundleError`."""
        pointer = await self._plane.ports.bundles.pointer(self._pointer)
        if pointer is None or pointer is self._pointer:
            return
        kept = (pointer.live.revision, *rollback_revisions(pointer, self._plane.config.keep_revisions))
        bundles, known = self._plane.ports.bundles, self._revisions
        for revision in kept:
            if revision not in known:
                with contextlib.suppress(BundleError):
                    known[revision] = _Revision(await bundles.bundle(revision), await bundles.assignment(revision))
        self._revisions = {revision: known[revision] for revision in kept if revision in known}
        self._pointer = pointer

    async def _start_again(self) -> None:
        while True:
            try:
                await self._aws.start_again()
                await self._fill()
            except (TidegateError, OSError) as error:
                logger.warning("the local AWS could not be filled again, so that is tried once more: %s", error)
                await self._aws.stop()
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _fill(self) -> None:
        """Store again what is known; the pointer last, once all that it needs is there. Raises `TidegateError`."""
        settings, bundles = self._settings, self._plane.ports.bundles
        if settings.bucket is None or settings.registry_table is None:
            raise StackError("the stack has no stores of its own")
        clients = AwsClients(AwsConfig.from_settings(settings))
        await provision(clients, settings.bucket, settings.registry_table)
        # One that remembers nothing of what was there before.
        models = S3ModelStore(Objects(clients, settings.bucket))
        try:
            await seed_local_facts(settings, self._models)
        except (ModelConfigError, OSError) as error:
            logger.warning(
                "the facts could not be stored again; run `tidegate facts seed` once they are repaired: %s", error
            )
        if self._pointer is None:
            return
        needed = units_of(plan for each in self._revisions.values() for plan in each.plans.values())
        for model in sorted({model for model, _ in needed}):
            try:
                await models.push(model, self._models / model, lambda *_: None)
            except (StackError, OSError) as error:
                # A folder may have changed since; the servers that hold the model go on.
                logger.warning("model %r could not be stored again: %s", model, error)
        await _seal(models, needed)
        for revision, stored in self._revisions.items():
            await bundles.put_bundle(stored.bundle)
            await bundles.put_assignment(revision, stored.plans)
        pointer = await bundles.restore(self._pointer)
        await bundles.record(pointer)
        self._pointer = pointer
        logger.warning(
            "the local AWS runs again, with revision %s live and %d models stored again from %s; what else had been "
            "pushed is lost",
            pointer.live.revision[:12],
            len({model for model, _ in needed}),
            self._models,
        )


async def _seal(models: ModelStore, units: Iterable[Unit]) -> None:
    """Make units immutable, as what is live is no draft; those that could not be stored again are told."""
    for unit in sorted(units, key=lambda each: (each[0], each[1] or 0)):
        try:
            await models.seal(await models.pin([unit]))
        except TidegateError:
            logger.warning(
                "%s is not stored as it was: servers that hold it go on, and one that starts cannot load it; put its files "
                "back, and push them with `tidegate models push`",
                unit_name(*unit),
            )
