"""The internal load balancer of a shard: inference goes through, Triton's management does not."""

from __future__ import annotations

import hashlib
import json

from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.contract import AGENT_PORT, AGENT_READY_PATH, HTTP_PORT, REFUSED_PATHS, SERVED_PATHS
from infra.shards import Shard
from infra.stacks.network import BALANCER_PORT, ZONE, NetworkStack
from infra.stacks.parts import Stage, explain
from infra.stacks.storage import StorageStack

MAX_NAME = 32
VALUES_PER_RULE = 5
"""A listener rule holds at most five values."""

IN_CLEAR = (
    "It is internal: only the gateway function's security group reaches it, inside the VPC. A certificate for a name that "
    "only this VPC knows would need a private CA."
)


def balancer_name(stage: Stage, label: str) -> str:
    """Return the balancer's name, cut to 32 characters."""
    name = stage.called(label)
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Balancer(Construct):
    """The balancer of one shard, its `target_group`, and its name in the VPC."""

    def __init__(
        self, scope: Construct, *, stage: Stage, shard: Shard, network: NetworkStack, storage: StorageStack
    ) -> None:
        super().__init__(scope, "Balancer")
        self._stage, self._shard, self._network = stage, shard, network
        self.load_balancer = self._load_balancer(storage)
        self.target_group = self._target_group()
        self.listener = self._listener()
        route53.CfnRecordSet(
            self,
            "Record",
            hosted_zone_id=network.zone.hosted_zone_id,
            name=f"{shard.label}.{ZONE}.",
            type="A",
            alias_target=route53.CfnRecordSet.AliasTargetProperty(
                dns_name=self.load_balancer.attr_dns_name,
                hosted_zone_id=self.load_balancer.attr_canonical_hosted_zone_id,
            ),
        )

    @property
    def dimensions(self) -> dict[str, str]:
        """The dimensions of the balancer's metrics about its servers."""
        return {**self.whole_dimensions, "TargetGroup": self.target_group.attr_target_group_full_name}

    @property
    def whole_dimensions(self) -> dict[str, str]:
        """The dimensions of the balancer's metrics about all requests, also those without a server."""
        return {"LoadBalancer": self.load_balancer.attr_load_balancer_full_name}

    def _load_balancer(self, storage: StorageStack) -> elb.CfnLoadBalancer:
        of = elb.CfnLoadBalancer
        attributes = {
            "access_logs.s3.enabled": "true",
            "access_logs.s3.bucket": storage.logs_bucket.bucket_name,
            "access_logs.s3.prefix": f"balancers/{self._shard.label}",
            "deletion_protection.enabled": "false",
            "idle_timeout.timeout_seconds": "120",
            "routing.http.desync_mitigation_mode": "strictest",
            "routing.http.drop_invalid_header_fields.enabled": "false",
        }
        balancer = of(
            self,
            "LoadBalancer",
            name=balancer_name(self._stage, self._shard.label),
            type="application",
            scheme="internal",
            ip_address_type="ipv4",
            subnets=self._network.vpc.select_subnets(subnet_type=self._network.subnets.subnet_type).subnet_ids,
            security_groups=[self._network.balancer_group.security_group_id],
            load_balancer_attributes=[
                of.LoadBalancerAttributeProperty(key=key, value=value) for key, value in attributes.items()
            ],
        )
        explain(
            balancer,
            checkov={
                "CKV_AWS_131": (
                    "Names of parameters may hold an underscore (Tidegate-Param-top_k), which the balancer takes for "
                    "invalid and would drop; the gateway builds every header itself."
                ),
                "CKV_AWS_150": "A shard is removed by deleting its line in fleet.yaml; the balancer holds no data.",
                "CKV2_AWS_20": IN_CLEAR,
            },
        )
        return balancer

    def _target_group(self) -> elb.CfnTargetGroup:
        of = elb.CfnTargetGroup
        attributes = {
            "deregistration_delay.timeout_seconds": str(self._stage.settings.triton.drain_s),
            "load_balancing.algorithm.type": "least_outstanding_requests",
            "stickiness.enabled": "false",
        }
        group = of(
            self,
            "Servers",
            target_type="ip",
            protocol="HTTP",
            port=HTTP_PORT,
            vpc_id=self._network.vpc.vpc_id,
            health_check_enabled=True,
            health_check_protocol="HTTP",
            health_check_port=str(AGENT_PORT),
            health_check_path=AGENT_READY_PATH,
            health_check_interval_seconds=5,
            health_check_timeout_seconds=3,
            healthy_threshold_count=2,
            unhealthy_threshold_count=3,
            matcher=of.MatcherProperty(http_code="200"),
            target_group_attributes=[
                of.TargetGroupAttributeProperty(key=key, value=value) for key, value in attributes.items()
            ],
        )
        explain(group, checkov={"CKV_AWS_378": IN_CLEAR})
        return group

    def _listener(self) -> elb.CfnListener:
        of = elb.CfnListener
        listener = of(
            self,
            "Listener",
            load_balancer_arn=self.load_balancer.ref,
            protocol="HTTP",
            port=BALANCER_PORT,
            default_actions=[
                of.ActionProperty(
                    type="fixed-response",
                    fixed_response_config=of.FixedResponseConfigProperty(
                        status_code="403", content_type="application/json", message_body=_refusal()
                    ),
                )
            ],
        )
        explain(listener, checkov={"CKV_AWS_2": IN_CLEAR, "CKV_AWS_103": IN_CLEAR})
        rule = elb.CfnListenerRule
        chunks = [REFUSED_PATHS[at : at + VALUES_PER_RULE] for at in range(0, len(REFUSED_PATHS), VALUES_PER_RULE)]
        for index, paths in enumerate(chunks):
            rule(
                self,
                f"Refused{index + 1}",
                listener_arn=listener.ref,
                priority=index + 1,
                conditions=[_paths(paths)],
                actions=[
                    rule.ActionProperty(
                        type="fixed-response",
                        fixed_response_config=rule.FixedResponseConfigProperty(
                            status_code="403", content_type="application/json", message_body=_refusal()
                        ),
                    )
                ],
            )
        self.served = rule(
            self,
            "Served",
            listener_arn=listener.ref,
            priority=len(chunks) + 1,
            conditions=[_paths(SERVED_PATHS)],
            actions=[rule.ActionProperty(type="forward", target_group_arn=self.target_group.ref)],
        )
        return listener


def _paths(values: tuple[str, ...]) -> elb.CfnListenerRule.RuleConditionProperty:
    of = elb.CfnListenerRule
    return of.RuleConditionProperty(
        field="path-pattern", path_pattern_config=of.PathPatternConfigProperty(values=list(values))
    )


def _refusal() -> str:
    return json.dumps({"error": "not for callers: Triton's management is not reachable through the balancer"})
