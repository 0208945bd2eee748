"""Traces of the gateway's function: exported within the invocation, since nothing runs after it."""

from __future__ import annotations

import secrets

import pytest
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.lambdas.test_gateway import PAIR
from tests.support.collector import collector
from tests.support.lambda_runtime import FunctionError
from tests.web.conftest import HERE as WEB

RULES = compile_directory(WEB / "rules")


def test_spans_are_exported_before_the_invocation_ends(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    with collector() as found:
        waits = found.variables(OTEL_BSP_SCHEDULE_DELAY="600000")
        gateway = start("gateway", deployment.variables(shards) | waits)
        answer = ask(gateway, "/v2/models/adding/infer", PAIR, {"traceparent": f"00-{trace}-{caller}-01"})
        gateway.freeze()
        assert (answer.status, answer.headers["traceresponse"].split("-")[1]) == (200, trace)
        # The bound of an invocation may be too short on a busy machine: the next one exports the rest.
        gateway.thaw()
        ask(gateway, "/v2/models/adding/infer", PAIR)
        spans = found.wait(
            trace, "POST /v2/models/{objective}/infer", "decide", "POST /v2/models/{model}/infer [first]"
        )
        assert next(each for each in spans if each.kind == "server").parent == caller


def test_a_dead_collector_fails_no_invocation(deployment: Deployment, start: Starter, shards: dict[str, int]) -> None:
    deployment.publish(RULES)
    with collector() as found:
        gateway = start("gateway", deployment.variables(shards) | found.variables())
        with found.down():
            for _ in range(3):
                assert ask(gateway, "/v2/models/adding/infer", PAIR).status == 200


def test_a_variable_that_cannot_be_used_is_the_error_of_the_first_invocation(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    variables = {"TIDEGATE_TRACING": "otlp", "OTEL_TRACES_SAMPLER": "sometimes"}
    gateway = start("gateway", deployment.variables(shards) | variables)
    with pytest.raises(FunctionError, match="OTEL_TRACES_SAMPLER must be one of"):
        gateway.invoke({})
