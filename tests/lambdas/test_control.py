"""The functions of the control plane under Lambda's own runtime client, on a running stack's stores and Triton servers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.control.guard import BLAMELESS_S

from tests.lambdas.conftest import EVENTS, Deployment, Starter, alarm_event
from tests.support.lambda_runtime import Environment, FunctionError
from tests.support.processes import refusing_port
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

NOT_BY_ITSELF = {"TIDEGATE_RECONCILE_INTERVAL_S": "86400"}
"""The stack leaves reconciling to the function."""


def recorded(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def from_queue(*bodies: str) -> dict[str, Any]:
    """A batch of messages with these bodies, numbered."""
    (record,) = recorded("queue")["Records"]
    return {"Records": [record | {"messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def stack(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One shard of two servers that hold versions 1 and 2 of a model, of which 2 is live and 1 was before."""
    folder = tmp_path_factory.mktemp("stack")
    models = make_repository(folder / "models", "versioned")
    write_rules(rules, {"a": 2}, {"versioned": ["a"]}, picked="versioned/1")
    with running_stack(rules, models, folder / "errors", variables=NOT_BY_ITSELF) as running:
        write_rules(rules, {"a": 2}, {"versioned": ["a"]}, picked="versioned/2")
        assert eventually(lambda: running.version("picked") == 2), running.errors
        assert eventually(lambda: running.models("a") == [{"versioned/1", "versioned/2"}] * 2)
        yield running


def variables(stack: RunningStack) -> dict[str, str]:
    control = stack.get("/v1/fleet")["control"]
    return {
        "TIDEGATE_BUCKET": control["bucket"],
        "TIDEGATE_REGISTRY_TABLE": control["registry_table"],
        "TIDEGATE_AWS_ENDPOINT_URL": control["endpoint_url"],
        "TIDEGATE_MANAGEMENT_SECRET": stack.known.management_secret,
        "TIDEGATE_PROBE_INTERVAL_S": "0.5",
    }


def metrics(environment: Environment, name: str) -> list[Mapping[str, Any]]:
    """Every line of metrics that has a metric of this name."""
    lines = [json.loads(line) for line in environment.log.splitlines() if line.startswith('{"_aws"')]
    return [line for line in lines if name in line]


def test_a_model_that_was_unloaded_by_hand_is_loaded_again(stack: RunningStack, start: Starter) -> None:
    reconcile = start("reconcile", variables(stack))
    assert reconcile.invoke(recorded("schedule"))["converged"], "nothing is to be done"
    url = stack.fleet()["a"][0]["url"]
    stack.unload(url, "versioned")
    answer = reconcile.invoke(from_queue(json.dumps(recorded("object_created"))))
    assert answer == {"batchItemFailures": []}
    assert stack.models("a") == [{"versioned/1", "versioned/2"}] * 2
    assert "reconciled" in reconcile.log
    assert any(line["Changes"] == [1.0] for line in metrics(reconcile, "Changes"))


def test_only_the_message_that_cannot_be_read_comes_again(stack: RunningStack, start: Starter) -> None:
    reconcile = start("reconcile", variables(stack))
    good = json.dumps(recorded("object_created"))
    answer = reconcile.invoke(from_queue(good, "{not json", good, "[]", '{"source": "aws.ec2"}'))
    assert [each["itemIdentifier"] for each in answer["batchItemFailures"]] == ["m1", "m3", "m4"]


def test_a_message_by_which_no_object_was_created_reconciles_nothing(deployment: Deployment, start: Starter) -> None:
    reconcile = start("reconcile", deployment.variables({}))
    created = recorded("object_created")
    deleted, test = created | {"detail-type": "Object Deleted"}, {"Event": "s3:TestEvent"}
    assert reconcile.invoke(from_queue(*map(json.dumps, (deleted, test)))) == {"batchItemFailures": []}
    assert [line["IgnoredEvents"] for line in metrics(reconcile, "IgnoredEvents")] == [[1.0], [1.0]]
    assert "reconciled" not in reconcile.log
    assert reconcile.invoke(from_queue(*map(json.dumps, (deleted, created)))) == {"batchItemFailures": []}
    assert len(metrics(reconcile, "Changes")) == 1


def test_a_message_without_an_id_is_an_error_that_names_it(stack: RunningStack, start: Starter) -> None:
    reconcile = start("reconcile", variables(stack))
    batch = from_queue("{}", "{}")
    for wrong in (None, "", 7):
        batch["Records"][1]["messageId"] = wrong
        with pytest.raises(FunctionError) as caught:
            reconcile.invoke(batch)
        assert caught.value.document["errorType"] == "EventError"
        assert "Records[1].messageId" in caught.value.document["errorMessage"]


def test_the_probe_tells_how_busy_each_shard_is(stack: RunningStack, start: Starter) -> None:
    probe = start("probe", variables(stack))
    answer = probe.invoke(recorded("schedule"))
    assert answer["shards"]["a"]["ready"] == answer["shards"]["a"]["registered"] == 2
    assert answer["shards"]["a"]["queue_time_ratio"] >= 0
    (line,) = metrics(probe, "ReadyEndpoints")
    assert (line["Shard"], line["ReadyEndpoints"], line["service"]) == ("a", [2.0], "probe")
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Tidegate"


def test_an_alarm_takes_a_publish_back_once(stack: RunningStack, start: Starter) -> None:
    rollback = start("rollback", variables(stack))
    quiet = recorded("alarm")
    quiet["alarmData"]["state"]["value"] = "OK"
    assert rollback.invoke(quiet)["status"] == "ignored"
    assert [line["IgnoredEvents"] for line in metrics(rollback, "IgnoredEvents")] == [[1.0]]
    for unknown in ("alarm", "Alarm", "ON", "ALARM "):
        quiet["alarmData"]["state"]["value"] = unknown
        with pytest.raises(FunctionError) as caught:
            rollback.invoke(quiet)
        assert caught.value.document["errorType"] == "EventError"
        assert "OK, ALARM, INSUFFICIENT_DATA" in caught.value.document["errorMessage"]
    assert len(metrics(rollback, "IgnoredEvents")) == 1
    assert stack.version("picked") == 2
    late = rollback.invoke(recorded("alarm"))
    assert (late["status"], stack.version("picked")) == ("kept", 2), "it is about what was live before"
    at = time.time() + BLAMELESS_S
    answer = rollback.invoke(alarm_event("alarm", at))
    assert answer["status"] == "rolled back", answer
    assert eventually(lambda: stack.version("picked") == 1)
    assert stack.get("/v1/fleet")["revision"] == answer["revision"]
    for delivered in ("alarm", "alarm_by_eventbridge"):
        assert rollback.invoke(alarm_event(delivered, at)) == answer, "the same change of state, delivered again"
    assert [line["Rollbacks"] for line in metrics(rollback, "Rollbacks")] == [[0.0], [1.0]], "and counted once"
    again = rollback.invoke(recorded("alarm_by_sns"))
    assert again["status"] == "kept"
    assert "a rollback already" in again["reason"]
    assert stack.version("picked") == 1
    assert "the guard was called" in rollback.log
    assert [line["Rollbacks"] for line in metrics(rollback, "Rollbacks")] == [[0.0], [1.0], [0.0]]


@pytest.mark.parametrize("function", ["rollback", "reconcile", "probe"])
def test_an_event_that_a_function_does_not_know_is_an_error(stack: RunningStack, start: Starter, function: str) -> None:
    running = start(function, variables(stack))
    other = "schedule" if function == "rollback" else "alarm"
    for event in (None, [], "text", {"Records": [{"eventSource": "aws:kinesis"}]}, recorded(other)):
        with pytest.raises(FunctionError) as caught:
            running.invoke(event)
        assert caught.value.document["errorType"] == "EventError"
    assert not metrics(running, "Changes")


def test_a_store_that_is_down_is_an_error_that_the_platform_repeats(start: Starter, stack: RunningStack) -> None:
    down = variables(stack) | {"TIDEGATE_AWS_ENDPOINT_URL": f"http://127.0.0.1:{refusing_port()}"}
    reconcile = start("reconcile", down)
    with pytest.raises(FunctionError) as caught:
        reconcile.invoke(recorded("schedule"))
    assert caught.value.document["errorType"] == "StoreError"
    failed = reconcile.invoke(from_queue("{}", "{}"))
    assert [each["itemIdentifier"] for each in failed["batchItemFailures"]] == ["m0", "m1"]
