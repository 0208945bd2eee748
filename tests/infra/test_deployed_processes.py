"""The processes of a stage as the templates describe them: their commands, handlers, variables and rights, on the real Triton
and Lambda's own runtime client, with moto in place of AWS."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.provision import provision_facts
from tidegate.aws.registry import DynamoRegistry
from tidegate.control.guard import BLAMELESS_S
from tidegate.models.diagnosis import StoredDiagnosis
from tidegate.ports import Claim, Endpoint, EndpointState, RegisteredEndpoint
from tidegate.triton.repository import MANAGEMENT

from infra.assembly import Assembly
from tests.infra.conftest import Made
from tests.infra.deployed import AWS_VARIABLES, Triton, deployed_agent, deployed_triton
from tests.infra.fleets import named
from tests.infra.rights import Deployed, Templates
from tests.infra.test_templates import container, text_of
from tests.lambdas.conftest import EVENTS, alarm_event, http_event, read
from tests.support.aws import LocalAws
from tests.support.guarded_aws import Guard, guarded_aws
from tests.support.lambda_runtime import Environment
from tests.support.stack import ROOT, RunningStack, eventually, make_repository, running_stack, write_rules

SECRET = "a-secret-of-the-test-0123456789"
BOTH = {"versioned/1", "versioned/2"}


@dataclass(slots=True)
class Stage:
    """A running stack's stores, and beside its own server one that was started as on AWS."""

    assembly: Assembly
    stack: RunningStack
    templates: Templates
    task: Guard
    triton: Triton
    statuses: list[int]
    folder: Path
    guard: Guard = field(init=False)

    @property
    def url(self) -> str:
        """Where moto is."""
        url: str = self.stack.get("/v1/fleet")["control"]["endpoint_url"]
        return url.rstrip("/")

    @property
    def bucket(self) -> str:
        """The stack's bucket."""
        return self.templates.deployed.bucket

    def loaded(self) -> set[str]:
        """What is READY on the server."""
        status, body = self.triton.ask("/v2/repository/index", b"{}", {MANAGEMENT: SECRET})
        assert status == 200, body
        return {f"{each['name']}/{each['version']}" for each in json.loads(body) if each.get("state") == "READY"}

    @contextlib.contextmanager
    def function(self, name: str) -> Iterator[Environment]:
        """A function with its template's handler and variables; whatever it asks AWS for must be granted to its role."""
        resource = named(self.assembly, "AWS::Lambda::Function", FunctionName=f"tidegate-prod-{name.replace('_', '-')}")
        policy = self.templates.policy(f"{name.title().replace('_', '')}Role", "Functions")
        properties = resource.properties
        with guarded_aws(self.url, policy) as self.guard:
            variables = self.filled(resource.template, properties["Environment"]["Variables"], self.guard)
            with Environment(properties["Handler"], variables, self.folder / f"{name}.log") as environment:
                yield environment
        assert not self.guard.refused

    def asked(self) -> set[tuple[str, str]]:
        """What the function of now asks AWS for: action and resource."""
        return {(call.action, call.resource) for call in self.guard.calls}

    def filled(self, template: str, variables: Mapping[str, Any], aws: Guard) -> dict[str, str]:
        """The variables of a template with what is only known on deployment; `aws` stands in for AWS."""
        here = {
            "TIDEGATE_SHARD_ENDPOINTS": json.dumps({"alpha": f"127.0.0.1:{self.triton.http_port}"}),
            "TIDEGATE_ENDPOINT_NETWORKS": "127.0.0.0/8",
        }
        filled = {name: here.get(name) or self.templates.text(template, value) for name, value in variables.items()}
        return filled | {"TIDEGATE_AWS_ENDPOINT_URL": aws.url, "TIDEGATE_PROBE_INTERVAL_S": "0.5"}


@pytest.fixture(scope="module")
def stage(project: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Shard `alpha` with two versions of a model, of which 2 is live and 1 was before."""
    folder = tmp_path_factory.mktemp("deployed")
    models, rules = make_repository(folder / "models", "versioned"), folder / "rules"
    (models / "versioned/samples").mkdir()
    (models / "versioned/samples/at_once.json").write_text('{"inputs": {"SLEEP_MS": [0]}}')
    write_rules(rules, {"alpha": 1}, {"versioned": ["alpha"]}, picked="versioned/1")
    # Reconciling is left to the function, and AWS's models are reached under their deployed name.
    variables = {"TIDEGATE_RECONCILE_INTERVAL_S": "86400", "TIDEGATE_MANAGEMENT_SECRET": SECRET}
    with running_stack(rules, models, folder / "errors", variables=variables) as stack:
        write_rules(rules, {"alpha": 1}, {"versioned": ["alpha"]}, picked="versioned/2")
        assert eventually(lambda: stack.version("picked") == 2), stack.errors
        assert eventually(lambda: stack.models("alpha") == [BOTH])
        control = stack.get("/v1/fleet")["control"]
        url, bucket = control["endpoint_url"].rstrip("/"), control["bucket"]
        secrets = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        arn = secrets.create_secret(Name="management", SecretString=SECRET)["ARN"]
        command = text_of(container(project.assembly, "triton", "FleetShardalpha")["Command"][0])
        names = Deployed(bucket, control["registry_table"], control["facts_table"], arn)
        templates = Templates(project.assembly, names)
        policy = templates.policy("ServersTaskRole", "FleetShardalpha")
        with (
            guarded_aws(url, policy) as task,
            deployed_triton(command, f"s3://{task.url}/{bucket}/models", SECRET, folder) as triton,
        ):
            made = Stage(project.assembly, stack, templates, task, triton, [], folder)
            described = container(project.assembly, "agent", "FleetShardalpha")
            template = templates.resource("ServersTask", "FleetShardalpha", "AWS::ECS::TaskDefinition").template
            given = {each["Name"]: each["Value"] for each in described["Environment"]}
            variables = made.filled(template, given, task)
            with deployed_agent(described, triton, SECRET, variables, folder) as statuses:
                made.statuses += statuses
                yield made


def recorded(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def test_a_new_server_is_healthy_only_with_everything_that_its_shard_must_hold(stage: Stage) -> None:
    assert stage.statuses[-1] == 200
    assert set(stage.statuses) <= {503, 200}
    assert stage.loaded() == BOTH
    urls = {endpoint["url"] for endpoint in eventually(lambda: stage.stack.fleet()["alpha"][1:] or None)}
    assert f"http://127.0.0.1:{stage.triton.http_port}" in urls | {
        endpoint["url"] for endpoint in stage.stack.fleet()["alpha"]
    }


def test_a_task_uses_all_that_its_role_may_and_asks_for_nothing_else(stage: Stage) -> None:
    aws = LocalAws(stage.url, stage.bucket, stage.templates.deployed.registry)
    registry, other = DynamoRegistry(aws.clients(stage.task.url), aws.table), Endpoint("alpha", "127.0.0.1", 1)

    async def mark_and_end() -> None:
        # What an agent does when its server was marked, and when it ends.
        await registry.register(RegisteredEndpoint(other, EndpointState.WEDGED, time.time()))
        await registry.register(RegisteredEndpoint(other, EndpointState.READY, time.time()))
        await registry.deregister(other)
        # And what it reads while somebody publishes.
        claim = Claim("a-claim", "0" * 64, "a test", 0)
        await S3BundleStore(aws.objects()).claim(claim)
        assert claim in await S3BundleStore(aws.objects(stage.task.url)).claims()
        await S3BundleStore(aws.objects()).release(claim.id)
        # And what it reads where the pointer is lost.
        assert await S3BundleStore(aws.objects(stage.task.url)).flips()
        # And what it reads where Triton refuses a load.
        before = len(stage.task.calls)
        assert await StoredDiagnosis(S3ModelStore(aws.objects(stage.task.url)))("versioned") == ()
        read = {call.resource for call in stage.task.calls[before:]}
        assert any(resource.endswith("/models/versioned/1/model.py") for resource in read), read

    asyncio.run(mark_and_end())
    asyncio.run(provision_facts(aws.clients(), stage.templates.deployed.facts))
    look_facts_up(stage)
    assert stage.task.refused == []
    policy = stage.task.policy
    assert {str(right) for right in policy.rights() - policy.used(stage.task.calls)} == set()
    for index in range(len(policy.statements)):
        assert not all(policy.without(index).allows(call) for call in stage.task.calls), policy.statements[index]


def look_facts_up(stage: Stage) -> None:
    """Look facts up as the models' steps do."""
    look_up = (
        "import json, os; from facts import Facts; from facts_config import FactsConfig, dynamodb; "
        "config = FactsConfig.read({}, os.environ); client = dynamodb(config, 20_000); "
        "assert not Facts(config, client, json.loads).warm_up(client)"
    )
    variables = {"TIDEGATE_FACTS_TABLE": stage.templates.deployed.facts, "TIDEGATE_AWS_ENDPOINT_URL": stage.task.url}
    environment = {**AWS_VARIABLES, **variables, "PYTHONPATH": str(ROOT / "triton_models/title_history/1")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", look_up], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_reconciler_loads_what_went_missing(stage: Stage) -> None:
    status, _ = stage.triton.ask("/v2/repository/models/versioned/unload", b"{}", {MANAGEMENT: SECRET})
    assert status == 200
    assert eventually(lambda: not stage.loaded())
    with stage.function("reconcile") as reconcile:
        answer = reconcile.invoke(recorded("schedule"))
        assert not answer["failed"], answer
        # The agent looks after its server too: whoever comes first loads.
        assert eventually(lambda: stage.loaded() == BOTH)
        assert eventually(lambda: reconcile.invoke(recorded("schedule"))["converged"])
    assert ("s3:GetObject", f"arn:aws:s3:::{stage.bucket}/live/pointer.json") in stage.asked()
    assert ("secretsmanager:GetSecretValue", stage.templates.deployed.secret_arn) in stage.asked()


def test_rules_that_land_in_the_bucket_are_judged(stage: Stage) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((ROOT / "routing_rules").rglob("*.yaml")):
            packed.write(file, file.relative_to(ROOT / "routing_rules"))
    local = LocalAws(stage.url, stage.bucket, "")
    local.s3().put_object(Bucket=stage.bucket, Key="rules/all.zip", Body=archive.getvalue())
    message = recorded("object_created")
    message["detail"] |= {"bucket": {"name": stage.bucket}, "object": {"key": "rules/all.zip"}}
    (record,) = recorded("queue")["Records"]
    with stage.function("validate_rules") as validate:
        answer = validate.invoke({"Records": [record | {"body": json.dumps(message)}]}, 60_000)
        assert answer == {"batchItemFailures": []}, validate.log
    (key,) = [resource.partition("/")[2] for action, resource in stage.asked() if action == "s3:PutObject"]
    verdict = json.loads(local.s3().get_object(Bucket=stage.bucket, Key=key)["Body"].read())
    assert verdict["status"] == "accepted", verdict


def test_the_probe_measures_under_the_namespace_that_alarms_look_at(stage: Stage) -> None:
    with stage.function("probe") as probe:
        assert probe.invoke(recorded("schedule"))["shards"]["alpha"]["ready"] == 2
        (line,) = [json.loads(each) for each in probe.log.splitlines() if '"ReadyEndpoints"' in each]
    (described,) = line["_aws"]["CloudWatchMetrics"]
    alarm = next(
        each.properties
        for each in stage.assembly.resources("AWS::CloudWatch::Alarm")
        if each.properties.get("AlarmName") == "tidegate-prod-alpha-queue"
    )
    assert described["Namespace"] == alarm["Namespace"]
    watched = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
    assert {name: line[name] for name in watched} == watched
    # CloudWatch takes a metric for the one that an alarm names only where the dimensions are exactly the same.
    assert set(watched) in [set(each) for each in described["Dimensions"]]
    assert alarm["MetricName"] in line


def test_an_alarm_rolls_back_over_servers_that_ask_for_the_secret(stage: Stage) -> None:
    with stage.function("rollback") as rollback:
        answer = rollback.invoke(alarm_event("alarm", time.time() + BLAMELESS_S))
        assert answer["status"] == "rolled back", answer
    assert ("s3:PutObject", f"arn:aws:s3:::{stage.bucket}/live/pointer.json") in stage.asked()
    assert eventually(lambda: stage.stack.version("picked") == 1)


@pytest.mark.parametrize("name", ["gateway", "resolve"])
def test_an_http_function_decides_with_the_rights_and_variables_of_its_template(stage: Stage, name: str) -> None:
    with stage.function(name) as function:
        answer = read(function.invoke(http_event("/v1/objectives/picked/resolve", {"context": {}}), 30_000))
        assert answer.status == 200, answer.body
        line = next(json.loads(each) for each in function.log.splitlines() if '"Requests"' in each)
    (described,) = line["_aws"]["CloudWatchMetrics"]
    assert (described["Namespace"], line["service"]) == ("Tidegate", name)
    assert ["service"] in described["Dimensions"]
    assert ("s3:GetObject", f"arn:aws:s3:::{stage.bucket}/live/pointer.json") in stage.asked()
