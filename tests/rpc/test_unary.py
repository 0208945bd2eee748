"""Unary RPCs on a running stack, with the clients that callers have; errors are those of the Triton behind it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.rpc.conftest import SERVICE, RpcStack, adding, echo_request, sleepy_request, unary
from tests.support.stack import eventually

CANADA = (("tidegate-context", json.dumps({"country": "CA"})),)


@pytest.fixture(scope="module")
def channel(served: RpcStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as found:
        yield found


def infer(channel: grpc.Channel, request: Any, metadata: Any = (), **options: Any) -> tuple[Any, dict[str, str]]:
    """The answer to an inference, and its initial metadata."""
    message = request if isinstance(request, bytes) else request.SerializeToString()
    answer, call = unary(channel, "ModelInfer").with_call(message, metadata=metadata, **options)
    return service_pb2.ModelInferResponse.FromString(answer), dict(call.initial_metadata())


def parameters(answer: Any) -> dict[str, Any]:
    """The parameters that `echo_parameters` was given."""
    text = answer.raw_output_contents[[each.name for each in answer.outputs].index("PARAMETERS")]
    return dict(json.loads(text[4:]))


def refusal(channel: grpc.Channel, method: str, message: bytes, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        unary(channel, method)(message, timeout=30, **options)
    return refused.value


def test_the_client_of_triton_infers_and_reads(served: RpcStack) -> None:
    with triton.InferenceServerClient(served.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("add")
        assert not client.is_model_ready("unknown")
        metadata = client.get_server_metadata()
        assert metadata.name == "triton"
        assert "sequence" in metadata.extensions
        assert "model_repository" not in metadata.extensions
        assert client.get_model_metadata("add").name == "simple"
        assert client.get_model_config("add").config.max_batch_size == 8
        result = client.infer("add", adding(), request_id="7", headers=dict(CANADA))
        assert (result.as_numpy("OUTPUT0") == 2 * np.arange(16)).all()
        assert result.get_response().id == "7"
        assert client.get_inference_statistics("add").model_stats[0].name == "simple"
        compressed = client.infer("add", adding(), compression_algorithm="gzip")
        assert (compressed.as_numpy("OUTPUT1") == 0).all()


def test_the_asynchronous_client_infers(served: RpcStack) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(served.address) as client:
            assert await client.is_model_ready("add")
            return await asyncio.gather(*(client.infer("add", adding(triton_aio)) for _ in range(20)))

    assert all((result.as_numpy("OUTPUT0") == 2 * np.arange(16)).all() for result in asyncio.run(ask()))


def test_a_decision_is_shown_and_its_parameters_reach_the_model(channel: grpc.Channel) -> None:
    answer, metadata = infer(channel, echo_request(), CANADA)
    assert metadata["tidegate-rule"] == "canada"
    assert metadata["tidegate-model"] == answer.model_name == "echo_parameters"
    assert "triton;dur=" in metadata["server-timing"]
    assert parameters(answer)["Tidegate-Param-boost"] == "2"
    assert parameters(answer)["Tidegate-Param-tidegate_traffic"] == "real"


def test_the_context_may_be_in_the_parameters(channel: grpc.Channel) -> None:
    request = echo_request()
    request.parameters["country"].string_param = "CA"
    request.parameters["extra"].int64_param = 4
    answer, metadata = infer(channel, request)
    assert metadata["tidegate-rule"] == "canada"
    assert parameters(answer)["extra"] == 4


def test_a_caller_cannot_set_what_is_the_rules(channel: grpc.Channel) -> None:
    request = echo_request()
    request.parameters["tidegate-Param-boost"].string_param = "99"
    assert refusal(channel, "ModelInfer", request.SerializeToString()).code() is grpc.StatusCode.INVALID_ARGUMENT
    answer, _ = infer(channel, echo_request(), (("tidegate-param-boost", "99"), ("tidegate-param-x", "1")))
    assert not {"Tidegate-Param-boost", "tidegate-param-boost", "tidegate-param-x"} & parameters(answer).keys()


def test_a_caller_cannot_choose_the_version(channel: grpc.Channel) -> None:
    request = sleepy_request(0)
    request.model_version = "1"
    assert refusal(channel, "ModelInfer", request.SerializeToString()).code() is grpc.StatusCode.PERMISSION_DENIED
    request.model_version = "2"
    assert infer(channel, request)[0].model_version == "2"
    # The last of two names counts, and what is appended comes after it.
    twice = request.SerializeToString() + service_pb2.ModelInferRequest(model_version="1").SerializeToString()
    assert refusal(channel, "ModelInfer", twice).code() is grpc.StatusCode.PERMISSION_DENIED


def wrong_requests() -> dict[str, tuple[str, Any]]:
    """Requests that Triton refuses, by what is wrong."""
    wrong = {
        name: ("ModelInfer", echo_request("echo_parameters"))
        for name in (
            "no such model",
            "no such input",
            "other type",
            "wrong size",
            "no shape",
            "no number",
            "triton's own",
        )
    }
    wrong["no such model"][1].model_name = "unknown"
    wrong["no such input"][1].inputs[0].name = "OTHER"
    wrong["other type"][1].inputs[0].datatype = "INT32"
    wrong["wrong size"][1].raw_input_contents[0] = b"1"
    wrong["no shape"][1].inputs[0].shape[:] = [1, 2]
    wrong["no number"][1].model_version = "x"
    wrong["triton's own"][1].parameters["triton_x"].string_param = "1"
    for method in ("ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady"):
        request = getattr(service_pb2, f"{method}Request")
        wrong |= {
            f"{method} of no such model": (method, request(name="unknown")),
            f"{method} of no such version": (method, request(name="echo_parameters", version="7")),
            f"{method} of no number": (method, request(name="echo_parameters", version="x")),
        }
    return wrong


@pytest.mark.parametrize("wrong", sorted(wrong_requests()))
def test_an_error_has_the_code_and_the_text_of_triton(served: RpcStack, channel: grpc.Channel, wrong: str) -> None:
    method, request = wrong_requests()[wrong]

    def answer(of: grpc.Channel, name: str) -> Any:
        for field in ("model_name", "name"):
            if getattr(request, field, "") == "echo_parameters":
                setattr(request, field, name)
        try:
            return unary(of, method)(request.SerializeToString(), timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details()

    with grpc.insecure_channel(served.triton) as direct:
        by_triton = answer(direct, "echo_parameters")
    assert answer(channel, "echo") == by_triton


def fatal_requests() -> Iterator[bytes]:
    """Requests that end a server or a model, or that two readers could read in two ways."""
    huge = echo_request()
    huge.inputs[0].shape[:] = [2**62]
    yield huge.SerializeToString()
    empty = service_pb2.ModelInferRequest(model_name="echo")
    empty.inputs.add(name="INPUT", datatype="FP32", shape=[0])
    empty.outputs.add(name="OUTPUT").parameters["classification"].int64_param = 1
    yield empty.SerializeToString()
    whole = echo_request().SerializeToString()
    yield whole + b"\x9b\x06" * 50_000
    yield whole + b"\x0a\xff\xff\xff\xff\x07"
    yield whole[:-1]
    yield whole + b"\x38\x01" * 30_000


def test_what_ends_a_server_is_refused_and_the_server_lives(channel: grpc.Channel) -> None:
    for message in fatal_requests():
        assert refusal(channel, "ModelInfer", message).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert infer(channel, echo_request())[0].model_name == "echo_parameters"


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("RepositoryIndex", grpc.StatusCode.PERMISSION_DENIED),
        ("RepositoryModelLoad", grpc.StatusCode.PERMISSION_DENIED),
        ("SystemSharedMemoryRegister", grpc.StatusCode.PERMISSION_DENIED),
        ("CudaSharedMemoryStatus", grpc.StatusCode.PERMISSION_DENIED),
        ("TraceSetting", grpc.StatusCode.PERMISSION_DENIED),
        ("LogSettings", grpc.StatusCode.PERMISSION_DENIED),
        ("ModelStatistics", grpc.StatusCode.PERMISSION_DENIED),
        ("NoSuchMethod", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_what_is_not_for_callers_is_refused(channel: grpc.Channel, method: str, code: grpc.StatusCode) -> None:
    assert refusal(channel, method, b"").code() is code


def test_malformed_metadata_is_refused(channel: grpc.Channel) -> None:
    message = echo_request().SerializeToString()
    for metadata in (
        (("tidegate-context", "[1]"),),
        (("tidegate-context", "{}"), ("tidegate-context", "{}")),
        (("tidegate-timeout-ms", "soon"),),
        (("tidegate-override", "a b"),),
    ):
        assert refusal(channel, "ModelInfer", message, metadata=metadata).code() is grpc.StatusCode.INVALID_ARGUMENT
    pinned = refusal(channel, "ModelInfer", message, metadata=(("tidegate-override", "echo_parameters"),))
    assert pinned.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_message_above_the_limit_is_refused(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.raw_input_contents.append(bytes(64 * 1024 * 1024))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        error = refusal(channel, "ModelInfer", request.SerializeToString(), compression=compression)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_above_a_limit_is_refused_with_the_limits_name(channel: grpc.Channel) -> None:
    for _ in range(2):
        infer(channel, echo_request("limited"))
    error = refusal(channel, "ModelInfer", echo_request("limited").SerializeToString())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())["ratelimit-policy"] == '"objective-rate";q=1;w=100'
    error = refusal(
        channel, "ModelInfer", echo_request().SerializeToString(), metadata=(("tidegate-traffic", "replay"),)
    )
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def executions(served: RpcStack) -> int:
    """How often the model `queued` was executed."""
    with triton.InferenceServerClient(served.triton) as client:
        stats = client.get_inference_statistics("queued")
        return sum(each.execution_count for each in stats.model_stats)


def test_deadlines_and_cancellations_reach_the_server(served: RpcStack, channel: grpc.Channel) -> None:
    before = executions(served)
    ask = unary(channel, "ModelInfer")
    at_once = sleepy_request(0, "queued").SerializeToString()
    first = ask.future(sleepy_request(4_000, "queued").SerializeToString(), timeout=30)
    time.sleep(0.3)
    # The model's one instance is busy. All but the next two of these wait in the queue of Triton's batcher.
    late = [ask.future(at_once, timeout=0.3) for _ in range(5)]
    short = (("tidegate-timeout-ms", "300"),)
    limited = [ask.future(at_once, metadata=short, timeout=30) for _ in range(5)]
    left = [ask.future(at_once, timeout=30) for _ in range(5)]
    time.sleep(0.2)
    for each in left:
        each.cancel()
    for each in (*late, *limited):
        assert each.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    first.result()
    ask(at_once, timeout=30)
    assert eventually(lambda: executions(served) - before >= 2)
    assert executions(served) - before <= 2 + 7


def test_the_client_of_triton_sees_a_deadline(served: RpcStack) -> None:
    inputs = [triton.InferInput("SLEEP_MS", [1], "INT32")]
    inputs[0].set_data_from_numpy(np.array([3_000], np.int32))
    with (
        triton.InferenceServerClient(served.address) as client,
        pytest.raises(InferenceServerException, match="Deadline"),
    ):
        client.infer("sleepy", inputs, client_timeout=0.2)


def test_the_health_service_answers(channel: grpc.Channel) -> None:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=30) == check(b"\x0a\x1einference.GRPCInferenceService", timeout=30) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as refused:
        check(b"\x0a\x05other", timeout=30)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_rpc_without_a_message_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(channel.stream_stream(f"{SERVICE}ModelInfer")(iter(()), timeout=30))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
