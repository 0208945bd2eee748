"""The pointer at the shard agents: who polls it there, by which way, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tidegate.bootstrap.agent import POINTER_PATH
from tidegate.errors import RulesError

from infra.assembly import Assembly, Resource
from infra.costs import cost_lines
from infra.reading import read_settings, read_shards
from tests.docs.blocks import ROOT
from tests.infra.conftest import Made
from tests.infra.fleets import NO_VARIABLES, as_text, templates_of, write_rules, write_stage
from tests.infra.test_templates import container, ingress

VARIABLE = "TIDEGATE_POINTER_CACHE_URL"
KEEPERS = {"alpha", "cpu-only", "fast-pool-v2"}
"""The shards that always have a server, by the beginnings of their labels."""


def urls(assembly: Assembly) -> dict[str, str]:
    """The variable of each function that has it."""
    return {
        each.properties["FunctionName"]: each.properties["Environment"]["Variables"][VARIABLE]
        for each in assembly.resources("AWS::Lambda::Function")
        if VARIABLE in each.properties["Environment"]["Variables"]
    }


def of_kind(assembly: Assembly, kind: str, template: str) -> list[Resource]:
    return [each for each in assembly.resources(kind) if each.template == template]


def records(assembly: Assembly) -> list[Resource]:
    """The records of a name that several shards have."""
    return [each for each in assembly.resources("AWS::Route53::RecordSet") if "SetIdentifier" in each.properties]


def test_without_the_setting_functions_poll_s3(project: Made) -> None:
    assert urls(project.assembly) == {}
    assert records(project.assembly) == []
    ports = {each.properties["Port"] for each in project.assembly.resources("AWS::ElasticLoadBalancingV2::Listener")}
    assert ports == {80}
    for service in project.assembly.resources("AWS::ECS::Service"):
        assert [each["ContainerName"] for each in service.properties["LoadBalancers"]] == ["triton"]


def test_only_functions_that_follow_the_live_rules_poll_the_agents(other: Made) -> None:
    found = urls(other.assembly)
    assert set(found) == {"tidegate-test-gateway", "tidegate-test-resolve"}
    assert len(set(found.values())) == 1
    for task in other.assembly.resources("AWS::ECS::TaskDefinition"):
        assert VARIABLE not in as_text(task.properties), "neither agents nor Envoy's resolvers"


def test_the_address_is_one_path_on_a_port_of_every_shard_that_always_has_a_server(other: Made) -> None:
    (url,) = set(urls(other.assembly).values())
    parts = urlsplit(url)
    assert (parts.scheme, parts.path) == ("http", POINTER_PATH)
    found = records(other.assembly)
    labels = {each.properties["SetIdentifier"] for each in found}
    assert {next(name for name in KEEPERS if label.startswith(name)) for label in labels} == KEEPERS
    assert len(found) == len(KEEPERS), "not the shard that sleeps: polls would keep it awake"
    for record in found:
        assert (record.properties["Name"], record.properties["Weight"]) == (f"{parts.hostname}.", 1)
        assert record.properties["AliasTarget"]["EvaluateTargetHealth"] is True
        (balancer,) = of_kind(other.assembly, "AWS::ElasticLoadBalancingV2::LoadBalancer", record.template)
        assert record.properties["AliasTarget"]["DNSName"] == {"Fn::GetAtt": [balancer.id, "DNSName"]}
        (listener,) = [
            each
            for each in of_kind(other.assembly, "AWS::ElasticLoadBalancingV2::Listener", record.template)
            if each.properties["Port"] == parts.port
        ]
        assert listener.properties["LoadBalancerArn"] == {"Ref": balancer.id}
        assert listener.properties["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"] == "403"
        (served,) = forwarding(other.assembly, listener)
        assert served.properties["Conditions"][0]["PathPatternConfig"]["Values"] == [POINTER_PATH]
        agents = served.properties["Actions"][0]["TargetGroupArn"]["Ref"]
        check_targets(other.assembly, record.template, agents, served.id)


def forwarding(assembly: Assembly, listener: Resource) -> list[Resource]:
    """The rules of a listener that lead anywhere."""
    return [
        each
        for each in of_kind(assembly, "AWS::ElasticLoadBalancingV2::ListenerRule", listener.template)
        if each.properties["ListenerArn"] == {"Ref": listener.id} and each.properties["Actions"][0]["Type"] == "forward"
    ]


def check_targets(assembly: Assembly, template: str, group_id: str, rule_id: str) -> None:
    """The agents of the shard's own service are in the group, and healthy as its servers are."""
    groups = {
        each.id: each.properties for each in of_kind(assembly, "AWS::ElasticLoadBalancingV2::TargetGroup", template)
    }
    agent = container(assembly, "agent", template)
    port = agent["PortMappings"][0]["ContainerPort"]
    assert groups[group_id]["Port"] == port
    assert groups[group_id]["HealthCheckPath"] == "/ready"
    assert "HealthCheckPort" not in groups[group_id], "that of requests"
    (service,) = of_kind(assembly, "AWS::ECS::Service", template)
    (servers,) = set(groups) - {group_id}
    assert service.properties["LoadBalancers"] == [
        {"ContainerName": "triton", "ContainerPort": 8000, "TargetGroupArn": {"Ref": servers}},
        {"ContainerName": "agent", "ContainerPort": port, "TargetGroupArn": {"Ref": group_id}},
    ]
    assert rule_id in service.body["DependsOn"], "ECS refuses a group that no listener has"


def test_who_polls_reaches_the_port_of_the_pointer_and_not_for_that_the_models(other: Made) -> None:
    (url,) = set(urls(other.assembly).values())
    ways = {(source, port) for source, target, port in ingress(other.assembly) if target == "Balancers"}
    assert ways == {("Gateway", 80), ("Gateway", urlsplit(url).port), ("Isolated", urlsplit(url).port)}
    assert ("Balancers", "Servers", 8003) in ingress(other.assembly)


def test_a_shard_that_comes_or_sleeps_changes_no_function_and_no_other_shard(tmp_path: Path) -> None:
    def made(name: str, shards: dict[str, Any]) -> Assembly:
        (tmp_path / name).mkdir()
        return templates_of(tmp_path / name, shards, {"pointer_cache": True})

    def keepers(assembly: Assembly) -> set[str]:
        return {each.properties["SetIdentifier"] for each in records(assembly)}

    before = made("before", {"alpha": {}, "beta": {}})
    after = made("after", {"aa": {}, "alpha": {"scale_to_zero": True}, "beta": {}})
    assert (keepers(before), keepers(after)) == ({"alpha", "beta"}, {"aa", "beta"})
    assert before.templates["Functions"] == after.templates["Functions"]
    (beta,) = [name for name in before.templates if name.startswith("FleetShardbeta")]
    assert before.templates[beta] == after.templates[beta]


def test_a_fleet_that_may_sleep_as_a_whole_keeps_no_pointer(tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": {"scale_to_zero": True}, "b": {"scale_to_zero": True}})
    for wanted in (False, True):
        settings = read_settings("test", NO_VARIABLES, write_stage(tmp_path, "test", {"pointer_cache": wanted}))
        if not wanted:
            assert len(read_shards(rules, settings)) == 2
            continue
        with pytest.raises(RulesError, match=r"fleet.yaml:3:.* the setting pointer_cache needs an agent that always"):
            read_shards(rules, settings)


def test_polls_cost_the_balancers_and_not_s3(other: Made, project: Made, tmp_path: Path) -> None:
    def lines(assembly: Assembly, wanted: bool) -> dict[str, tuple[float, ...]]:
        settings = read_settings("test", NO_VARIABLES, write_stage(tmp_path, "test", {"pointer_cache": wanted}))
        shards = read_shards(ROOT / "routing_rules", settings)
        return {line.what: line.dollars for line in cost_lines(assembly, shards, settings)}

    direct, cached = lines(project.assembly, False), lines(other.assembly, True)
    polls = "gateways poll the pointer every 2 s"
    # 35 environments at the peak of 1 G requests a month: 46 million polls, of 0.5 KB each.
    assert round(direct[polls][-1], 2) == 18.40
    assert round(cached[f"{polls} at agents"][-1], 2) == round(46 * 0.5 * 0.008, 2)
    # Four servers' agents, each once a second.
    assert round(cached["agents read the pointer every second"][-1], 2) == round(4 * 2.628 * 0.4, 2)
    assert cached["agents read the pointer every second"][0] == 0, "nobody asks"
    assert polls not in cached
