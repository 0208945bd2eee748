"""Traces of the gateway's function: exported within the invocation, since nothing runs after it."""

from __future__ import annotations

import secrets

import pytest
from tidegate.aws.xray_trace import VARIABLE, within_invocation
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.lambdas.test_gateway import PAIR
from tests.lambdas.test_shadow import PATIENT, Queue, body
from tests.lambdas.test_shadow import rules as shadowed
from tests.support.collector import collector
from tests.support.lambda_runtime import FunctionError
from tests.web.conftest import HERE as WEB

__all__ = ["shadowed"]

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


def test_a_copy_that_goes_through_the_queue_is_in_the_trace_of_its_request(
    deployment: Deployment, start: Starter, shards: dict[str, int], shadowed: bytes
) -> None:
    deployment.publish(shadowed)
    queue = Queue(deployment)
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    with collector() as found:
        variables = deployment.variables(shards) | found.variables()
        gateway = start("gateway", {**variables, "TIDEGATE_SHADOW_QUEUE_URL": queue.url})
        sent = {"traceparent": f"00-{trace}-{caller}-01"}
        assert ask(gateway, "/v2/models/echoing/infer", body(1), sent).status == 200
        shadow = start("shadow", variables | PATIENT)
        assert shadow.invoke(queue.event()) == {"batchItemFailures": []}
        attempt = "POST /v2/models/{model}/infer"
        spans = found.wait(trace, "POST /v2/models/{objective}/infer", f"{attempt} [first]", f"{attempt} [shadow]")
        (root,) = [each for each in spans if each.parent == caller]
        (copy,) = [each for each in spans if each["tidegate.attempt"] == "shadow"]
        assert (copy.parent, copy["http.response.status_code"], copy.failed) == (root.id, 200, False)


def test_a_request_without_a_trace_is_in_that_of_lambda(
    deployment: Deployment, start: Starter, shards: dict[str, int]
) -> None:
    deployment.publish(RULES)
    trace, segment = "65f0a0a00123456789abcdef01234567", "53995c3f42cd8ad8"
    lambdas = f"Root=1-{trace[:8]}-{trace[8:]};Parent={segment};Sampled=1;Lineage=1:b0f0f0f0:0"
    with collector() as found:
        gateway = start("gateway", deployment.variables(shards) | found.variables(), trace=lambdas)
        answer = ask(gateway, "/v2/models/adding/infer", PAIR, {"traceparent": "not one", "tracestate": "a=1"})
        assert (answer.status, answer.headers["traceresponse"].split("-")[1]) == (200, trace)
        (root,) = [each for each in found.wait(trace, "POST /v2/models/{objective}/infer") if each.kind == "server"]
        assert (root.parent, root.state) == (segment, "")


@pytest.mark.parametrize(
    ("lambdas", "parent"),
    [
        ("Root=1-65f0a0a0-0123456789abcdef01234567;Parent=53995c3f42cd8ad8;Sampled=0", "00-65f0a0a00123456789abcdef01234567-53995c3f42cd8ad8-00"),
        ("Sampled=1; Parent=53995c3f42cd8ad8; Root=1-65f0a0a0-0123456789abcdef01234567", "00-65f0a0a00123456789abcdef01234567-53995c3f42cd8ad8-01"),
        ("Root=1-65f0a0a0-0123456789abcdef01234567;Sampled=0", None),
        ("Root=1-65f0a0a0-0123456789abcdef;Parent=53995c3f42cd8ad8;Sampled=1", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_trace_of_lambda_is_read_as_x_ray_writes_it(lambdas: str, parent: str | None) -> None:
    headers = [(b"tracestate", b"a=1"), (b"x", b"y")]
    expected = headers if parent is None else [(b"x", b"y"), (b"traceparent", parent.encode())]
    assert within_invocation(headers, {VARIABLE: lambdas}) == expected


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
