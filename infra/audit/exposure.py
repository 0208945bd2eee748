"""Rules about who can reach what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.assembly import Assembly, Resource, as_list
from infra.contract import PAGE_ROUTES, REFUSED_PATHS

EVERYWHERE = ("0.0.0.0/0", "::/0")


def no_ingress_from_the_internet(assembly: Assembly) -> Iterator[str]:
    """No security group lets every address in."""
    for resource in assembly.resources("AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress"):
        is_group = resource.type == "AWS::EC2::SecurityGroup"
        rules = as_list(resource.properties.get("SecurityGroupIngress")) if is_group else [resource.properties]
        for rule in rules:
            if rule.get("CidrIp") in EVERYWHERE or rule.get("CidrIpv6") in EVERYWHERE:
                yield str(resource)


def balancers_are_internal(assembly: Assembly) -> Iterator[str]:
    """No load balancer has a public address."""
    for resource in assembly.resources("AWS::ElasticLoadBalancingV2::LoadBalancer"):
        if resource.properties.get("Scheme") != "internal":
            yield str(resource)


def servers_have_no_public_address(assembly: Assembly) -> Iterator[str]:
    """Neither servers nor the instances under them have a public address."""
    for resource in assembly.resources("AWS::ECS::Service"):
        network = resource.properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        if network.get("AssignPublicIp") != "DISABLED":
            yield str(resource)
    for resource in assembly.resources("AWS::EC2::LaunchTemplate"):
        for interface in as_list(resource.properties["LaunchTemplateData"].get("NetworkInterfaces")):
            if interface.get("AssociatePublicIpAddress"):
                yield str(resource)
    for resource in assembly.resources("AWS::EC2::Subnet"):
        if resource.properties.get("MapPublicIpOnLaunch"):
            yield str(resource)


def every_route_is_authorized(assembly: Assembly) -> Iterator[str]:
    """Every route of an HTTP API has an authorizer, but for those of the console's page; every Function URL asks for IAM."""
    for resource in assembly.resources("AWS::ApiGatewayV2::Route"):
        kind = resource.properties.get("AuthorizationType", "NONE")
        is_consoles = resource.id.startswith("ConsoleApi")
        if kind == "NONE" and is_consoles and resource.properties["RouteKey"] in PAGE_ROUTES:
            continue
        if kind not in ("AWS_IAM", "JWT") or (kind == "JWT" and "AuthorizerId" not in resource.properties):
            yield str(resource)
    for resource in assembly.resources("AWS::Lambda::Url"):
        if resource.properties.get("AuthType") != "AWS_IAM":
            yield str(resource)


def management_is_refused(assembly: Assembly) -> Iterator[str]:
    """Every listener answers 403 on Triton's management paths before it forwards anything, and on what it does not know."""
    for listener in assembly.resources("AWS::ElasticLoadBalancingV2::Listener"):
        if not all(_refuses(action) for action in as_list(listener.properties.get("DefaultActions"))):
            yield f"{listener} forwards by default"
        rules = sorted(_rules_of(assembly, listener), key=lambda rule: int(rule.properties["Priority"]))
        refused: set[str] = set()
        for rule in rules:
            if not all(_refuses(action) for action in rule.properties["Actions"]):
                break
            refused.update(_paths(rule))
        for path in sorted(set(REFUSED_PATHS) - refused):
            yield f"{listener} does not refuse {path}"


def _rules_of(assembly: Assembly, listener: Resource) -> Iterator[Resource]:
    for rule in assembly.resources("AWS::ElasticLoadBalancingV2::ListenerRule"):
        if rule.template == listener.template and rule.properties.get("ListenerArn") == {"Ref": listener.id}:
            yield rule


def _refuses(action: Mapping[str, Any]) -> bool:
    answer = action.get("FixedResponseConfig", {})
    return action.get("Type") == "fixed-response" and answer.get("StatusCode") == "403"


def _paths(rule: Resource) -> Iterator[str]:
    for condition in rule.properties["Conditions"]:
        yield from condition.get("PathPatternConfig", {}).get("Values", ())
