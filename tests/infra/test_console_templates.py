"""What the templates say of the operators' console: who reaches it, what it reaches, and that it is not there by default."""

from __future__ import annotations

from typing import Any

import pytest

from infra.assembly import Assembly, Resource, text_of
from infra.upgrade.addresses import lost_addresses
from infra.upgrade.deployment import Deployment
from tests.infra.conftest import Made
from tests.infra.fleets import as_text, named, templates_of
from tests.infra.test_templates import allowed, ingress, routes

IAM = {"console": {"authorizer": {"kind": "iam"}}}
SHARDS = {"alpha": {"replicas": 1}}
PAGE = {"GET /console", "GET /console/{path+}"}
OF_THE_GATEWAY = {
    "GET /v1/objectives",
    "GET /v1/objectives/{objective}",
    "POST /v1/objectives/{objective}/resolve",
    "POST /v1/objectives/{objective}/infer",
}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A stage whose console only reads, for operators who sign their requests."""
    return templates_of(tmp_path_factory.mktemp("reading"), SHARDS, IAM)


def function(assembly: Assembly, stage: str = "test") -> Resource:
    return named(assembly, "AWS::Lambda::Function", FunctionName=f"tidegate-{stage}-console")


def test_there_is_no_console_unless_the_setting_says_so(project: Made) -> None:
    assembly = project.assembly
    assert [each.id for each in assembly.resources() if each.id.startswith("Console")] == []
    for each in assembly.resources("AWS::Lambda::Function"):
        assert "TIDEGATE_RULE_METRICS" not in each.properties["Environment"]["Variables"]
    assert not [
        each for each in assembly.resources("AWS::EC2::VPCEndpoint") if "monitoring" in as_text(each.properties)
    ]


def test_operators_have_an_address_of_their_own_and_callers_paths_are_as_before(
    project: Made, other: Made, reading: Assembly
) -> None:
    for assembly in (other.assembly, reading):
        assert routes(assembly).keys() == routes(project.assembly).keys()
        assert {each.properties["Name"] for each in assembly.resources("AWS::ApiGatewayV2::Api")} == {
            "tidegate-test-api",
            "tidegate-test-console",
        }
    assert routes(other.assembly, "ConsoleApi").keys() == PAGE | OF_THE_GATEWAY | {
        "GET /v1/{path+}",
        "POST /v1/drafts",
        "POST /v1/rollback",
    }
    assert "POST /v1/rollback" not in routes(reading, "ConsoleApi")


def test_all_but_the_page_asks_for_an_operator(other: Made, reading: Assembly) -> None:
    for assembly, kind in ((other.assembly, "JWT"), (reading, "AWS_IAM")):
        found = routes(assembly, "ConsoleApi")
        assert {key for key, route in found.items() if route["AuthorizationType"] != kind} == PAGE
        assert {found[key]["AuthorizationType"] for key in PAGE} == {"NONE"}
    (authorizer,) = [
        each.properties
        for each in other.assembly.resources("AWS::ApiGatewayV2::Authorizer")
        if each.id.startswith("Console")
    ]
    assert authorizer["JwtConfiguration"]["Audience"] == ["operators"]
    variables = function(other.assembly).properties["Environment"]["Variables"]
    assert variables["TIDEGATE_CALLER_CLAIM"] == "client_id"


def test_who_signs_needs_a_policy_that_is_not_the_callers(reading: Assembly) -> None:
    policies = {
        each.properties["ManagedPolicyName"]: each
        for each in reading.resources("AWS::IAM::ManagedPolicy")
        if each.template == "Edge"
    }
    assert policies.keys() == {"tidegate-test-callers", "tidegate-test-operators"}
    for name, api in (("tidegate-test-callers", "Api"), ("tidegate-test-operators", "ConsoleApi")):
        assert allowed(policies[name]) == {"execute-api:Invoke"}
        (statement,) = policies[name].properties["PolicyDocument"]["Statement"]
        assert f'{{"Ref": "{api}' in as_text(statement["Resource"])


def test_the_playground_asks_the_gateway_and_everything_else_the_console(reading: Assembly) -> None:
    integrations = {
        each.id: text_of(each.properties["IntegrationUri"])
        for each in reading.resources("AWS::ApiGatewayV2::Integration")
    }
    for key, route in routes(reading, "ConsoleApi").items():
        integration = route["Target"]["Fn::Join"][1][1]["Ref"]
        name = "Gateway" if key in OF_THE_GATEWAY else "Console"
        assert f"{name}Live" in integrations[integration], key


def test_a_console_that_only_reads_reaches_no_server_and_has_no_secret(other: Made, reading: Assembly) -> None:
    def groups(assembly: Assembly) -> str:
        return as_text(function(assembly).properties["VpcConfig"]["SecurityGroupIds"])

    def variables(assembly: Assembly) -> Any:
        return function(assembly).properties["Environment"]["Variables"]

    assert "Isolated" in groups(reading)
    assert ("Isolated", "Endpoints", 443) in ingress(reading)
    assert not [each for each in ingress(reading) if each[0] == "Isolated" and each[1] != "Endpoints"]
    assert not {"TIDEGATE_CONSOLE_WRITES", "TIDEGATE_MANAGEMENT_SECRET_ARN"} & variables(reading).keys()
    assert function(reading).properties["Timeout"] == 29
    assert "Control" in groups(other.assembly)
    assert variables(other.assembly)["TIDEGATE_CONSOLE_WRITES"] == "true"
    assert "TIDEGATE_MANAGEMENT_SECRET_ARN" in variables(other.assembly)
    assert function(other.assembly).properties["Timeout"] == 300, "a rollback ends after its HTTP request has timed out"


def test_the_gateway_emits_what_the_console_shows(reading: Assembly) -> None:
    gateway = named(reading, "AWS::Lambda::Function", FunctionName="tidegate-test-gateway").properties
    assert gateway["Environment"]["Variables"]["TIDEGATE_RULE_METRICS"] == "true"
    endpoints = [text_of(each.properties["ServiceName"]) for each in reading.resources("AWS::EC2::VPCEndpoint")]
    assert any(each.endswith(".monitoring") for each in endpoints)


def test_the_consoles_api_is_limited_and_logs_nothing_personal(reading: Assembly) -> None:
    callers, operators = sorted(
        (each.properties for each in reading.resources("AWS::ApiGatewayV2::Stage")),
        key=lambda each: str(each["ApiId"]["Ref"]),
    )
    assert operators["ApiId"]["Ref"].startswith("ConsoleApi")
    assert operators["DefaultRouteSettings"]["ThrottlingRateLimit"] == 20
    assert operators["AccessLogSettings"]["Format"] == callers["AccessLogSettings"]["Format"]


def test_the_consoles_address_is_none_of_callers(reading: Assembly, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A change that takes the callers' address away is refused also where the console has one."""
    domain = {
        "domain": {
            "name": "tidegate.example.com",
            "certificate_arn": "arn:aws:acm:eu-west-1:111122223333:certificate/1a2b",
        }
    }
    moved = templates_of(tmp_path_factory.mktemp("moved"), SHARDS, IAM | domain)
    before, after = Deployment(reading.templates, {}), Deployment(moved.templates, {})
    assert list(lost_addresses(before, after, ("Functions", "Edge")))
    assert not list(lost_addresses(before, before, ("Functions", "Edge")))
