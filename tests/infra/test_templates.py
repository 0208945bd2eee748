"""What the templates say: who may do what, how Triton runs, what scales, what alarms, who may call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tidegate.metrics import Metric
from tidegate.settings import Settings

from infra.assembly import Assembly, Resource, as_list, text_of
from infra.contract import REFUSED_PATHS
from tests.infra.conftest import Made
from tests.infra.fleets import as_text, named, only

RUNTIME = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "kms:Decrypt",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
"""What Lambda itself needs, and what opens the function's variables."""

READS = {"s3:GetObject", "s3:ListBucket"}
ONCE = {"dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
LISTS = {"dynamodb:Query", "dynamodb:Scan"}
FROM_A_QUEUE = {
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
}
TO_DEAD_LETTERS = {"kms:GenerateDataKey", "sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"}

ACTIONS: dict[str, set[str]] = {
    "Gateway": RUNTIME
    | READS
    | {"dynamodb:PutItem", "kms:GenerateDataKey", "s3:PutObject", "secretsmanager:GetSecretValue", "sqs:SendMessage"},
    "Shadow": RUNTIME | READS | ONCE | {"kms:GenerateDataKey", "s3:DeleteObject", "s3:PutObject"} | FROM_A_QUEUE,
    "Resolve": RUNTIME | READS | {"dynamodb:PutItem"},
    "ValidateRules": RUNTIME | READS | ONCE | {"s3:PutObject"} | FROM_A_QUEUE | TO_DEAD_LETTERS,
    "Reconcile": RUNTIME
    | READS
    | LISTS
    | {"dynamodb:UpdateItem", "s3:PutObject", "s3:DeleteObject", "secretsmanager:GetSecretValue"}
    | FROM_A_QUEUE
    | TO_DEAD_LETTERS,
    "Probe": RUNTIME | {"dynamodb:Scan"} | TO_DEAD_LETTERS,
    "Rollback": RUNTIME
    | READS
    | ONCE
    | LISTS
    | {"s3:PutObject", "s3:DeleteObject", "secretsmanager:GetSecretValue", "sns:Publish"}
    | TO_DEAD_LETTERS,
    "PublishJobRole": READS
    | LISTS
    | {
        "dynamodb:UpdateItem",
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:DeleteObject",
        "s3:PutObject",
        "secretsmanager:GetSecretValue",
    },
    "InstancesRole": {
        "ecs:DeregisterContainerInstance",
        "ecs:DiscoverPollEndpoint",
        "ecs:Poll",
        "ecs:RegisterContainerInstance",
        "ecs:StartTelemetrySession",
        "ecs:SubmitAttachmentStateChanges",
        "ecs:SubmitContainerStateChange",
        "ecs:SubmitTaskStateChange",
        "ecs:UpdateContainerInstancesState",
    },
    "ServersTaskRole": READS | ONCE - {"dynamodb:GetItem"} | {"dynamodb:BatchGetItem", "dynamodb:Query", "kms:Decrypt"},
    "ServersExecutionRole": {
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "kms:Decrypt",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
    },
    "FlowLogsRole": {"logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"},
}
"""Every role's actions, by the beginning of its policy's logical id."""


def allowed(policy: Resource) -> set[str]:
    return {
        action
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
    }


def test_every_role_may_do_exactly_this(project: Made) -> None:
    seen = set()
    for policy in project.assembly.resources("AWS::IAM::Policy"):
        role = policy.id.partition("RoleDefaultPolicy")[0]
        role = role if role in ACTIONS else f"{role}Role"
        seen.add(role)
        assert allowed(policy) == ACTIONS[role], policy.id
    assert seen == set(ACTIONS)


@pytest.mark.parametrize(
    ("role", "action", "prefixes"),
    [
        ("Gateway", "s3:GetObject", {"bundles", "live"}),
        ("Gateway", "s3:PutObject", {"shadows/copies"}),
        ("Shadow", "s3:GetObject", {"shadows/copies"}),
        ("Shadow", "s3:PutObject", {"shadows/tallies"}),
        ("Shadow", "s3:DeleteObject", {"shadows/copies"}),
        ("Rollback", "s3:PutObject", {"claims", "history", "live"}),
        ("ValidateRules", "s3:PutObject", {"verdicts"}),
        ("ValidateRules", "s3:GetObject", {"rules"}),
        ("Reconcile", "s3:GetObject", {"assignments", "claims", "history", "live", "manifests", "models"}),
        ("Reconcile", "s3:PutObject", {"claims"}),
        ("Reconcile", "s3:DeleteObject", {"claims"}),
    ],
)
def test_a_function_reaches_only_its_own_part_of_the_bucket(
    project: Made, role: str, action: str, prefixes: set[str]
) -> None:
    (policy,) = [
        each
        for each in project.assembly.resources("AWS::IAM::Policy")
        if each.template == "Functions" and each.id.startswith(f"{role}Role")
    ]
    resources = [
        text_of(resource)
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
    assert {resource.split("}/")[1].removesuffix("/*") for resource in resources} == prefixes


def test_an_object_that_is_not_there_is_a_404(project: Made) -> None:
    for policy in project.assembly.resources("AWS::IAM::Policy"):
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            if "s3:ListBucket" in as_list(statement["Action"]):
                assert set(statement["Condition"]) in ({"StringLikeIfExists"}, {"Null"}), policy.id


def test_the_variables_of_functions_and_agents_are_settings(project: Made) -> None:
    filled = {
        "TIDEGATE_BUCKET": "a-bucket",
        "TIDEGATE_REGISTRY_TABLE": "a-table",
        "TIDEGATE_FACTS_TABLE": "a-table",
        "TIDEGATE_MANAGEMENT_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:a",
        "TIDEGATE_SEQUENCE_KEY_ARN": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:b",
        "TIDEGATE_SHADOW_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/111122223333/tidegate-prod-shadow",
    }
    found: list[dict[str, Any]] = [
        each.properties["Environment"]["Variables"] for each in project.assembly.resources("AWS::Lambda::Function")
    ]
    for task in project.assembly.resources("AWS::ECS::TaskDefinition"):
        for container in task.properties["ContainerDefinitions"]:
            variables = {each["Name"]: each["Value"] for each in container["Environment"]}
            secrets = {each["Name"]: "a-secret-value" for each in container["Secrets"]}
            found.append(variables | secrets)
    assert len(found) == 7 + 2 * 2
    for variables in found:
        ours = {name: filled.get(name, value) for name, value in variables.items() if name.startswith("TIDEGATE_")}
        Settings.from_environment(ours)


def test_a_setting_of_the_processes_reaches_every_function_and_agent(project: Made) -> None:
    for function in project.assembly.resources("AWS::Lambda::Function"):
        assert function.properties["Environment"]["Variables"]["TIDEGATE_LOAD_TIMEOUT_S"] == "300"
    for shard in ("alpha", "beta"):
        agent = container(project.assembly, "agent", f"FleetShard{shard}")
        assert {"Name": "TIDEGATE_LOAD_TIMEOUT_S", "Value": "300"} in agent["Environment"]


def container(assembly: Assembly, name: str, template: str = "FleetShard") -> dict[str, Any]:
    task = next(each for each in assembly.resources("AWS::ECS::TaskDefinition") if each.template.startswith(template))
    (found,) = [each for each in task.properties["ContainerDefinitions"] if each["Name"] == name]
    return dict(found)


def test_triton_runs_the_mirrored_image_on_a_gpu(project: Made) -> None:
    triton = container(project.assembly, "triton")
    image = text_of(triton["Image"])
    assert ":24.10-py3-" in image
    assert ".dkr.ecr." in image
    assert "/tidegate-prod/triton:" in image
    assert triton["ResourceRequirements"] == [{"Type": "GPU", "Value": "1"}]
    assert triton["LinuxParameters"]["SharedMemorySize"] == 1024
    assert triton["Essential"] is True


@pytest.mark.parametrize(
    "flag",
    [
        "--model-control-mode=explicit",
        "'--http-header-forward-pattern=(?i)^tidegate-param-.*'",
        '"--http-restricted-api=model-repository,shared-memory,trace,logging:tidegate-management=$TIDEGATE_MANAGEMENT_SECRET"',
        '"--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:tidegate-management=$TIDEGATE_MANAGEMENT_SECRET"',
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--allow-metrics=true",
        "--exit-timeout-secs=34",
    ],
)
def test_triton_has_the_flag(project: Made, flag: str) -> None:
    assert flag in text_of(container(project.assembly, "triton")["Command"][0]).split(" ")


def test_triton_reads_its_models_from_the_bucket(project: Made) -> None:
    command = text_of(container(project.assembly, "triton")["Command"][0])
    assert " --model-repository=s3://${" in command
    assert "}/models " in command


def test_a_setting_has_triton_complete_configs(other: Made) -> None:
    triton = container(other.assembly, "triton")
    assert "--disable-auto-complete-config" not in text_of(triton["Command"][0])
    assert text_of(triton["Image"]).endswith(":25.01-py3")


def test_no_task_definition_holds_the_management_secret(project: Made) -> None:
    for name in ("triton", "agent"):
        (secret,) = container(project.assembly, name)["Secrets"]
        assert secret["Name"] == "TIDEGATE_MANAGEMENT_SECRET"
        assert "ManagementSecret" in as_text(secret["ValueFrom"])


def test_the_gateway_alone_reads_the_key_of_sequences_which_no_template_holds(project: Made, other: Made) -> None:
    (secret,) = [
        each for each in project.assembly.resources("AWS::SecretsManager::Secret") if each.id.startswith("SequenceKey")
    ]
    assert secret.properties["GenerateSecretString"] == {"ExcludePunctuation": True, "PasswordLength": 48}
    told = {
        each.properties["FunctionName"]: each.properties["Environment"]["Variables"]["TIDEGATE_SEQUENCE_KEY_ARN"]
        for each in project.assembly.resources("AWS::Lambda::Function")
        if "TIDEGATE_SEQUENCE_KEY_ARN" in each.properties["Environment"]["Variables"]
    }
    assert list(told) == ["tidegate-prod-gateway"]
    readers = {
        policy.id.partition("RoleDefaultPolicy")[0]
        for policy in project.assembly.resources("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if as_text(told["tidegate-prod-gateway"]) in as_text(statement["Resource"])
    }
    assert readers == {"Gateway"}
    for made in (project, other):
        assert "TIDEGATE_SEQUENCE_KEY" not in {
            name
            for each in made.assembly.resources("AWS::Lambda::Function")
            for name in each.properties["Environment"]["Variables"]
        }
    gateway = named(other.assembly, "AWS::Lambda::Function", FunctionName="tidegate-test-gateway")
    version = gateway.properties["Environment"]["Variables"]["TIDEGATE_SEQUENCE_KEY_VERSION"]
    assert version == "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "another version is another version of the function"


def test_a_server_takes_requests_only_once_its_agent_says_so(project: Made) -> None:
    agent = container(project.assembly, "agent")
    assert agent["Command"] == ["python", "-m", "tidegate.cli", "shard-agent"]
    assert agent["ReadonlyRootFilesystem"] is True
    assert agent["DependsOn"] == [{"ContainerName": "triton", "Condition": "START"}]
    group = only(project.assembly, "AWS::ElasticLoadBalancingV2::TargetGroup", "FleetShardalpha")
    assert group.properties["HealthCheckPort"] == str(agent["PortMappings"][0]["ContainerPort"])
    assert group.properties["HealthCheckPath"] == "/ready"
    assert group.properties["Port"] == 8000


def test_a_replacement_is_healthy_before_a_server_drains(project: Made) -> None:
    service = only(project.assembly, "AWS::ECS::Service", "FleetShardalpha").properties
    deployment = service["DeploymentConfiguration"]
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert "DesiredCount" not in service, "a deployment must not undo the scaling"
    provider = only(project.assembly, "AWS::ECS::CapacityProvider", "FleetShardalpha").properties
    assert provider["AutoScalingGroupProvider"]["ManagedDraining"] == "ENABLED"
    group = only(project.assembly, "AWS::AutoScaling::AutoScalingGroup", "FleetShardalpha").properties
    assert (group["MinSize"], group["MaxSize"]) == ("2", "4")


def attributes(resource: Resource, name: str) -> dict[str, Any]:
    return {each["Key"]: each["Value"] for each in resource.properties[name]}


def test_the_balancer_spreads_by_outstanding_requests_and_drains(project: Made) -> None:
    group = only(project.assembly, "AWS::ElasticLoadBalancingV2::TargetGroup", "FleetShardbeta")
    of_group = attributes(group, "TargetGroupAttributes")
    assert of_group["load_balancing.algorithm.type"] == "least_outstanding_requests"
    assert of_group["deregistration_delay.timeout_seconds"] == "35"
    balancer = only(project.assembly, "AWS::ElasticLoadBalancingV2::LoadBalancer", "FleetShardbeta")
    of_balancer = attributes(balancer, "LoadBalancerAttributes")
    assert of_balancer["routing.http.drop_invalid_header_fields.enabled"] == "false", "Tidegate-Param-top_k would go"
    assert of_balancer["access_logs.s3.enabled"] == "true"


def test_management_paths_are_refused_and_inference_is_served(project: Made) -> None:
    rules = [
        each.properties
        for each in project.assembly.resources("AWS::ElasticLoadBalancingV2::ListenerRule")
        if each.template.startswith("FleetShardalpha")
    ]
    by_priority = sorted(rules, key=lambda rule: rule["Priority"])
    kinds = [rule["Actions"][0]["Type"] for rule in by_priority]
    assert kinds == ["fixed-response", "fixed-response", "forward"]
    refused = [path for rule in by_priority[:2] for path in rule["Conditions"][0]["PathPatternConfig"]["Values"]]
    assert sorted(refused) == sorted(REFUSED_PATHS)
    assert by_priority[0]["Actions"][0]["FixedResponseConfig"]["StatusCode"] == "403"
    assert "error" in json.loads(by_priority[0]["Actions"][0]["FixedResponseConfig"]["MessageBody"])
    assert by_priority[2]["Conditions"][0]["PathPatternConfig"]["Values"] == ["/v2", "/v2/health/*", "/v2/models/*"]


def ingress(assembly: Assembly) -> set[tuple[str, str, int]]:
    """(from, to, port) of every rule, by the beginnings of the groups' logical ids."""

    def group(reference: Any) -> str:
        return str(reference["Fn::GetAtt"][0])[:-8]

    return {
        (
            group(each.properties["SourceSecurityGroupId"]),
            group(each.properties["GroupId"]),
            each.properties["FromPort"],
        )
        for each in assembly.resources("AWS::EC2::SecurityGroupIngress")
        if each.template == "Network"
    }


def test_who_may_speak_to_whom(project: Made) -> None:
    assert ingress(project.assembly) == {
        ("Gateway", "Balancers", 80),
        ("Balancers", "Servers", 8000),
        ("Balancers", "Servers", 8003),
        ("Control", "Servers", 8000),
        ("Control", "Servers", 8001),
        ("Control", "Servers", 8002),
        ("Gateway", "Endpoints", 443),
        ("Control", "Endpoints", 443),
        ("Servers", "Endpoints", 443),
        ("Instances", "Endpoints", 443),
    }
    for group in project.assembly.resources("AWS::EC2::SecurityGroup"):
        assert "SecurityGroupIngress" not in group.properties


def test_nothing_reaches_the_internet_by_default(project: Made) -> None:
    for kind in ("InternetGateway", "NatGateway", "EIP", "EgressOnlyInternetGateway"):
        assert not list(project.assembly.resources(f"AWS::EC2::{kind}"))
    services = {
        text_of(each.properties["ServiceName"]).rpartition("}.")[2]
        for each in project.assembly.resources("AWS::EC2::VPCEndpoint")
    }
    assert {"s3", "dynamodb", "ecr.api", "ecr.dkr", "logs", "secretsmanager", "ecs-agent"} <= services
    assert len(list(project.assembly.resources("AWS::EC2::Subnet"))) == 3, "one private subnet per zone of prod"


def test_a_nat_gateway_is_a_choice(other: Made) -> None:
    assert len(list(other.assembly.resources("AWS::EC2::NatGateway"))) == 1


def test_instances_are_hardened(project: Made) -> None:
    data = only(project.assembly, "AWS::EC2::LaunchTemplate", "FleetShardalpha").properties["LaunchTemplateData"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    user_data = text_of(data["UserData"]["Fn::Base64"])
    assert "ECS_AWSVPC_BLOCK_IMDS=true" in user_data
    assert "ECS_CLUSTER=tidegate-prod-alpha" in user_data


def test_a_shard_scales_on_its_own_queue(project: Made) -> None:
    policy = only(project.assembly, "AWS::ApplicationAutoScaling::ScalingPolicy", "FleetShardalpha").properties
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["CustomizedMetricSpecification"] == {
        "Namespace": "Tidegate",
        "MetricName": "QueueTimeRatio",
        "Dimensions": [{"Name": "Shard", "Value": "alpha"}, {"Name": "service", "Value": "probe"}],
        "Statistic": "Average",
    }
    assert tracking["TargetValue"] == 0.5
    target = only(project.assembly, "AWS::ApplicationAutoScaling::ScalableTarget", "FleetShardalpha").properties
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 2)


def test_a_shard_is_as_fleet_yaml_says(other: Made) -> None:
    group = only(other.assembly, "AWS::AutoScaling::AutoScalingGroup", "FleetShardfastpool").properties
    policy = group["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 30
    assert policy["LaunchTemplate"]["Overrides"] == [{"InstanceType": "g5.2xlarge"}]
    assert (group["MinSize"], group["MaxSize"]) == ("2", "12")
    target = only(other.assembly, "AWS::ApplicationAutoScaling::ScalableTarget", "FleetShardfastpool").properties
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)
    task = only(other.assembly, "AWS::ECS::TaskDefinition", "FleetShardfastpool").properties
    agent = next(each for each in task["ContainerDefinitions"] if each["Name"] == "agent")
    assert {"Name": "TIDEGATE_SHARD", "Value": "Fast_pool.v2"} in agent["Environment"], "its name, not its label"


def test_a_shard_takes_its_alternative_types_where_the_first_cannot_be_had(other: Made) -> None:
    policy = only(other.assembly, "AWS::AutoScaling::AutoScalingGroup", "FleetShardsleepy").properties[
        "MixedInstancesPolicy"
    ]
    types = [each["InstanceType"] for each in policy["LaunchTemplate"]["Overrides"]]
    assert types == ["g4dn.xlarge", "g6.xlarge", "g5.xlarge"]
    assert policy["InstancesDistribution"]["OnDemandAllocationStrategy"] == "prioritized"


def depends_on(assembly: Assembly, resource: Resource) -> set[str]:
    """The logical ids that a resource waits for by `DependsOn`."""
    return set(as_list(resource.body.get("DependsOn")))


@pytest.mark.parametrize("made", ["project", "other"])
def test_what_uses_a_role_waits_for_its_policy_and_goes_before_it(made: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(made).assembly
    policies = [
        (policy.template, as_text({"Fn::GetAtt": [role["Ref"], "Arn"]}), as_text({"Ref": role["Ref"]}), policy.id)
        for policy in assembly.resources("AWS::IAM::Policy")
        for role in policy.properties["Roles"]
    ]
    users = [
        (user, policy)
        for user in assembly.resources()
        for template, arn, name, policy in policies
        if user.template == template
        and user.type not in ("AWS::IAM::Policy", "AWS::IAM::InstanceProfile")
        and any(reference in as_text(user.properties) for reference in (arn, name))
    ]
    assert {user.type for user, _ in users} >= {
        "AWS::CodeBuild::Project",
        "AWS::EC2::FlowLog",
        "AWS::ECS::TaskDefinition",
        "AWS::Lambda::Function",
    }
    assert [(str(user), policy) for user, policy in users if policy not in depends_on(assembly, user)] == []


def test_instances_wait_for_what_they_need_and_go_before_it(project: Made) -> None:
    for shard in ("FleetShardalpha", "FleetShardbeta"):
        group = only(project.assembly, "AWS::AutoScaling::AutoScalingGroup", shard)
        cluster = only(project.assembly, "AWS::ECS::Cluster", shard)
        (policy,) = [
            each.id
            for each in project.assembly.resources("AWS::IAM::Policy")
            if each.template == group.template and each.properties["Roles"][0]["Ref"].startswith("InstancesRole")
        ]
        assert {cluster.id, policy} <= depends_on(project.assembly, group)


def test_a_disk_unpacks_the_image_fast(project: Made) -> None:
    data = only(project.assembly, "AWS::EC2::LaunchTemplate", "FleetShardalpha").properties["LaunchTemplateData"]
    disk = data["BlockDeviceMappings"][0]["Ebs"]
    assert (disk["VolumeType"], disk["Throughput"], disk["Iops"]) == ("gp3", 500, 3000)


def test_the_images_of_instances_are_those_that_are_pinned(other: Made) -> None:
    images = {
        each.template: each.properties["LaunchTemplateData"]["ImageId"]
        for each in other.assembly.resources("AWS::EC2::LaunchTemplate")
    }
    assert sorted(images.values()) == 3 * ["ami-0123456789abcdef0"] + ["ami-0c0c0c0c0c0c0c0c0"]


def test_a_shard_without_gpus_has_a_server_on_each_instance(other: Made) -> None:
    beginning = "FleetShardcpuonly"
    task = only(other.assembly, "AWS::ECS::TaskDefinition", beginning).properties
    triton = next(each for each in task["ContainerDefinitions"] if each["Name"] == "triton")
    assert "ResourceRequirements" not in triton
    assert "--allow-gpu-metrics=false" in text_of(triton["Command"][0]).split(" ")
    service = only(other.assembly, "AWS::ECS::Service", beginning).properties
    assert service["PlacementConstraints"] == [{"Type": "distinctInstance"}]
    data = only(other.assembly, "AWS::EC2::LaunchTemplate", beginning).properties["LaunchTemplateData"]
    assert "ECS_ENABLE_GPU_SUPPORT=false" in text_of(data["UserData"]["Fn::Base64"])


def test_a_shard_that_scales_to_zero_wakes_and_sleeps(other: Made) -> None:
    assembly = other.assembly
    target = only(assembly, "AWS::ApplicationAutoScaling::ScalableTarget", "FleetShardsleepy").properties
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    policies = {
        each.id: each.properties
        for each in assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
        if each.template.startswith("FleetShardsleepy")
    }
    tracking = [each for each in policies.values() if each["PolicyType"] == "TargetTrackingScaling"]
    assert tracking[0]["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] is True
    steps = {}
    for alarm in assembly.resources("AWS::CloudWatch::Alarm"):
        for action in alarm.properties["AlarmActions"]:
            step = policies.get(action.get("Ref", ""), {}).get("StepScalingPolicyConfiguration")
            if step:
                adjustment = step["StepAdjustments"][0]["ScalingAdjustment"]
                steps[step["AdjustmentType"], adjustment] = alarm.properties
    assert set(steps) == {("ChangeInCapacity", 1), ("ChangeInCapacity", -1), ("ExactCapacity", 0)}
    assert steps["ChangeInCapacity", 1]["MetricName"] == "HTTPCode_ELB_503_Count"
    assert steps["ExactCapacity", 0]["EvaluationPeriods"] == 15
    assert steps["ExactCapacity", 0]["TreatMissingData"] == "breaching"


def alarms(assembly: Assembly) -> dict[str, dict[str, Any]]:
    return {
        str(each.properties["AlarmName"]).split("-", 2)[2]: dict(each.properties)
        for each in assembly.resources("AWS::CloudWatch::Alarm")
        if "AlarmName" in each.properties
    }


def test_every_concern_has_its_alarm(project: Made) -> None:
    names = set(alarms(project.assembly))
    functions = ("gateway", "resolve", "shadow", "validate-rules", "reconcile", "probe", "rollback")
    assert names == {
        "api-5xx",
        "api-p99",
        "fallbacks",
        "gateway-bundle-age",
        "resolve-bundle-age",
        "reconcile-silent",
        "reconcile-problems",
        "probe-silent",
        "dead-depth",
        "reconcile-dead-depth",
        "shadow-age",
        "shadow-dead-depth",
        "validate-rules-dead-depth",
        *(f"{name}-{what}" for name in functions for what in ("throttles", "errors")),
        *(f"{shard}-{what}" for shard in ("alpha", "beta") for what in ("unserved", "queue")),
    }


def test_every_alarm_names_its_runbook_and_calls_people(project: Made) -> None:
    for name, alarm in alarms(project.assembly).items():
        assert "Runbook: docs/operations.md#" in alarm["AlarmDescription"], name
        assert any("Alarms" in as_text(action) for action in alarm["AlarmActions"]), name


def test_a_rise_of_errors_or_fallbacks_rolls_back(project: Made) -> None:
    rolled_back_by = {
        name for name, alarm in alarms(project.assembly).items() if "Rollback" in as_text(alarm["AlarmActions"])
    }
    assert rolled_back_by == {"api-5xx", "fallbacks"}
    permissions = [
        each.properties
        for each in project.assembly.resources("AWS::Lambda::Permission")
        if each.properties["Principal"] == "lambda.alarms.cloudwatch.amazonaws.com"
    ]
    assert len(permissions) == 2
    assert all("SourceAccount" in each and "SourceArn" in each for each in permissions)


def test_what_the_rollback_did_is_told(project: Made) -> None:
    config = next(
        each.properties
        for each in project.assembly.resources("AWS::Lambda::EventInvokeConfig")
        if "OnSuccess" in each.properties["DestinationConfig"]
    )
    assert "Rollback" in as_text(config["FunctionName"])
    assert "Alarms" in as_text(config["DestinationConfig"]["OnSuccess"])


def test_the_rollback_by_alarm_can_be_switched_off(other: Made) -> None:
    assert all("Rollback" not in as_text(each["AlarmActions"]) for each in alarms(other.assembly).values())
    assert {"url-5xx", "url-p99"} <= set(alarms(other.assembly))


def test_the_alarm_on_fallbacks_looks_at_what_the_gateway_emits(project: Made) -> None:
    metrics = {each["Id"]: each for each in alarms(project.assembly)["fallbacks"]["Metrics"]}
    for metric, name in (("part", "Fallbacks"), ("whole", "Requests")):
        stated = metrics[metric]["MetricStat"]["Metric"]
        assert (stated["Namespace"], stated["MetricName"]) == ("Tidegate", name)
        assert stated["Dimensions"] == [{"Name": "service", "Value": "gateway"}]
    gateway = named(project.assembly, "AWS::Lambda::Function", FunctionName="tidegate-prod-gateway")
    variables = gateway.properties["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == "gateway"
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Tidegate"


def test_there_is_a_dashboard_per_concern(project: Made) -> None:
    found = {each.properties["DashboardName"] for each in project.assembly.resources("AWS::CloudWatch::Dashboard")}
    assert found == {"tidegate-prod-requests", "tidegate-prod-fleet", "tidegate-prod-control"}


def test_what_the_functions_did_to_the_fleet_is_on_a_dashboard(project: Made) -> None:
    control = next(
        as_text(each.properties["DashboardBody"])
        for each in project.assembly.resources("AWS::CloudWatch::Dashboard")
        if each.properties["DashboardName"].endswith("-control")
    )
    for metric in ("Rollbacks", "Changes", "FailedLoads"):
        assert metric in control


def test_the_function_of_shadows_and_its_queues_are_on_a_dashboard(project: Made) -> None:
    control = next(
        as_text(each.properties["DashboardBody"])
        for each in project.assembly.resources("AWS::CloudWatch::Dashboard")
        if each.properties["DashboardName"].endswith("-control")
    )
    graphs = {part.split('"', 1)[0]: part for part in control.replace("\\", "").split('"title":"')[1:]}
    for title in ("Runs", "Errors", "Time, ms"):
        assert "tidegate-prod-shadow" in graphs[title], title
    for queue in ("tidegate-prod-shadow", "tidegate-prod-shadow-dead"):
        assert f'"{queue}"' in graphs["Messages in queues"]


def test_what_becomes_of_requests_and_copies_is_on_the_dashboards(project: Made, other: Made) -> None:
    for made, namespace in ((project, "Tidegate"), (other, "Tidegate/test")):
        bodies = {
            each.properties["DashboardName"].rpartition("-")[2]: as_text(each.properties["DashboardBody"]).replace(
                "\\", ""
            )
            for each in made.assembly.resources("AWS::CloudWatch::Dashboard")
        }
        for name, metrics in {
            "requests": (Metric.LIMITED, Metric.SEQUENCES_REFUSED, Metric.OPEN_BREAKERS),
            "control": (Metric.SHADOWS_SENT, Metric.SHADOWS_REPEATED),
        }.items():
            for metric in metrics:
                assert f'"{metric.metric_name}"' in bodies[name], metric
        for name, metric, dimensions in (
            ("requests", Metric.HEDGES, "Objective,Variant"),
            ("requests", Metric.HEDGES_WON, "Objective,Variant"),
            ("requests", Metric.FAILED_ATTEMPTS, "Objective,Variant"),
            ("control", Metric.SHADOWS_LEFT_OUT, "Reason"),
            ("control", Metric.SHADOWS_DROPPED, "Reason"),
        ):
            schema = ",".join(f'"{each}"' for each in (namespace, "service", *dimensions.split(",")))
            search = f"SEARCH('{{{schema}}} MetricName=\"{metric.metric_name}\" service=\"gateway\"', 'Sum', 60)"
            assert search in bodies[name], metric


def routes(assembly: Assembly, api: str = "Api") -> dict[str, dict[str, Any]]:
    """The routes of the API whose logical id begins so, by their keys."""
    return {
        each.properties["RouteKey"]: dict(each.properties)
        for each in assembly.resources("AWS::ApiGatewayV2::Route")
        if each.properties["ApiId"]["Ref"].startswith(api)
    }


def test_every_route_asks_for_a_signature_by_default(project: Made) -> None:
    found = routes(project.assembly)
    assert set(found) == {
        "GET /",
        "HEAD /",
        "GET /v2",
        "GET /v2/{path+}",
        "POST /v2/{path+}",
        "GET /v1/{path+}",
        "POST /v1/{path+}",
        "GET /openapi.json",
        "POST /v1/objectives/{objective}/resolve",
        "POST /ofrep/{path+}",
    }
    assert {each["AuthorizationType"] for each in found.values()} == {"AWS_IAM"}
    policy = only(project.assembly, "AWS::IAM::ManagedPolicy", "Edge")
    assert allowed(policy) == {"execute-api:Invoke"}


def test_whoever_publishes_may_change_models_and_rules_alone(project: Made) -> None:
    policy = only(project.assembly, "AWS::IAM::ManagedPolicy", "Functions")
    assert allowed(policy) == READS | LISTS | {
        "codebuild:BatchGetBuilds",
        "codebuild:StartBuild",
        "dynamodb:BatchWriteItem",
        "dynamodb:UpdateItem",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:FilterLogEvents",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObjectVersion",
        "s3:ListBucketVersions",
        "s3:PutObject",
        "secretsmanager:GetSecretValue",
    }


def test_every_route_asks_for_a_token_where_the_setting_says_so(other: Made) -> None:
    for route in routes(other.assembly).values():
        assert route["AuthorizationType"] == "JWT"
        assert route["AuthorizationScopes"] == ["infer"]
    (authorizer,) = [
        each.properties
        for each in other.assembly.resources("AWS::ApiGatewayV2::Authorizer")
        if not each.id.startswith("Console")
    ]
    assert authorizer["JwtConfiguration"] == {"Audience": ["tidegate"], "Issuer": "https://issuer.example.com/"}
    gateway = named(other.assembly, "AWS::Lambda::Function", FunctionName="tidegate-test-gateway")
    assert gateway.properties["Environment"]["Variables"]["TIDEGATE_CALLER_CLAIM"] == "client_id"


def test_a_function_url_asks_for_a_signature(other: Made) -> None:
    assert only(other.assembly, "AWS::Lambda::Url").properties["AuthType"] == "AWS_IAM"
    callers = only(other.assembly, "AWS::IAM::ManagedPolicy", "Edge").properties["PolicyDocument"]["Statement"]
    conditions = {as_text(each["Action"]): each.get("Condition") for each in callers}
    assert conditions == {
        '"lambda:InvokeFunctionUrl"': {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}},
        '"lambda:InvokeFunction"': {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
    }


def test_the_api_throttles_and_logs_nothing_personal(project: Made) -> None:
    stage = only(project.assembly, "AWS::ApiGatewayV2::Stage").properties
    assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] == 1000
    assert stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 2000
    logged = set(json.loads(stage["AccessLogSettings"]["Format"]).values())
    personal = ("querystring", "path", "sourceIp", "userAgent", "identity", "header", "claims", "principalId")
    assert not [field for field in logged for word in personal if word.lower() in field.lower()]


def test_a_domain_takes_tls_only_and_closes_the_default_address(other: Made) -> None:
    domain = only(other.assembly, "AWS::ApiGatewayV2::DomainName").properties
    assert [each["SecurityPolicy"] for each in domain["DomainNameConfigurations"]] == ["TLS_1_2"]
    api = named(other.assembly, "AWS::ApiGatewayV2::Api", Name="tidegate-test-api").properties
    assert api["DisableExecuteApiEndpoint"] is True


def test_one_key_encrypts_everything_that_is_stored(project: Made) -> None:
    bucket = named(
        project.assembly,
        "AWS::S3::Bucket",
        NotificationConfiguration={"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
    )
    rule = bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert rule["BucketKeyEnabled"] is True
    for kind, name in (
        ("AWS::SQS::Queue", "KmsMasterKeyId"),
        ("AWS::SNS::Topic", "KmsMasterKeyId"),
        ("AWS::SecretsManager::Secret", "KmsKeyId"),
        ("AWS::Logs::LogGroup", "KmsKeyId"),
        ("AWS::Lambda::Function", "KmsKeyArn"),
    ):
        for resource in project.assembly.resources(kind):
            assert name in resource.properties, str(resource)


def test_tables_expire_and_can_be_restored(project: Made) -> None:
    registry, facts = sorted(
        project.assembly.resources("AWS::DynamoDB::Table"),
        key=lambda table: "TimeToLiveSpecification" not in table.properties,
    )
    assert registry.properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    for table in (registry, facts):
        assert [each["AttributeName"] for each in table.properties["KeySchema"]] == ["pk", "sk"]
        assert table.properties["BillingMode"] == "PAY_PER_REQUEST"
        assert table.properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True


def test_data_outlives_its_stack_where_the_setting_says_so(project: Made, other: Made) -> None:
    kinds = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key", "AWS::ECR::Repository")
    assert {each.body["DeletionPolicy"] for each in project.assembly.resources(*kinds)} == {"Retain"}
    assert {each.body["DeletionPolicy"] for each in other.assembly.resources(*kinds)} == {"Delete"}


def test_events_reach_the_functions_through_queues_with_dead_letters(project: Made) -> None:
    mappings = list(project.assembly.resources("AWS::Lambda::EventSourceMapping"))
    assert len(mappings) == 3
    for mapping in mappings:
        assert mapping.properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    watched = {}
    for rule in project.assembly.resources("AWS::Events::Rule"):
        if "EventPattern" in rule.properties:
            keys = rule.properties["EventPattern"]["detail"]["object"]["key"]
            watched[rule.properties["Name"]] = [each["prefix"] for each in keys]
            assert "DeadLetterConfig" in rule.properties["Targets"][0]
        else:
            assert rule.properties["ScheduleExpression"] == "rate(1 minute)"
    assert watched == {
        "tidegate-prod-reconcile-events": ["manifests/", "live/"],
        "tidegate-prod-validate-rules-events": ["rules/"],
    }
    queues = {each.properties["QueueName"]: each.properties for each in project.assembly.resources("AWS::SQS::Queue")}
    for name in ("tidegate-prod-reconcile", "tidegate-prod-validate-rules"):
        assert queues[name]["RedrivePolicy"]["maxReceiveCount"] == 5


def test_copies_for_shadows_end_as_dead_letters_and_are_soon_gone(project: Made) -> None:
    queues = {each.properties["QueueName"]: each.properties for each in project.assembly.resources("AWS::SQS::Queue")}
    queue, dead = queues["tidegate-prod-shadow"], queues["tidegate-prod-shadow-dead"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 3
    (source,) = [
        each.properties
        for each in project.assembly.resources("AWS::Lambda::EventSourceMapping")
        if "ScalingConfig" in each.properties and "Shadow" in json.dumps(each.properties["FunctionName"])
    ]
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert [each["MessageRetentionPeriod"] for each in (queue, dead)] == [3600, 3600]
    (rule,) = [
        rule
        for bucket in project.assembly.resources("AWS::S3::Bucket")
        for rule in bucket.properties["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "shadows/copies/"
    ]
    assert (rule["ExpirationInDays"], rule["NoncurrentVersionExpiration"]) == (1, {"NoncurrentDays": 1})


def test_old_versions_of_tallies_which_every_batch_makes_are_soon_gone(project: Made) -> None:
    (rule,) = [
        rule
        for bucket in project.assembly.resources("AWS::S3::Bucket")
        for rule in bucket.properties["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "shadows/tallies/"
    ]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


def test_functions_run_where_and_as_told(project: Made, other: Made) -> None:
    for made, architecture in ((project, "arm64"), (other, "x86_64")):
        for function in made.assembly.resources("AWS::Lambda::Function"):
            assert function.properties["Architectures"] == [architecture]
            assert function.properties["Runtime"] == "python3.13"
            assert function.properties["Handler"].startswith("tidegate.lambdas.")
            assert function.properties["VpcConfig"]["SubnetIds"]
            assert function.properties["TracingConfig"] == {"Mode": "Active"}
    kept_ready = [
        each.properties["ProvisionedConcurrencyConfig"]["ProvisionedConcurrentExecutions"]
        for each in other.assembly.resources("AWS::Lambda::Alias")
        if "ProvisionedConcurrencyConfig" in each.properties
    ]
    assert kept_ready == [2], "the gateway's"


def test_requests_reach_the_functions_by_an_alias_with_and_without_kept_environments(
    project: Made, other: Made
) -> None:
    for made in (project, other):
        for integration in made.assembly.resources("AWS::ApiGatewayV2::Integration"):
            assert "Live" in text_of(integration.properties["IntegrationUri"])


def test_the_record_of_peoples_sessions_is_there_while_they_may_run_no_commands(project: Made, other: Made) -> None:
    for made in (project, other):
        clusters = made.assembly.resources("AWS::ECS::Cluster")
        shards = [each.template for each in clusters if each.template.startswith("FleetShard")]
        groups = [
            each.template
            for each in made.assembly.resources("AWS::Logs::LogGroup")
            if text_of(each.properties["LogGroupName"]).endswith("/sessions")
        ]
        assert groups == shards


def test_people_may_run_commands_in_servers_where_the_setting_says_so_and_are_logged(
    project: Made, other: Made
) -> None:
    for made, may in ((project, False), (other, True)):
        for service in made.assembly.resources("AWS::ECS::Service"):
            assert service.properties["EnableExecuteCommand"] is (may and service.template.startswith("FleetShard"))
        roles = [each for each in made.assembly.resources("AWS::IAM::Policy") if each.id.startswith("ServersTaskRole")]
        assert all(("ssmmessages:OpenDataChannel" in allowed(each)) is may for each in roles)
        endpoints = [
            text_of(each.properties["ServiceName"]) for each in made.assembly.resources("AWS::EC2::VPCEndpoint")
        ]
        assert any(each.endswith(".ssmmessages") for each in endpoints) is may
    cluster = only(other.assembly, "AWS::ECS::Cluster", "FleetShardsleepy").properties
    session = cluster["Configuration"]["ExecuteCommandConfiguration"]
    group = other.assembly.templates[only(other.assembly, "AWS::ECS::Cluster", "FleetShardsleepy").template][
        "Resources"
    ][session["LogConfiguration"]["CloudWatchLogGroupName"]["Ref"]]
    assert session["Logging"] == "OVERRIDE"
    assert group["Properties"]["LogGroupName"] == "/tidegate/test/shards/sleepy/sessions"


def test_broken_gpus_are_told_where_the_exporter_runs(project: Made, other: Made) -> None:
    for task in (
        *project.assembly.resources("AWS::ECS::TaskDefinition"),
        *other.assembly.resources("AWS::ECS::TaskDefinition"),
    ):
        names = {each["Name"] for each in task.properties["ContainerDefinitions"]}
        has = task.template.startswith(("FleetShardsleepy", "FleetShardfastpool", "FleetShardalpha")) and (
            task in list(other.assembly.resources("AWS::ECS::TaskDefinition"))
        )
        assert ("dcgm" in names) is has, str(task)
    exporter = container(other.assembly, "dcgm", "FleetShardsleepy")
    assert exporter["Essential"] is False
    assert {"Name": "NVIDIA_VISIBLE_DEVICES", "Value": "all"} in exporter["Environment"]
    data = only(other.assembly, "AWS::EC2::LaunchTemplate", "FleetShardsleepy").properties["LaunchTemplateData"]
    assert "--default-runtime nvidia" in text_of(data["UserData"]["Fn::Base64"])
    probe = named(other.assembly, "AWS::Lambda::Function", FunctionName="tidegate-test-probe").properties
    assert probe["Environment"]["Variables"]["TIDEGATE_GPU_METRICS_PORT"] == "9400"
    assert ("Control", "Servers", 9400) in ingress(other.assembly)
    (alarm,) = [each for name, each in alarms(other.assembly).items() if name == "sleepy-gpu-faults"]
    assert alarm["Dimensions"] == [{"Name": "Shard", "Value": "sleepy"}, {"Name": "service", "Value": "probe"}]
    assert not [name for name in alarms(other.assembly) if name.startswith("cpu-only") and "gpu" in name]


def test_nobody_deletes_the_pointer_and_older_versions_of_it_are_kept(project: Made) -> None:
    for bucket in project.assembly.resources("AWS::S3::Bucket"):
        assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    denied = [
        statement
        for policy in project.assembly.resources("AWS::S3::BucketPolicy")
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if statement.get("Sid") == "NobodyDeletesThePointer"
    ]
    (statement,) = denied
    assert (statement["Effect"], statement["Principal"]) == ("Deny", {"AWS": "*"})
    assert set(as_list(statement["Action"])) == {"s3:DeleteObject", "s3:DeleteObjectVersion"}
    assert text_of(statement["Resource"]).endswith("/live/*")
