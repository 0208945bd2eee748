"""Shadows of the gateway's function: through a queue, and on to the real Triton by the shadows' function."""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.layout import SHADOW_COPIES
from tidegate.aws.shadow_claims import ShadowClaims
from tidegate.aws.shadow_tallies import S3ShadowTallies
from tidegate.gateway.shadow_lanes import FAILURES
from tidegate.rules import compile_directory
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.pair_tally import PairTally

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
        return event_of(*(json.loads(each["Body"]) for each in found))


def event_of(*messages: Any) -> dict[str, Any]:
    """Messages as Lambda gives them to a function; each has its place as its id."""
    record = json.loads((EVENTS / "queue.json").read_text())["Records"][0]
    return {
        "Records": [record | {"messageId": str(n), "body": json.dumps(each)} for n, each in enumerate(messages)],
    }


def message_of(copy: ShadowCopy) -> dict[str, str]:
    return {"id": os.urandom(16).hex(), "copy": b64encode(b"".join(copy.parts())).decode()}


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
    message = json.loads(event["Records"][0]["body"])
    assert set(message) == {"id", "object" if is_large else "copy", "counts"}
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
    # SQS delivers a message at least once: the same environment gets it again, and so does another one.
    assert shadow.invoke(event) == {"batchItemFailures": []}
    other = start("shadow", variables | PATIENT)
    assert other.invoke(event) == {"batchItemFailures": []}
    assert [metrics(each, "ShadowsRepeated") for each in (shadow, other)] == [1, 1]
    assert (metrics(shadow, "ShadowsSent"), metrics(other, "ShadowsSent")) == (1, 0)
    tally = tally_of(deployment, "echo/1")
    assert (tally.sampled, tally.sent, tally.compared, tally.dropped, tally.missing) == (1, 1, 1, {}, 0)
    gone = tally_of(deployment, "gone")
    assert (gone.sampled, gone.sent, gone.dropped) == (1, 0, {"no endpoint": 1}), (
        "it went with the message of the other"
    )


def test_counts_without_a_copy_have_a_message_of_their_own(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    pair = ["echoing", "all", "echo", "echo/1", "gone", "gone"]
    counts = [[pair, "r", 5.0, 9.0, {"sampled": 7, "dropped: unreachable": 4, "left out: sequence": 3}]]
    message = {"id": os.urandom(16).hex(), "counts": counts}
    shadow = start("shadow", deployment.variables(shards))
    damaged = {"id": os.urandom(16).hex(), "counts": [[pair, "r", 5.0, 9.0, {"sampled": "7"}]]}
    failed = [{"itemIdentifier": "1"}]
    assert shadow.invoke(event_of(message, damaged, message)) == {"batchItemFailures": failed}
    tally = tally_of(deployment, "gone")
    assert (tally.sampled, tally.dropped, tally.left_out) == (7, {"unreachable": 4}, {"sequence": 3})
    assert metrics(shadow, "ShadowsRepeated") == 1


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
    now = time.time()
    copies = [copy_of("late", "main", now - 16), copy_of("nowhere", "nowhere", now), copy_of("gone", "main", now)]
    assert shadow.invoke(event_of(*map(message_of, copies))) == {"batchItemFailures": []}
    assert (metrics(shadow, "ShadowsSent"), metrics(shadow, "ShadowsFailed")) == (1, 1), "the model that is not there"
    assert metrics(shadow, "ShadowsDropped") == 2
    lines = [json.loads(line) for line in shadow.log.splitlines() if '"Reason"' in line]
    assert {line["Reason"]: line["ShadowsDropped"] for line in lines} == {"late": [1], "no endpoint": [1]}
    dropped = [tally_of(deployment, each).dropped for each in ("late", "nowhere", "gone")]
    assert dropped == [{"late": 1}, {"no endpoint": 1}, {}]


def test_a_shadow_that_hangs_holds_up_one_environment_and_no_other_shadow(
    deployment: Deployment, start: Starter, shards: dict[str, int], silent_server: int
) -> None:
    variables = deployment.variables(shards | {"mute": silent_server}) | {"TIDEGATE_SHADOW_TIMEOUT_MS": "3000"}
    later = time.time() + 600
    """No copy is late, however long it takes to start a function."""

    def event(*shadows: str) -> dict[str, Any]:
        copies = (copy_of(each, "mute" if each == "hung" else "main", later) for each in shadows)
        return event_of(*map(message_of, copies))

    def counted(shadow: str) -> tuple[int, dict[str, int]]:
        tally = tally_of(deployment, shadow)
        return tally.sent, tally.dropped

    first, second = (start("shadow", variables) for _ in range(2))
    assert first.invoke(event("hung", "hung", "hung", "echo")) == {"batchItemFailures": []}
    assert (counted("hung"), counted("echo")) == ((3, {}), (1, {}))
    claims = ShadowClaims(deployment.aws.clients(), deployment.aws.table)
    pause = asyncio.run(claims.pause_of("hung"))
    assert pause is not None, "the third failure in a row pauses it for all environments"
    assert pause.failures == FAILURES

    asyncio.run(claims.pause("hung", pause._replace(until=later)))
    assert second.invoke(event("hung", "hung", "echo")) == {"batchItemFailures": []}
    assert (counted("hung"), counted("echo")) == ((3, {"failing": 2}), (2, {}))

    asyncio.run(claims.pause("hung", pause._replace(until=1.0)))
    assert second.invoke(event("hung", "hung")) == {"batchItemFailures": []}
    assert counted("hung") == (4, {"failing": 3}), "after the pause one copy is tried"
    again = asyncio.run(claims.pause_of("hung"))
    assert again is not None
    assert again.failures == FAILURES + 1

    asyncio.run(claims.pause("echo", pause._replace(until=1.0)))
    assert first.invoke(event("echo", "echo")) == {"batchItemFailures": []}
    assert first.invoke(event("echo", "echo")) == {"batchItemFailures": []}
    assert counted("echo") == (5, {"failing": 1}), "an answer ends a pause"
    assert asyncio.run(claims.pause_of("echo")) is None


def copy_of(shadow: str, shard: str, at: float) -> ShadowCopy:
    pair = Pair("echoing", "all", "echo", "echo/1", shadow, shadow)
    path, answer = f"/v2/models/{shadow}/infer", Answer(200, [], b"{}", 1.0)
    return ShadowCopy(pair, "r", at, None, shard, ("127.0.0.1", 1), path, [], json.dumps(body(1)).encode(), answer)


ID = {"id": "0123456789abcdef" * 2}


@pytest.mark.parametrize(
    "message",
    [
        ID,
        ID | {"copy": 7},
        ID | {"copy": "AAAA"},
        ID | {"object": "models/x"},
        ID | {"object": 7},
        ID | {"object": f"{SHADOW_COPIES}gone"},
        [],
        {"counts": []},
        {"id": "1", "counts": []},
    ],
)
def test_a_message_that_cannot_be_read_goes_to_the_dead_letter_queue(
    deployment: Deployment, start: Starter, shards: dict[str, int], message: Any
) -> None:
    shadow = start("shadow", deployment.variables(shards))
    failed = {"batchItemFailures": [{"itemIdentifier": "0"}]}
    # Each time: it is not taken for one that was carried out.
    assert [shadow.invoke(event_of(message)) for _ in range(2)] == [failed, failed]
    with pytest.raises(FunctionError):
        shadow.invoke({"source": "aws.events"})
