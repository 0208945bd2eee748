"""Shadows of the gateway's function: through a queue, and on to the real Triton by the shadows' function."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.layout import SHADOW_COPIES
from tidegate.aws.shadow_tallies import S3ShadowTallies
from tidegate.rules import compile_directory
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.tallies import PairTally

from tests.lambdas.conftest import EVENTS, Deployment, Starter, ask
from tests.support.lambda_runtime import Environment, FunctionError

OBJECTIVE = {
    "objective": "echoing",
    "summary": "Echo.",
    "owner": "tests",
    "timeout_ms": 20_000,
    "context": {"member": {"type": "string"}},
    "sticky_key": "member",
    "rules": [{"id": "all", "serve": "echo", "shadow": {"echo/1": 100, "gone": 100}}],
}
PATIENT = {"TIDEGATE_SHADOW_TIMEOUT_MS": "15000"}
"""However long it takes to start the function."""

FLEET = {
    "shards": {"main": {}, "nowhere": {}},
    "models": {"echo": {"shards": ["main"]}, "gone": {"shards": ["nowhere"]}},
}


@pytest.fixture
def rules(tmp_path: Path) -> bytes:
    (tmp_path / "rules" / "objectives").mkdir(parents=True)
    (tmp_path / "rules" / "objectives" / "echoing.yaml").write_text(json.dumps(OBJECTIVE))
    (tmp_path / "rules" / "fleet.yaml").write_text(json.dumps(FLEET))
    return compile_directory(tmp_path / "rules")


class Queue:
    """The queue of shadows, on moto."""

    def __init__(self, deployment: Deployment) -> None:
        self._sqs = deployment.aws.clients().client("sqs")
        self.url: str = self._sqs.create_queue(QueueName=f"{deployment.aws.bucket}-shadows")["QueueUrl"]

    def event(self) -> dict[str, Any]:
        """The messages that wait, as Lambda gives them to a function."""
        found = self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
        (record,) = json.loads((EVENTS / "queue.json").read_text())["Records"][:1]
        return {
            "Records": [record | {"messageId": each["MessageId"], "body": each["Body"]} for each in found],
        }


def body(values: int) -> dict[str, Any]:
    return {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, values], "data": [0.25] * values}]}


def tally_of(deployment: Deployment, shadow: str) -> PairTally:
    tallies = asyncio.run(S3ShadowTallies(deployment.aws.objects()).read(time.time() - 3600)).tallies
    return next(tally for pair, tally in tallies.pairs.items() if pair.shadow == shadow)


def metrics(environment: Environment, name: str) -> float:
    """The sum of a metric by function."""
    lines = [json.loads(line) for line in environment.log.splitlines() if line.startswith('{"_aws"')]
    return sum(value for line in lines if "Reason" not in line for value in line.get(name, []))


@pytest.mark.parametrize("values", [4, 60_000])
def test_a_copy_goes_through_the_queue_to_the_shadow(
    deployment: Deployment, start: Starter, shards: dict[str, int], rules: bytes, values: int
) -> None:
    deployment.publish(rules)
    queue = Queue(deployment)
    variables = deployment.variables(shards)
    gateway = start("gateway", {**variables, "TIDEGATE_SHADOW_QUEUE_URL": queue.url})
    answer = ask(gateway, "/v2/models/echoing/infer", body(values), {"accept-encoding": "identity"})
    assert answer.status == 200, answer.body
    event = queue.event()
    assert len(event["Records"]) == 1
    is_large = values > 4
    assert ("object" in json.loads(event["Records"][0]["body"])) == is_large
    assert len(asyncio.run(deployment.aws.objects().list(SHADOW_COPIES))) == is_large
    assert (metrics(gateway, "ShadowsSampled"), metrics(gateway, "ShadowsQueued")) == (2, 1)
    assert metrics(gateway, "ShadowsDropped") == 1, "the shadow without an endpoint"

    shadow = start("shadow", variables | PATIENT)
    assert shadow.invoke(event) == {"batchItemFailures": []}
    tally = tally_of(deployment, "echo/1")
    assert (tally.pair.primary, tally.compared, tally.shadow_failed) == ("echo", 1, {})
    assert tally.outputs["Y"].identical == 1
    # The model tells its parameters: of the traffic classes real and shadow.
    assert tally.outputs["PARAMETERS"].identical == 0
    assert (metrics(shadow, "ShadowsSent"), metrics(shadow, "ShadowsFailed")) == (1, 0)
    assert len(asyncio.run(deployment.aws.objects().list(SHADOW_COPIES))) == 0
    if is_large:
        # It was sent once: the object is gone.
        failed = [{"itemIdentifier": event["Records"][0]["messageId"]}]
        assert shadow.invoke(event) == {"batchItemFailures": failed}


def test_a_queue_that_does_not_answer_costs_callers_little_and_no_answer(
    deployment: Deployment, start: Starter, shards: dict[str, int], rules: bytes, silent_server: int, tmp_path: Path
) -> None:
    deployment.publish(rules)
    bundle = tmp_path / "bundle"
    bundle.write_bytes(rules)
    variables = deployment.variables(shards) | {
        # Neither S3 nor SQS answers: the rules came with the code.
        "TIDEGATE_AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent_server}",
        "TIDEGATE_STORE_TIMEOUT_S": "0.1",
        "TIDEGATE_FRESH_WAIT_MS": "0",
        "TIDEGATE_BUNDLE_FILE": str(bundle),
        "TIDEGATE_SHADOW_QUEUE_URL": f"http://127.0.0.1:{silent_server}/queue",
        "TIDEGATE_SHADOW_SEND_TIMEOUT_MS": "200",
    }
    gateway = start("gateway", variables)
    for _ in range(3):
        assert ask(gateway, "/v2/models/echoing/infer", body(4)).status == 200
    assert metrics(gateway, "ShadowsQueued") == 0
    assert metrics(gateway, "ShadowsDropped") == 6
    # The first caller waited for the queue, and no other one.
    assert 200 <= metrics(gateway, "ShadowQueueTime") < 1000
    by_reason = [line for line in gateway.log.splitlines() if '"Reason":"unreachable"' in line.replace(" ", "")]
    assert len(by_reason) == 3


def test_a_copy_that_is_late_or_has_no_endpoint_is_dropped_and_not_sent(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    shadow = start("shadow", deployment.variables(shards) | PATIENT)
    (record,) = json.loads((EVENTS / "queue.json").read_text())["Records"][:1]
    now = time.time()
    copies = [copy_of("late", "main", now - 16), copy_of("nowhere", "nowhere", now), copy_of("gone", "main", now)]
    records = [
        record | {"messageId": str(number), "body": json.dumps({"copy": b64encode(b"".join(each.parts())).decode()})}
        for number, each in enumerate(copies)
    ]
    assert shadow.invoke({"Records": records}) == {"batchItemFailures": []}
    assert (metrics(shadow, "ShadowsSent"), metrics(shadow, "ShadowsFailed")) == (1, 1), "the model that is not there"
    assert metrics(shadow, "ShadowsDropped") == 2
    lines = [json.loads(line) for line in shadow.log.splitlines() if '"Reason"' in line]
    assert {line["Reason"]: line["ShadowsDropped"] for line in lines} == {"late": [1], "no endpoint": [1]}
    assert [tally_of(deployment, each).dropped for each in ("late", "nowhere", "gone")] == [1, 1, 0]


def copy_of(shadow: str, shard: str, at: float) -> ShadowCopy:
    pair = Pair("echoing", "all", "echo", "echo/1", shadow, shadow)
    path, answer = f"/v2/models/{shadow}/infer", Answer(200, [], b"{}", 1.0)
    return ShadowCopy(pair, "r", at, None, shard, ("127.0.0.1", 1), path, [], json.dumps(body(1)).encode(), answer)


@pytest.mark.parametrize("message", [{}, {"copy": 7}, {"copy": "AAAA"}, {"object": "models/x"}, {"object": 7}, []])
def test_a_message_that_cannot_be_read_goes_to_the_dead_letter_queue(
    deployment: Deployment, start: Starter, shards: dict[str, int], message: Any
) -> None:
    shadow = start("shadow", deployment.variables(shards))
    event = json.loads((EVENTS / "queue.json").read_text())
    event["Records"] = [event["Records"][0] | {"body": json.dumps(message)}]
    failed = [{"itemIdentifier": event["Records"][0]["messageId"]}]
    assert shadow.invoke(event) == {"batchItemFailures": failed}
    with pytest.raises(FunctionError):
        shadow.invoke({"source": "aws.events"})
