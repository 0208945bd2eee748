"""Envoy as a stage's data plane: what its templates say, and its task as they have it, run on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.language.documents import ShardSpec
from tidegate.metrics import Metric
from tidegate.ports import Endpoint, EndpointState, LiveEntry, RegisteredEndpoint
from tidegate.rules import compile_directory

from infra.assembly import Assembly, as_list, text_of
from infra.audit.encryption import callers_use_tls
from infra.costs import cost_lines
from infra.reading import read_settings
from infra.settings import Settings
from infra.shards import shard_conflicts, to_shards
from tests.docs.blocks import blocks
from tests.infra.conftest import EVERY_CHOICE, Made
from tests.infra.deployed import AWS_VARIABLES, ask, running, wait_for
from tests.infra.fleets import NO_VARIABLES, as_text, only, write_stage
from tests.infra.rights import Deployed, Templates
from tests.infra.setting_values import ENVOY, JWT
from tests.infra.test_templates import alarms, allowed, attributes
from tests.support.aws import names
from tests.support.aws_calls import KEY_ARN
from tests.support.fake_servers import fake_server
from tests.support.guarded_aws import guarded_aws
from tests.support.iam import Policy, Statement
from tests.support.issuer import issuer
from tests.support.processes import reserve_port
from tests.support.stack import ROOT, eventually, write_rules

HERE = "FleetEnvoy"
ANSWER = b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "data": [1.5]}]}'


def task(made: Made) -> dict[str, Any]:
    return dict(only(made.assembly, "AWS::ECS::TaskDefinition", HERE).properties)


def container(made: Made) -> dict[str, Any]:
    (found,) = task(made)["ContainerDefinitions"]
    return dict(found)


def test_without_the_setting_there_is_none_of_it(project: Made) -> None:
    assert not [name for name in project.assembly.templates if name.startswith(HERE)]
    assert not [name for name in alarms(project.assembly) if name.startswith("envoy")]


def test_a_task_runs_on_fargate_as_no_root_with_nothing_but_its_state_to_write(other: Made) -> None:
    found, envoy = task(other), container(other)
    assert (found["RequiresCompatibilities"], found["NetworkMode"]) == (["FARGATE"], "awsvpc")
    assert (found["Cpu"], found["Memory"]) == ("2048", "4096")
    assert found["RuntimePlatform"] == {"CpuArchitecture": "X86_64", "OperatingSystemFamily": "LINUX"}
    assert (envoy["User"], envoy["ReadonlyRootFilesystem"]) == ("10001", True)
    assert envoy["MountPoints"] == [{"ContainerPath": "/var/lib/tidegate", "ReadOnly": False, "SourceVolume": "state"}]
    assert found["Volumes"] == [{"Name": "state"}], "gone with its task"
    assert text_of(envoy["Image"]).endswith("/tidegate-test/envoy:released-in-may")
    text = (ROOT / "infra/envoy/Dockerfile").read_text()
    assert "USER envoy\n" in text and "--uid 10001 envoy" in text and "VOLUME /var/lib/tidegate\n" in text
    assert variables(other)["TIDEGATE_ACCESS_LOG"] == "/dev/stderr", "which CloudWatch gets"
    assert envoy["HealthCheck"]["Command"][:2] == ["CMD", "python"]


def test_a_task_that_is_replaced_ends_its_requests_first(other: Made) -> None:
    service = only(other.assembly, "AWS::ECS::Service", HERE)
    deployment = service.properties["DeploymentConfiguration"]
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert "DesiredCount" not in service.properties, "a deployment must not undo the scaling"
    assert service.properties["AvailabilityZoneRebalancing"] == "ENABLED"
    waits = {"BalancerServedHttp", "BalancerServedRpc", "ConnectionsTo"}
    assert {name for name in waits for each in as_list(service.body["DependsOn"]) if each.startswith(name)} == waits
    for group in groups(other.assembly).values():
        assert attributes_of(group)["deregistration_delay.timeout_seconds"] == "60"
    balancer = only(other.assembly, "AWS::ElasticLoadBalancingV2::LoadBalancer", HERE)
    silence_s = int(attributes(balancer, "LoadBalancerAttributes")["idle_timeout.timeout_seconds"])
    assert float(variables(other)["TIDEGATE_IDLE_TIMEOUT_S"]) > silence_s, "Envoy would close what the balancer uses"


def groups(assembly: Assembly) -> dict[str, dict[str, Any]]:
    """The target groups by their protocol's version."""
    return {
        each.properties["ProtocolVersion"]: dict(each.properties)
        for each in assembly.resources("AWS::ElasticLoadBalancingV2::TargetGroup")
        if each.template.startswith(HERE)
    }


def attributes_of(group: dict[str, Any]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in group["TargetGroupAttributes"]}


def variables(made: Made) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in container(made)["Environment"]}


def test_callers_reach_it_by_tls_and_grpc_has_its_own_way(other: Made) -> None:
    listener = only(other.assembly, "AWS::ElasticLoadBalancingV2::Listener", HERE)
    assert (listener.properties["Protocol"], listener.properties["Port"]) == ("HTTPS", 443)
    assert listener.properties["SslPolicy"] == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    rules = sorted(
        (
            each
            for each in other.assembly.resources("AWS::ElasticLoadBalancingV2::ListenerRule")
            if each.template.startswith(HERE)
        ),
        key=lambda rule: int(rule.properties["Priority"]),
    )
    served = {
        path: rule.properties["Actions"][0]["TargetGroupArn"]["Ref"]
        for rule in rules
        if rule.properties["Actions"][0]["Type"] == "forward"
        for path in rule.properties["Conditions"][0]["PathPatternConfig"]["Values"]
    }
    assert served.pop("/inference.GRPCInferenceService/*").startswith("BalancerRpc")
    assert set(served) == {"/v2", "/v2/*", "/v1/objectives", "/v1/objectives/*", "/openapi.json"}
    assert {each[:12] for each in served.values()} == {"BalancerHttp"}
    found = groups(other.assembly)
    assert set(found) == {"HTTP1", "HTTP2"}
    assert {each["Port"] for each in found.values()} == {8088}
    assert {each["HealthCheckPath"] for each in found.values()} == {"/v2/health/ready"}
    assert "EnvoyTarget" in other.assembly.templates["Fleet"]["Outputs"]


def test_the_audit_finds_callers_without_tls(other: Made) -> None:
    assert list(callers_use_tls(other.assembly)) == []
    templates = json.loads(json.dumps(dict(other.assembly.templates)))
    (envoy,) = [each for name, each in templates.items() if name.startswith(HERE)]
    listener = next(
        each for each in envoy["Resources"].values() if each["Type"] == "AWS::ElasticLoadBalancingV2::Listener"
    )
    for change in ({"Protocol": "HTTP"}, {"Protocol": "HTTPS", "SslPolicy": "ELBSecurityPolicy-2016-08"}):
        listener["Properties"] |= change
        assert len(list(callers_use_tls(Assembly(templates, other.assembly.manifest)))) == 1, change


def test_who_may_speak_to_whom(other: Made) -> None:
    found = [each for each in other.assembly.resources() if each.template.startswith(HERE)]
    of_group = {each.id: each.properties for each in found if each.type == "AWS::EC2::SecurityGroup"}
    (balancer,) = [each for name, each in of_group.items() if name.startswith("ConnectionsBalancer")]
    assert [(each["CidrIp"], each["FromPort"]) for each in balancer["SecurityGroupIngress"]] == [
        ("10.0.0.0/8", 443),
        ("192.168.4.0/24", 443),
    ]
    (tasks,) = [each for name, each in of_group.items() if name.startswith("ConnectionsTasks")]
    assert "SecurityGroupIngress" not in tasks
    rules = {
        (
            name_of(each.properties["GroupId"]),
            name_of(each.properties["SourceSecurityGroupId"]),
            each.properties["FromPort"],
        )
        for each in found
        if each.type == "AWS::EC2::SecurityGroupIngress"
    }
    assert rules == {
        ("Tasks", "Balancer", 8088),
        ("Servers", "Tasks", 8000),
        ("Servers", "Tasks", 8001),
        ("Endpoints", "Tasks", 443),
    }


def name_of(reference: Any) -> str:
    """The security group that a reference is to."""
    text = as_text(reference)
    return next(each for each in ("Tasks", "Balancer", "Servers", "Endpoints") if each in text)


def test_its_roles_may_do_exactly_this(other: Made) -> None:
    policies = {
        each.id.partition("Default")[0]: allowed(each)
        for each in other.assembly.resources("AWS::IAM::Policy")
        if each.template.startswith(HERE)
    }
    assert policies == {
        "TasksTaskRole": {"dynamodb:PutItem", "dynamodb:Scan", "s3:GetObject", "s3:ListBucket"},
        "TasksExecutionRole": {
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetAuthorizationToken",
            "ecr:GetDownloadUrlForLayer",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
        },
    }


def test_it_scales_by_cpu_and_by_the_requests_of_a_task(other: Made) -> None:
    target = only(other.assembly, "AWS::ApplicationAutoScaling::ScalableTarget", HERE).properties
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 20)
    assert text_of(target["ResourceId"]).startswith("service/tidegate-test-envoy/")
    found = {
        tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]: tracking
        for each in other.assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
        if each.template.startswith(HERE)
        for tracking in [each.properties["TargetTrackingScalingPolicyConfiguration"]]
    }
    assert {name: each["TargetValue"] for name, each in found.items()} == {
        "ECSServiceAverageCPUUtilization": 50,
        "ALBRequestCountPerTarget": 30_000,
    }
    label = found["ALBRequestCountPerTarget"]["PredefinedMetricSpecification"]["ResourceLabel"]
    assert re.fullmatch(
        r"\$\{BalancerLoadBalancer\w+\.LoadBalancerFullName\}/\$\{BalancerHttp\w+\.TargetGroupFullName\}",
        text_of(label),
    )


def test_its_log_is_counted_by_the_table_of_metrics_and_alarms_look_at_it(other: Made) -> None:
    counted = {
        each.properties["MetricTransformations"][0]["MetricName"]: each.properties
        for each in other.assembly.resources("AWS::Logs::MetricFilter")
    }
    assert set(counted) == {
        each.metric_name for each in (Metric.REQUESTS, Metric.FALLBACKS, Metric.UNDECIDED, Metric.UNRESOLVED)
    }
    for each in counted.values():
        (found,) = each["MetricTransformations"]
        assert found["MetricNamespace"] == "Tidegate/test"
        assert found["Dimensions"] == [{"Key": "service", "Value": "$.service"}]
    mine = {name: each for name, each in alarms(other.assembly).items() if name.startswith("envoy")}
    assert set(mine) == {f"envoy-{name}" for name in ("unserved", "5xx", "p99", "fallbacks", "degraded")}
    # What other rules would not mend starts no rollback.
    (errors,) = [
        each["Expression"] for each in mine["envoy-5xx"]["Metrics"] if "unresolved" in each.get("Expression", "")
    ]
    assert errors == "FILL(own, 0) + FILL(envoys, 0) - FILL(unresolved, 0)"
    runbooks = (ROOT / "docs/operations.md").read_text()
    for alarm in mine.values():
        anchor = alarm["AlarmDescription"].partition("operations.md#")[2]
        assert f"\n### {anchor.replace('-', ' ').capitalize()}\n" in runbooks
    assert mine["envoy-degraded"]["Dimensions"] == [{"Name": "service", "Value": "envoy"}]
    dashboards = "".join(as_text(each.properties) for each in other.assembly.resources("AWS::CloudWatch::Dashboard"))
    assert "Envoy: requests; fallbacks, without a decision" in dashboards


def test_its_tasks_are_in_the_costs(other: Made, tmp_path: Path) -> None:
    settings = read_settings("test", NO_VARIABLES, write_stage(tmp_path, "test", EVERY_CHOICE))
    lines = {line.what: line for line in cost_lines(other.assembly, (), settings)}
    assert lines["Envoy's tasks"].how == "2 × 730 h × (2 × 0.04048 + 4 × 0.004445), the fewest"
    assert round(lines["Envoy's tasks"].dollars[0], 2) == 144.16


def test_the_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    (block,) = [each for each in blocks("docs/envoy-on-aws.md") if each.language == "yaml"]
    (tmp_path / "test.yaml").write_text(block.text)
    assert read_settings("test", NO_VARIABLES, tmp_path).data_plane == "envoy"


def test_a_shard_has_another_name_than_envoy() -> None:
    specs = {"envoy": ShardSpec.model_validate({})}
    for settings, count in (
        (Settings.model_validate({}), 0),
        (Settings.model_validate({"data_plane": "envoy", "envoy": ENVOY, "authorizer": JWT, "nat_gateways": 1}), 1),
    ):
        found = shard_conflicts(specs, to_shards(specs, settings), settings)
        assert [message for _, _, message, _ in found] == ["shard 'envoy' has the name of Envoy's resources"] * count


def with_services_key(policy: Policy) -> Policy:
    """A policy on a stage whose services encrypt with keys of their own, which roles need no right to."""
    return Policy((*policy.statements, Statement("Allow", ("kms:Decrypt",), (KEY_ARN,), {})))


def lines(log: Path) -> set[tuple[str, str, str]]:
    """What CloudWatch counts of a log's lines: service, objective and outcome."""
    found = map(json.loads, log.read_text().splitlines())
    return {(each["service"], each["objective"], each["outcome"]) for each in found}


def test_the_task_serves_requests_under_its_own_policy_and_needs_all_of_it(
    other: Made, aws_url: str, tmp_path: Path
) -> None:
    """The container's command with its variables, on moto that enforces the task role's policy, before a server that is fake."""
    aws = names(aws_url)
    asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
    templates = Templates(other.assembly, Deployed(aws.bucket, aws.table, f"{aws.table}-facts", "arn:aws:none"))
    policy = templates.policy("TasksTaskRole", HERE)
    described, template = container(other), next(name for name in other.assembly.templates if name.startswith(HERE))
    rules = write_rules(tmp_path / "rules", {"alpha": 1}, {"one": ["alpha"]}, main="one")
    (rules / "callers.yaml").write_text('callers: {home-screen: {objectives: "*"}}\n')

    async def publish(port: int) -> None:
        store = S3BundleStore(aws.objects())
        revision = await store.put_bundle(compile_directory(rules))
        await store.flip(LiveEntry(revision, 1, "tests", 1.0, "a test"), await store.pointer())
        entry = RegisteredEndpoint(Endpoint("alpha", "127.0.0.1", port), EndpointState("ready"), time.time() + 50)
        await DynamoRegistry(aws.clients(), aws.table).register(entry)

    port, log = reserve_port(), tmp_path / "envoy.log"
    program, *arguments = described["Command"]
    assert program == "python"
    moved = {"8088": str(port), "0.0.0.0": "127.0.0.1", "/var/lib/tidegate": str(tmp_path / "state")}
    command = [sys.executable, *(moved.get(each, each) for each in arguments), "--workers", "1"]
    with fake_server() as server, issuer(tmp_path) as keys, guarded_aws(aws.url, with_services_key(policy)) as guard:
        server.infer = ANSWER
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environment |= AWS_VARIABLES | {"PYTHONPATH": str(ROOT / "functions")}
        environment |= {each["Name"]: templates.text(template, each["Value"]) for each in described["Environment"]}
        environment |= {
            "TIDEGATE_AWS_ENDPOINT_URL": guard.url,
            "TIDEGATE_ACCESS_LOG": str(tmp_path / "requests.log"),
            "TIDEGATE_ENDPOINT_NETWORKS": "127.0.0.0/8",
            "TIDEGATE_SILENCE_TIMEOUT_S": "600",
            "TIDEGATE_JWKS_URI": keys.keys,
            "TIDEGATE_JWKS_CA_FILE": str(keys.ca_file),
            "TIDEGATE_POLL_INTERVAL_S": "0.2",
        }
        token = keys.token(client_id="home-screen", scope="infer")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        base = f"http://127.0.0.1:{port}"
        with running(command, environment, log) as process:
            # Before the first publish it is alive and not ready.
            wait_for(lambda: ask(f"{base}/v2/health/live")[0] == 200, process, log)
            assert ask(f"{base}/v2/health/ready")[0] == 503
            asyncio.run(publish(server.port))
            wait_for(lambda: ask(f"{base}/v2/health/ready")[0] == 200, process, log)
            infer = f"{base}/v2/models/main/infer"
            assert eventually(lambda: ask(infer, b'{"inputs": []}', headers)[0] == 200), log.read_text()
            assert ask(infer, b'{"inputs": []}', headers)[1] == ANSWER
            assert ask(infer, b"{}")[0] == 401, "a token of the issuer in the template alone"
            assert eventually(lambda: {("envoy", "main", "answered")} <= lines(tmp_path / "requests.log"))
            assert eventually(lambda: "dynamodb:PutItem" in {call.action for call in guard.calls})
            process.terminate()
            assert process.wait(60) == 0, log.read_text()
        assert not guard.refused
        calls = [call for call in guard.calls if not call.action.startswith("kms:")]
    assert policy.rights() - policy.used(calls) == set()
    for index in range(len(policy.statements)):
        assert not all(policy.without(index).allows(call) for call in calls), policy.statements[index]
