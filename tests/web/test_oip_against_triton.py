"""`/v2` against a real Triton: the gateway's answer is Triton's own, and unmodified clients work."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.web.conftest import Host, Reply

PAIR = {
    "inputs": [
        {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": [list(range(16))]},
        {"name": "INPUT1", "datatype": "INT32", "shape": [1, 16], "data": [[1] * 16]},
    ]
}
BINARY_HEAD = json.dumps(
    {
        "id": "request-7",
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
            for name in ("INPUT0", "INPUT1")
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
BINARY = BINARY_HEAD + np.arange(16, dtype="<i4").tobytes() + np.ones(16, dtype="<i4").tobytes()
JSON = json.dumps(PAIR).encode()
CALLERS = {500: 400, 501: 415}
"""The gateway's status for a request that Triton cannot read, by Triton's own status."""

CONTENT = ("content-type", "content-encoding", "content-length", "inference-header-content-length")


def same(through: Reply, direct: Reply) -> None:
    """Assert that status, body and every header about the content are Triton's."""
    assert (through.status, through.body) == (direct.status, direct.body)
    assert {name: through.headers.get(name) for name in CONTENT} == {name: direct.headers.get(name) for name in CONTENT}


@pytest.mark.parametrize("accepted", [None, "gzip", "deflate"])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_an_inference_is_tritons_own_byte_for_byte(
    gateway: Host, triton: Host, binary: bool, coding: str | None, accepted: str | None
) -> None:
    body = BINARY if binary else JSON
    headers = {"Inference-Header-Content-Length": str(len(BINARY_HEAD))} if binary else {}
    if coding is not None:
        body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
        headers["Content-Encoding"] = coding
    if accepted is not None:
        headers["Accept-Encoding"] = accepted
    direct = triton.ask("POST", "/v2/models/pair_sum/infer", body, headers)
    assert direct.status == 200
    assert direct.headers.get("content-encoding") == accepted
    through = gateway.ask("POST", "/v2/models/adding/infer", body, headers)
    same(through, direct)
    assert through.headers["tidegate-model"] == "pair_sum"
    assert through.headers["tidegate-rule"] == "newest"
    assert [part.split(";")[0].strip() for part in through.headers["server-timing"].split(",")] == [
        "decide",
        "dispatch",
        "triton",
    ]


@pytest.mark.parametrize("coding", ["identity", "IDENTITY", "", "identity, GZIP", "x-gzip"])
def test_a_coding_may_be_written_as_http_lets_it(gateway: Host, triton: Host, coding: str) -> None:
    direct = triton.ask("POST", "/v2/models/pair_sum/infer", JSON)
    body = gzip.compress(JSON) if "gzip" in coding.lower() else JSON
    same(gateway.ask("POST", "/v2/models/adding/infer", body, {"Content-Encoding": coding}), direct)


@pytest.mark.parametrize("path", ["/v2/models/{}%2Finfer", "/v2%2Fmodels/{}/infer", "/v2/models/{}%252Finfer"])
def test_neither_takes_an_encoded_slash_for_a_slash(gateway: Host, triton: Host, path: str) -> None:
    assert triton.ask("POST", path.format("pair_sum"), JSON).status in (404, 405)
    assert gateway.ask("POST", path.format("adding"), JSON).status == 404


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{}", {}),
        (b'{"inputs":[', {}),
        (b'{"inputs":[]}', {}),
        (b"[]", {}),
        (b'{"inputs":[],"parameters":7}', {}),
        (b"not gzip", {"Content-Encoding": "gzip"}),
        (JSON, {"Content-Encoding": "br"}),
        (JSON.replace(b"INT32", b"FP32"), {}),
        (JSON.replace(b"[1, 16]", b"[1, 4]"), {}),
        (JSON, {"Inference-Header-Content-Length": "999999"}),
        (JSON, {"Inference-Header-Content-Length": "-1"}),
        (JSON, {"Inference-Header-Content-Length": "0"}),
        (JSON, {"Inference-Header-Content-Length": "7"}),
    ],
)
def test_tritons_complaints_are_its_own(gateway: Host, triton: Host, body: bytes, headers: dict[str, str]) -> None:
    direct = triton.ask("POST", "/v2/models/pair_sum/infer", body, headers)
    through = gateway.ask("POST", "/v2/models/adding/infer", body, headers)
    assert direct.status >= 400
    assert (through.status, through.json) == (CALLERS.get(direct.status, direct.status), direct.json)


def document(**members: Any) -> bytes:
    """Return a valid request with some members replaced."""
    return json.dumps({**PAIR, **members}).encode()


def first(**members: Any) -> bytes:
    """Return a valid request with some members of its first input replaced; `...` leaves one out."""
    tensor = {name: value for name, value in {**PAIR["inputs"][0], **members}.items() if value is not ...}
    return document(inputs=[tensor, PAIR["inputs"][1]])


UNREADABLE = [
    b"null", b"7", b'"x"', b'{"inputs":{}}', JSON + b"x", gzip.compress(JSON), JSON.decode().encode("utf-16"),
    JSON.replace(b"name", b"na\x01me"), JSON[:-1] + b',"x":1e999}', JSON[:-1] + b',"x":"\\ud800"}',
    *(document(parameters=value) for value in (None, [], "x", 1)),
    *(document(parameters={"timeout": value}) for value in ("x", -1, 1.5, None)),
    *(document(parameters={"priority": value}) for value in ("x", -1, 1.5, None, 2**64)),
    *(document(parameters={"sequence_id": value}) for value in (-1, 1.5, None, True, [])),
    *(document(parameters={name: value}) for name in ("sequence_start", "sequence_end") for value in ("x", 1, None)),
    *(document(parameters={"binary_data_output": value}) for value in ("x", 1)),
    *(document(id=value) for value in (1, None, [], {})),
    *(document(outputs=value) for value in (None, {}, [1], [{}], [{"name": 1}])),
    *(
        document(outputs=[{"name": "OUTPUT0", "parameters": {name: value}}])
        for name, value in (("binary_data", "x"), ("classification", "x"), ("classification", -1))
    ),
    *(first(data=value) for value in ({}, None, "x", ["1"], [1.5], [True], [None], [1], [1] * 17, [[1], [2, 3]])),
    *(first(shape=value) for value in (..., None, {}, "x", [-1, 16], ["1", 16], [1.5, 16])),
    *(first(name=value) for value in (..., 1, None)),
    *(first(datatype=value) for value in (..., 1, None, "BYTES", "BOOL")),
    first(data=[-1] * 16, datatype="UINT8"),
    first(data=["1"] * 16, datatype="FP32"),
]  # fmt: skip


def test_a_request_that_triton_cannot_read_is_the_callers_mistake(gateway: Host, triton: Host) -> None:
    requests: list[tuple[bytes, dict[str, str]]] = [(body, {}) for body in UNREADABLE]
    requests += [
        (JSON, {"Inference-Header-Content-Length": "5"}),
        (gzip.compress(b"null"), {"Content-Encoding": "gzip"}),
        (gzip.compress(JSON)[:-20], {"Content-Encoding": "gzip"}),
    ]
    for body, headers in requests:
        direct = triton.ask("POST", "/v2/models/pair_sum/infer", body, headers)
        through = gateway.ask("POST", "/v2/models/adding/infer", body, headers)
        # Triton's own status is a server error, which would count towards the alarm that rolls rules back.
        assert (direct.status, through.status) == (500, 400), (body[:200], direct.body, through.body)
        assert through.json == direct.json, body[:200]


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
def test_a_coding_that_triton_does_not_read(gateway: Host, triton: Host, coding: str) -> None:
    direct = triton.ask("POST", "/v2/models/pair_sum/infer", JSON, {"Content-Encoding": coding})
    through = gateway.ask("POST", "/v2/models/adding/infer", JSON, {"Content-Encoding": coding})
    assert (direct.status, through.status) == (501, 415)
    assert through.json == direct.json
    assert through.headers["accept-encoding"] == "gzip, deflate, identity"


def test_json_that_only_triton_reads_is_refused_where_it_may_hold_context(gateway: Host, triton: Host) -> None:
    deep = b'"x":' + b"[" * 2000 + b"]" * 2000
    kids, body = (
        b'"parameters":{"country":"SE"}',
        b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,2],"data":[1,2]}]',
    )
    for rest in (b',%b,"id":"caf\xe9"}', b",%b," + deep + b"}", b",%b}\0", b',%b,"id":"caf\xe9"}'):
        wanted = rest % kids
        assert triton.ask("POST", "/v2/models/echo/infer", body + wanted).status == 200
        reply = gateway.ask("POST", "/v2/models/echoing/infer", body + wanted)
        assert (reply.status, "nested" in reply.error or "context" in reply.error) == (400, True), wanted[:60]
        if deep in rest:
            continue
        plain = gateway.ask("POST", "/v2/models/echoing/infer", body + rest.replace(b"%b,", b"").replace(b",%b", b""))
        assert (plain.status, plain.headers["tidegate-rule"]) == (200, "default"), "nothing in it is context"


@pytest.mark.parametrize("suffix", ["", "/ready", "/config", "/versions/2", "/versions/2/config", "/versions/2/ready"])
def test_what_triton_says_of_a_model_comes_unchanged(gateway: Host, triton: Host, suffix: str) -> None:
    direct = triton.get(f"/v2/models/pair_sum{suffix}")
    assert direct.status == 200
    same(gateway.get(f"/v2/models/adding{suffix}"), direct)


def test_statistics_come_unchanged(gateway: Host, triton: Host) -> None:
    for suffix in ("/stats", "/versions/2/stats"):
        same(gateway.get(f"/v2/models/adding{suffix}"), triton.get(f"/v2/models/pair_sum{suffix}"))


@pytest.mark.parametrize("suffix", ["", "/ready", "/config", "/stats", "/versions/1", "/versions/1/stats"])
def test_an_unknown_objective_is_an_unknown_model(gateway: Host, triton: Host, suffix: str) -> None:
    direct, through = triton.get(f"/v2/models/nobody{suffix}"), gateway.get(f"/v2/models/nobody{suffix}")
    assert (through.status, through.json) == (direct.status, direct.json)
    direct = triton.ask("POST", "/v2/models/nobody/infer", JSON)
    through = gateway.ask("POST", "/v2/models/nobody/infer", JSON)
    assert (through.status, through.error) == (404, direct.json["error"])
    assert "Request for unknown model" in through.error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/"), ("GET", "/v2/foo"), ("GET", "/v2/models"), ("GET", "/v2/models/"), ("GET", "/v2/health"),
        ("GET", "/v2/health/foo"), ("GET", "/v2/models/{}/"), ("GET", "/v2/models/{}/foo"),
        ("GET", "/v2/models/{}/versions/abc"), ("GET", "/v2/models/{}/versions"), ("GET", "/v2/models/{}/infer"),
        ("PUT", "/v2/models/{}/infer"), ("POST", "/v2"), ("POST", "/v2/health/live"), ("POST", "/v2/health/ready"),
        ("POST", "/v2/models/{}"), ("POST", "/v2/models/{}/ready"), ("POST", "/v2/models/{}/config"),
        ("DELETE", "/v2/models/{}/stats"), ("GET", "/v2/models/{}/generate"), ("POST", "/v2/models/{}/foo"),
        ("GET", "/v2/models/{}/config/more"),
    ],
)  # fmt: skip
def test_wrong_paths_and_methods_fail_as_tritons_do(gateway: Host, triton: Host, method: str, path: str) -> None:
    direct = triton.ask(method, path.format("pair_sum"), b"")
    through = gateway.ask(method, path.format("adding"), b"")
    assert (through.status, through.error) == (direct.status, direct.json["error"])


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/models/{}", "/v2/models/{}/ready"])
def test_head_is_refused_without_a_body(gateway: Host, triton: Host, path: str) -> None:
    direct = triton.ask("HEAD", path.format("pair_sum"))
    through = gateway.ask("HEAD", path.format("adding"))
    assert (through.status, through.body) == (direct.status, b"") == (405, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index", "/v2/repository/models/pair_sum/unload", "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/x/register", "/v2/trace/setting", "/v2/logging",
        "/v2/models/adding/trace/setting", "/v2/models/stats",
    ],
)  # fmt: skip
def test_management_is_not_for_callers(gateway: Host, path: str) -> None:
    for method in ("GET", "POST"):
        reply = gateway.ask(method, path, b"{}")
        assert reply.status in (403, 405)
        assert reply.error


def test_a_caller_pins_no_version(gateway: Host, triton: Host) -> None:
    pinned = gateway.ask("POST", "/v2/models/adding/versions/1/infer", JSON)
    assert pinned.status == 403
    assert "adding" in pinned.error
    assert "rules pick the version" in pinned.error
    assert gateway.ask("POST", "/v2/models/adding/versions/2/infer", JSON).json["model_version"] == "2"
    dutch = {"X-Country": "NL"}
    assert gateway.ask("POST", "/v2/models/adding/infer", JSON, dutch).json["model_version"] == "1"
    allowed = gateway.ask("POST", "/v2/models/adding/versions/1/infer", JSON, dutch)
    assert (allowed.json["model_version"], allowed.headers["tidegate-model-version"]) == ("1", "1")
    assert gateway.ask("POST", "/v2/models/adding/versions/2/infer", JSON, dutch).status == 403
    for headers in ({}, dutch):
        unserved = gateway.ask("POST", "/v2/models/adding/versions/9/infer", JSON, headers)
        direct = triton.ask("POST", "/v2/models/pair_sum/versions/9/infer", JSON)
        assert (unserved.status, unserved.json) == (direct.status, direct.json)


def test_a_rules_parameters_reach_the_steps_of_an_ensemble(gateway: Host) -> None:
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "parameters": {"own": 1}}
    spoofed = {
        "X-Country": "SE",
        "Tidegate-Param-top_k": "99",
        "X-Tidegate-Param-evil": "1",
        "Tidegate-Param-tidegate_traffic": "shadow",
    }
    reply = gateway.ask("POST", "/v2/models/echoing/infer", body, spoofed)
    outputs = {output["name"]: output["data"] for output in reply.json["outputs"]}
    assert json.loads(outputs["PARAMETERS"][0]) == {
        "own": 1,
        "Tidegate-Param-top_k": "20",
        "Tidegate-Param-strict": "true",
        "Tidegate-Param-greeting": "hello there",
        "Tidegate-Param-ratio": "0.5",
        "Tidegate-Param-tidegate_traffic": "real",
    }
    assert reply.headers["tidegate-rule"] == "tuned"


def test_a_chunked_request_body(gateway: Host) -> None:
    chunks = [JSON[:50], JSON[50:]]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.putrequest("POST", "/v2/models/adding/infer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(body)
    assert connection.getresponse().status == 200
    connection.close()


def test_expect_100_continue(gateway: Host) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as sock:
        head = b"POST /v2/models/adding/infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(JSON))
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        sock.sendall(JSON)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200 ")


def pair_inputs(client: Any, binary: bool) -> list[Any]:
    first, second = client.InferInput("INPUT0", [1, 16], "INT32"), client.InferInput("INPUT1", [1, 16], "INT32")
    first.set_data_from_numpy(np.arange(16, dtype=np.int32).reshape(1, 16), binary_data=binary)
    second.set_data_from_numpy(np.ones((1, 16), dtype=np.int32), binary_data=binary)
    return [first, second]


def check_pair(result: Any) -> None:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), [np.arange(16) + 1])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), [np.arange(16) - 1])


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
def test_the_stock_client_infers(gateway: Host, request_coding: str | None, response_coding: str | None) -> None:
    with triton_http.InferenceServerClient(gateway.url) as client:
        outputs = [
            triton_http.InferRequestedOutput("OUTPUT0", binary_data=True),
            triton_http.InferRequestedOutput("OUTPUT1", binary_data=False),
        ]
        result = client.infer(
            "adding",
            pair_inputs(triton_http, binary=True),
            outputs=outputs,
            request_id="42",
            query_params={"test_1": 1},
            request_compression_algorithm=request_coding,
            response_compression_algorithm=response_coding,
        )
        check_pair(result)
        assert result.get_response()["id"] == "42"
        check_pair(client.infer("adding", pair_inputs(triton_http, binary=False)))


def test_the_stock_client_asks_for_everything(gateway: Host) -> None:
    with triton_http.InferenceServerClient(gateway.url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("adding")
        server = client.get_server_metadata()
        assert server["name"] == "triton"
        assert "statistics" in server["extensions"]
        assert not {"model_repository", "system_shared_memory", "cuda_shared_memory", "trace", "logging"} & set(
            server["extensions"]
        )
        metadata = client.get_model_metadata("adding", query_params={"test_1": 1, "test_2": 2})
        assert (metadata["name"], metadata["inputs"][0]["name"]) == ("pair_sum", "INPUT0")
        assert client.get_model_config("adding")["max_batch_size"] == 8
        assert client.get_inference_statistics("adding")["model_stats"][0]["name"] == "pair_sum"
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            client.get_model_metadata("wrong_model_name")
        assert not client.is_model_ready("wrong_model_name")
        with pytest.raises(InferenceServerException, match="not for callers"):
            client.get_model_repository_index()


def test_the_stock_client_sends_text(gateway: Host) -> None:
    values = np.array([str(number) for number in range(16)], dtype=np.object_).reshape(1, 16)
    ones = np.array(["1"] * 16, dtype=np.object_).reshape(1, 16)
    with triton_http.InferenceServerClient(gateway.url) as client:
        for binary in (True, False):
            first = triton_http.InferInput("INPUT0", [1, 16], "BYTES")
            second = triton_http.InferInput("INPUT1", [1, 16], "BYTES")
            first.set_data_from_numpy(values, binary_data=binary)
            second.set_data_from_numpy(ones, binary_data=binary)
            outputs = [triton_http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
            result = client.infer("text_adding", [first, second], outputs=outputs)
            assert [int(text) for text in result.as_numpy("OUTPUT0")[0]] == list(range(1, 17))


def test_the_stock_client_infers_asynchronously(gateway: Host) -> None:
    with triton_http.InferenceServerClient(gateway.url, concurrency=4) as client:
        pending = [client.async_infer("adding", pair_inputs(triton_http, binary=True)) for _ in range(8)]
        for request in pending:
            check_pair(request.get_result(timeout=10))


def test_the_stock_aio_client(gateway: Host) -> None:
    async def main() -> None:
        async with triton_aio.InferenceServerClient(gateway.url) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("adding"))["name"] == "pair_sum"
            check_pair(await client.infer("adding", pair_inputs(triton_aio, binary=True)))
            results = await asyncio.gather(
                *(client.infer("adding", pair_inputs(triton_aio, binary=False)) for _ in range(8))
            )
            for result in results:
                check_pair(result)
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("wrong_model_name", pair_inputs(triton_aio, binary=True))

    asyncio.run(main())


def test_the_stock_client_sends_context_as_parameters_or_as_a_header(gateway: Host) -> None:
    values = triton_http.InferInput("X", [1, 2], "FP32")
    values.set_data_from_numpy(np.array([[1, 2]], dtype=np.float32))
    with triton_http.InferenceServerClient(gateway.url) as client:
        for given in ({"parameters": {"country": "SE"}}, {"headers": {"Tidegate-Context": '{"country": "SE"}'}}):
            result = client.infer("echoing", [values], **given)
            parameters = json.loads(result.as_numpy("PARAMETERS").item())
            assert parameters["Tidegate-Param-top_k"] == "20"
            np.testing.assert_array_equal(result.as_numpy("Y"), [[1, 2]])


def test_a_models_own_error_is_the_callers(gateway: Host, triton: Host) -> None:
    body = {
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
        "parameters": {"fail_with": "Request for unknown model: 'echo' is not found, said the model"},
    }
    direct = triton.ask("POST", "/v2/models/echo/infer", body)
    assert direct.status == 400
    same(gateway.ask("POST", "/v2/models/echoing/infer", body), direct)
    for text in ("boom", "Unable to parse 'data': attempt to access JSON non-array as array"):
        body["parameters"] = {"raise_with": text}
        assert gateway.ask("POST", "/v2/models/echoing/infer", body).status == 500, "an error of the model's"


def test_a_model_that_is_unloaded_and_loaded_again(gateway: Host, triton: Host) -> None:
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    assert triton.ask("POST", "/v2/repository/models/identity/unload", b"{}").status == 200
    try:
        unavailable = gateway.ask("POST", "/v2/models/echoing/infer", body)
        assert unavailable.status == 503
        assert unavailable.headers["retry-after"] == "1"
        assert "echo on main" in unavailable.error
    finally:
        assert triton.ask("POST", "/v2/repository/models/identity/load", b"{}").status == 200
    assert gateway.ask("POST", "/v2/models/echoing/infer", body).status == 200
