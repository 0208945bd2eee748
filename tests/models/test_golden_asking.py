"""What a publish asks of a loaded model, and what the answers prove; and what a refused model's files show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tidegate.errors import EndpointTimeoutError, ModelConfigError, PublishError
from tidegate.fleet.self_test import SelfTest
from tidegate.models.diagnosis import StoredDiagnosis
from tidegate.models.golden.asking import StoredGoldenRequests
from tidegate.models.golden.requests import GoldenRequest
from tidegate.ports import (
    Endpoint,
    EndpointState,
    GoldenOutcome,
    GoldenResult,
    HttpResponse,
    ModelLoad,
    SelfTestState,
)
from tidegate.rules import Target
from tidegate.testing import MemoryGoldenRequests, MemoryModelStore

from tests.control.plane import Plane
from tests.models.asked import ANSWER, PLAIN, SAMPLE, Server, golden_requests
from tests.models.lint.base import write_base
from tests.support import virtual_time
from tests.triton.misbehaving import CONFIG, TEXT_IDS

PROVED = GoldenResult(GoldenOutcome.PROVED, SelfTestState.PASSED)
DECOUPLED = {"error": "HTTP end point doesn't support models with decoupled transaction policy"}
BETWEEN = {"error": "in ensemble 'asked', inference input 'X' data-type is 'FP64', but model 'step' expects 'FP32'"}


def ask(folder: Path, server: Server, samples: Any = None, *, store: MemoryModelStore | None = None) -> GoldenResult:
    async def work() -> GoldenResult:
        golden = await golden_requests(folder, server, samples, store=store)
        return await golden.ask(Endpoint("a", "127.0.0.1", 1), Target("asked", "asked", 1, ("a",)))

    return asyncio.run(work())


def test_a_request_that_cannot_be_packed_names_its_file() -> None:
    request = GoldenRequest(
        model="asked", file="asked/samples/a.json", inputs={"X": np.zeros(1, np.complex128)}, batches=False
    )
    with pytest.raises(ModelConfigError, match=r"asked/samples/a\.json: .*'X' has the type complex128"):
        request.http()


def test_a_golden_request_that_is_answered_proves_the_target(tmp_path: Path) -> None:
    assert ask(tmp_path, Server(PLAIN, 200, ANSWER), SAMPLE) == PROVED


@pytest.mark.parametrize(
    ("status", "answer", "words", "shown"),
    [
        (200, [2.0, 4.0], "differs from what is expected", SelfTestState.UNTESTED),
        (200, [float("nan"), 2.0], "NaN or infinite", SelfTestState.FAILED),
        (400, {"error": "unexpected shape for input 'X'"}, "unexpected shape", SelfTestState.UNTESTED),
        (500, {"error": "in ensemble 'asked', Stub process 's_0_0' is not healthy."}, "Stub", SelfTestState.FAILED),
        (500, {"error": "CUDA error"}, "CUDA error", SelfTestState.FAILED),
    ],
)
def test_a_golden_request_that_may_be_wrong_itself_shows_nothing_of_the_server(
    tmp_path: Path, status: int, answer: Any, words: str, shown: SelfTestState
) -> None:
    if status == 200:
        answer = {"outputs": [{**ANSWER["outputs"][0], "data": answer}]}
    result = ask(tmp_path, Server(PLAIN, status, answer), {**SAMPLE, "outputs": {"Y": [1.0, 2.0]}})
    assert (result.outcome, result.self_test) == (GoldenOutcome.WRONG, shown)
    assert words in result.reason


@pytest.mark.parametrize("name", ["..", "", "../a.json", "a\\b.json", "a\0.json"])
def test_a_golden_request_of_a_name_that_no_file_has_is_refused(tmp_path: Path, name: str) -> None:
    class Planted(MemoryModelStore):
        async def samples(self, model: str) -> Mapping[str, bytes]:
            return {**await super().samples(model), name: b"{}"}

    result = ask(tmp_path, Server(PLAIN, 200, ANSWER), SAMPLE, store=Planted())
    assert (result.outcome, result.self_test) == (GoldenOutcome.WRONG, SelfTestState.UNTESTED)
    assert "is not a file of golden requests: delete it" in result.reason


@pytest.mark.parametrize(
    ("status", "answer", "words", "shown"),
    [
        (200, ANSWER, "a made-up one was answered", SelfTestState.PASSED),
        (500, {"error": "X must be above 5"}, "X must be above 5", SelfTestState.FAILED),
        (400, {"error": "X must be above 5"}, "X must be above 5", SelfTestState.UNTESTED),
        (501, DECOUPLED, "its responses are decoupled", SelfTestState.UNTESTED),
    ],
)
def test_without_one_a_made_up_request_proves_nothing(
    tmp_path: Path, status: int, answer: Any, words: str, shown: SelfTestState
) -> None:
    result = ask(tmp_path, Server(PLAIN, status, answer))
    assert (result.outcome, result.self_test) == (GoldenOutcome.UNPROVED, shown)
    assert words in result.reason
    assert "samples/*.json" in result.advice


def test_a_model_that_a_made_up_request_ends_is_wrong(tmp_path: Path) -> None:
    result = ask(tmp_path, Server(PLAIN, 500, {"error": "Stub process 'asked_0_0' is not healthy."}))
    assert (result.outcome, result.self_test) == (GoldenOutcome.WRONG, SelfTestState.FAILED)
    assert "ended its process: Stub process" in result.reason


@pytest.mark.parametrize(
    ("sample", "words"), [(SAMPLE, "no whole response"), (None, r"a made-up one.*samples/\*\.json")]
)
def test_a_request_that_hangs_is_told_apart_from_a_wrong_answer(tmp_path: Path, sample: Any, words: str) -> None:
    """Whoever asks must know that the server may be wedged."""
    with pytest.raises(EndpointTimeoutError, match=words):
        ask(tmp_path, Server(PLAIN, 0, None), sample)


def test_a_publish_marks_the_server_that_a_made_up_request_hangs_on_as_wedged(tmp_path: Path) -> None:
    store = MemoryModelStore()
    with pytest.raises(EndpointTimeoutError):
        ask(tmp_path, Server(PLAIN, 0, None), store=store)
    stored = StoredGoldenRequests(store, Server(PLAIN, 0, None))

    class Asking(MemoryGoldenRequests):
        async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
            asked = Target("asked", "asked", 1, ("a",))
            return await (stored.ask(endpoint, asked) if target.model == "fresh" else super().ask(endpoint, target))

    async def work() -> None:
        plane = Plane()
        plane.golden = Asking()
        entries = [await plane.add("a"), await plane.add("a")]
        await plane.publish(main="scorer/1")
        with pytest.raises(PublishError, match=r"made-up one was not answered within 10 s; write samples/\*\.json"):
            await plane.publish(main="fresh")
        states = {entry.endpoint.url: entry.state for entry in await plane.registry.endpoints()}
        assert len(states) == len(entries)
        assert sorted(states.values()) == [EndpointState.READY, EndpointState.WEDGED]

    virtual_time.run(work())


@pytest.mark.parametrize("served", [(400, b"{}"), (200, b"[" * 100_000), (200, b"[]"), (200, b'{"input": 3}')])
def test_a_server_that_does_not_say_a_config_proves_nothing(tmp_path: Path, served: tuple[int, bytes]) -> None:
    server = Server(PLAIN, 200, ANSWER)
    server.served = (served[0], (), served[1])
    result = ask(tmp_path, server)
    assert "the server does not say what it takes" in result.reason
    assert (result.outcome, result.self_test) == (GoldenOutcome.UNPROVED, SelfTestState.FAILED)


def test_a_server_that_breaks_fails_its_self_test_also_without_golden_requests(tmp_path: Path) -> None:
    server = Server(PLAIN, 200, ANSWER)
    ask(tmp_path, server)

    async def work() -> list[bool]:
        store = MemoryModelStore()
        await store.push("asked", tmp_path / "asked", lambda *_: None)

        async def live() -> tuple[ModelLoad, ...]:
            return (ModelLoad("asked", (1,)),)

        endpoint = Endpoint("a", "127.0.0.1", 1)
        test = SelfTest(live, StoredGoldenRequests(store, server), lambda: endpoint, lambda _: None, 30)
        verdicts = []
        for status in (200, 500, 500, 200):
            server.status = status
            server.answer = ANSWER if status == 200 else {"error": "CUDA error: unspecified launch failure"}
            await test.round(endpoint)
            verdicts.append(test.passed)
        return verdicts

    assert asyncio.run(work()) == [True, True, False, True]


@pytest.mark.parametrize(
    ("config", "status", "answer", "words"),
    [
        (PLAIN, 400, BETWEEN, "data-type is 'FP64'"),
        (PLAIN, 200, {"outputs": []}, "output 'Y' did not come"),
        ('name: "asked"\nbackend: "python"\n', 200, ANSWER, "declare them in config.pbtxt"),
    ],
)
def test_what_no_input_gets_around_is_a_failure(
    tmp_path: Path, config: str, status: int, answer: Any, words: str
) -> None:
    result = ask(tmp_path, Server(config, status, answer))
    assert result.outcome is GoldenOutcome.WRONG
    assert words in result.reason


DECOUPLED_CONFIG = (
    CONFIG.format(name="asked", batch=0, dims="2", more="") + "model_transaction_policy { decoupled: true }"
)
EVENT = b'data: {"model_name":"asked","model_version":"1","Y":%b}\n\n'


@pytest.mark.parametrize(
    ("status", "body", "outcome", "words"),
    [
        (200, EVENT % b"2.0" + EVENT % b"[4.0]", GoldenOutcome.PROVED, ""),
        (200, EVENT % b"2.0", GoldenOutcome.WRONG, "shape"),
        (200, EVENT % b"2.0" + EVENT % b"5.0", GoldenOutcome.WRONG, "differs from what is expected"),
        (200, EVENT % b"2.0" + b'data: {"error":"out of words"}\n\n', GoldenOutcome.WRONG, "out of words"),
        (200, b"", GoldenOutcome.WRONG, "no response"),
        (200, b"data: nothing\n\n", GoldenOutcome.WRONG, "not a JSON object"),
        (200, EVENT.replace(b'"Y"', b'"Z"') % b"2.0", GoldenOutcome.WRONG, "'Z' is not declared"),
        (400, b'data: {"error":"bad words"}\n\n', GoldenOutcome.WRONG, "bad words"),
    ],
)
def test_decoupled_responses_are_proved_by_a_stream(
    tmp_path: Path, status: int, body: bytes, outcome: GoldenOutcome, words: str
) -> None:
    server = Server(DECOUPLED_CONFIG, 501, DECOUPLED)
    server.stream = HttpResponse(status, [], body)
    sample = {"inputs": {"X": [1.0, 2.0]}, "outputs": {"Y": [2.0, 4.0]}, "parameters": {"top_k": 2}}
    result = ask(tmp_path, server, sample)
    assert result.outcome is outcome
    assert words in result.reason
    assert server.asked[-1].path.endswith("/generate_stream")
    assert json.loads(server.asked[-1].body) == {"X": [1.0, 2.0], "parameters": {"top_k": 2}}


ENSEMBLE_CONFIG = """
name: "asked" platform: "ensemble" max_batch_size: 4
input [ { name: "X" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling { step [ { model_name: "step" model_version: 1
  input_map { key: "X" value: "X" } output_map { key: "Y" value: "Y" } } ] }
"""


def test_an_ensemble_with_a_decoupled_step_is_proved_by_a_stream_too(tmp_path: Path) -> None:
    """Triton writes the members of a sequence into its responses: they are no outputs."""
    server = Server(ENSEMBLE_CONFIG, 501, DECOUPLED)
    event = EVENT.replace(b"}", b',"sequence_end":false,"sequence_id":0,"sequence_start":false}')
    server.stream = HttpResponse(200, [], event % b"2.0" + event % b"4.0" + event % b"8.0")
    sample = {"inputs": {"X": [[1.0, 2.0]]}, "outputs": {"Y": [2.0, 4.0, 8.0]}}
    (tmp_path / "step/1").mkdir(parents=True)
    (tmp_path / "step/1/model.py").write_text("")
    (tmp_path / "step/config.pbtxt").write_text(DECOUPLED_CONFIG.replace('"asked"', '"step"'))
    store = MemoryModelStore()
    asyncio.run(store.push("step", tmp_path / "step", lambda *_: None))
    assert ask(tmp_path, server, sample, store=store) == PROVED


def test_a_sequence_with_text_ids_is_asked_with_a_text(tmp_path: Path) -> None:
    server = Server(PLAIN + TEXT_IDS, 200, ANSWER)
    assert ask(tmp_path, server, SAMPLE) == PROVED
    assert b'"sequence_id":"golden-' in server.asked[0].body


def test_a_diagnosis_has_the_errors_that_the_pushed_files_show(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    with (models / "ranker/config.pbtxt").open("a") as config:
        config.write("instance_group [ { count: 1 } ]\n")

    async def work() -> tuple[list[str], list[str]]:
        store = MemoryModelStore()
        for model in ("reader", "scorer", "picker", "ranker"):
            await store.push(model, models / model, lambda *_: None)
        diagnose = StoredDiagnosis(store)
        return list(await diagnose("ranker")), list(await diagnose("scorer"))

    ranker, scorer = asyncio.run(work())
    (error,) = ranker
    assert error.startswith("ranker/config.pbtxt:45: error[ensemble-forbidden]: "), error
    assert scorer == []


CALLER = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        asked = pb_utils.InferenceRequest(
            model_name="called", requested_output_names=["Y"], inputs=[request.inputs()[0] for request in requests]
        )
        return [pb_utils.InferenceResponse(asked.exec().output_tensors()) for _ in requests]
"""


@pytest.mark.parametrize("is_pushed", [True, False])
def test_a_model_that_code_calls_is_missing_only_where_it_was_not_pushed(tmp_path: Path, is_pushed: bool) -> None:
    called = CALLER.replace('model_name="called"', 'model_name="deeper"')
    models = {"caller": CALLER, **({"called": called, "deeper": called} if is_pushed else {})}
    for name, code in models.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1/model.py").write_text(code)
        (tmp_path / name / "config.pbtxt").write_text(CONFIG.format(name=name, batch=8, dims="2", more=""))

    async def work() -> tuple[list[str], list[str]]:
        store = Reading()
        for name in models:
            await store.push(name, tmp_path / name, lambda *_: None)
        return list(await StoredDiagnosis(store)("caller")), store.configs

    found, configs = asyncio.run(work())
    assert ["step-missing" in each and "'called'" in each for each in found] == ([] if is_pushed else [True]), found
    assert sorted(configs) == sorted(models)


def test_a_config_is_read_once(tmp_path: Path) -> None:
    write_base(tmp_path)

    async def work() -> list[str]:
        store = Reading()
        golden = StoredGoldenRequests(store, Server(PLAIN, 200, ANSWER))
        target = Target("ranker", "ranker", 1, ("a",))
        await golden.ask(Endpoint("a", "127.0.0.1", 1), target)
        for model in ("reader", "scorer", "picker", "ranker"):
            (tmp_path / model / "samples").mkdir(exist_ok=True)
            (tmp_path / model / "samples/a.json").write_text(json.dumps({"inputs": {"TEXT": ["a"]}}))
            await store.push(model, tmp_path / model, lambda *_: None)
        store.configs.clear()
        for _ in range(3):
            await golden.ask(Endpoint("a", "127.0.0.1", 1), target)
        return store.configs

    assert sorted(asyncio.run(work())) == ["picker", "ranker", "reader", "scorer"]


class Reading(MemoryModelStore):
    """A store that knows of which models the config was read."""

    def __init__(self) -> None:
        super().__init__()
        self.configs: list[str] = []

    async def read(self, model: str, path: str) -> bytes | None:
        """See `ModelStore.read`."""
        if path == "config.pbtxt":
            self.configs.append(model)
        return await super().read(model, path)
