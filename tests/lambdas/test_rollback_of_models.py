"""A rollback by the function to a revision whose models are loaded no more, on real Triton servers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.control.guard import BLAMELESS_S

from tests.lambdas.conftest import Starter, alarm_event
from tests.lambdas.test_control import variables
from tests.support.aws import LocalAws
from tests.support.lambda_runtime import FunctionError
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

SHORT = {"TIDEGATE_KEEP_REVISIONS": "0", "TIDEGATE_DRAIN_TIMEOUT_S": "0"}
"""No revision is kept for a rollback."""

LOADS_S = 180
"""Time that a publish may take on a busy machine."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One server on which version 2 of a model is live, and version 1 was before and is gone."""
    folder = tmp_path_factory.mktemp("stack")
    models = make_repository(folder / "models", "versioned")
    (models / "versioned/samples").mkdir()
    (models / "versioned/samples/answer.json").write_text(json.dumps(golden()))
    rules = write_rules(folder / "rules", {"a": 1}, {"versioned": ["a"]}, picked="versioned/1")
    with running_stack(rules, models, folder / "errors", variables=SHORT) as running:
        write_rules(rules, {"a": 1}, {"versioned": ["a"]}, picked="versioned/2")
        assert eventually(lambda: running.version("picked") == 2, LOADS_S), running.errors
        assert eventually(lambda: running.models("a") == [{"versioned/2"}], LOADS_S)
        yield running


def golden(**expects: Any) -> dict[str, Any]:
    """A golden request, and what its answer must be."""
    return {"inputs": {"SLEEP_MS": [0]}, **({"outputs": expects} if expects else {})}


def store_golden(stack: RunningStack, request: dict[str, Any]) -> None:
    """Replace the golden request that was pushed."""
    control = stack.get("/v1/fleet")["control"]
    aws = LocalAws(control["endpoint_url"].rstrip("/"), control["bucket"], control["registry_table"])
    key, body = "samples/versioned/answer.json", json.dumps(request).encode()
    aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=body)


def test_a_rollback_proves_what_it_loads_and_refuses_what_answers_wrongly(stack: RunningStack, start: Starter) -> None:
    rollback = start("rollback", variables(stack) | SHORT)
    live = stack.get("/v1/fleet")["revision"]
    at = time.time() + 2 * BLAMELESS_S
    store_golden(stack, golden(VERSION=[2]))
    with pytest.raises(FunctionError) as caught:
        rollback.invoke(alarm_event("alarm", at))
    told = caught.value.document["errorMessage"]
    assert "versioned/1" in told
    assert "answer.json" in told, "the golden request that it answered wrongly"
    assert (stack.get("/v1/fleet")["revision"], stack.version("picked")) == (live, 2), "nothing has changed"
    assert eventually(lambda: stack.models("a") == [{"versioned/2"}], LOADS_S), "what was loaded for it is gone again"
    store_golden(stack, golden(VERSION=[1]))
    assert rollback.invoke(alarm_event("alarm", at))["status"] == "rolled back"
    assert eventually(lambda: stack.version("picked") == 1)
