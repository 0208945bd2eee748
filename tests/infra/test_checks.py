"""Every check runs on what would be deployed and finds nothing, and would find something if it were there."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.assembly import Assembly
from infra.audit import RULES, audit
from infra.audit.access import written_reasons
from infra.checks import _cfn_lint, _checkov
from tests.infra.conftest import Made

Template = dict[str, Any]
Break = Callable[[dict[str, Template]], None]


def test_nothing_is_found_in_the_projects_fleet(project: Made) -> None:
    assert [str(each) for each in project.found] == []


def test_nothing_is_found_whatever_is_chosen(other: Made) -> None:
    assert [str(each) for each in other.found] == []


def test_cdk_nags_reasons_stand_beside_the_resources(project: Made) -> None:
    reasons = {check for each in project.assembly.resources() for check, _ in written_reasons(each)}
    assert any(check.startswith("AwsSolutions-IAM5[Resource::") for check in reasons)
    assert {"CKV_AWS_131", "W3005"} <= reasons


def first(templates: dict[str, Template], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first resource of a type, and its template."""
    for template in templates.values():
        for body in template["Resources"].values():
            if body["Type"] == kind:
                return body, template
    raise LookupError(kind)


def change(kind: str, **properties: Any) -> Break:
    def apply(templates: dict[str, Template]) -> None:
        body, _ = first(templates, kind)
        for name, value in properties.items():
            body["Properties"].pop(name, None)
            if value is not None:
                body["Properties"][name] = value

    return apply


def open_to_the_world(templates: dict[str, Template]) -> None:
    change("AWS::EC2::SecurityGroupIngress", CidrIp="0.0.0.0/0")(templates)


def forward_management(templates: dict[str, Template]) -> None:
    for template in templates.values():
        for body in template["Resources"].values():
            if body["Type"] == "AWS::ElasticLoadBalancingV2::ListenerRule":
                body["Properties"]["Priority"] = 100 - body["Properties"]["Priority"]


def share_a_role(templates: dict[str, Template]) -> None:
    functions = [
        body for body in templates["Functions"]["Resources"].values() if body["Type"] == "AWS::Lambda::Function"
    ]
    functions[1]["Properties"]["Role"] = functions[0]["Properties"]["Role"]


def allow(action: str) -> Break:
    def apply(templates: dict[str, Template]) -> None:
        body, _ = first(templates, "AWS::IAM::Policy")
        body["Metadata"] = {}
        body["Properties"]["PolicyDocument"]["Statement"].append({"Effect": "Allow", "Action": action, "Resource": "*"})

    return apply


def drop_the_null_check(templates: dict[str, Template]) -> None:
    for template in templates.values():
        for body in template["Resources"].values():
            for statement in body["Properties"].get("PolicyDocument", {}).get("Statement", ()):
                statement.get("Condition", {}).pop("Null", None)


def shorten_a_reason(templates: dict[str, Template]) -> None:
    for template in templates.values():
        for body in template["Resources"].values():
            for skip in body.get("Metadata", {}).get("checkov", {}).get("skip", ()):
                skip["comment"] = "because"


def write_a_secret(templates: dict[str, Template]) -> None:
    body, _ = first(templates, "AWS::ECS::TaskDefinition")
    body["Properties"]["ContainerDefinitions"][0]["Environment"].append({"Name": "API_TOKEN", "Value": "abc"})


def write_a_key(templates: dict[str, Template]) -> None:
    templates["Network"]["Description"] = "AKIA" + "ABCDEFGHIJKLMNOP"


def take_tls_away(templates: dict[str, Template]) -> None:
    _, template = first(templates, "AWS::SNS::TopicPolicy")
    for body in template["Resources"].values():
        if body["Type"] == "AWS::SNS::TopicPolicy":
            body["Properties"]["PolicyDocument"]["Statement"] = []


def add_a_custom_resource(templates: dict[str, Template]) -> None:
    templates["Network"]["Resources"]["Custom"] = {"Type": "Custom::Thing", "Properties": {}}


def add_many(templates: dict[str, Template]) -> None:
    for number in range(500):
        templates["Network"]["Resources"][f"Group{number}"] = {"Type": "AWS::EC2::SecurityGroup", "Properties": {}}


def let_addresses_reach_a_plain_listener(templates: dict[str, Template]) -> None:
    _, template = first(templates, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    ingress = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "CidrIp": "10.0.0.0/8"}]
    for body in list(template["Resources"].values()):
        if body["Type"] == "AWS::ElasticLoadBalancingV2::LoadBalancer":
            template["Resources"]["Reached"] = {
                "Type": "AWS::EC2::SecurityGroup",
                "Properties": {"SecurityGroupIngress": ingress},
            }
            body["Properties"]["SecurityGroups"] = [{"Fn::GetAtt": ["Reached", "GroupId"]}]


BROKEN: list[tuple[str, Break]] = [
    ("no ingress from the internet", open_to_the_world),
    ("balancers are internal", change("AWS::ElasticLoadBalancingV2::LoadBalancer", Scheme="internet-facing")),
    (
        "servers have no public address",
        change("AWS::ECS::Service", NetworkConfiguration={"AwsvpcConfiguration": {"AssignPublicIp": "ENABLED"}}),
    ),
    ("servers have no public address", change("AWS::EC2::Subnet", MapPublicIpOnLaunch=True)),
    ("every route is authorized", change("AWS::ApiGatewayV2::Route", AuthorizationType="NONE")),
    (
        "every route is authorized",
        change("AWS::ApiGatewayV2::Route", AuthorizationType="NONE", RouteKey="GET /console"),
    ),
    ("management is refused", forward_management),
    (
        "management is refused",
        change("AWS::ElasticLoadBalancingV2::Listener", DefaultActions=[{"Type": "forward", "TargetGroupArn": "x"}]),
    ),
    ("every function has its own role", share_a_role),
    (
        "every function has its own role",
        change("AWS::IAM::Role", ManagedPolicyArns=["arn:aws:iam::aws:policy/AdministratorAccess"]),
    ),
    ("wildcards have reasons", allow("s3:GetObject")),
    ("no service wide actions", allow("s3:*")),
    ("the registry is written by partition", allow("dynamodb:PutItem")),
    ("the registry is written by partition", drop_the_null_check),
    ("keys are used through services", allow("kms:Decrypt")),
    ("suppressions have reasons", shorten_a_reason),
    ("no secret is written", write_a_secret),
    ("no secret is written", write_a_key),
    ("every alarm calls someone", change("AWS::CloudWatch::Alarm", AlarmActions=None)),
    ("everything stored is encrypted", change("AWS::S3::Bucket", BucketEncryption=None)),
    ("everything stored is encrypted", change("AWS::SQS::Queue", KmsMasterKeyId=None)),
    ("everything stored is encrypted", change("AWS::DynamoDB::Table", SSESpecification=None)),
    ("everything stored is encrypted", change("AWS::KMS::Key", EnableKeyRotation=None)),
    ("only tls", take_tls_away),
    ("callers use tls", let_addresses_reach_a_plain_listener),
    ("buckets are private", change("AWS::S3::Bucket", PublicAccessBlockConfiguration=None)),
    ("buckets are private", change("AWS::S3::Bucket", VersioningConfiguration=None)),
    ("no custom resources", add_a_custom_resource),
    ("templates fit", add_many),
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(BROKEN)])
def test_the_audit_finds_what_breaks_a_rule(project: Made, rule: str, broken: Break) -> None:
    templates = copy.deepcopy({name: dict(template) for name, template in project.assembly.templates.items()})
    broken(templates)
    problems = audit(Assembly(templates, project.assembly.manifest))
    assert [problem for problem in problems if problem.startswith(f"{rule}: ")], problems


def test_the_audit_finds_a_look_up(project: Made) -> None:
    manifest = {**project.assembly.manifest, "missing": [{"key": "availability-zones"}]}
    assert "nothing is looked up: the value of availability-zones would be looked up in an account" in audit(
        Assembly(project.assembly.templates, manifest)
    )


def test_every_rule_is_seen_to_fail() -> None:
    names = {rule.__name__.replace("_", " ") for rule in RULES}
    assert names == {rule for rule, _ in BROKEN} | {"nothing is looked up"}


@pytest.mark.parametrize(
    ("tool", "told"),
    [(_cfn_lint, "E3002"), (_checkov, "CKV_AWS_24")],
    ids=["cfn-lint", "checkov"],
)
def test_a_tool_finds_a_planted_mistake(
    project: Made, tool: Callable[[Path], list[Any]], told: str, tmp_path: Path
) -> None:
    shutil.copy(project.folder / "manifest.json", tmp_path)
    planted = {
        "Resources": {
            "Open": {
                "Type": "AWS::EC2::SecurityGroup",
                "Properties": {
                    "GroupDescription": "ssh",
                    "SecurityGroupIngress": [
                        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0", "Description": "ssh"}
                    ],
                    "Colour": "red",
                },
            }
        }
    }
    (tmp_path / "Planted.template.json").write_text(json.dumps(planted), encoding="utf-8")
    assert [each for each in tool(tmp_path) if told in each.message]
