"""Every role of a stage does all that it is there for under its own policy of the templates, and has no right beside that.

An AWS that enforces a policy (`tests/support/guarded_aws.py`) stands before moto: what a function or a command is not
allowed to do fails it. Everything that was asked for is kept, so that a right that nothing used is found, and so that a
policy without any one of its statements is seen to be too little.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from tidegate.aws.provision import provision, provision_facts
from tidegate.aws.registry import DynamoRegistry
from tidegate.aws.shadow_claims import ShadowClaims
from tidegate.cli import main
from tidegate.control.guard import BLAMELESS_S
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint, ShadowPause
from tidegate.shadows.copy import read_copy

from infra.assembly import Assembly, Resource
from tests.infra.conftest import Made
from tests.infra.fleets import named, only
from tests.infra.rights import Deployed, Templates
from tests.infra.unused_rights import UNUSED
from tests.lambdas.conftest import EVENTS, alarm_event, http_event, read
from tests.support.aws import LocalAws, names
from tests.support.aws_calls import ACCOUNT, REGION, table_arn, via
from tests.support.fake_servers import FakeServer, fake_server
from tests.support.guarded_aws import Guard, guarded_aws
from tests.support.iam import Call, Policy, Right
from tests.support.lambda_runtime import Environment, FunctionError
from tests.support.model_folders import write_model
from tests.support.stack import ROOT, eventually, write_rules

SECRET = "a-secret-of-the-test-0123456789"
FUNCTIONS = ("gateway", "resolve", "shadow", "validate_rules", "reconcile", "probe", "rollback")
CONFIG = """name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
MODEL = b"""import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        found = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]) for x in found]
"""
SAMPLE = json.dumps({"inputs": {"X": [1.5]}, "outputs": {"Y": [1.5]}}).encode()
ANSWER = b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "data": [1.5]}]}'


Fails = Callable[[str, str], bool]


@dataclass(slots=True)
class Stage:
    """A stage's stores on moto, with a fake server of shard `alpha`; and all that each role asked for."""

    templates: Templates
    aws: LocalAws
    folder: Path
    server: FakeServer
    models: Path
    used: dict[str, list[Call]] = field(default_factory=dict)
    validated: str = ""
    guard: Guard = field(init=False)

    @property
    def assembly(self) -> Assembly:
        return self.templates.assembly

    def policy(self, role: str) -> Policy:
        """The policy of a function, by its short name, or of another role, by the beginning of its logical id."""
        return self.templates.policy(f"{role.title().replace('_', '')}Role" if role in FUNCTIONS else role, "Functions")

    @contextlib.contextmanager
    def allowed(self, role: str, policy: Policy | None = None) -> Iterator[Guard]:
        """An AWS for a role; nothing may be refused, unless it is under another's `policy`."""
        with guarded_aws(self.aws.url, policy or self.policy(role)) as guard:
            yield guard
        if policy is None:
            assert not guard.refused, f"{role} may not: {guard.refused}"
            self.used.setdefault(role, []).extend(guard.calls)

    @contextlib.contextmanager
    def function(self, name: str, policy: Policy | None = None, **variables: str) -> Iterator[Environment]:
        """A function with the handler, the variables and, if no other is given, the policy of its template."""
        described = named(
            self.assembly, "AWS::Lambda::Function", FunctionName=f"tidegate-prod-{name.replace('_', '-')}"
        )
        with self.allowed(name, policy) as guard:
            found = {
                variable: self.templates.text(described.template, value)
                for variable, value in described.properties["Environment"]["Variables"].items()
            }
            found |= {"TIDEGATE_AWS_ENDPOINT_URL": guard.url, "TIDEGATE_PROBE_INTERVAL_S": "0.1"}
            found |= {"TIDEGATE_SHARD_ENDPOINTS": json.dumps({"*": f"127.0.0.1:{self.server.port}"})}
            found |= HERE | variables
            log = self.folder / f"{name}-{time.monotonic_ns()}.log"
            with Environment(described.properties["Handler"], found, log) as environment:
                self.guard = guard
                yield environment

    def command(self, role: str, *arguments: str, ok: bool = True, fails: Fails | None = None) -> Result:
        """Run a command of the CLI with a role's policy; whether it succeeds is `ok`."""
        with self.allowed(role) as guard:
            if fails is not None:
                guard.fails = fails
            variables = {
                "TIDEGATE_BUCKET": self.aws.bucket,
                "TIDEGATE_REGISTRY_TABLE": self.aws.table,
                "TIDEGATE_FACTS_TABLE": self.templates.deployed.facts,
                "TIDEGATE_AWS_ENDPOINT_URL": guard.url,
                "TIDEGATE_MANAGEMENT_SECRET": SECRET,
                **HERE,
            }
            done = CliRunner().invoke(main, arguments, env=variables)
        assert (done.exit_code == 0) == ok, done.output + done.stderr
        return done

    def job(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Run the job as its template has it; the result of its command, which is the last line that it writes."""
        project = only(self.assembly, "AWS::CodeBuild::Project")
        described = project.properties["Environment"]["EnvironmentVariables"]
        variables = {each["Name"]: self.templates.text(project.template, each["Value"]) for each in described}
        assert variables["TIDEGATE_MANAGEMENT_SECRET"] == self.templates.deployed.secret_arn, "CodeBuild reads it"
        assert asked.keys() <= variables.keys()
        (command,) = json.loads(project.properties["Source"]["BuildSpec"])["phases"]["build"]["commands"]
        with self.allowed("PublishJobRole") as guard:
            here = {**HERE, "TIDEGATE_AWS_ENDPOINT_URL": guard.url, "TIDEGATE_MANAGEMENT_SECRET": SECRET}
            done = subprocess.run(
                ["sh", "-c", command.replace("cd /agent", f"cd {ROOT / 'functions'}")],
                env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **variables, **here, **asked},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def rules(self, **objectives: str) -> Path:
        """A rules directory of its own."""
        folder = self.folder / f"rules-{time.monotonic_ns()}"
        folder.mkdir()
        return write_rules(folder, {"alpha": 1}, {"one": ["alpha"], "two": ["alpha"], "big": ["alpha"]}, **objectives)

    def register(self, *servers: FakeServer, state: str = "ready") -> None:
        """Say to the registry that servers are alive."""
        registry = DynamoRegistry(self.aws.clients(), self.aws.table)

        async def work() -> None:
            for server in servers:
                entry = RegisteredEndpoint(
                    Endpoint("alpha", server.host, server.port), EndpointState(state), time.time() + 50
                )
                await registry.register(entry)

        asyncio.run(work())

    def deregister(self, server: FakeServer) -> None:
        """Have the registry forget a server."""
        registry = DynamoRegistry(self.aws.clients(), self.aws.table)
        asyncio.run(registry.deregister(Endpoint("alpha", server.host, server.port)))


HERE = {
    "TIDEGATE_ENDPOINT_NETWORKS": "127.0.0.0/8",
    "TIDEGATE_SILENCE_TIMEOUT_S": "600",
    "TIDEGATE_DRAIN_TIMEOUT_S": "0",
    "TIDEGATE_LOAD_TIMEOUT_S": "2",
    "TIDEGATE_POLL_INTERVAL_S": "0.1",
    "TIDEGATE_KEEP_REVISIONS": "1",
    "TIDEGATE_TRITON_HOME": "/none",
}
"""This machine in place of the VPC, times that fit a test, and no Triton to try models on, as in Lambda and CodeBuild."""


def write_models(folder: Path, *names: str, samples: Mapping[str, bytes] | None = None) -> Path:
    for name in names:
        found = {f"samples/{sample}": content for sample, content in (samples or {"a.json": SAMPLE}).items()}
        write_model(folder / name, {"config.pbtxt": CONFIG.format(name=name).encode(), "1/model.py": MODEL, **found})
    return folder


def recorded(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def queued(*bodies: Any) -> dict[str, Any]:
    (record,) = recorded("queue")["Records"]
    return {
        "Records": [record | {"messageId": str(number), "body": json.dumps(each)} for number, each in enumerate(bodies)]
    }


@pytest.fixture(scope="module")
def stage(project: Made, aws_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose every role has done what it is there for."""
    folder = tmp_path_factory.mktemp("rights")
    aws = names(aws_url)
    facts = f"{aws.table}-facts"
    asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
    asyncio.run(provision_facts(aws.clients(), facts))
    secrets = boto3.client(
        "secretsmanager",
        endpoint_url=aws_url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    arn = secrets.create_secret(Name=aws.bucket, SecretString=SECRET)["ARN"]
    key_arn = secrets.create_secret(Name=f"{aws.bucket}-sequences", SecretString=SECRET)["ARN"]
    templates = Templates(project.assembly, Deployed(aws.bucket, aws.table, facts, arn, key_arn))
    with fake_server() as server:
        server.infer = ANSWER
        made = Stage(templates, aws, folder, server, write_models(folder / "models", "one", "two"))
        made.register(server)
        for exercise in (
            asking_too_early,
            publishing,
            asking,
            continuing,
            shadowing,
            validating,
            running_the_job,
            reconciling,
            rolling_back,
        ):
            exercise(made)
        yield made


def asking_too_early(stage: Stage) -> None:
    """Nothing is published yet: what is not there must be told from what is forbidden."""
    for name in ("gateway", "resolve", "reconcile"):
        with stage.function(name) as function:
            if name == "reconcile":
                assert function.invoke(recorded("schedule"))["converged"]
            else:
                assert read(function.invoke(http_event("/v1/objectives/main/resolve", {"context": {}}))).status == 503


def publishing(stage: Stage) -> None:
    """Whoever publishes: pushes, publishes, rolls back, looks, fills the table of facts, uploads rules."""
    role, models = "Publishers", str(stage.models)
    first = str(stage.rules(main="one"))
    stage.command(role, "publish", "--rules", first, "--models", models, "--dry-run")
    stage.command(role, "publish", "--rules", first, "--models", models, "--why", "first")
    assert stage.server.loaded == {"one": {"1"}}
    stage.command(role, "models", "push", models, "two")
    # A sample that is gone is taken away, samples being what may change.
    write_models(stage.models, "two", samples={"b.json": SAMPLE})
    (stage.models / "two/samples/a.json").unlink()
    stage.command(role, "models", "push", models, "two")
    pushing_a_big_file(stage)
    second = str(stage.rules(main="one", other="two"))
    stage.command(role, "publish", "--rules", second, "--why", "second")
    stage.command(role, "history")
    stage.command(role, "status")
    stage.command(role, "rollback", "--why", "a test")
    losing_the_pointer(stage)
    stage.command(role, "recover", "--yes")
    stage.command(role, "reconcile")
    third = str(stage.rules(main="two"))
    hangs(stage, lambda: stage.command(role, "publish", "--rules", third, ok=False))
    facts = stage.folder / "seeds/two/facts/history.jsonl"
    facts.parent.mkdir(parents=True)
    facts.write_text('{"key": "a", "value": [1, 2]}\n')
    stage.command(role, "facts", "seed", str(facts))
    with stage.allowed(role) as guard:
        s3 = client("s3", guard)
        # Of these, `big` was never live: it is a draft until the job publishes it.
        uploaded = archive(stage.rules(main="one", third="big"))
        s3.put_object(Bucket=stage.aws.bucket, Key="rules/first.zip", Body=uploaded)
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket=stage.aws.bucket, Key="verdicts/first.json")
        secret = client("secretsmanager", guard).get_secret_value(SecretId=stage.templates.deployed.secret_arn)
        assert secret["SecretString"] == SECRET


def losing_the_pointer(stage: Stage) -> None:
    """A version of it stays, as in a deployed bucket."""
    s3, where = stage.aws.s3(), {"Bucket": stage.aws.bucket, "Key": "live/pointer.json"}
    content = s3.get_object(**where)["Body"].read()
    s3.put_bucket_versioning(Bucket=stage.aws.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(**where, Body=content)
    s3.delete_object(**where)


@contextlib.contextmanager
def lost_pointer(stage: Stage) -> Iterator[None]:
    """For a while the pointer is gone, so that the history alone says what was live."""
    s3, where = stage.aws.s3(), {"Bucket": stage.aws.bucket, "Key": "live/pointer.json"}
    content = s3.get_object(**where)["Body"].read()
    s3.delete_object(**where)
    try:
        yield
    finally:
        s3.put_object(**where, Body=content)


def pushing_a_big_file(stage: Stage) -> None:
    """A file that goes in parts, whose upload fails in the end and is given up."""
    role, big = "Publishers", write_models(stage.folder / "big", "big")
    (big / "big/1/notes.txt").write_bytes(b"notes")
    (big / "big/1/weights.bin").write_bytes(b"0123456789abcdef" * (1 << 20) + b"and a second part")

    def completes(method: str, target: str) -> bool:
        return method == "POST" and "uploadId" in target

    refused = stage.command(role, "models", "push", str(big), "big", ok=False, fails=completes)
    assert "as the test wants" in refused.output + refused.stderr
    # What was pushed of it until then, and is not wanted any more, is removed by the next push.
    for name in ("notes.txt", "weights.bin"):
        (big / "big/1" / name).unlink()
    stage.command(role, "models", "push", str(big), "big")


def client(service: str, guard: Guard) -> Any:
    return boto3.client(
        service, endpoint_url=guard.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


def archive(rules: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for file in sorted(rules.rglob("*.*")):
            opened.write(file, file.relative_to(rules))
    return packed.getvalue()


def hangs(stage: Stage, work: Callable[[], object]) -> None:
    """Do some work while there is a server on which no load ends; it must have been marked."""
    registry = DynamoRegistry(stage.aws.clients(), stage.aws.table)
    with fake_server() as server:
        server.hangs = True
        stage.register(server)
        try:
            work()
        finally:
            states = {entry.endpoint.port: entry.state for entry in asyncio.run(registry.endpoints())}
            stage.deregister(server)
        assert states[server.port] == "wedged"


def asking(stage: Stage) -> None:
    for name in ("gateway", "resolve"):
        with stage.function(name) as function:
            answer = read(function.invoke(http_event("/v1/objectives/main/resolve", {"context": {}}), 30_000))
            assert answer.status == 200, answer.body
            assert eventually(lambda: has_reported(stage)), "beside the answers"
    forget_gateways(stage)


def continuing(stage: Stage) -> None:
    """A named caller begins a sequence, for which the gateway needs the key of its ids."""
    rules = stage.rules(main="one")
    (rules / "callers.yaml").write_text('callers: {home-screen: {objectives: "*"}}\n')
    stage.command("Publishers", "publish", "--rules", str(rules), "--why", "a caller")
    tensor = {"name": "X", "shape": [1], "datatype": "FP32", "data": [0.25]}
    body = {"parameters": {"sequence_id": 7, "sequence_start": True}, "inputs": [tensor]}
    with stage.function("gateway") as gateway:
        answer = read(gateway.invoke(http_event("/v2/models/main/infer", body), 30_000))
        assert answer.status == 200, answer.body
    forget_gateways(stage)


def shadowing(stage: Stage) -> None:
    """Copies of a small and of a large request go through the queue, and the differences of their answers are reported."""
    rules = str(stage.rules(main="[{id: default, serve: one, shadow: {two: 100}}]"))
    stage.command("Publishers", "publish", "--rules", rules, "--why", "a shadow")
    sqs = stage.aws.clients().client("sqs")
    queue = sqs.create_queue(QueueName="tidegate-prod-shadow")["QueueUrl"]
    with stage.function("gateway") as gateway:
        for count in (1, 50_000):
            tensor = {"name": "X", "shape": [count], "datatype": "FP32", "data": [0.25] * count}
            body = {"inputs": [tensor]}
            assert read(gateway.invoke(http_event("/v2/models/main/infer", body), 30_000)).status == 200
    forget_gateways(stage)
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [sorted(json.loads(each["Body"])) for each in messages] == [
        ["copy", "counts", "id"],
        ["counts", "id", "object"],
    ]
    with stage.function("shadow") as shadow:
        event = queued(*(json.loads(each["Body"]) for each in messages))
        assert shadow.invoke(event, 60_000) == {"batchItemFailures": []}
        # They were carried out. A copy that is gone differs from one that must not be read.
        assert shadow.invoke(event, 60_000) == {"batchItemFailures": []}
        gone = queued({"id": "0" * 32, "object": "shadows/copies/gone"})
        assert len(shadow.invoke(gone, 60_000)["batchItemFailures"]) == 1
        # A shadow whose pause is over is tried again, and its answer ends the pause.
        claims = ShadowClaims(stage.aws.clients(), stage.aws.table)
        copy = read_copy(base64.b64decode(json.loads(messages[0]["Body"])["copy"]))
        asyncio.run(claims.pause(copy.pair.shadow_model, ShadowPause(3, 1.0)))
        data = b"".join(copy._replace(at=time.time() + 600).parts())
        again = queued({"id": "1" * 32, "copy": base64.b64encode(data).decode()})
        assert shadow.invoke(again, 60_000) == {"batchItemFailures": []}
        assert asyncio.run(claims.pause_of(copy.pair.shadow_model)) is None
    report = json.loads(stage.command("Publishers", "shadow", "report", "--json").stdout)
    assert [(pair["shadow"], pair["sampled"]) for pair in report["pairs"]] == [("two", 2)]


def forget_gateways(stage: Stage) -> None:
    """Have the registry hear nothing more of functions that have ended: every publish would wait for them to confirm."""
    registry = DynamoRegistry(stage.aws.clients(), stage.aws.table)

    async def work() -> None:
        for gateway in await registry.gateways():
            await registry.report(replace(gateway, seen_at=0.0))

    asyncio.run(work())


def has_reported(stage: Stage) -> bool:
    """Whether the gateway of now has told the registry what it serves."""
    return "dynamodb:PutItem" in {call.action for call in stage.guard.calls}


def validating(stage: Stage) -> None:
    message = recorded("rules_uploaded")
    message["detail"] |= {"bucket": {"name": stage.aws.bucket}, "object": {"key": "rules/first.zip"}}
    gone = json.loads(json.dumps(message).replace("rules/first.zip", "rules/gone.zip"))
    with stage.function("validate_rules") as validate:
        assert validate.invoke(queued(message, message, gone), 60_000) == {"batchItemFailures": []}
        assert validate.invoke({"key": "rules/first.zip"}, 60_000)["status"] == "accepted"
        # Its record is given up where the work failed, here because the verdict could not be written.
        stage.aws.s3().put_object(Bucket=stage.aws.bucket, Key="rules/second.zip", Body=b"no archive")
        again = json.loads(json.dumps(message).replace("rules/first.zip", "rules/second.zip"))
        stage.guard.fails = lambda method, _target: method == "PUT"
        assert validate.invoke(queued(again), 60_000) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    with stage.allowed("Publishers") as guard:
        found = client("s3", guard).get_object(Bucket=stage.aws.bucket, Key="verdicts/first.json")
        stage.validated = json.loads(found["Body"].read())["sha256"]
    stage.command("Publishers", "publish", "--archive", "rules/first.zip", "--sha256", stage.validated, "--dry-run")


def running_the_job(stage: Stage) -> None:
    """The job publishes exactly the archive that was validated."""
    asked = {
        "ARCHIVE": "rules/first.zip",
        "SHA256": stage.validated,
        "WHY": 'it\'s "validated" $HOME',
        "BY": "a pipeline",
    }
    planned = stage.job(asked | {"DRY_RUN": "1"})
    assert planned["status"] == "planned", planned

    def fails() -> None:
        with pytest.raises(AssertionError, match="did not finish"):
            stage.job(asked)

    hangs(stage, fails)
    published = stage.job(asked)
    assert (published["status"], published["revision"]) == ("published", planned["revision"])
    assert (published["activated"]["by"], published["activated"]["why"]) == (asked["BY"], asked["WHY"])
    replaced = archive(stage.rules(main="two"))
    stage.aws.s3().put_object(Bucket=stage.aws.bucket, Key="rules/first.zip", Body=replaced)
    with pytest.raises(AssertionError, match="another archive"):
        stage.job(asked)
    with pytest.raises(AssertionError, match="its verdict is on another archive"):
        stage.job(asked | {"SHA256": hashlib.sha256(replaced).hexdigest()})


def reconciling(stage: Stage) -> None:
    with stage.function("reconcile") as reconcile:
        stage.server.loaded.clear()
        assert {each["action"] for each in reconcile.invoke(recorded("schedule"))["actions"]} == {"load"}
        assert reconcile.invoke(recorded("schedule"))["converged"]
        hangs(stage, lambda: reconcile.invoke(recorded("schedule"), 60_000))
        with lost_pointer(stage):
            assert "was live" in str(reconcile.invoke(recorded("schedule"))["problems"])
    with stage.function("probe") as probe:
        assert probe.invoke(recorded("schedule"))["shards"]["alpha"]["ready"] == 1


def rolling_back(stage: Stage) -> None:
    for serves in ("two", "one"):
        stage.command("Publishers", "publish", "--rules", str(stage.rules(main=serves)), "--why", serves)
    stage.command("Publishers", "reconcile")
    # Late enough to be about what was published last.
    alarm = alarm_event("alarm", time.time() + 2 * BLAMELESS_S)
    with stage.function("rollback", TIDEGATE_KEEP_REVISIONS="0") as rollback:

        def fails() -> None:
            with pytest.raises(FunctionError):
                rollback.invoke(alarm, 60_000)

        with lost_pointer(stage):
            answer = rollback.invoke(recorded("alarm"), 60_000)
            assert answer["status"] == "kept" and "was live" in answer["reason"], answer

        # Nothing keeps the revision before: it loads first, and a server on which the load hangs is marked.
        hangs(stage, fails)
        answer = rollback.invoke(alarm, 60_000)
        assert answer["status"] == "rolled back", answer
        assert rollback.invoke(alarm, 60_000) == answer
    history = json.loads(stage.command("Publishers", "history", "--json").output)["history"]
    assert history[0]["action"] == "rollback"


def asked_for(stage: Stage) -> dict[str, list[Call]]:
    """By role everything that was asked for: by our code, by Lambda and CodeBuild as the templates say, and by whoever does
    what docs/operations.md says about publishing."""
    found = {role: list(calls) for role, calls in stage.used.items()}
    for name in FUNCTIONS:
        function = named(
            stage.assembly, "AWS::Lambda::Function", FunctionName=f"tidegate-prod-{name.replace('_', '-')}"
        )
        found[name] += stage.templates.platform_calls(function)
    project = only(stage.assembly, "AWS::CodeBuild::Project")
    found["PublishJobRole"] += stage.templates.build_calls(project)
    found["Publishers"] += documented_calls(stage, project)
    return found


def documented_calls(stage: Stage, project: Resource) -> list[Call]:
    """What the commands of the section on publishing ask for, and a look at what the job does, which its console page takes."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text[text.index("## Publish") : text.index("## Permissions")].replace("/dev/", "/prod/")
    arn = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/{project.properties['Name']}"
    found = [Call("codebuild:BatchGetBuilds", arn)]
    for service, command, first in re.findall(r"\baws (\w+) ([a-z-]+) (\S+)", section):
        match service, command:
            case "codebuild", "start-build":
                found.append(Call("codebuild:StartBuild", arn))
            case "logs", "tail":
                assert named(stage.assembly, "AWS::Logs::LogGroup", LogGroupName=first)
                found.append(Call("logs:FilterLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{first}:*"))
            case "s3", "cp":
                bucket, action = stage.aws.bucket, "s3:PutObject" if first.endswith(".zip") else "s3:GetObject"
                folder = "rules" if action == "s3:PutObject" else "verdicts"
                found.append(Call(action, f"arn:aws:s3:::{bucket}/{folder}/1a2b3c"))
            case "secretsmanager", "get-secret-value":
                found.append(Call("secretsmanager:GetSecretValue", stage.templates.deployed.secret_arn))
            case _:
                pytest.fail(f"what `aws {service} {command}` asks for is not known here")
    assert {"codebuild:StartBuild", "logs:FilterLogEvents"} <= {call.action for call in found}
    return found


def test_lambda_and_codebuild_may_do_what_they_do_for_a_role(stage: Stage) -> None:
    for role, calls in asked_for(stage).items():
        policy = stage.policy(role)
        assert [str(call) for call in calls if not policy.allows(call)] == [], role


def test_every_right_is_used_or_its_reason_is_written_down(stage: Stage) -> None:
    unused = {
        (role, right.action, _place(stage, right))
        for role, calls in asked_for(stage).items()
        for policy in [stage.policy(role)]
        for right in policy.rights() - policy.used(calls)
    }
    assert unused == set(UNUSED)
    assert all(len(reason) > 20 for reason in UNUSED.values())


def _place(stage: Stage, right: Right) -> str:
    """What a right is for, without names that each run makes up: the scope, or the end of the resource."""
    found = right.scope or right.resource.removeprefix(f"arn:aws:s3:::{stage.aws.bucket}").lstrip("/")
    # A logical id ends with a digest of where the resource is in the stack.
    return re.sub(r"[0-9A-F]{8}$", "", found.rpartition(":")[2])


def test_no_role_could_do_its_work_without_any_one_of_its_statements(stage: Stage) -> None:
    spared = []
    for role, calls in asked_for(stage).items():
        policy = stage.policy(role)
        for index, statement in enumerate(policy.statements):
            less = policy.without(index)
            if statement.effect == "Allow" and all(less.allows(call) for call in calls):
                spared.append((role, statement))
    assert spared == []


@pytest.mark.parametrize(
    ("name", "of", "event"),
    [("probe", "gateway", "schedule"), ("reconcile", "probe", "schedule"), ("rollback", "validate_rules", "alarm")],
)
def test_a_function_with_the_policy_of_another_fails(stage: Stage, name: str, of: str, event: str) -> None:
    with stage.function(name, stage.policy(of)) as function, pytest.raises(FunctionError):
        function.invoke(recorded(event), 30_000)


def test_no_role_may_write_what_another_one_is_trusted_with(stage: Stage) -> None:
    writers = {role: stage.policy(role) for role in (*FUNCTIONS, "Publishers", "PublishJobRole")}
    writers["alpha"] = stage.templates.policy("ServersTaskRole", "FleetShardalpha")
    arn = table_arn(stage.aws.table)
    allowed = {
        partition: {
            role
            for role, policy in writers.items()
            if policy.allows(Call("dynamodb:PutItem", arn, {"dynamodb:LeadingKeys": (partition,)}))
        }
        for partition in ("endpoint#alpha", "endpoint#beta", "gateway", "once#rollback", "once#validate_rules")
    }
    assert allowed == {
        "endpoint#alpha": {"alpha"},
        "endpoint#beta": set(),
        "gateway": {"gateway", "resolve"},
        "once#rollback": {"rollback"},
        "once#validate_rules": {"validate_rules"},
    }
    for policy in writers.values():
        assert not policy.allows(Call("dynamodb:PutItem", arn)), "a write that names no key"
        both = {"dynamodb:LeadingKeys": ("endpoint#alpha", "gateway")}
        assert not policy.allows(Call("dynamodb:BatchWriteItem", arn, both))
        key = via("kms:Decrypt", "s3")
        assert not policy.allows(Call(key.action, key.resource)), "the key, without a service between"


def test_the_network_interfaces_are_not_the_functions_own(stage: Stage) -> None:
    for name in FUNCTIONS:
        function = f"arn:aws:lambda:us-east-1:123456789012:function:tidegate-prod-{name.replace('_', '-')}"
        by_itself = {"lambda:SourceFunctionArn": (function,)}
        assert not stage.policy(name).allows(Call("ec2:CreateNetworkInterface", "*", by_itself))
