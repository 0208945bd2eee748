"""The console's function does all that it is there for under its own policy of the templates, and has no right beside that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.aws.shadow_tallies import hour_of
from tidegate.cli import main
from tidegate.metrics import BY_OBJECTIVE, BY_RULE, Dimension, Metric
from tidegate.ports import Claim, Endpoint, EndpointState, RegisteredEndpoint

from infra.assembly import Assembly
from tests.infra.fleets import named, templates_of
from tests.infra.rights import Deployed, Templates
from tests.infra.test_rights import ANSWER, HERE, SECRET, write_models
from tests.lambdas.conftest import Answer, http_event, read
from tests.support.aws import LocalAws, local_server, names
from tests.support.fake_servers import FakeServer, fake_server
from tests.support.guarded_aws import guarded_aws
from tests.support.iam import Call, Policy
from tests.support.lambda_runtime import Environment
from tests.support.stack import write_rules

OPERATORS = {"kind": "jwt", "issuer": "https://issuer.example.com/", "audience": ["operators"], "caller_claim": "sub"}
ROLLBACK = {"to": "live~1", "why": "a test"}
READS = (
    "/v1/overview",
    "/v1/fleet",
    "/v1/objectives/main/traffic",
    "/v1/objectives/main/cases",
    "/v1/objectives/main/source",
    "/v1/graph",
    "/v1/revisions",
    "/v1/revisions/diff",
    "/v1/models",
    "/v1/models/one",
    "/v1/placement",
)


@dataclass(slots=True)
class Console:
    """A stage on moto with two revisions and a server, and its console's function with what the template gives it."""

    aws: LocalAws
    server: FakeServer
    deployed: Deployed
    folder: Path
    policies: dict[bool, Policy] = field(default_factory=dict)
    calls: dict[bool, list[Call]] = field(default_factory=dict)
    answers: dict[tuple[bool, str], Answer] = field(default_factory=dict)
    assemblies: dict[bool, Assembly] = field(default_factory=dict)

    def exercise(self, writes: bool) -> None:
        """Ask the function for everything, under its policy."""
        settings = {"console": {"authorizer": OPERATORS, "writes": writes}}
        made = self.folder / f"writes-{writes}"
        made.mkdir()
        assembly = templates_of(made, {"alpha": {"replicas": 1}}, settings)
        templates = Templates(assembly, self.deployed)
        function = named(assembly, "AWS::Lambda::Function", FunctionName="tidegate-test-console")
        policy = templates.policy("ConsoleRole", "Functions")
        variables = {
            name: templates.text(function.template, value)
            for name, value in function.properties["Environment"]["Variables"].items()
        }
        log = self.folder / f"console-{writes}.log"
        with guarded_aws(self.aws.url, policy) as guard:
            variables |= {"TIDEGATE_AWS_ENDPOINT_URL": guard.url, **HERE, "TIDEGATE_KEEP_REVISIONS": "0"}
            with Environment(function.properties["Handler"], variables, log) as environment:
                ask = partial(self.ask, environment, writes)
                with self.claimed():
                    for path in READS:
                        ask(path)
                ask("/v1/drafts", {"objective": "main", "files": [], "context": {}})
                with self.lost_pointer():
                    ask("/v1/fleet", keep="lost")
                if writes:
                    # What it goes back to is loaded first, and a server on which that hangs is marked.
                    with fake_server() as hanging:
                        hanging.hangs = True
                        self.register(hanging)
                        ask("/v1/rollback", ROLLBACK, keep="hanging")
                    ask("/v1/rollback", ROLLBACK)
            assert not guard.refused
            self.calls[writes] = [*guard.calls, *templates.platform_calls(function)]
        self.policies[writes], self.assemblies[writes] = policy, assembly

    @contextlib.contextmanager
    def lost_pointer(self) -> Iterator[None]:
        """For a while the history alone says what was live."""
        s3, where = self.aws.s3(), {"Bucket": self.aws.bucket, "Key": "live/pointer.json"}
        content = s3.get_object(**where)["Body"].read()
        s3.delete_object(**where)
        yield
        s3.put_object(**where, Body=content)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """For a while somebody repairs the fleet."""
        store = S3BundleStore(self.aws.objects())
        asyncio.run(store.claim(Claim("a", None, "somebody", time.time() + 600)))
        yield
        asyncio.run(store.release("a"))

    def register(self, server: FakeServer) -> None:
        """Say to the registry that a server is ready."""
        entry = RegisteredEndpoint(Endpoint("alpha", server.host, server.port), EndpointState.READY, time.time() + 50)
        asyncio.run(DynamoRegistry(self.aws.clients(), self.aws.table).register(entry))

    def ask(
        self,
        environment: Environment,
        writes: bool,
        path: str,
        body: Mapping[str, Any] | None = None,
        keep: str | None = None,
    ) -> None:
        """Keep an answer, under its path or another name."""
        headers = {"content-type": "application/json", "host": "console.example.com"}
        headers["origin"] = f"https://{headers['host']}"
        event = http_event(path, dict(body) if body else b"", headers, method="POST" if body else "GET")
        self.answers[writes, keep or path] = read(environment.invoke(event, 60_000))


def emit(aws: LocalAws) -> None:
    """Emit what the gateway's function does for a request."""
    moment = datetime.fromtimestamp(time.time() // 60 * 60 - 90, UTC)
    values = dict(zip(BY_RULE, ("gateway", "main", "default", "none", "one"), strict=True))
    for dimensions in ((Dimension.SERVICE,), BY_OBJECTIVE, BY_RULE):
        aws.clients().client("cloudwatch").put_metric_data(
            Namespace="Tidegate",
            MetricData=[
                {
                    "MetricName": Metric.DISPATCH_TIME.metric_name,
                    "Dimensions": [{"Name": str(each), "Value": values[each]} for each in dimensions],
                    "Value": 12.0,
                    "Timestamp": moment,
                }
            ],
        )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with local_server("tests.support.cloudwatch") as address:
        yield address


@pytest.fixture(scope="module")
def console(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    aws = names(url)
    asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
    secrets = boto3.client(
        "secretsmanager",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    arn = secrets.create_secret(Name=f"{aws.bucket}-console", SecretString=SECRET)["ARN"]
    with fake_server() as server:
        server.infer = ANSWER
        made = Console(aws, server, Deployed(aws.bucket, aws.table, f"{aws.table}-facts", arn), folder)
        made.register(server)
        models = write_models(folder / "models", "one", "two")
        environment = {
            "TIDEGATE_BUCKET": aws.bucket,
            "TIDEGATE_REGISTRY_TABLE": aws.table,
            "TIDEGATE_AWS_ENDPOINT_URL": aws.url,
            "TIDEGATE_MANAGEMENT_SECRET": SECRET,
            **HERE,
        }
        for serves in ("one", "two", "one"):
            rules = folder / f"rules-{time.monotonic_ns()}"
            rules.mkdir()
            write_rules(rules, {"alpha": 1}, {"one": ["alpha"], "two": ["alpha"]}, main=serves)
            options = ["--rules", str(rules), "--models", str(models), "--why", serves]
            done = CliRunner().invoke(main, ["publish", *options], env=environment)
            assert done.exit_code == 0, done.output + done.stderr
        hour = hour_of(time.time())
        aws.s3().put_object(Bucket=aws.bucket, Key=f"shadows/tallies/{hour}/a.json", Body=b"{}")
        emit(aws)
        for writes in (False, True):
            made.exercise(writes)
        yield made


@pytest.mark.parametrize("writes", [False, True])
def test_everything_is_answered(console: Console, writes: bool) -> None:
    for (wrote, path), answer in console.answers.items():
        if wrote is writes and path != "hanging":
            assert answer.status == 200, (path, answer.body)
    overview = console.answers[writes, "/v1/overview"].json
    assert overview["live"]["why"] == "one"
    assert overview["stack"]["writes"] is writes
    assert [(shard["name"], shard["ready"]) for shard in overview["shards"]] == [("alpha", 1)]
    assert console.answers[writes, "/v1/drafts"].json["ok"]
    # Without the management secret it asks no server what it has loaded.
    assert bool(console.answers[writes, "/v1/models/one"].json["loaded"]) is writes


def test_an_operator_rolls_back_in_its_own_name(console: Console) -> None:
    answer = console.answers[True, "/v1/rollback"].json
    assert answer["ok"], answer
    assert console.answers[True, "hanging"].status == 409
    entry = json.loads(console.aws.s3().get_object(Bucket=console.aws.bucket, Key="live/pointer.json")["Body"].read())
    assert "(console)" in json.dumps(entry)


@pytest.mark.parametrize("writes", [False, True])
def test_every_right_is_used(console: Console, writes: bool) -> None:
    policy = console.policies[writes]
    unused = {str(right) for right in policy.rights() - policy.used(console.calls[writes])}
    assert unused == set()


def test_what_only_reads_may_write_nothing_and_has_no_secret(console: Console) -> None:
    actions = {right.action for right in console.policies[False].rights()}
    assert not [action for action in actions if "Put" in action and action.split(":")[0] in ("s3", "dynamodb")]
    assert "secretsmanager:GetSecretValue" not in actions
    assert "s3:DeleteObject" not in actions
