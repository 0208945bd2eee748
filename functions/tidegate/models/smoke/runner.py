"""Runs the servers of a smoke test: loads closures, replaces a server that hangs or ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import EndpointError, ModelConfigError, ModelHangsError, ModelLoadError
from tidegate.finding_kinds import Severity
from tidegate.model_layout import CONFIG
from tidegate.models.catalog import plan_directory
from tidegate.models.config import is_decoupled
from tidegate.models.folder import are_complete
from tidegate.models.golden.requests import GoldenRequest, in_sequence, made_up_request
from tidegate.models.golden.samples import read_samples
from tidegate.models.lint.answering import check_decoupled
from tidegate.models.lint.checker import called_by_code, check_closure
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import CheckedFolder, Repository
from tidegate.models.smoke.asking import Asker, ModelLostError, ServerLostError, ask_steps, in_batches
from tidegate.ports import ModelLoad
from tidegate.rules import Target
from tidegate.triton.installation import Installation
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport


@dataclass(slots=True)
class ModelSmoke:
    """The smoke test of one model.

    Attributes:
        load_ms: the time to load its closure; None if that failed.
        samples: the number of its golden requests.
        requests: the number of requests that were sent.
        p50_ms: the median time of an answer to one row.
        notes: what was left out, and why.
    """

    model: str
    load_ms: float | None = None
    samples: int = 0
    requests: int = 0
    p50_ms: float | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.model,
            "load_ms": None if self.load_ms is None else round(self.load_ms, 1),
            "samples": self.samples,
            "requests": self.requests,
            "p50_ms": None if self.p50_ms is None else round(self.p50_ms, 3),
            "notes": self.notes,
        }


@dataclass(slots=True)
class SmokeReport:
    """The models that were tried, in order, and all findings, without repetition."""

    models: list[ModelSmoke] = field(default_factory=list)
    findings: list[ModelFinding] = field(default_factory=list)

    def add(self, *findings: ModelFinding) -> None:
        self.findings += [finding for finding in dict.fromkeys(findings) if finding not in self.findings]


async def smoke(
    directory: Path,
    models: Sequence[str],
    installation: Installation,
    timeout_s: float,
    on_model: Callable[[str, int], None] = lambda _name, _done: None,
) -> SmokeReport:
    """Load models on a scratch Triton, send them their golden requests, and check the answers.

    Models share a server until one hangs it or ends it; the next model gets another.

    Args:
        directory: the model repository; nothing is written there.
        models: names of models that have a folder.
        installation: the Triton to start.
        timeout_s: the longest that one load, or one answer, may take.
        on_model: callback with the name of the model that comes next, and how many are done.

    Raises:
        StackError: no server could be started.
    """
    run = _Run(directory, installation, timeout_s)
    try:
        for done, name in enumerate(models):
            on_model(name, done)
            await run.try_model(name)
    finally:
        await run.close()
    return run.report


class _Run:
    def __init__(self, directory: Path, installation: Installation, timeout_s: float) -> None:
        self.report = SmokeReport()
        self._repository = Repository(directory)
        self._transport = PooledTransport()
        self._timeout_s = timeout_s
        self._launcher = TritonLauncher(installation, directory, self._transport, lambda: not are_complete(directory))
        self._server: TritonServer | None = None
        self._failed: dict[str, str] = {}

    async def try_model(self, name: str) -> None:
        seen = ModelSmoke(name)
        self.report.models.append(seen)
        model = self._repository.model(name)
        if model is None:
            self._refuse(name, f"there is no model {name!r}")
            return
        try:
            plan = await plan_directory(self._repository.path, [Target(name, name, None, ())])
        except ModelConfigError as error:
            self._refuse(name, str(error))
            self._explain(name)
            return
        await self._load_called(name)
        started = time.monotonic()
        if not await self._load(name, plan):
            return
        seen.load_ms = (time.monotonic() - started) * 1000
        await self._ask(model, seen)

    async def close(self) -> None:
        server, self._server = self._server, None
        try:
            if server is not None:
                await server.stop()
        finally:
            await self._transport.aclose()

    async def _load_called(self, name: str) -> None:
        """Load what a model's code calls, in all served versions. If that fails, so do the requests."""
        for called in await asyncio.to_thread(called_by_code, self._repository.path, name):
            with contextlib.suppress(ModelConfigError):
                folder = self._repository.model(called)
                served = () if folder is None else folder.served
                targets = [Target(f"{called}/{version}", called, version, ()) for version in served]
                await self._load(called, await plan_directory(self._repository.path, targets))

    async def _load(self, name: str, plan: Sequence[ModelLoad]) -> bool:
        """Load a closure; return False, and report a finding, if a part of it does not load."""
        for load in plan:
            blocked = [step for step in load.steps if step in self._failed]
            if load.model in self._failed or blocked:
                reason = f"its step {blocked[0]!r} did not load" if blocked else self._failed[load.model]
                self._failed.setdefault(load.model, reason)
                if load.model == name:
                    self._refuse(name, reason)
                continue
            try:
                server = await self._running()
                await server.repository.load(load, self._timeout_s)
            except ModelLoadError as error:
                hangs = isinstance(error, ModelHangsError)
                kind = "load-hung" if hangs else "load-refused"
                self._failed[load.model] = str(error)
                self._refuse(load.model, str(error), kind)
                self._explain(load.model)
                if hangs:
                    await self._drop()
            except EndpointError as error:
                self._failed[load.model] = f"the server ended while it loaded this model: {error}"
                self._refuse(load.model, self._failed[load.model])
                self._explain(load.model)
                await self._drop()
        return name not in self._failed

    async def _ask(self, model: CheckedFolder, seen: ModelSmoke) -> None:
        requests = self._requests(model, seen)
        if not requests:
            return
        server = await self._running()
        asker = Asker(self._transport, server.endpoint, self._timeout_s)
        try:
            if is_decoupled(self._repository.configs_of(model.name)):
                for request in requests:
                    await asker.ask_stream(model, request)
                return
            answered = await asker.ask_all(model, requests)
            if model.is_ensemble and (answered or not requests[0].made_up):
                for request in (*requests, *in_batches(answered, model.config.max_batch_size)):
                    await ask_steps(asker, self._repository, model, request)
            if answered:
                seen.p50_ms = await asker.median_ms(answered[0])
        except ServerLostError:
            await self._drop()
        except ModelConfigError as error:
            self.report.add(requests[0].finding("answer-failed", str(error)))
        except ModelLostError:
            seen.notes.append("asked no further after its process ended")
        finally:
            seen.requests = asker.requests
            self.report.add(*asker.findings)

    def _requests(self, model: CheckedFolder, seen: ModelSmoke) -> tuple[GoldenRequest, ...]:
        before = len(model.found.findings)
        streams = is_decoupled(self._repository.configs_of(model.name))
        samples = read_samples(model, streams=streams)
        seen.samples = len(samples)
        self.report.add(*model.found.findings[before:])
        if streams:
            check_decoupled(model, self._repository)
            self.report.add(*(each for each in model.found.findings[before:] if each.kind == "decoupled"))
            if not samples:
                seen.notes.append(
                    "its responses are decoupled, and there is no golden request: it was loaded and not asked"
                )
            return samples
        if samples or len(model.found.findings) > before:
            return tuple(in_sequence(each, self._repository.configs_of(model.name)) for each in samples)
        made_up = made_up_request(model.name, model.config)
        hint = "write samples/*.json: docs/model-repository.md, Samples"
        what = "inputs were made from its config" if made_up else "its config does not tell what to ask"
        message = f"there is no golden request; {what}"
        self.report.add(ModelFinding(model.name, 0, "samples-missing", message, hint, model.name))
        return () if made_up is None else (in_sequence(made_up, self._repository.configs_of(model.name)),)

    async def _running(self) -> TritonServer:
        if self._server is None:
            self._server = await self._launcher.launch("smoke")
        return self._server

    async def _drop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                await server.kill()

    def _explain(self, model: str) -> None:
        """Add the errors in a model's files, which may explain why Triton refused it."""
        found = check_closure(Repository(self._repository.path), [model])
        self.report.add(*(finding for finding in found if finding.severity is Severity.ERROR))

    def _refuse(self, model: str, message: str, kind: str = "load-refused") -> None:
        self.report.add(ModelFinding(f"{model}/{CONFIG}", 0, kind, message, "", model))
