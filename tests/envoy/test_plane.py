"""`tidegate envoy run` beside a stack: unmodified clients, what the rules say, and what is served while parts are gone."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as rpc
import tritonclient.http as triton
from tidegate.envoy.config import ADMIN
from tidegate.envoy.routes import RPC_SERVICE
from tidegate.oip.infer_message import named, parameter_fields
from tidegate.oip.protobuf import field
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.support.http2 import answered, prefixed
from tests.support.processes import children_running, listener_pid, refusing_port, reserve_port
from tests.support.running_command import Command, command, envoy_beside
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

from .conftest import Reply, ask, context

MODULE = "tidegate.bootstrap.resolver_process"
INFER = "/v2/models/versions/infer"
TENSOR = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
RULES = (
    '[{id: north, when: {country: "NO"}, serve: versioned/2}, {id: south, when: {city: Malmö}, serve: versioned/3},'
    ' {id: asked, when: {country: "P"}, serve: versioned/1, parameters: {top_k: 20, strict: true}},'
    " {id: forwarded, when: {forwarded: {present: true}}, serve: versioned/3}, {id: default, serve: versioned/1}]"
)


@dataclass(frozen=True, slots=True)
class Plane:
    """A stack with Envoy beside it."""

    stack: RunningStack
    command: Command
    port: int
    folder: Path
    log: Path

    def infer(self, path: str = INFER, body: bytes = BODY, **headers: str) -> Reply:
        return ask(self.port, path, {name.replace("_", "-"): value for name, value in headers.items()}, body=body)

    def stat(self, name: str) -> int:
        """The sum of a counter of Envoy, by the end of its name."""
        found = ask(self.folder / ADMIN, "/stats?format=json&usedonly", method="GET").json
        return sum(each["value"] for each in found["stats"] if each.get("name", "").endswith(name) and "value" in each)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("plane")
    models = make_repository(folder / "models", "versioned", "echo_parameters", "running_sum")
    rules = write_rules(
        folder / "rules",
        {"alpha": 2, "beta": 1},
        {"versioned": ["alpha", "beta"], "echo_parameters": ["beta"], "running_sum": ["beta"]},
        versions=RULES,
        echoes="[{id: default, serve: echo_parameters, parameters: {top_k: 20}}]",
        sums="running_sum",
        walks="[{id: default, serve: echo_parameters, fallback: [versioned/2]}]",
        stays="[{id: default, serve: echo_parameters, fallback: [running_sum]}]",
    )
    versions = rules / "objectives" / "versions.yaml"
    declared = 'city: {type: string, from: "header:X-City"}, forwarded: {type: string, from: "header:X-Forwarded-For"}'
    text = versions.read_text().replace("context: {", f"context: {{{declared}, ")
    versions.write_text(text + "degraded: versioned/2\n")
    walks = rules / "objectives" / "walks.yaml"
    walks.write_text(walks.read_text() + "degraded: echo_parameters\n")
    log = folder / "access.log"
    with (
        running_stack(rules, models, folder / "up.log") as stack,
        envoy_beside(stack.url, folder / "envoy", {"TIDEGATE_ACCESS_LOG": str(log)}) as (running, port),
    ):
        yield Plane(stack, running, port, folder / "envoy", log)


@pytest.fixture(scope="module")
def asking(plane: Plane) -> Iterator[Plane]:
    """Another Envoy beside the same stack, which asks resolvers about every request."""
    folder, log = plane.folder.with_name("asking"), plane.log.with_name("asking-access.log")
    beside = envoy_beside(plane.stack.url, folder, {"TIDEGATE_ACCESS_LOG": str(log)}, options=["--no-in-process"])
    with beside as (running, port):
        yield Plane(plane.stack, running, port, folder, log)


def version(reply: Reply) -> int:
    assert reply.status == 200, reply
    return int(reply.json["outputs"][0]["data"][0])


def test_an_unmodified_client_over_http(plane: Plane) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{plane.port}", network_timeout=60.0)
    sent = triton.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([0], dtype=np.int32))
    for country, expected in {"NO": 2, "SE": 1}.items():
        result = client.infer("versions", [sent], headers=context(country=country))
        assert result.as_numpy("VERSION").tolist() == [expected]
        assert result.get_response()["model_name"] == "versioned"
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("versions")
    assert client.get_server_metadata()["name"] == "tidegate"
    assert client.get_model_metadata("versions")["name"] == "versioned"
    assert client.get_model_config("versions")["name"] == "versioned"
    with pytest.raises(InferenceServerException, match="did you mean 'versions'"):
        client.infer("version", [sent])
    with pytest.raises(InferenceServerException, match="unexpected inference input"):
        other = triton.InferInput("OTHER", [1], "INT32")
        other.set_data_from_numpy(np.array([0], dtype=np.int32))
        client.infer("versions", [other])


def test_an_answer_shows_the_decision_and_nothing_of_the_proxy(plane: Plane) -> None:
    found = plane.infer(**context(country="NO"))
    wanted = {
        "tidegate-rule": "north",
        "tidegate-model": "versioned",
        "tidegate-model-version": "2",
        "tidegate-shard": "alpha",
        "tidegate-reason": "serve",
        "tidegate-revision": plane.stack.get("/v1/fleet")["revision"],
    }
    assert wanted.items() <= found.headers.items()
    assert not [name for name in found.headers if name.startswith(("x-", "tidegate-param-"))]


@pytest.mark.parametrize("carrier", ["plane", "asking"])
def test_decisions_are_those_of_the_gateway(carrier: str, request: pytest.FixtureRequest) -> None:
    plane: Plane = request.getfixturevalue(carrier)
    for values in ({}, {"country": "NO"}, {"country": "P"}, {"country": ""}, {"other": 1}, {"country": 7}):
        through_envoy = plane.infer(**context(**values))
        through_gateway = ask(int(plane.stack.url.rpartition(":")[2]), INFER, context(**values), body=BODY)
        assert through_envoy.status == through_gateway.status
        for name in (
            "tidegate-rule",
            "tidegate-model",
            "tidegate-model-version",
            "tidegate-variant",
            "tidegate-reason",
        ):
            assert through_envoy.headers.get(name) == through_gateway.headers.get(name), name
        if through_envoy.status != 200:
            assert through_envoy.body == through_gateway.body


def _sent(port: int, *headers: tuple[str, bytes | str]) -> Reply:
    """Send an inference with headers that may repeat and may be no text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", INFER)
    for name, value in (*headers, ("Content-Length", str(len(BODY)))):
        connection.putheader(name, value)
    connection.endheaders(BODY)
    answer = connection.getresponse()
    found = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    connection.close()
    return found


@pytest.mark.parametrize(
    "sent",
    [
        [("Tidegate-Context", b'{"country": "NO", "other": "\xff"}')],
        [("Tidegate-Context", b'{"country": "NO"'), ("Tidegate-Context", b'"other": 1}')],
        [("X-City", b"Malm\xf6")],
        [("X-City", "Malmö".encode())],
        [("X-City", b"Malm"), ("X-City", b"\xf6")],
        [("X-Forwarded-For", b"192.0.2.1")],
        [],
    ],
)
def test_headers_are_decided_by_as_they_were_sent(plane: Plane, sent: list[tuple[str, bytes | str]]) -> None:
    gateway = int(plane.stack.url.rpartition(":")[2])
    through_envoy, through_gateway = _sent(plane.port, *sent), _sent(gateway, *sent)
    assert through_envoy.status == through_gateway.status
    assert through_envoy.headers.get("tidegate-rule") == through_gateway.headers.get("tidegate-rule")
    if through_gateway.status != 200:
        assert through_envoy.body == through_gateway.body


def test_a_request_may_have_many_headers(plane: Plane) -> None:
    # The resolver adds some.
    assert version(_sent(plane.port, *((f"X-Other-{each}", "1") for each in range(200)))) == 1


@pytest.mark.parametrize("carrier", ["plane", "asking"])
def test_a_head_near_its_limit_is_answered_or_refused(carrier: str, request: pytest.FixtureRequest) -> None:
    plane: Plane = request.getfixturevalue(carrier)
    most = {f"X_{number}": 7_900 * "x" for number in range(8)}
    found = [plane.infer(**most, X_Last=size * "x") for size in range(1_000, 3_200, 200)]
    statuses = [each.status for each in found]
    # What the resolver adds must not count.
    assert statuses == sorted(statuses), statuses
    assert (statuses[0], statuses[-1], {*statuses}) == (200, 431, {200, 431})
    assert all(each.json for each in found)


def test_errors_of_envoy_are_those_of_the_protocol(plane: Plane) -> None:
    found = plane.infer(body=json.dumps({"inputs": [TENSOR | {"data": [5000]}]}).encode(), Tidegate_Timeout_Ms="100")
    assert (found.status, found.json) == (504, {"error": "upstream request timeout"})
    assert found.headers["content-type"] == "application/json"
    found = plane.infer(X_Other="x" * 70_000)
    assert (found.status, set(found.json)) == (431, {"error"})


@pytest.mark.parametrize(
    "head",
    [
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket",
        "POST {path} HTTP/1.0\r\nHost: x",
        "POST {path} HTTP/1.0",
    ],
)
def test_a_request_of_another_protocol_is_answered_as_by_the_gateway(plane: Plane, head: str) -> None:
    request = f"{head.format(path=INFER)}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    for port in (plane.port, int(plane.stack.url.rpartition(":")[2])):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["model_name"]) == (200, "versioned"), port


def test_a_resolver_answers_through_envoy_too(plane: Plane) -> None:
    asked = {"Content-Type": "application/json"}
    path, body = "/v1/objectives/versions/resolve", b'{"context": {"country": "NO"}}'
    found = ask(plane.port, path, asked, body=body)
    assert found.json["decision"]["rule"] == "north"
    assert {each["name"] for each in ask(plane.port, "/v1/objectives", method="GET").json["objectives"]} >= {"versions"}
    # It gets the headers of the caller.
    assert ask(plane.port, path, {**asked, "Tidegate-Override": "versioned/2"}, body=body).status == 403
    assert plane.infer(Tidegate_Override="versioned/2").status == 403
    # Tensors are no matter of a resolver.
    assert ask(plane.port, "/v1/objectives/versions/infer", asked, body=body).status == 404


def test_a_caller_cannot_say_where_its_request_goes(plane: Plane) -> None:
    smuggled = {
        "x-tidegate-shard": "beta",
        "X-Tidegate-Path": "/v2/models/versioned/versions/2/infer",
        "x-tidegate-plan": "/v2/models/versioned/versions/2/infer|versioned|2",
        "x-tidegate-step": "1",
        "x-tidegate-retry": "failed",
        "X-Envoy-Auth-Failure-Mode-Allowed": "true",
        "x-envoy-original-path": "/v2/repository/index",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
    }
    found = ask(plane.port, INFER, smuggled, body=BODY)
    assert version(found) == 1
    assert found.headers["tidegate-reason"] == "serve"
    for path in (
        "/v2/repository/index",
        "/v2/models/versioned/versions/2/infer",
        "/authorize/v2/models/versions/infer",
        "/",
    ):
        assert ask(plane.port, path, smuggled, body=BODY).status == 404
    assert ask(plane.port, "/v2/models/%76ersions/infer", smuggled, body=BODY).status == 404


def test_the_parameters_of_a_rule_reach_the_model_and_those_of_a_caller_do_not(plane: Plane) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{plane.port}", network_timeout=60.0)
    metadata = client.get_model_metadata("echoes")
    assert metadata["name"] == "echo_parameters"
    sent = [_zeros(each, triton.InferInput) for each in metadata["inputs"]]
    result = client.infer("echoes", sent, headers={"Tidegate-Param-top_k": "99", "tidegate-param-evil": "1"})
    text = str(result.as_numpy("PARAMETERS").tolist())
    assert "top_k" in text
    assert "20" in text
    assert "99" not in text
    assert "evil" not in text
    # HTTP/1.1 has names in lower case behind Envoy.
    parameters = json.loads(result.as_numpy("PARAMETERS").ravel()[0])
    assert parameters == {"tidegate-param-top_k": "20", "tidegate-param-tidegate_traffic": "real"}


def _zeros(tensor: Any, kind: Any) -> Any:
    shape = [max(1, int(each)) for each in tensor["shape"]]
    sent = kind(tensor["name"], shape, tensor["datatype"])
    is_text = tensor["datatype"] == "BYTES"
    values = (
        np.full(shape, "x", dtype=np.object_)
        if is_text
        else np.zeros(shape, dtype=np.float32 if tensor["datatype"] == "FP32" else np.int32)
    )
    sent.set_data_from_numpy(values)
    return sent


def test_an_unmodified_client_over_grpc(plane: Plane) -> None:
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([0], dtype=np.int32))
    for country, expected in {"NO": 2, "SE": 1}.items():
        headers = {"tidegate-objective": "versions", "tidegate-context": json.dumps({"country": country})}
        # Whatever model the message names.
        for asked in ("versions", "versioned", "x"):
            result = client.infer(asked, [sent], model_version="1", headers=headers, client_timeout=60)
            assert result.as_numpy("VERSION").tolist() == [expected]
    assert client.is_server_live(client_timeout=60)
    about = {"tidegate-objective": "versions"}
    assert client.is_model_ready("versions", headers=about, client_timeout=60)
    assert client.get_model_metadata("versions", headers=about, client_timeout=60).name == "versioned"
    echoed = client.get_model_metadata("echoes", headers={"tidegate-objective": "echoes"}, client_timeout=60)
    tensors = [
        _zeros({"name": each.name, "shape": each.shape, "datatype": each.datatype}, rpc.InferInput)
        for each in echoed.inputs
    ]
    result = client.infer("echoes", tensors, headers={"tidegate-objective": "echoes"}, client_timeout=60, sequence_id=7)
    parameters = json.loads(result.as_numpy("PARAMETERS").ravel()[0])
    assert parameters == {"Tidegate-Param-top_k": "20", "Tidegate-Param-tidegate_traffic": "real"}


def test_a_sequence_of_another_caller_cannot_be_joined_over_grpc(plane: Plane) -> None:
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    about = {"tidegate-objective": "sums"}
    tensors = [
        _zeros({"name": each.name, "shape": [1, 1], "datatype": each.datatype}, rpc.InferInput)
        for each in client.get_model_metadata("sums", headers=about, client_timeout=60).inputs
    ]
    for name in (7, "seven"):
        with pytest.raises(InferenceServerException, match="must specify a non-zero or non-empty correlation ID"):
            client.infer("x", tensors, headers=about, client_timeout=60, sequence_id=name, sequence_start=True)


@pytest.mark.parametrize(
    ("headers", "code", "text"),
    [
        ({}, "INVALID_ARGUMENT", "tidegate-objective must be sent once"),
        ({"tidegate-objective": "nothing"}, "NOT_FOUND", "'nothing' is not found"),
        ({"tidegate-objective": "versions", "tidegate-context": "{"}, "INVALID_ARGUMENT", "one JSON object"),
    ],
)
def test_refusals_over_grpc(plane: Plane, headers: dict[str, str], code: str, text: str) -> None:
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([0], dtype=np.int32))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("versions", [sent], headers=headers, client_timeout=60)
    assert caught.value.status() == f"StatusCode.{code}"
    assert text in caught.value.message()


def test_a_timeout_over_grpc_is_no_unavailable_server(plane: Plane) -> None:
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([5000], dtype=np.int32))
    headers = {"tidegate-objective": "versions", "tidegate-timeout-ms": "100", "x-request-id": "late-1"}
    with pytest.raises(InferenceServerException) as caught:
        client.infer("versions", [sent], headers=headers, client_timeout=60)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert eventually(lambda: _logged(plane, "late-1"))["outcome"] == "failed"


def test_a_compressed_message_is_refused(plane: Plane) -> None:
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([0], dtype=np.int32))
    about = {"tidegate-objective": "versions"}
    with pytest.raises(InferenceServerException, match="send it uncompressed"):
        client.infer("versions", [sent], headers=about, client_timeout=60, compression_algorithm="gzip")


def test_a_large_message_over_grpc(plane: Plane) -> None:
    # It comes in many frames; what is appended must come after the last.
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1_000_000], "INT32")
    sent.set_data_from_numpy(np.zeros([1_000_000], dtype=np.int32))
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'SLEEP_MS' for model 'versioned'"):
        client.infer("x", [sent], headers={"tidegate-objective": "versions"}, client_timeout=60)


def _message(name: str = "versions") -> bytes:
    sent = service_pb2.ModelInferRequest(model_name=name)
    tensor = sent.inputs.add(name="SLEEP_MS", datatype="INT32", shape=[1])
    tensor.contents.int_contents.append(0)
    return bytes(sent.SerializeToString())


def _version(plane: Plane, *frames: bytes) -> int | None:
    """The version that answers an RPC of these frames; None: it is refused."""
    found = answered(plane.port, f"{RPC_SERVICE}ModelInfer", {"tidegate-objective": "versions"}, frames)
    return None if found is None else int(service_pb2.ModelInferResponse.FromString(found).model_version)


OTHER = named("versioned", 2)
"""What a caller may not ask for; as long as what names the decided model."""


def test_what_follows_a_message_is_not_a_part_of_it(plane: Plane) -> None:
    message = _message()
    assert _version(plane, prefixed(message)) == 1
    for frames in (
        [prefixed(message) + OTHER],
        [prefixed(message) + OTHER * 100],
        [prefixed(message), OTHER],
        [prefixed(message)[:-1], message[-1:] + OTHER],
        [prefixed(message), prefixed(OTHER)],
        [prefixed(message) + prefixed(message + OTHER)],
        [bytes([each]) for each in prefixed(message) + OTHER],
    ):
        assert _version(plane, *frames) == 1, frames


def test_a_message_that_would_take_in_what_is_appended_is_refused(plane: Plane) -> None:
    message = _message() + OTHER
    appended = len(parameter_fields([(b"tidegate_traffic", b"real")]) + named("versioned", 1))
    for rest in (
        *(field(99, bytes(length))[:-length] for length in (appended, appended + 20, 120)),
        # Of eight bytes, of four, a number, the head of a field, and a group.
        b"\x99\x06", b"\x99\x06123", b"\x9d\x06", b"\x98\x06", b"\x98\x06\x80", b"\x9a", b"\x9a\x06", b"\x9b\x06", b"\x07",
        # So many fields that reading them would hold up others.
        field(99, b"") * 20_000,
    ):  # fmt: skip
        assert _version(plane, prefixed(message + rest)) is None, rest
    # A whole field is not, whatever its parts; and of a length, the appended bytes are not left out.
    whole = field(99, b"x" * 300) + b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4) + b"\x98\x06\x80\x01"
    assert _version(plane, prefixed(message + whole)) == 1
    assert _version(plane, *(bytes([each]) for each in prefixed(message + whole))) == 1
    for longer in (1, 1000, 2**32 - len(message) - 1 - appended, 2**32 - len(message) - 1):
        assert _version(plane, prefixed(message, len(message) + longer)) is None, longer
    assert _version(plane, prefixed(message, len(message) - len(OTHER))) == 1


def _logged(plane: Plane, request: str) -> Any:
    """The only line of a request in the log, by the start of its id."""
    lines = map(json.loads, plane.log.read_text().splitlines())
    found = [each for each in lines if each.get("request_id", "").startswith(request)]
    assert len(found) < 2, found
    return next(iter(found), None)


def test_the_log_has_the_lines_of_the_gateway(plane: Plane) -> None:
    plane.infer(
        X_Request_Id="log-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        **context(country="NO"),
    )
    unasked = {"X-Request-Id": "log-0", "Tidegate-Objective": "versions"}
    ask(plane.port, "/v2/health/live", unasked, "GET")
    plane.infer("/v2/models/nothing/infer", X_Request_Id="log-2" + 1000 * "x", Tidegate_Objective="versions")
    plane.infer(f"/v2/models/{300 * 'n'}/infer", X_Request_Id="log-3", traceparent="00-0af7-01-01")
    found = eventually(lambda: _logged(plane, "log-1"))
    assert found["took_ms"] >= 0
    expected = {
        "objective": "versions", "outcome": "answered", "status": 200, "rule": "north", "reason": "serve", "model": "versioned",
        "version": 2, "attempts": 1, "shard": "alpha", "traffic": "real", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }  # fmt: skip
    assert expected.items() <= found.items()
    refused = eventually(lambda: _logged(plane, "log-2"))
    assert len(refused["request_id"]) == 256
    assert {"objective": "nothing", "outcome": "refused", "status": 404}.items() <= refused.items()
    long = eventually(lambda: _logged(plane, "log-3"))
    assert long["objective"] == 256 * "n"
    assert "trace_id" not in long
    assert _logged(plane, "log-0") is None, "a header makes no request of an objective"


def test_the_log_has_a_share_of_what_was_answered_and_all_that_failed(plane: Plane, tmp_path: Path) -> None:
    shutil.copytree(plane.folder, tmp_path / "state", ignore=shutil.ignore_patterns("*.sock"))
    (tmp_path / "state").chmod(0o700)
    log = tmp_path / "access.log"
    variables = {"TIDEGATE_ACCESS_LOG": str(log), "TIDEGATE_ACCESS_LOG_PERCENT": "0"}
    with envoy_beside(plane.stack.url, tmp_path / "state", variables, workers=1) as (_, port):
        assert ask(port, INFER, {"X-Request-Id": "answered"}, body=BODY).status == 200
        assert ask(port, INFER, {"X-Request-Id": "refused"} | context(country=7), body=BODY).status == 400
        late = json.dumps({"inputs": [TENSOR | {"data": [5000]}]}).encode()
        assert ask(port, INFER, {"X-Request-Id": "late", "Tidegate-Timeout-Ms": "100"}, body=late).status == 504
        assert eventually(lambda: log.exists() and log.read_text())
    assert [json.loads(line)["request_id"] for line in log.read_text().splitlines()] == ["late"]


def test_a_model_that_is_not_served_on_one_server_is_asked_elsewhere(plane: Plane) -> None:
    urls = [each["url"] for each in plane.stack.fleet()["alpha"]]
    for url in urls:
        plane.stack.unload(url, "versioned")
    # A reconcile loads it again, on its own time; meanwhile the other shard has it.
    found = plane.infer()
    assert version(found) == 1
    assert eventually(lambda: plane.infer().headers.get("tidegate-shard") == "alpha")


def test_a_fallback_answers_for_a_target_that_no_server_has(plane: Plane) -> None:
    # The model's own error is the answer.
    for objective in ("walks", "stays"):
        found = plane.infer(f"/v2/models/{objective}/infer")
        assert (found.status, found.headers["tidegate-model"]) == (400, "echo_parameters")
    client = rpc.InferenceServerClient(f"127.0.0.1:{plane.port}")
    sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
    sent.set_data_from_numpy(np.array([0], dtype=np.int32))

    def fell_back(objective: str = "walks") -> Reply | None:
        # A reconcile loads it again, on its own time.
        (server,) = plane.stack.fleet()["beta"]
        plane.stack.unload(server["url"], "echo_parameters")
        found = plane.infer(f"/v2/models/{objective}/infer")
        return found if found.headers.get("tidegate-reason") == "fallback" else None

    # On the server of the target, too; the model's inputs are others.
    found = eventually(lambda: fell_back("stays"))
    assert (found.status, found.headers["tidegate-model"], found.headers["tidegate-shard"]) == (
        400,
        "running_sum",
        "beta",
    )

    def fell_back_to_alpha() -> Reply | None:
        # Its other shard answers while none of this one's servers is in time, as on a busy machine.
        found = fell_back()
        return found if found is not None and found.headers["tidegate-shard"] == "alpha" else None

    found = eventually(fell_back_to_alpha)
    assert version(found) == 2
    assert (found.headers["tidegate-model"], found.headers["tidegate-model-version"]) == ("versioned", "2")

    def rpc_fell_back() -> bool:
        (server,) = plane.stack.fleet()["beta"]
        plane.stack.unload(server["url"], "echo_parameters")
        try:
            result = client.infer("walks", [sent], headers={"tidegate-objective": "walks"}, client_timeout=60)
        except InferenceServerException as error:
            assert "unexpected inference input" in error.message()
            return False
        return bool(result.as_numpy("VERSION").tolist() == [2])

    assert eventually(rpc_fell_back)


def test_without_resolvers_what_is_declared_is_served(asking: Plane) -> None:
    pid = asking.command.process.pid
    degraded = asking.stat("degraded_versions.upstream_rq_200")
    # Its parent, which would replace them, does not run meanwhile.
    os.kill(pid, signal.SIGSTOP)
    try:
        for each in children_running(MODULE, pid):
            os.kill(each, signal.SIGKILL)
        found = eventually(
            lambda: (
                (reply := asking.infer(**context(country="SE"))).headers.get("tidegate-reason") == "degraded" and reply
            )
        )
        assert version(found) == 2
        assert found.headers["tidegate-model"] == "versioned"
        assert "tidegate-rule" not in found.headers
        assert version(asking.infer("/v2/models/versions/versions/2/infer")) == 2
        other = asking.infer("/v2/models/versions/versions/1/infer")
        assert (other.status, "does not serve that version" in other.json["error"]) == (403, True)
        refused = asking.infer("/v2/models/echoes/infer", X_Request_Id="undecided-http")
        assert refused.status == 503
        assert "no resolver answers" in refused.json["error"]
        assert refused.headers["content-type"] == "application/json"
        assert ask(asking.port, "/v2/repository/index").status == 503
        client = rpc.InferenceServerClient(f"127.0.0.1:{asking.port}")
        sent = rpc.InferInput("SLEEP_MS", [1], "INT32")
        sent.set_data_from_numpy(np.array([0], dtype=np.int32))
        result = client.infer("x", [sent], headers={"tidegate-objective": "versions"}, client_timeout=60)
        assert result.as_numpy("VERSION").tolist() == [2]
        with pytest.raises(InferenceServerException) as caught:
            asked = {"tidegate-objective": "echoes", "x-request-id": "undecided-rpc"}
            client.infer("x", [sent], headers=asked, client_timeout=60)
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        for request, status in (("undecided-http", 503), ("undecided-rpc", 200)):
            logged = eventually(lambda request=request: _logged(asking, request))
            assert {"objective": "echoes", "outcome": "undecided", "status": status}.items() <= logged.items()
        assert "x-tidegate-undecided" not in refused.headers

        def described() -> Any:
            # Nothing else is tried for it, and its server may just have been replaced.
            with contextlib.suppress(InferenceServerException):
                return client.get_model_metadata("x", headers={"tidegate-objective": "walks"}, client_timeout=60)
            return None

        about = eventually(described)
        tensors = [
            _zeros({"name": each.name, "shape": each.shape, "datatype": each.datatype}, rpc.InferInput)
            for each in about.inputs
        ]
        result = client.infer("x", tensors, headers={"tidegate-objective": "walks"}, client_timeout=60)
        assert json.loads(result.as_numpy("PARAMETERS").ravel()[0]) == {"Tidegate-Param-tidegate_traffic": "real"}
        assert asking.stat("degraded_versions.upstream_rq_200") >= degraded + 2
    finally:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: asking.infer().headers.get("tidegate-reason") == "serve")


def test_envoy_is_started_again_when_it_ends(plane: Plane) -> None:
    before = listener_pid(plane.port)
    os.kill(before, signal.SIGKILL)

    def answers() -> bool:
        try:
            return plane.infer().status == 200 and listener_pid(plane.port) != before
        except OSError:
            return False

    assert eventually(answers)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--state", "{used}", "--port", "{free}"), "another process uses {used}: give each one a folder of its own"),
        (("--state", "{new}", "--port", "{taken}"), "Envoy cannot listen at 127.0.0.1:{taken}: Address already in use"),
        (("--state", "{new}", "--port", "{free}", "--host", "localhost"), "--host must be an IP address"),
    ],
)
def test_what_another_one_uses_is_refused(plane: Plane, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    places = {"used": plane.folder, "new": tmp_path / "state", "taken": plane.port, "free": reserve_port()}
    given = [each.format(**places) for each in arguments]
    log = tmp_path / "log"
    with command(log, "envoy", "run", "--stack", plane.stack.url, *given, variables={}) as running:
        assert running.process.wait(60) == 1
    assert text.format(**places) in running.errors


def test_without_the_stores_it_starts_with_what_it_knew(plane: Plane, tmp_path: Path) -> None:
    shutil.copytree(plane.folder, tmp_path / "state", ignore=shutil.ignore_patterns("*.sock"))
    (tmp_path / "state").chmod(0o700)
    control, port = plane.stack.get("/v1/fleet")["control"], reserve_port()
    variables = {
        "TIDEGATE_BUCKET": control["bucket"],
        "TIDEGATE_REGISTRY_TABLE": control["registry_table"],
        "TIDEGATE_AWS_ENDPOINT_URL": f"http://127.0.0.1:{refusing_port()}",
        "TIDEGATE_STORE_TIMEOUT_S": "1",
        "TIDEGATE_RESOLVER_TIMEOUT_MS": "60000",
    }
    arguments = ["envoy", "run", "--port", str(port), "--state", str(tmp_path / "state"), "--workers", "1"]
    with command(tmp_path / "log", *arguments, variables=variables) as running:
        running.wait_ready()
        assert version(ask(port, INFER, context(country="NO"), body=BODY)) == 2
        assert "cannot be followed" in running.errors


def test_callers_cannot_hold_connections_and_memory_without_end(plane: Plane, tmp_path: Path) -> None:
    shutil.copytree(plane.folder, tmp_path / "state", ignore=shutil.ignore_patterns("*.sock"))
    (tmp_path / "state").chmod(0o700)
    variables = {"TIDEGATE_BODY_TIMEOUT_S": "1", "TIDEGATE_MAX_CONNECTIONS": "4"}
    with (
        envoy_beside(plane.stack.url, tmp_path / "state", variables, workers=1) as (running, port),
        contextlib.ExitStack() as held,
    ):

        def connected() -> socket.socket:
            made = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            made.sendall(b"POST /v2/models/versions/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            return made

        # Each has its head answered for in time, and no whole body.
        assert b" 408 " in connected().recv(4096)
        found = ask(tmp_path / "state" / ADMIN, "/stats?format=json&filter=fixed_heap.pressure", method="GET").json
        assert any(each.get("value", 0) > 0 for each in found["stats"]), found
        many = [connected() for _ in range(8)]

        def is_closed(each: socket.socket) -> bool:
            try:
                return each.recv(4096) == b""
            except ConnectionResetError:
                return True

        # Envoy closes what is above the limit, without an answer; the others get theirs.
        assert sum(map(is_closed, many)) >= 4
        assert running.process.poll() is None
