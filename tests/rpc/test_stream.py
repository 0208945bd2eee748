"""Streams on a running stack, with the clients that callers have."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2

from tests.rpc.conftest import SERVICE, RpcStack, echo_request, sleepy_request
from tests.support.stack import eventually


@pytest.fixture(scope="module")
def channel(served: RpcStack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as found:
        yield found


def open_stream(channel: grpc.Channel, requests: Iterator[Any], **options: Any) -> Any:
    serialize, read = service_pb2.ModelInferRequest.SerializeToString, service_pb2.ModelStreamInferResponse.FromString
    return channel.stream_stream(f"{SERVICE}ModelStreamInfer", serialize, read)(requests, **options)


def answers(channel: grpc.Channel, *requests: Any, **options: Any) -> list[Any]:
    return list(open_stream(channel, iter(requests), timeout=30, **options))


def numbered(request: Any, name: str) -> Any:
    request.id = name
    return request


def counting(count: int, script: str = "", name: str = "") -> Any:
    """A request to the decoupled model `tally`."""
    request = service_pb2.ModelInferRequest(model_name="count", id=name)
    request.inputs.add(name="COUNT", datatype="INT32", shape=[1]).contents.int_contents.append(count)
    request.inputs.add(name="SCRIPT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(script.encode())
    return request


def numbers(found: Sequence[Any], name: str) -> list[int]:
    """What `tally` answered to a request."""
    return [
        int(np.frombuffer(each.infer_response.raw_output_contents[0], np.int32)[0])
        for each in found
        if each.infer_response.id == name and not each.error_message
    ]


def adding(client: Any, value: int) -> list[Any]:
    tensor = client.InferInput("X", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return [tensor]


def test_the_client_of_triton_keeps_two_sequences_apart(served: RpcStack) -> None:
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        for turn, value in enumerate((1, 2, 3)):
            for sequence, sign in ((1001, 1), (1002, -1)):
                client.async_stream_infer(
                    "sum",
                    adding(triton, sign * value),
                    request_id=f"{sequence}",
                    sequence_id=sequence,
                    sequence_start=turn == 0,
                    sequence_end=turn == 2,
                )
        client.stop_stream()
    results = [found.get_nowait() for _ in range(6)]
    assert [error for _, error in results] == [None] * 6
    sums = [(result.get_response().id, int(result.as_numpy("SUM")[0][0])) for result, _ in results]
    assert sums == [("1001", 1), ("1002", -1), ("1001", 3), ("1002", -3), ("1001", 6), ("1002", -6)]


def test_the_asynchronous_client_streams(served: RpcStack) -> None:
    async def requests() -> AsyncIterator[Any]:
        for turn, value in enumerate((5, 6)):
            inputs = adding(triton_aio, value)
            yield {
                "model_name": "sum",
                "inputs": inputs,
                "sequence_id": "a-text",
                "sequence_start": turn == 0,
                "sequence_end": turn == 1,
            }

    async def ask() -> list[int]:
        async with triton_aio.InferenceServerClient(served.address) as client:
            stream = client.stream_infer(requests())
            return [int(result.as_numpy("SUM")[0][0]) async for result, error in stream if error is None]

    assert asyncio.run(ask()) == [5, 11]


def test_the_context_of_a_stream_is_that_of_each_request(channel: grpc.Channel) -> None:
    metadata = (("tidegate-context", json.dumps({"country": "CA"})),)
    for each in answers(channel, echo_request(), echo_request(), metadata=metadata):
        seen = json.loads(each.infer_response.raw_output_contents[1][4:])
        assert seen["Tidegate-Param-boost"] == "2"
        assert seen["Tidegate-Param-tidegate_traffic"] == "real"


def test_answers_come_in_the_order_of_the_requests(channel: grpc.Channel) -> None:
    slow = numbered(sleepy_request(300), "slow")
    found = answers(channel, slow, numbered(echo_request(), "quick"), numbered(sleepy_request(0), "last"))
    assert [each.infer_response.id for each in found] == ["slow", "quick", "last"]


def test_a_decoupled_model_answers_as_often_as_it_likes(channel: grpc.Channel) -> None:
    found = answers(channel, counting(4, name="a"), counting(0, name="none"), counting(2, name="b"))
    assert numbers(found, "a") == [0, 1, 2, 3]
    assert numbers(found, "none") == []
    assert numbers(found, "b") == [0, 1]


def test_an_answer_is_passed_on_when_it_comes(channel: grpc.Channel) -> None:
    # The last of its answers comes after the deadline.
    stream = open_stream(channel, iter([counting(200, "slow")]), timeout=20)
    next(stream)
    stream.cancel()


def test_an_error_ends_its_request_and_not_the_stream(channel: grpc.Channel) -> None:
    wrong = numbered(echo_request(), "wrong")
    wrong.inputs[0].datatype = "INT32"
    reserved = numbered(echo_request(), "reserved")
    reserved.parameters["tidegate_traffic"].string_param = "real"
    found = answers(
        channel,
        numbered(echo_request("unknown"), "unknown"),
        wrong,
        reserved,
        counting(3, "raise", "raised"),
        counting(3, "fail", "failed"),
        numbered(echo_request(), "good"),
    )
    said = {each.infer_response.id: each.error_message for each in found}
    assert said["unknown"].startswith("Request for unknown model: 'unknown' is not found")
    assert "data-type" in said["wrong"]
    assert "not for callers" in said["reserved"]
    assert "secret of the model" in said["raised"]
    assert numbers(found, "failed") == [0, 1]
    assert said["failed"] == "secret of the model"
    assert said["good"] == ""


def test_a_unary_call_to_an_objective_that_streams_is_refused(channel: grpc.Channel) -> None:
    ask = channel.unary_unary(f"{SERVICE}ModelInfer", service_pb2.ModelInferRequest.SerializeToString)
    with pytest.raises(grpc.RpcError) as refused:
        ask(counting(1), timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelStreamInfer" in refused.value.details()


def cancelled(channel: grpc.Channel) -> int:
    """How many of its requests `tally` found cancelled."""
    return numbers(answers(channel, counting(1, "cancelled")), "")[0]


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_caller_that_leaves_cancels_its_requests_at_the_model(channel: grpc.Channel, how: str) -> None:
    before = cancelled(channel)
    stream = open_stream(channel, iter([counting(200, "slow")]), timeout=3 if how == "deadline" else 30)
    next(stream)
    if how == "cancelled":
        stream.cancel()
    with pytest.raises(grpc.RpcError):
        list(stream)
    assert eventually(lambda: cancelled(channel) == before + 1)


def test_a_request_is_late_when_it_has_no_answer_in_time(channel: grpc.Channel) -> None:
    metadata = (("tidegate-timeout-ms", "300"),)

    def next_is_answered() -> bool:
        late, good = answers(channel, sleepy_request(2_000), echo_request(), metadata=metadata)
        assert "deadline" in late.error_message
        return not good.error_message

    # On a busy machine that may be late as well.
    assert eventually(next_is_answered)


def test_more_requests_than_are_under_way_at_once_are_all_answered(channel: grpc.Channel) -> None:
    def all_are_answered() -> bool:
        found = answers(channel, *(numbered(echo_request(), str(number)) for number in range(200)))
        assert len(found) == 200
        ids = [each.infer_response.id for each in found if not each.error_message]
        return ids == [str(number) for number in range(200)]

    # On a busy machine some may wait for too long.
    assert eventually(all_are_answered)
