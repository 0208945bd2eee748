"""How the real Triton says that the process of a Python model has ended, and that a model which lives on only failed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tidegate.control.config import nothing_known
from tidegate.errors import EndpointTimeoutError
from tidegate.fleet.reloading import reload
from tidegate.models.catalog import plan_directory
from tidegate.oip.error_texts import ended_stub
from tidegate.ports import HttpRequest, HttpResponse, ModelLoad
from tidegate.rules import Target
from tidegate.triton.installation import find_installation
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, eventually
from tests.triton.dying import ABORT, EXIT, HANG, KILL, LEAVE, RAISE, SEGFAULT, SOUND, request, write_mortal
from tests.triton.misbehaving import write_chain

MODELS = ("alone", "chained", "pair", "two")
T = TypeVar("T")


class Running:
    """A server with all of `MODELS`, on a loop of its own."""

    def __init__(self, root: Path) -> None:
        self._runner = asyncio.Runner()
        self._transport = PooledTransport()
        self.loads: dict[str, ModelLoad] = {}
        targets = [Target(name, name, None, ("a",)) for name in MODELS]
        for load in asyncio.run(plan_directory(root, [*targets, Target("two/1", "two", 1, ("a",))])):
            self.loads[load.model] = load
        installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
        self._launcher = TritonLauncher(installation, root, self._transport, lambda: False)
        self.server: TritonServer = self._runner.run(self._start())

    async def _start(self) -> TritonServer:
        server = await self._launcher.launch("a")
        for load in self.loads.values():
            await server.repository.load(load, 30)
        return server

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def send(self, model: str, first: float = SOUND, timeout_s: float = 20.0) -> HttpResponse:
        http = HttpRequest("POST", f"/v2/models/{model}/infer", body=json.dumps(request(first)).encode())
        return await self._transport.send(self.server.endpoint, http, timeout_s)

    def ask(self, model: str, first: float = SOUND) -> HttpResponse:
        return self.run(self.send(model, first))

    def reload(self, model: str) -> None:
        async def work() -> None:
            await self.server.repository.unload(model)
            await self.server.repository.load(self.loads[model], 30)

        self._runner.run(work())

    def ready(self) -> set[str]:
        return set(self._runner.run(self.server.repository.loaded()))

    def close(self) -> None:
        self._runner.run(self.server.kill())
        self._runner.run(self._transport.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    need("pytriton")
    root = tmp_path_factory.mktemp("models")
    for name in ("alone", "step", "last"):
        write_mortal(root, name)
    write_mortal(root, "pair", instances=2)
    write_mortal(root, "two")
    shutil.copytree(root / "two/1", root / "two/2")
    write_chain(root, "chained", "step", "last", samples={})
    found = Running(root)
    yield found
    found.close()


@pytest.mark.parametrize("death", [EXIT, SEGFAULT, KILL, ABORT])
def test_every_answer_from_a_death_on_names_the_instance_until_the_model_is_reloaded(
    running: Running, death: float
) -> None:
    answers = [running.ask("alone", first) for first in (death, SOUND)]
    assert [answer.status for answer in answers] == [500, 500]
    assert {answer.body for answer in answers} == {b'{"error":"Stub process \'alone_0_0\' is not healthy."}'}
    assert {ended_stub(answer.status, answer.body) for answer in answers} == {"alone_0_0"}
    assert "alone" in running.ready()
    running.reload("alone")
    assert running.ask("alone").status == 200


def test_through_an_ensemble_the_step_is_named_and_loading_it_anew_restores_both(running: Running) -> None:
    for first in (EXIT, SOUND):
        answer = running.ask("chained", first)
        assert answer.status == 500
        assert answer.body == b"{\"error\":\"in ensemble 'chained', Stub process 'step_0_0' is not healthy.\"}"
        assert ended_stub(answer.status, answer.body) == "step_0_0"
    running.reload("step")
    assert running.ask("chained").status == 200


def test_a_version_is_reloaded_while_another_one_serves(running: Running) -> None:
    both = frozenset({1, 2})

    async def reload_second(stop: asyncio.Event) -> None:
        repository = running.server.repository
        await reload(repository, running.loads["two"], frozenset({2}), {"two": both}, 30, nothing_known)
        stop.set()

    async def work() -> set[int]:
        stop, seen = asyncio.Event(), set()
        reloading = asyncio.create_task(reload_second(stop))
        while not stop.is_set():
            seen.add((await running.send("two/versions/1")).status)
        await reloading
        return seen

    assert running.ask("two/versions/2", EXIT).status == 500
    assert running.ask("two/versions/2").status == 500
    assert running.ask("two/versions/1").status == 200
    assert running.run(work()) == {200}
    assert running.ask("two/versions/2").status == 200


def test_what_a_server_has_finished_counts_failures_and_not_what_hangs(running: Running) -> None:
    def finished() -> int:
        return running.run(running.server.repository.finished())["alone"]

    # Loaded anew, it has no request of another test to count still.
    running.reload("alone")
    begin = finished()
    running.ask("alone")
    running.ask("alone", RAISE)
    # Triton counts a request after it has answered it.
    assert eventually(lambda: finished() == begin + 2)
    with pytest.raises(EndpointTimeoutError):
        running.run(running.send("alone", HANG, 0.5))
    assert finished() == begin + 2
    running.reload("alone")
    assert running.ask("alone").status == 200


def test_one_of_two_instances_that_has_ended_fails_every_other_request(running: Running) -> None:
    running.ask("pair", EXIT)
    answers = [running.ask("pair") for _ in range(6)]
    assert {answer.status for answer in answers} == {200, 500}
    assert len({ended_stub(answer.status, answer.body) for answer in answers} - {None}) == 1
    running.reload("pair")
    assert {running.ask("pair").status for _ in range(6)} == {200}


@pytest.mark.parametrize("failure", [RAISE, LEAVE])
def test_a_failure_that_the_process_outlives_is_no_death(running: Running, failure: float) -> None:
    answer = running.ask("alone", failure)
    assert (answer.status, ended_stub(answer.status, answer.body)) == (500, None)
    assert running.ask("alone").status == 200


@pytest.mark.parametrize(
    ("status", "text", "named"),
    [
        (200, "Stub process 'a_0_0' is not healthy.", None),
        (500, "the patient is not healthy", None),
        (500, "the patient' is not healthy", None),
        (
            500,
            "Failed to process the request(s) for model 'b_0_0', message: Stub process 'a_0_0' is not healthy.",
            "a_0_0",
        ),
    ],
)
def test_what_counts_as_the_words(status: int, text: str, named: str | None) -> None:
    assert ended_stub(status, text.encode()) == named
