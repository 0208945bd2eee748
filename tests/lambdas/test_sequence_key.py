"""The key of sequence ids of a deployed gateway, which it reads from Secrets Manager."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest
from tidegate.rules import compile_directory

from tests.lambdas.conftest import Answer, Deployment, Starter, ask
from tests.lambdas.test_gateway import metric_lines
from tests.support.lambda_runtime import Environment
from tests.web.conftest import HERE as WEB
from tests.web.conftest import FakeTriton, fake, fake_server, sound_model

__all__ = ["fake", "fake_server"]

KEY = "the-key-of-sequences-0123456789"


@pytest.fixture
def secrets(aws_url: str) -> Any:
    return boto3.client(
        "secretsmanager",
        endpoint_url=aws_url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )


@pytest.fixture
def variables(deployment: Deployment, fake: FakeTriton, tmp_path: Path) -> dict[str, str]:
    """A stage with a named caller, before the scripted Triton."""
    rules = tmp_path / "rules"
    shutil.copytree(WEB / "rules", rules)
    (rules / "callers.yaml").write_text('callers: {home-screen: {objectives: "*", overrides: [pair_sum, text_sum]}}\n')
    deployment.publish(compile_directory(rules))
    fake.script = sound_model
    return deployment.variables({"main": fake.port, "spare": fake.port})


def begin(gateway: Environment, pin: str | None = None, **flags: bool) -> Answer:
    """Begin a sequence of the caller `home-screen`, or continue it."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1], "data": [1.0]}
    document = {"parameters": {"sequence_id": 7, "sequence_start": True, **flags}, "inputs": [tensor]}
    headers = {} if pin is None else {"tidegate-override": pin}
    return ask(gateway, "/v2/models/adding/infer", document, headers)


def sent(fake: FakeTriton) -> int:
    """The sequence id of the one inference that the server got since the last call."""
    (request,) = [each for each in fake.received if each.path.endswith("/infer")]
    fake.received.clear()
    number: int = json.loads(request.body)["parameters"]["sequence_id"]
    return number


def test_every_environment_has_the_key_and_another_version_of_it_makes_other_ids(
    variables: dict[str, str], start: Starter, fake: FakeTriton, secrets: Any, deployment: Deployment
) -> None:
    made = secrets.create_secret(Name=deployment.aws.bucket, SecretString=KEY)
    named = variables | {"TIDEGATE_SEQUENCE_KEY_ARN": made["ARN"]}
    found = []
    for environment in (named, named, variables | {"TIDEGATE_SEQUENCE_KEY": KEY}, variables):
        assert begin(start("gateway", environment)).status == 200
        found.append(sent(fake))
    assert found[0] == found[1] == found[2]
    assert found[3] != found[0], "without a key"
    secrets.put_secret_value(SecretId=made["ARN"], SecretString=KEY[::-1])
    pinned = named | {"TIDEGATE_SEQUENCE_KEY_VERSION": made["VersionId"]}
    for environment, is_same in ((pinned, True), (named, False)):
        gateway = start("gateway", environment)
        assert begin(gateway).status == 200
        assert (sent(fake) == found[0]) is is_same
        assert KEY not in gateway.log


@pytest.mark.parametrize("secret", [None, "short", b"binary-and-long-enough"])
def test_without_its_key_a_sequence_of_a_named_caller_is_refused_and_everything_else_answered(
    variables: dict[str, str],
    start: Starter,
    fake: FakeTriton,
    secrets: Any,
    deployment: Deployment,
    secret: str | bytes | None,
) -> None:
    name = deployment.aws.bucket
    if secret is not None:
        secrets.create_secret(Name=name, **{"SecretString" if isinstance(secret, str) else "SecretBinary": secret})
    arn = f"arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}"
    gateway = start("gateway", variables | {"TIDEGATE_SEQUENCE_KEY_ARN": arn})
    refused = begin(gateway)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.json == {"error": "the key of sequence ids cannot be read now; try again in a moment"}
    assert arn in gateway.log
    assert fake.received == []
    tensor = {"name": "X", "datatype": "FP32", "shape": [1], "data": [1.0]}
    assert ask(gateway, "/v2/models/adding/infer", {"inputs": [tensor]}).status == 200
    fake.received.clear()
    if secret is None:
        secrets.create_secret(Name=name, SecretString=KEY)
    else:
        secrets.put_secret_value(SecretId=name, SecretString=KEY)
    assert begin(gateway).status == 200, "it is read again"
    assert begin(start("gateway", variables | {"TIDEGATE_SEQUENCE_KEY": KEY})).status == 200
    ids = [json.loads(each.body)["parameters"]["sequence_id"] for each in fake.received if each.path.endswith("/infer")]
    assert len(set(ids)) == 1


def test_requests_that_their_sequence_refuses_are_counted(
    variables: dict[str, str], start: Starter, fake: FakeTriton
) -> None:
    gateway = start("gateway", variables)
    assert begin(gateway, "pair_sum").status == 200
    assert begin(gateway, "text_sum", sequence_start=False).status == 409
    counts = [line["SequencesRefused"][0] for line in metric_lines(gateway) if "SequencesRefused" in line]
    assert counts == [0.0, 1.0]
