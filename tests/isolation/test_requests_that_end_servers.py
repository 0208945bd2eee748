"""Requests that end a model's process or a server, or try to: others are not affected, and the server recovers soon."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from tests.isolation.conftest import Bystander
from tests.isolation.place import Order, Place, infer, tensors
from tests.support.stack import eventually
from tests.support.wire import ask

DEEP = b'{"inputs":' + b"[" * 300_000


CODINGS: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}


def test_deeply_nested_json_reaches_no_server(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    with bystander():
        for coding, encode in CODINGS.items():
            for objective in ("fragile", "chain"):
                reply = place.ask(infer(objective, encode(DEEP), "attacker", ("Content-Encoding", coding)))
                assert (coding, reply.status) == (coding, 400)
    assert place.server_pids() == before


def test_a_request_that_ends_servers_ends_two_at_most_and_is_then_refused(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    killer = infer("fragile", (Order.END_SERVER,))
    with bystander():
        statuses = [place.ask(killer).status for _ in range(4)]
        assert eventually(lambda: len(place.server_pids()) == len(before))
    assert len(before & place.server_pids()) >= 1
    assert statuses[-1] == 422
    assert set(statuses) <= {422, 502, 503}
    assert place.ask(infer("fragile")).status == 200


@pytest.mark.parametrize("objective", ["fragile", "chain"])
def test_a_model_whose_process_ends_is_healed_without_another_server(
    place: Place, bystander: Bystander, objective: str
) -> None:
    before = place.server_pids()
    with bystander():
        for _ in range(3):
            ask(place.port, infer(objective, (Order.END_STUB,)))
        assert eventually(lambda: place.answers(objective)), "the model is dead for ever"
    assert place.server_pids() == before


SHAPES = ([1 << 62], [1, 1 << 62], [1 << 32, 1 << 32], [1 << 64], [-1], [4])


def test_a_shape_that_its_bytes_do_not_fill_reaches_no_model(place: Place, bystander: Bystander) -> None:
    before = place.server_pids()
    with bystander():
        for shape in SHAPES:
            tensor = {"name": "X", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 0}}
            body = json.dumps({"inputs": [tensor]}).encode()
            length = ("Inference-Header-Content-Length", str(len(body)))
            for objective in ("fragile", "chain"):
                assert (shape, place.ask(infer(objective, body, "attacker", length)).status) == (shape, 400)
        assert place.answers("fragile")
        assert place.answers("chain")
    assert place.server_pids() == before


def test_an_empty_tensor_is_no_attack(place: Place) -> None:
    body = b'{"inputs": [{"name": "X", "datatype": "FP32", "shape": [0], "parameters": {"binary_data_size": 0}}]}'
    reply = place.ask(infer("fragile", body, "attacker", ("Inference-Header-Content-Length", str(len(body)))))
    assert reply.status == 200
    assert place.ask(infer("fragile", tensors([]))).status == 200
