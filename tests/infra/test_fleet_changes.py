"""A line more in fleet.yaml is a shard more, and nothing else changes; a line less takes exactly that shard away."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tidegate.bootstrap.functions import shard_directory

from infra.assembly import Assembly, text_of
from tests.infra.conftest import SHARDS
from tests.infra.fleets import templates_of

NEW = "z_new"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A shard of every kind."""
    return templates_of(tmp_path_factory.mktemp("before"), SHARDS)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """The same ones and a new one, in another order."""
    shuffled = {NEW: {"instance_type": "g6.xlarge"}, **dict(reversed(list(SHARDS.items())))}
    return templates_of(tmp_path_factory.mktemp("after"), shuffled)


def ids(assembly: Assembly, template: str) -> set[str]:
    return set(assembly.templates[template]["Resources"])


def new_template(before: Assembly, after: Assembly) -> str:
    (name,) = set(after.templates) - set(before.templates)
    return name


def test_one_template_more_holds_the_new_shard(before: Assembly, after: Assembly) -> None:
    name = new_template(before, after)
    kinds = {body["Type"] for body in after.templates[name]["Resources"].values()}
    assert {
        "AWS::ECS::Cluster",
        "AWS::ECS::Service",
        "AWS::ECS::TaskDefinition",
        "AWS::ECS::CapacityProvider",
        "AWS::AutoScaling::AutoScalingGroup",
        "AWS::EC2::LaunchTemplate",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::Route53::RecordSet",
        "AWS::CloudWatch::Alarm",
        "AWS::Logs::LogGroup",
    } <= kinds


def test_the_other_shards_stay_byte_for_byte(before: Assembly, after: Assembly) -> None:
    shards = [name for name in before.templates if name.startswith("FleetShard")]
    assert len(shards) == len(SHARDS)
    for name in shards:
        assert before.templates[name] == after.templates[name]


def test_no_other_stack_gains_or_loses_a_resource(before: Assembly, after: Assembly) -> None:
    added = {name: ids(after, name) - ids(before, name) for name in before.templates}
    gone = {name: ids(before, name) - ids(after, name) for name in before.templates}
    assert not any(gone.values())
    (nested,) = added.pop("Fleet")
    assert after.templates["Fleet"]["Resources"][nested]["Type"] == "AWS::CloudFormation::Stack"
    assert not any(added.values())


def test_only_what_names_every_shard_changes(before: Assembly, after: Assembly) -> None:
    changed = {
        (name, body["Type"])
        for name, template in before.templates.items()
        for logical_id, body in template["Resources"].items()
        if body != after.templates[name]["Resources"][logical_id]
    }
    assert changed == {("Observability", "AWS::CloudWatch::Dashboard")}


def test_the_gateway_finds_the_names_that_the_shards_have(after: Assembly) -> None:
    function = next(
        each
        for each in after.resources("AWS::Lambda::Function")
        if each.properties["FunctionName"] == "tidegate-test-gateway"
    )
    directory = shard_directory(function.properties["Environment"]["Variables"]["TIDEGATE_SHARD_ENDPOINTS"])
    found = [directory.endpoints(shard)[0] for shard in (NEW, *SHARDS)]
    records = {each.properties["Name"] for each in after.resources("AWS::Route53::RecordSet")}
    ports = {each.properties["Port"] for each in after.resources("AWS::ElasticLoadBalancingV2::Listener")}
    assert {f"{each.host}." for each in found} == records
    assert {each.port for each in found} == ports == {80}


def test_no_other_stack_refers_to_a_shards_resources(after: Assembly) -> None:
    assert not after.templates["Fleet"].get("Outputs"), "an export in use would keep a shard from being removed"
    for name, template in after.templates.items():
        if name != "Fleet":
            assert "tidegate-test-fleet:" not in json.dumps(template)


def test_a_fleet_of_many_shards_fits(tmp_path: Path) -> None:
    shards = {f"shard-{number:02}": {"spot_percent": number} for number in range(24)}
    made = templates_of(tmp_path, shards)
    nested = list(made.resources("AWS::CloudFormation::Stack"))
    assert len(nested) == 24
    assert max(len(template["Resources"]) for template in made.templates.values()) < 100
    names = [text_of(each.properties["Name"]) for each in made.resources("AWS::ElasticLoadBalancingV2::LoadBalancer")]
    assert len(set(names)) == 24
    assert all(re.fullmatch(r"tidegate-test-shard-\d\d", name) for name in names)
