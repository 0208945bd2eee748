"""The playlist on the real Triton: a member's id in, a stream of unseen titles out."""

from __future__ import annotations

import json
import queue
import urllib.error
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.triton_models.test_title_ranking import UNKNOWN, members, rated
from training.artefacts import step_code

from .conftest import Server

__all__ = ["rated"]

ANSWER_TIMEOUT_S = 60


def playlist(server: Server, member: str, **parameters: Any) -> list[int]:
    """The ids of the titles that a member gets, in order."""
    body = json.dumps({"MEMBER_ID": member, "parameters": parameters}).encode()
    url = f"http://{server.url}/v2/models/title_playlist/generate_stream"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=ANSWER_TIMEOUT_S) as response:
        lines = response.read().decode().splitlines()
    return [json.loads(line.removeprefix("data: "))["TITLE_ID"] for line in lines if line]


def refusal(server: Server, **parameters: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        playlist(server, "42", **parameters)
    return caught.value.read().decode()


def test_each_title_is_a_response_and_none_was_seen_or_comes_twice(server: Server, rated: dict[str, set[int]]) -> None:
    for temperature in (0, 1.0):
        titles = playlist(server, "42", length=100, temperature=temperature)
        assert len(set(titles)) == len(titles) == 100
        assert rated["42"].isdisjoint(titles)
    assert len(playlist(server, "42")) == 10


def test_a_member_without_likes_begins_with_the_most_popular_title(server: Server) -> None:
    assert playlist(server, UNKNOWN, length=1) == [50]


def test_a_draw_depends_on_its_seed_alone(server: Server) -> None:
    first, again, other = (playlist(server, "42", temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    best = playlist(server, "42")
    assert best == playlist(server, "42", seed=9), "nothing is drawn at the temperature 0"


def test_each_title_goes_with_the_one_before(artefacts: Path, server: Server) -> None:
    """Another first title changes what follows it."""
    step = step_code("title_generator/1/playlist.py")
    with np.load(artefacts / "title_generator/1/chain.npz") as stored:
        chain = step.Chain(stored["likes"], stored["followers"], float(stored["prior"]))
        ids = stored["ids"]
    nothing = np.zeros(len(ids), np.bool_)
    drawn = list(islice(step.playlist(chain, nothing, nothing, 0, 0), 5))
    assert playlist(server, UNKNOWN, length=5) == ids[drawn].tolist()
    popular = np.argsort(-chain.popularity, kind="stable")[:5]
    assert drawn[0] == popular[0]
    assert drawn != popular.tolist()


def test_a_batch_gets_a_title_for_each_row_in_every_response(server: Server) -> None:
    responses: queue.Queue[Any] = queue.Queue()
    asked = members("42", UNKNOWN, "943")["MEMBER_ID"]
    tensor = triton.InferInput("MEMBER_ID", list(asked.shape), "BYTES")
    tensor.set_data_from_numpy(asked)
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: responses.put((result, error)))
        client.async_stream_infer("title_playlist", [tensor], parameters={"length": 4})
        rows = []
        for _ in range(4):
            result, error = responses.get(timeout=ANSWER_TIMEOUT_S)
            assert error is None
            rows.append(result.as_numpy("TITLE_ID").reshape(-1).tolist())
        client.stop_stream()
    assert [list(column) for column in zip(*rows, strict=True)] == [
        playlist(server, member, length=4) for member in ("42", UNKNOWN, "943")
    ]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"length": 0}, "'length' must be an integer from 1 to 100"),
        ({"length": 101}, "'length' must be an integer from 1 to 100"),
        ({"temperature": -0.5}, "'temperature' must be a number from 0 to 5"),
        ({"temperature": "hot"}, "'temperature' must be a number from 0 to 5"),
        ({"seed": -1}, "'seed' must be an integer from 0 to"),
        ({"length": 1, "Tidegate-Param-length": "none"}, "'Tidegate-Param-length' must be an integer"),
    ],
)
def test_a_malformed_parameter_is_refused_by_name(server: Server, parameters: dict[str, Any], said: str) -> None:
    assert said in refusal(server, **parameters)
