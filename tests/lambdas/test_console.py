"""The console's function under Lambda's own runtime client, before the stores and CloudWatch of a stage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.metrics import BY_OBJECTIVE, BY_RULE, Dimension, Metric
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Deployment, Starter, ask, http_event, read
from tests.support.aws import LocalAws, local_server, names
from tests.web.conftest import HERE as WEB

RULES = compile_directory(WEB / "rules")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with local_server("tests.support.cloudwatch") as address:
        yield address


@pytest.fixture
def deployment(url: str) -> Deployment:
    local = names(url)
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    made = Deployment(local)
    made.publish(RULES)
    return made


@pytest.fixture
def variables(deployment: Deployment) -> dict[str, str]:
    return {
        "TIDEGATE_BUCKET": deployment.aws.bucket,
        "TIDEGATE_REGISTRY_TABLE": deployment.aws.table,
        "TIDEGATE_AWS_ENDPOINT_URL": deployment.aws.url,
    }


def emit_a_request_a_minute(aws: LocalAws, objective: str, rule: str, model: str) -> None:
    """Emit what the gateway's function does for one request in each of the last minutes, which a fallback answered."""
    minute = int(time.time() // 60) * 60
    for dimensions in ((Dimension.SERVICE,), BY_OBJECTIVE, BY_RULE):
        named = dict(zip(BY_RULE, ("gateway", objective, rule, "none", model), strict=True))
        data = [
            {
                "MetricName": metric.metric_name,
                "Dimensions": [{"Name": str(each), "Value": named[each]} for each in dimensions],
                "Value": value,
                "Timestamp": datetime.fromtimestamp(minute - 60 * ago + 1, UTC),
            }
            for ago in range(6)
            for metric, value in ((Metric.DISPATCH_TIME, 12.0), (Metric.SERVER_ERRORS, 0.0), (Metric.FALLBACKS, 1.0))
        ]
        aws.clients().client("cloudwatch").put_metric_data(Namespace="Tidegate", MetricData=data)


def test_operators_see_what_is_live_what_cloudwatch_counted_and_what_servers_report(
    deployment: Deployment, variables: dict[str, str], start: Starter
) -> None:
    registry = DynamoRegistry(deployment.aws.clients(), deployment.aws.table)
    # Nothing is there: it is not asked. Its report may come from a clock that is ahead, and is fresh for longer then.
    entry = RegisteredEndpoint(Endpoint("main", "127.0.0.1", 9), EndpointState.READY, time.time() + 50)
    asyncio.run(registry.register(entry))
    emit_a_request_a_minute(deployment.aws, "adding", "newest", "pair_sum")
    console = start("console", variables)
    answer = ask(console, "/v1/overview", method="GET")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store"), answer.body
    overview = answer.json
    assert overview["live"]["by"] == "tests"
    assert overview["stack"]["writes"] is False
    assert overview["traffic"]["requests_per_s"] == pytest.approx(1 / 60)
    assert (overview["traffic"]["p99_ms"], overview["traffic"]["fallback_share"]) == (12.0, 1.0)
    (adding,) = [each for each in overview["objectives"] if each["name"] == "adding"]
    assert (adding["p50_ms"], adding["error_share"]) == (12.0, 0.0)
    assert (overview["history"]["step_s"], len(overview["history"]["p50_ms"])) == (60, 15)
    (main,) = [each for each in overview["shards"] if each["name"] == "main"]
    assert main["ready"] == 1, overview["attention"]
    assert not [each for each in overview["attention"] if each["kind"] == "drift"]
    emitted = [line for line in console.log.splitlines() if line.startswith('{"_aws"')]
    assert len(emitted) == 1
    assert '"Requests"' in emitted[0]


def test_only_the_page_is_for_everybody(variables: dict[str, str], start: Starter) -> None:
    console = start("console", variables)
    for path in ("/console", "/console/fleet", "/console/main.js", "/v1/overview", "/v1/nothing"):
        event = http_event(path, method="GET")
        del event["requestContext"]["authorizer"]
        answer = read(console.invoke(event))
        if path.startswith("/console"):
            assert answer.status == 200, path
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        else:
            assert (answer.status, answer.json["type"]) == (401, "urn:tidegate:problem:operators-only"), path
    assert b"<html" in read(console.invoke(http_event("/console", method="GET"))).body


def test_a_stream_is_refused_and_a_change_without_the_setting(variables: dict[str, str], start: Starter) -> None:
    console = start("console", variables)
    refused = ask(console, "/v1/events", method="GET")
    assert refused.status == 501
    assert "Lambda" in refused.json["detail"]
    unknown = ask(console, "/v1/nothing", method="GET")
    assert (unknown.status, unknown.headers["content-type"]) == (404, "application/problem+json")


def test_a_store_that_is_gone_is_said_and_stops_nothing(variables: dict[str, str], start: Starter) -> None:
    console = start("console", variables | {"TIDEGATE_BUCKET": "not-there", "TIDEGATE_STORE_TIMEOUT_S": "1"})
    answer = ask(console, "/v1/overview", method="GET")
    assert answer.status == 200, answer.body
    assert answer.json["live"] is None
    assert any("not-there" in each["text"] for each in answer.json["attention"])


def test_figures_that_cannot_be_read_are_unknown_and_said(aws_url: str, start: Starter) -> None:
    """moto fails to answer for percentiles."""
    local = names(aws_url)
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    made = Deployment(local)
    made.publish(RULES)
    emit_a_request_a_minute(local, "adding", "newest", "pair_sum")
    stores = {
        "TIDEGATE_BUCKET": local.bucket,
        "TIDEGATE_REGISTRY_TABLE": local.table,
        "TIDEGATE_AWS_ENDPOINT_URL": local.url,
    }
    console = start("console", stores)
    answer = ask(console, "/v1/overview", method="GET")
    assert answer.status == 200, answer.body
    assert answer.json["traffic"]["requests_per_s"] is answer.json["history"] is None
    assert answer.json["live"]["by"] == "tests"
    assert any("CloudWatch" in each["text"] for each in answer.json["attention"])
    assert ask(console, "/v1/objectives/adding/traffic", method="GET").status == 503
