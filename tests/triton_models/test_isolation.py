"""Requests that Triton hands to a step in one batch are answered each by itself."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from .conftest import Server, new_client

COUNTED_WITHIN_S = 60
WAIT_US = 2_000_000
"""How long a step waits for a batch to fill, in these tests only: two requests that are sent at once always meet."""


@pytest.fixture
def waiting(server: Server, artefacts: Path, extra_models: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A copy of a step that waits for two requests; removed after the test."""
    step: str = request.param
    folder = extra_models / f"{step}_that_waits"
    shutil.copytree(artefacts / step, folder)
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), ModelConfig())
    config.name = folder.name
    config.dynamic_batching.max_queue_delay_microseconds = WAIT_US
    config.dynamic_batching.preferred_batch_size[:] = [2]
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), "utf-8")
    server.load(folder.name)
    yield folder.name
    server.client.unload_model(folder.name)
    shutil.rmtree(folder)


def at_once(server: Server, calls: list[tuple[str, dict[str, np.ndarray[Any, Any]], dict[str, Any]]]) -> list[Any]:
    """The answers, or the errors, of calls that start together; each has a client of its own."""
    barrier = threading.Barrier(len(calls))

    def call(arguments: tuple[str, dict[str, np.ndarray[Any, Any]], dict[str, Any]]) -> Any:
        with new_client(server.url) as client:
            barrier.wait(10)
            try:
                return Server(server.url, client).infer(*arguments)
            except InferenceServerException as error:
                return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def met(server: Server, model: str) -> bool:
    """Whether the model has run a batch of two; Triton counts it a moment after it has answered."""
    deadline = time.monotonic() + COUNTED_WITHIN_S
    while time.monotonic() < deadline:
        statistics = server.client.get_inference_statistics(model)["model_stats"][0]["batch_stats"]
        if any(row["batch_size"] == 2 and row["compute_infer"]["count"] for row in statistics):
            return True
        time.sleep(0.02)
    return False


SCORES = {"SCORES": np.arange(1682, dtype=np.float32)[None]}
ORDERS = {
    "ORDER_DAY": np.array([[1, 20]], np.int32),
    "ORDER_UNITS": np.array([[1, 1]], np.int32),
    "ORDER_VALUE": np.array([[9.0, 8.0]], np.float32),
    "AS_OF": np.array([[30]], np.int32),
}
OFFER = {"PROPENSITY": np.array([[0.1]], np.float32), "MEAN_ORDER_VALUE": np.array([[100.0]], np.float32)}


@pytest.mark.parametrize("waiting", ["title_topk"], indirect=True)
def test_a_refused_top_k_does_not_fail_its_neighbour(server: Server, waiting: str) -> None:
    good, bad = at_once(server, [(waiting, SCORES, {"top_k": 2}), (waiting, SCORES, {"top_k": "two"})])
    assert good["TITLE_SCORES"].tolist() == [[1681, 1680]]
    assert "'top_k' must be an integer" in str(bad)
    assert met(server, waiting)


@pytest.mark.parametrize("waiting", ["title_topk"], indirect=True)
def test_requests_of_one_batch_keep_their_own_top_k(server: Server, waiting: str) -> None:
    two, five = at_once(server, [(waiting, SCORES, {"top_k": 2}), (waiting, SCORES, {"top_k": 5})])
    assert two["TITLE_IDS"].shape == (1, 2)
    assert five["TITLE_IDS"].shape == (1, 5)


@pytest.mark.parametrize("waiting", ["order_features"], indirect=True)
def test_refused_orders_do_not_fail_their_neighbour(server: Server, waiting: str) -> None:
    unusable = ORDERS | {"AS_OF": np.array([[0]], np.int32)}
    good, bad = at_once(server, [(waiting, ORDERS, {}), (waiting, unusable, {})])
    assert good["MEAN_ORDER_VALUE"].tolist() == [[8.5]]
    assert "no order of at least one unit" in str(bad)


@pytest.mark.parametrize("waiting", ["offer_decision"], indirect=True)
def test_a_refused_margin_does_not_fail_its_neighbour(server: Server, waiting: str) -> None:
    good, bad = at_once(server, [(waiting, OFFER, {"margin": 0.5}), (waiting, OFFER, {"margin": 5})])
    assert good["DECISION"].tolist() == [[b"offer"]]
    assert "'margin' must be a number from 0 to 1" in str(bad)


def test_seen_titles_are_an_optional_input(server: Server) -> None:
    seen = np.zeros((1, 1682), np.bool_)
    seen[0, -1] = True
    with_seen, without = at_once(server, [("title_topk", SCORES | {"SEEN": seen}, {}), ("title_topk", SCORES, {})])
    assert without["TITLE_SCORES"][0, 0] == 1681
    assert with_seen["TITLE_SCORES"][0, 0] == 1680
