"""One replica of a shard: a model server that is replaced when it dies or is wedged, and the models it must hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tidegate.control.assignment import NOTHING, Plan
from tidegate.control.loader import Loading, blocked, bring_up, load_model, not_ready
from tidegate.errors import EndpointError, ModelLoadError, StackError
from tidegate.ports import Endpoint, ModelLoad, ModelServer, ServerLauncher

logger = logging.getLogger(__name__)

State = Literal["starting", "loading", "ready", "down", "stopping"]

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0


class Replica:
    """A place in a shard that one server at a time fills.

    `changed` is called whenever the endpoint that may be sent requests has changed. Everything that touches the server
    runs under a lock, so that a restart and a change of the plan do not meet.
    """

    def __init__(
        self, shard: str, launcher: ServerLauncher, load_timeout_s: float, changed: Callable[[], None]
    ) -> None:
        self.shard = shard
        self.state: State = "starting"
        self._launcher = launcher
        self._load_timeout_s = load_timeout_s
        self._changed = changed
        self._server: ModelServer | None = None
        self._replaced: list[ModelServer] = []
        self._wanted: Plan = NOTHING
        self._loading = Loading()
        self._lock = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where requests may be sent now; None while there is no server with its models READY."""
        return self._server.endpoint if self._server is not None and self.state == "ready" else None

    @property
    def loaded(self) -> Mapping[str, ModelLoad]:
        """The models that can be called now."""
        return self._loading.loaded if self.state == "ready" else {}

    @property
    def failed(self) -> Mapping[str, str]:
        """The models that should be loaded and cannot be, with the reason."""
        return self._loading.failed

    async def start(self, plan: Plan) -> None:
        """Start the server with everything of `plan` that loads; what does not stands in `failed`.

        Raises:
            StackError: no server could be started.
        """
        async with self._lock:
            self._wanted = plan
            self._use(await self._bring_up())
        self._supervisor = asyncio.create_task(self._supervise())

    async def load(self, plan: Plan) -> None:
        """Load what `plan` has and the server has not, while it serves.

        While the server is down this only changes what its successor will hold.

        Raises:
            ModelLoadError: a model could not be loaded. What was loaded before the call still serves, if need be on a
                new server; `keep` takes the plan back.
        """
        async with self._lock:
            before, self._wanted = self._wanted, plan
            if self._server is None or self.state != "ready":
                return
            try:
                await self._load_missing(plan, before)
            except StackError:
                self._wanted = before
                raise

    async def keep(self, plan: Plan) -> None:
        """Unload what `plan` does not have, ensembles before their steps, and narrow versions to what it asks for."""
        async with self._lock:
            self._wanted = plan
            await self._stop_replaced()
            if self._server is None or self.state != "ready":
                return
            kept = {load.model: load for load in plan}
            for model in reversed(list(self._loading.loaded)):
                if model not in kept:
                    await self._unload(self._server, model)
            for load in plan:
                if load.model in self._loading.loaded and self._loading.loaded[load.model] != load:
                    await self._narrow(self._server, load)
            for model in set(self._loading.failed) - set(kept):
                del self._loading.failed[model]

    async def stop(self) -> None:
        """End the server and whatever is under way, in bounded time."""
        self.state = "stopping"
        self._changed()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        current = [self._server] if self._server is not None else []
        await asyncio.gather(self._stop_replaced(), *(server.stop() for server in current))

    def status(self) -> dict[str, Any]:
        """The endpoint as plain JSON values."""
        states = [(load, "LOADING") for load in self._wanted if load.model not in self._loading.loaded]
        states += [(load, "READY") for load in self._loading.loaded.values()]
        models = []
        for load, state in sorted(states, key=lambda item: item[0].model):
            failure = self.failed.get(load.model)
            for version in load.versions:
                entry: dict[str, Any] = {"name": load.model, "version": version, "state": state}
                models.append(entry if failure is None else {**entry, "state": "UNAVAILABLE", "reason": failure})
        server = self._server
        return {
            "url": server.endpoint.url if server else None,
            "pid": server.pid if server else None,
            "state": self.state,
            "models": models,
        }

    async def _bring_up(self) -> ModelServer:
        self.state = "loading"
        self._loading = Loading()
        return await bring_up(self._launcher, self.shard, self._wanted, self._load_timeout_s, self._loading)

    def _use(self, server: ModelServer) -> None:
        self._server = server
        self.state = "ready"
        self._changed()

    async def _load_missing(self, plan: Plan, before: Plan) -> None:
        assert self._server is not None
        known = {load.model for load in plan if load.model in self.failed and load in before}
        for load in plan:
            if load.model not in known and self.loaded.get(load.model) != load:
                await self._load_one(load, before)
        try:
            missing = await not_ready(self._server.repository, self._loading.loaded.values())
        except EndpointError as error:
            raise StackError(f"shard {self.shard!r}: {error}") from error
        for model, reason in missing.items():
            raise self._not_loaded(model, reason)

    async def _load_one(self, load: ModelLoad, before: Plan) -> None:
        assert self._server is not None
        reason = blocked(load, self.failed)
        if reason:
            raise self._not_loaded(load.model, reason)
        try:
            await load_model(self._server.repository, self._server.endpoint, load, self._load_timeout_s)
        except ModelLoadError as error:
            if error.hung:
                await self._replace(before)
            raise self._not_loaded(load.model, str(error)) from error
        except EndpointError as error:
            raise self._not_loaded(load.model, f"the server ended or did not answer: {error}") from error
        self._loading.loaded[load.model] = load
        self._loading.failed.pop(load.model, None)

    def _not_loaded(self, model: str, reason: str) -> ModelLoadError:
        return ModelLoadError(model, f"model {model!r} on shard {self.shard!r}: {reason}")

    async def _replace(self, plan: Plan) -> None:
        """Put a fresh server in the place of one that a load has wedged. The wedged one goes on answering until `keep`.

        Raises:
            StackError: no server that holds what the wedged one holds could be started, so the wedged one stays.
        """
        logger.warning("shard %s: a load hung, so its server is replaced", self.shard)
        loading = Loading(failed=dict(self.failed))
        server = await bring_up(self._launcher, self.shard, plan, self._load_timeout_s, loading)
        lost = {model: reason for model, reason in loading.failed.items() if model not in self.failed}
        if lost:
            await server.kill()
            raise StackError(f"shard {self.shard!r}: a load hung, and on another server {lost} cannot be loaded")
        assert self._server is not None
        self._replaced.append(self._server)
        self._loading = loading
        self._use(server)
        if self._supervisor is not None:
            self._supervisor.cancel()
        self._supervisor = asyncio.create_task(self._supervise())

    async def _stop_replaced(self) -> None:
        # Forgotten only afterwards, so that one whose end is cancelled here is ended by `stop`.
        await asyncio.gather(*(server.kill() for server in self._replaced))
        self._replaced.clear()

    async def _narrow(self, server: ModelServer, load: ModelLoad) -> None:
        try:
            await load_model(server.repository, server.endpoint, load, self._load_timeout_s)
        except (ModelLoadError, EndpointError) as error:
            logger.warning("shard %s: %s keeps versions that no rule needs: %s", self.shard, load.model, error)
            return
        self._loading.loaded[load.model] = load

    async def _unload(self, server: ModelServer, model: str) -> None:
        try:
            await server.repository.unload(model)
        except (StackError, EndpointError) as error:
            logger.warning("shard %s: %s", self.shard, error)
            return
        self._loading.loaded.pop(model, None)
        logger.info("unloaded %s from shard %s", model, self.shard)

    async def _supervise(self) -> None:
        """Watch the server; when it ends by itself, start another until all its models are READY again."""
        while True:
            server = self._server
            assert server is not None
            how = await server.wait()
            self._go_down()
            logger.warning("shard %s: the server at %s %s; starting another", self.shard, server.endpoint.url, how)
            await server.kill()
            await self._revive()

    async def _revive(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        known = set(self.failed)
        while True:
            async with self._lock:
                self._server = None
                try:
                    server = await self._bring_up()
                    if set(self.failed) <= known:
                        self._use(server)
                        logger.info("shard %s: its models are READY again", self.shard)
                        return
                    await server.kill()
                    logger.warning("shard %s: not all models came back: %s", self.shard, dict(self.failed))
                except StackError as error:
                    logger.warning("shard %s: %s", self.shard, error)
                self._go_down()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _go_down(self) -> None:
        self.state = "down"
        self._loading.loaded.clear()
        self._changed()
