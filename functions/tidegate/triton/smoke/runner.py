"""Runs the servers of a smoke test: loads closures, replaces a server that hangs or ends, leaves nothing behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import EndpointError, ModelConfigError, ModelLoadError
from tidegate.ports import ModelLoad
from tidegate.rules import Target
from tidegate.triton.checks import called_by_code, check_closure
from tidegate.triton.checks.answering import check_decoupled, is_decoupled
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.golden.made_up import made_up_request
from tidegate.triton.golden.requests import GoldenRequest, in_sequence
from tidegate.triton.golden.samples import read_samples
from tidegate.triton.installation import Installation
from tidegate.triton.model_config import CONFIG, policy_versions
from tidegate.triton.model_directory import ModelDirectory
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.smoke.asking import Asker, ModelLostError, ServerLostError, in_batches
from tidegate.triton.smoke.report import ModelSmoke, SmokeReport
from tidegate.triton.smoke.steps import ask_steps
from tidegate.triton.transport import PooledTransport


async def smoke(directory: Path, models: Sequence[str], installation: Installation, timeout_s: float) -> SmokeReport:
    """Load models on a scratch Triton, ask them their golden requests, and judge the answers.

    Models share a server as long as it lives. One that hangs or takes the server down costs that server alone: the next
    model gets another.

    Args:
        directory: the model repository; nothing is written there.
        models: names of models that have a folder.
        installation: the Triton to start.
        timeout_s: how long one load, and one answer, may take.

    Raises:
        StackError: no server could be started.
    """
    run = _Run(directory, installation, timeout_s)
    try:
        for name in models:
            await run.try_model(name)
    finally:
        await run.close()
    return run.report


class _Run:
    def __init__(self, directory: Path, installation: Installation, timeout_s: float) -> None:
        self.report = SmokeReport()
        self._repository = Repository(directory)
        self._directory = ModelDirectory(directory)
        self._transport = PooledTransport()
        self._timeout_s = timeout_s
        self._launcher = TritonLauncher(
            installation, directory, self._transport, lambda: not self._directory.complete()
        )
        self._server: TritonServer | None = None
        self._failed: dict[str, str] = {}

    async def try_model(self, name: str) -> None:
        """Load a model with everything that it calls, and ask it."""
        seen = ModelSmoke(name)
        self.report.models.append(seen)
        model = self._repository.model(name)
        if model is None:
            self._refuse(name, f"there is no model {name!r}", "")
            return
        try:
            plan = self._directory.plan([Target(name, name, None, ())])
        except ModelConfigError as error:
            self._refuse(name, str(error), "")
            self._explain(name)
            return
        await self._load_called(name)
        started = time.monotonic()
        if not await self._load(name, plan):
            return
        seen.load_ms = (time.monotonic() - started) * 1000
        await self._ask(model, seen)

    async def close(self) -> None:
        """End the server, if there is one."""
        server, self._server = self._server, None
        try:
            if server is not None:
                await server.stop()
        finally:
            await self._transport.aclose()

    async def _load_called(self, name: str) -> None:
        """Load what a model's code calls, in every version that it may ask for; where that fails, so do the requests."""
        for called in await called_by_code(self._repository.path, name):
            with contextlib.suppress(ModelConfigError):
                versions = policy_versions(self._directory.config(called), self._directory.versions(called))
                targets = [Target(f"{called}/{version}", called, version, ()) for version in versions]
                await self._load(called, self._directory.plan(targets))

    async def _load(self, name: str, plan: Sequence[ModelLoad]) -> bool:
        """Load a closure; False, and a finding, where a part of it does not load."""
        for load in plan:
            blocked = [step for step in load.steps if step in self._failed]
            if load.model in self._failed or blocked:
                reason = f"its step {blocked[0]!r} did not load" if blocked else self._failed[load.model]
                self._failed.setdefault(load.model, reason)
                if load.model == name:
                    self._refuse(name, reason, "")
                continue
            try:
                server = await self._running()
                await server.repository.load(load, self._timeout_s)
            except ModelLoadError as error:
                kind = "load-hung" if error.hung else "load-refused"
                self._failed[load.model] = str(error)
                self._refuse(load.model, str(error), "", kind)
                self._explain(load.model)
                if error.hung:
                    await self._drop()
            except EndpointError as error:
                self._failed[load.model] = f"the server ended while it loaded this model: {error}"
                self._refuse(load.model, self._failed[load.model], "")
                self._explain(load.model)
                await self._drop()
        return name not in self._failed

    async def _ask(self, model: ModelFolder, seen: ModelSmoke) -> None:
        requests = self._requests(model, seen)
        if not requests:
            return
        server = await self._running()
        asker = Asker(self._transport, server.endpoint, self._timeout_s)
        try:
            answered = await asker.ask_all(model, requests)
            if model.is_ensemble and (answered or not requests[0].made_up):
                for request in (*requests, *in_batches(answered, model.message.max_batch_size)):
                    await ask_steps(asker, self._repository, model, request)
            if answered:
                seen.p50_ms = await asker.median_ms(answered[0])
        except ServerLostError:
            await self._drop()
        except ModelConfigError as error:
            self.report.add(ModelFinding(requests[0].file, 0, "answer-failed", str(error), "", model.name))
        except ModelLostError:
            seen.notes.append("asked no further after its process ended")
        finally:
            seen.requests = asker.requests
            self.report.add(*asker.findings)

    def _requests(self, model: ModelFolder, seen: ModelSmoke) -> tuple[GoldenRequest, ...]:
        """What to ask a model: its samples, or something made up."""
        before = len(model.report.findings)
        samples = read_samples(model)
        seen.samples = len(samples)
        self.report.add(*model.report.findings[before:])
        if is_decoupled(model.name, self._repository):
            seen.notes.append("its responses are decoupled: it was loaded and not asked")
            check_decoupled(model, self._repository)
            self.report.add(*(each for each in model.report.findings[before:] if each.kind == "decoupled"))
            return ()
        if samples or len(model.report.findings) > before:
            return tuple(in_sequence(each, self._configs(model.name)) for each in samples)
        made_up = made_up_request(model.name, model.message)
        hint = "write samples/*.json: docs/model-repository.md, Samples"
        what = "inputs were made from its config" if made_up else "its config does not tell what to ask"
        message = f"there is no golden request; {what}"
        self.report.add(ModelFinding(model.name, 0, "samples-missing", message, hint, model.name))
        return () if made_up is None else (in_sequence(made_up, self._configs(model.name)),)

    def _configs(self, name: str) -> list[ModelConfig]:
        closure = (self._repository.model(each) for each in self._repository.closure([name]))
        return [each.message for each in closure if each is not None]

    async def _running(self) -> TritonServer:
        if self._server is None:
            self._server = await self._launcher.launch("smoke")
        return self._server

    async def _drop(self) -> None:
        """Kill a server that hangs or has ended."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                await server.kill()

    def _explain(self, model: str) -> None:
        """Add what the model's files show to what Triton says of a load."""
        found = check_closure(Repository(self._repository.path), [model])
        self.report.add(*(finding for finding in found if finding.severity == "error"))

    def _refuse(self, model: str, message: str, hint: str, kind: str = "load-refused") -> None:
        self.report.add(ModelFinding(f"{model}/{CONFIG}", 0, kind, message, hint, model))
