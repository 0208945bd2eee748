"""Parts of an internal load balancer whose listener serves some paths and refuses all others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from infra.contract import REFUSED_PATHS
from infra.stacks.network import NetworkStack
from infra.stacks.storage import StorageStack

VALUES_PER_RULE = 5
"""A listener rule holds at most five values."""


def internal_balancer(
    scope: Construct,
    *,
    name: str,
    label: str,
    idle_s: int,
    network: NetworkStack,
    storage: StorageStack,
    group: ec2.SecurityGroup,
) -> elb.CfnLoadBalancer:
    """Make a load balancer inside the VPC. `label` names it in the access log, and a connection may be silent for `idle_s`."""
    of = elb.CfnLoadBalancer
    attributes = {
        "access_logs.s3.enabled": "true",
        "access_logs.s3.bucket": storage.logs_bucket.bucket_name,
        "access_logs.s3.prefix": f"balancers/{label}",
        "deletion_protection.enabled": "false",
        "idle_timeout.timeout_seconds": str(idle_s),
        "routing.http.desync_mitigation_mode": "strictest",
        "routing.http.drop_invalid_header_fields.enabled": "false",
    }
    return of(
        scope,
        "LoadBalancer",
        name=name,
        type="application",
        scheme="internal",
        ip_address_type="ipv4",
        subnets=network.vpc.select_subnets(subnet_type=network.subnets.subnet_type).subnet_ids,
        security_groups=[group.security_group_id],
        load_balancer_attributes=[
            of.LoadBalancerAttributeProperty(key=key, value=value) for key, value in attributes.items()
        ],
    )


def target_group(
    scope: Construct,
    construct_id: str,
    *,
    network: NetworkStack,
    port: int,
    drain_s: int,
    health_path: str,
    health_port: int | None = None,
    protocol_version: str | None = None,
) -> elb.CfnTargetGroup:
    """Make a group of targets by their addresses. `health_port` None: the port of requests; `protocol_version` None: HTTP/1.1."""
    of = elb.CfnTargetGroup
    attributes = {
        "deregistration_delay.timeout_seconds": str(drain_s),
        "load_balancing.algorithm.type": "least_outstanding_requests",
        "stickiness.enabled": "false",
    }
    return of(
        scope,
        construct_id,
        target_type="ip",
        protocol="HTTP",
        protocol_version=protocol_version,
        port=port,
        vpc_id=network.vpc.vpc_id,
        health_check_enabled=True,
        health_check_protocol="HTTP",
        health_check_port=None if health_port is None else str(health_port),
        health_check_path=health_path,
        health_check_interval_seconds=5,
        health_check_timeout_seconds=3,
        healthy_threshold_count=2,
        unhealthy_threshold_count=3,
        matcher=of.MatcherProperty(http_code="200"),
        target_group_attributes=[
            of.TargetGroupAttributeProperty(key=key, value=value) for key, value in attributes.items()
        ],
    )


def refusal(why: str) -> elb.CfnListener.ActionProperty:
    """Return the default action of a listener: a 403 that says why."""
    of = elb.CfnListener
    return of.ActionProperty(
        type="fixed-response",
        fixed_response_config=of.FixedResponseConfigProperty(
            status_code="403", content_type="application/json", message_body=_refused(why)
        ),
    )


def add_rules(
    scope: Construct,
    listener: elb.CfnListener,
    *,
    why: str,
    served: Sequence[tuple[str, Sequence[str], elb.CfnTargetGroup]],
) -> list[elb.CfnListenerRule]:
    """Add rules that refuse `REFUSED_PATHS` for a reason, and then those of `served`, which are returned: an id, paths, and where they lead."""
    of = elb.CfnListenerRule
    refused = of.ActionProperty(
        type="fixed-response",
        fixed_response_config=of.FixedResponseConfigProperty(
            status_code="403", content_type="application/json", message_body=_refused(why)
        ),
    )
    chunks = [REFUSED_PATHS[at : at + VALUES_PER_RULE] for at in range(0, len(REFUSED_PATHS), VALUES_PER_RULE)]
    planned = [
        *((f"Refused{number}", paths, refused) for number, paths in enumerate(chunks, 1)),
        *(
            (construct_id, paths, of.ActionProperty(type="forward", target_group_arn=group.ref))
            for construct_id, paths, group in served
        ),
    ]
    rules = [
        of(
            scope,
            construct_id,
            listener_arn=listener.ref,
            priority=priority,
            conditions=[
                of.RuleConditionProperty(
                    field="path-pattern", path_pattern_config=of.PathPatternConfigProperty(values=list(paths))
                )
            ],
            actions=[action],
        )
        for priority, (construct_id, paths, action) in enumerate(planned, 1)
    ]
    return rules[len(chunks) :]


def _refused(why: str) -> str:
    return json.dumps({"error": why})
