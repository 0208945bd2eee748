"""Sequences of named callers, in every form of a request over HTTP: each caller has its own, and keeps the target."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.rules import Engine

from tests.web.conftest import HERE, FakeTriton, Host, Received, Reply, gateway_app
from tests.web.test_callers import compiled

CALLERS = """\
callers:
  home: {objectives: "*", overrides: [pair_sum, text_sum/1, text_sum/2]}
  shop: {objectives: "*"}
"""
ADD = "/v2/models/adding/infer"
CONTEXT = {"Tidegate-Context": "{}"}
FORMS = ["json", "binary", "gzip", "deflate", "header"]


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return compiled(tmp_path_factory.mktemp("rules"), HERE / "rules", CALLERS)


@pytest.fixture
def guarded(scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine) -> Host:
    """The gateway with callers, in front of the scripted Triton on both shards."""
    slot, host = scripted_server
    slot.app = gateway_app(granting, {"main": fake.port, "spare": fake.port})
    fake.script = model
    return host


def model(request: Received) -> tuple[int, Mapping[str, str], bytes]:
    """Describe every model as serving versions 1 and 2; answer everything else without outputs."""
    document: dict[str, Any] = {"outputs": []}
    if request.method == "GET" and re.fullmatch(r"/v2/models/\w+(/versions/\d+)?", request.path):
        document = {"name": "m", "versions": ["1", "2"], "inputs": [], "outputs": []}
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def ask(
    host: Host, form: str, sequence_id: Any = 7, *, caller: str = "home", pin: str | None = None, **flags: bool
) -> Reply:
    """Send a request of a sequence in one of `FORMS`."""
    headers = {"Tidegate-Caller": caller, **CONTEXT}
    if pin is not None:
        headers["Tidegate-Override"] = pin
    tensor: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": [1]}
    document: dict[str, Any] = {"parameters": {"sequence_id": sequence_id, **flags}, "inputs": [tensor]}
    if form == "header":
        headers["Tidegate-Sequence"] = str(document["parameters"].pop("sequence_id"))
    if form == "binary":
        tensor["parameters"] = {"binary_data_size": 4}
        body = json.dumps(document).encode()
        headers["Inference-Header-Content-Length"] = str(len(body))
        return host.ask("POST", ADD, body + b"\0\0\x80?", headers)
    tensor["data"] = [1.0]
    body = json.dumps(document).encode()
    if form in ("gzip", "deflate"):
        headers["Content-Encoding"] = form
        body = gzip.compress(body) if form == "gzip" else zlib.compress(body)
    return host.ask("POST", ADD, body, headers)


def infers(fake: FakeTriton) -> list[str]:
    """The paths of the inferences that the server got, since the last call."""
    paths = [request.path for request in fake.received if request.path.endswith("/infer")]
    fake.received.clear()
    return paths


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_cannot_be_moved_to_another_target_by_a_pin(guarded: Host, fake: FakeTriton, form: str) -> None:
    assert ask(guarded, form, pin="text_sum/1", sequence_start=True).status == 200
    assert infers(fake) == ["/v2/models/text_sum/versions/1/infer"]
    for pin in ("pair_sum", "text_sum/2"):
        reply = ask(guarded, form, pin=pin)
        assert reply.status == 409
        assert reply.error == (
            f"the request pins '{pin}', but its sequence began on 'text_sum/1', which alone has its state: pin that or nothing, or "
            "start the sequence again, with sequence_start"
        )
        assert infers(fake) == []
    for pin_again in ("text_sum/1", None):
        reply = ask(guarded, form, pin=pin_again)
        assert (reply.status, reply.headers["tidegate-model"]) == (200, "text_sum")
        assert infers(fake) == ["/v2/models/text_sum/versions/1/infer"]
    assert ask(guarded, form, pin="pair_sum", sequence_start=True).status == 200
    assert ask(guarded, form, pin="pair_sum").headers["tidegate-model"] == "pair_sum"
    assert ask(guarded, form, pin="text_sum/1").status == 409


@pytest.mark.parametrize("form", FORMS)
def test_a_pin_without_a_version_names_the_one_that_the_sequence_has(
    guarded: Host, fake: FakeTriton, form: str
) -> None:
    assert ask(guarded, form, pin="pair_sum/2", sequence_start=True).status == 200
    assert ask(guarded, form, pin="pair_sum").status == 200
    assert infers(fake) == ["/v2/models/pair_sum/versions/2/infer"] * 2
