"""The local fleet: one model server per replica of each shard, holding what the live rules need and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tidegate.control.assignment import NOTHING, Assignment, DirectoryCatalog, assign, transition, unserved
from tidegate.control.in_flight import InFlight
from tidegate.control.replica import Replica
from tidegate.errors import StackError, TidegateError
from tidegate.ports import MemoryEndpointDirectory, MemoryEngineSource, ServerLauncher
from tidegate.rules import Engine

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 2.0


class LocalStack:
    """Starts, changes and stops the local fleet; a `FleetStatus`.

    Give the gateway `engines` and `directory`, and wrap it with `in_flight.wrap`: a change of the rules swaps the first
    two at once and unloads what no rule reaches any more only after the requests that began before have been answered.
    """

    def __init__(
        self,
        engine: Engine,
        launcher: ServerLauncher,
        catalog: DirectoryCatalog,
        load_timeout_s: float = 30.0,
        drain_timeout_s: float = 10.0,
    ) -> None:
        self.engines = MemoryEngineSource(engine)
        self.directory = MemoryEndpointDirectory()
        self.in_flight = InFlight()
        self.last_rejected: Mapping[str, Any] | None = None
        self._launcher = launcher
        self._catalog = catalog
        self._load_timeout_s = load_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._live = Assignment(engine, {})
        self._since = _now()
        self._replicas: dict[str, list[Replica]] = {}
        self._leaving: list[Assignment] = []
        self._retired: list[Replica] = []
        self._every: set[Replica] = set()
        self._change = asyncio.Lock()
        self._cleanup: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start every shard's servers and load what the rules need.

        Raises:
            ModelConfigError: a model is missing or cannot be served as its files stand; nothing was started.
            StackError: a server did not start, or a target is served by no endpoint. The servers still run: call `stop`.
        """
        wanted = assign(self.engines.live, self._catalog)
        self._replicas = {shard: self._make(shard, size.replicas) for shard, size in wanted.engine.fleet.shards.items()}
        async with _progress(self):
            await _all(
                replica.start(wanted.plans[shard]) for shard, group in self._replicas.items() for replica in group
            )
        self._check(wanted.engine)
        self._live, self._since = wanted, _now()
        self._refresh()

    async def apply(self, engine: Engine) -> None:
        """Make another engine live: load what it needs beside what is there, swap, drain, unload.

        It returns after the swap; draining and unloading go on behind it. A failure leaves the live engine as it was.

        Raises:
            ModelConfigError: a model is missing or cannot be served as its files stand.
            StackError: a server did not start, or a model did not load on one of the endpoints.
        """
        async with self._change:
            if engine.revision == self._live.engine.revision:
                self.last_rejected = None
                return
            wanted = assign(engine, self._catalog)
            if self._cleanup is not None:
                self._cleanup.cancel()
            replicas, added = self._resized(engine)
            try:
                async with _progress(self):
                    await self._prepare(wanted, replicas, added)
                self._check(engine, replicas)
            except TidegateError:
                await self._take_back(added)
                raise
            self._retired += [old for group in self._replicas.values() for old in group if not _holds(replicas, old)]
            self._leaving.append(self._live)
            self._replicas, self._live, self._since = replicas, wanted, _now()
            self._refresh()
            self.engines.swap(engine)
            self.last_rejected = None
            logger.info("revision %s is live", engine.revision[:12])
            self._cleanup = asyncio.create_task(self._clean_up())

    async def stop(self) -> None:
        """Stop every server, in bounded time, whatever else is under way."""
        if self._cleanup is not None:
            self._cleanup.cancel()
            await asyncio.wait([self._cleanup])
        await asyncio.gather(*(replica.stop() for replica in self._every))

    def reject(self, error: TidegateError) -> None:
        """Note that new rules were refused; the live ones stay."""
        self.last_rejected = {"at": _now(), "findings": str(error).splitlines()}

    async def status(self) -> Mapping[str, Any]:
        """The fleet as plain JSON values::

        {"revision": hex digest of the live rules, "since": when they became live (ISO 8601, UTC),
         "objectives": how many there are,
         "shards": [{"name": …, "replicas": wanted number,
                     "endpoints": [{"url": … or null, "pid": … or null,
                                    "state": "starting" | "loading" | "ready" | "down" | "stopping",
                                    "models": [{"name": …, "version": 1,
                                                "state": "READY" | "LOADING" | "UNAVAILABLE",
                                                "reason": only where UNAVAILABLE}]}]}],
         "rules": {"last_rejected": null or {"at": ISO 8601, "findings": [one line each]}}}
        """
        return {
            "revision": self._live.engine.revision,
            "since": self._since,
            "objectives": len(self._live.engine.objectives),
            "shards": [
                {"name": shard, "replicas": len(group), "endpoints": [replica.status() for replica in group]}
                for shard, group in sorted(self._replicas.items())
            ],
            "rules": {"last_rejected": self.last_rejected},
        }

    def progress(self) -> str:
        """How many models of how many are loaded, in words, for someone who waits."""
        models = [model for replica in self._every for model in replica.status()["models"]]
        loading = sorted({model["name"] for model in models if model["state"] == "LOADING"})
        done = sum(model["state"] != "LOADING" for model in models)
        return f"{done} of {len(models)} models loaded; next: {', '.join(loading[:3]) or 'none'}"

    def _make(self, shard: str, count: int) -> list[Replica]:
        made = [Replica(shard, self._launcher, self._load_timeout_s, self._refresh) for _ in range(count)]
        self._every.update(made)
        return made

    def _resized(self, engine: Engine) -> tuple[dict[str, list[Replica]], list[Replica]]:
        """The replicas of every shard of `engine`, reusing those there are, and which of them are new."""
        replicas: dict[str, list[Replica]] = {}
        added: list[Replica] = []
        for shard, size in engine.fleet.shards.items():
            kept = self._replicas.get(shard, [])[: size.replicas]
            fresh = self._make(shard, size.replicas - len(kept))
            replicas[shard] = kept + fresh
            added += fresh
        return replicas, added

    async def _prepare(self, wanted: Assignment, replicas: Mapping[str, list[Replica]], added: list[Replica]) -> None:
        work = [replica.start(wanted.plans[replica.shard]) for replica in added]
        for shard, group in replicas.items():
            kept = [replica for replica in group if replica not in added]
            plan = transition([*self._leaving, self._live], wanted, self._catalog, shard) if kept else NOTHING
            work += [replica.load(plan) for replica in kept]
        await _all(work)
        for replica in added:
            for model, reason in replica.failed.items():
                raise StackError(f"model {model!r} does not load on the new shard {replica.shard!r}: {reason}")

    async def _take_back(self, added: list[Replica]) -> None:
        self._every.difference_update(added)
        await asyncio.gather(*(replica.stop() for replica in added))
        self._cleanup = asyncio.create_task(self._clean_up())

    async def _clean_up(self) -> None:
        if not await self.in_flight.drain(self._drain_timeout_s):
            logger.warning("requests are still under way after %g s; unloading anyway", self._drain_timeout_s)
        async with self._change:
            plans = self._live.plans
            await _all(replica.keep(plans[shard]) for shard, group in self._replicas.items() for replica in group)
            self._leaving.clear()
            retired, self._retired = self._retired, []
            self._refresh()
            await asyncio.gather(*(replica.stop() for replica in retired))
            self._every.difference_update(retired)

    def _check(self, engine: Engine, replicas: Mapping[str, list[Replica]] | None = None) -> None:
        """Raise where a target has no endpoint that serves it."""
        replicas = self._replicas if replicas is None else replicas
        loaded = {shard: [replica.loaded for replica in group] for shard, group in replicas.items()}
        missing = unserved(engine, loaded)
        if not missing:
            return
        lines = [
            f"target {target.name!r}: model {target.model!r} on shard {shard!r}: "
            + replica.failed.get(target.model, "its server is down")
            for target in missing
            for shard in target.shards
            for replica in replicas[shard]
        ]
        lines.append(
            "mend or unpin the model, or take it out of the rules; a longer --load-timeout-s helps a slow load"
        )
        raise StackError("not every target can be served\n" + "\n".join(dict.fromkeys(lines)))

    def _refresh(self) -> None:
        """Rebuild the directory from the endpoints that serve now.

        A shard that the live rules do not have any more stays for the requests that began before.
        """
        groups: dict[str, list[Replica]] = {}
        for replica in self._retired:
            if replica.shard not in self._replicas:
                groups.setdefault(replica.shard, []).append(replica)
        self.directory.shards = {
            shard: tuple(replica.endpoint for replica in group if replica.endpoint is not None)
            for shard, group in {**groups, **self._replicas}.items()
        }


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run everything to its end, then raise the first failure; cancelled, it waits until every part has cleaned up."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


@contextlib.asynccontextmanager
async def _progress(stack: LocalStack) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            logger.info("%s", stack.progress())

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()


def _holds(replicas: Mapping[str, list[Replica]], replica: Replica) -> bool:
    return replica in replicas.get(replica.shard, ())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
