"""The load balancer of Envoy: TLS for callers, and requests over HTTP and over gRPC to the same port of its tasks."""

from __future__ import annotations

import json

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from infra.contract import CALLER_PATHS, ENVOY_PORT, ENVOY_READY_PATH, REFUSED_PATHS, RPC_PATHS
from infra.setting_groups import Envoy
from infra.shards import ENVOY
from infra.stacks.network import NetworkStack
from infra.stacks.parts import Stage, explain
from infra.stacks.storage import StorageStack

IDLE_S = 600
"""How long a connection may be silent while a model computes. Longer than the longest stream pauses."""

TLS = "ELBSecurityPolicy-TLS13-1-2-2021-06"
VALUES_PER_RULE = 5
"""A listener rule holds at most five values."""

IN_CLEAR = (
    "TLS ends at the load balancer. Between it and Envoy, inside the VPC, security groups let nothing else connect; a "
    "certificate of each task would need a private CA."
)


class EnvoyBalancer(Construct):
    """The load balancer, its two target groups over the same tasks, and the rules `served` that lead there."""

    def __init__(
        self,
        scope: Construct,
        *,
        stage: Stage,
        settings: Envoy,
        network: NetworkStack,
        storage: StorageStack,
        group: ec2.SecurityGroup,
    ) -> None:
        super().__init__(scope, "Balancer")
        self._settings, self._network = settings, network
        self.load_balancer = self._load_balancer(stage, storage, group)
        self.http_targets = self._target_group("Http", "HTTP1")
        # Of this version it takes gRPC too, and its health check can be the same.
        self.rpc_targets = self._target_group("Rpc", "HTTP2")
        self.served = self._listen()

    @property
    def dimensions(self) -> dict[str, str]:
        """The dimensions of the balancer's metrics about all requests."""
        return {"LoadBalancer": self.load_balancer.attr_load_balancer_full_name}

    @property
    def http_dimensions(self) -> dict[str, str]:
        """The dimensions of the balancer's metrics about the tasks."""
        return {**self.dimensions, "TargetGroup": self.http_targets.attr_target_group_full_name}

    def _load_balancer(self, stage: Stage, storage: StorageStack, group: ec2.SecurityGroup) -> elb.CfnLoadBalancer:
        of = elb.CfnLoadBalancer
        attributes = {
            "access_logs.s3.enabled": "true",
            "access_logs.s3.bucket": storage.logs_bucket.bucket_name,
            "access_logs.s3.prefix": f"balancers/{ENVOY}",
            "deletion_protection.enabled": "false",
            "idle_timeout.timeout_seconds": str(IDLE_S),
            "routing.http.desync_mitigation_mode": "strictest",
            "routing.http.drop_invalid_header_fields.enabled": "false",
        }
        balancer = of(
            self,
            "LoadBalancer",
            name=stage.called(ENVOY),
            type="application",
            scheme="internal",
            ip_address_type="ipv4",
            subnets=self._network.vpc.select_subnets(subnet_type=self._network.subnets.subnet_type).subnet_ids,
            security_groups=[group.security_group_id],
            load_balancer_attributes=[
                of.LoadBalancerAttributeProperty(key=key, value=value) for key, value in attributes.items()
            ],
        )
        explain(
            balancer,
            checkov={
                "CKV_AWS_131": (
                    "An objective may declare a header with an underscore, which the balancer takes for invalid and would drop; "
                    "Envoy itself refuses what is no header, and removes what callers must not send."
                ),
                "CKV_AWS_150": "It comes and goes with the setting data_plane, and holds no data.",
            },
        )
        return balancer

    def _target_group(self, construct_id: str, version: str) -> elb.CfnTargetGroup:
        of = elb.CfnTargetGroup
        attributes = {
            "deregistration_delay.timeout_seconds": str(self._settings.drain_s),
            "load_balancing.algorithm.type": "least_outstanding_requests",
            "stickiness.enabled": "false",
        }
        group = of(
            self,
            construct_id,
            target_type="ip",
            protocol="HTTP",
            protocol_version=version,
            port=ENVOY_PORT,
            vpc_id=self._network.vpc.vpc_id,
            health_check_enabled=True,
            health_check_protocol="HTTP",
            health_check_path=ENVOY_READY_PATH,
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

    def _listen(self) -> list[elb.CfnListenerRule]:
        of = elb.CfnListener
        listener = of(
            self,
            "Listener",
            load_balancer_arn=self.load_balancer.ref,
            protocol="HTTPS",
            port=443,
            ssl_policy=TLS,
            certificates=[of.CertificateProperty(certificate_arn=self._settings.certificate_arn)],
            default_actions=[
                of.ActionProperty(
                    type="fixed-response",
                    fixed_response_config=of.FixedResponseConfigProperty(
                        status_code="403", content_type="application/json", message_body=_refusal()
                    ),
                )
            ],
        )
        rule = elb.CfnListenerRule
        refusal = rule.ActionProperty(
            type="fixed-response",
            fixed_response_config=rule.FixedResponseConfigProperty(
                status_code="403", content_type="application/json", message_body=_refusal()
            ),
        )
        chunks = [REFUSED_PATHS[at : at + VALUES_PER_RULE] for at in range(0, len(REFUSED_PATHS), VALUES_PER_RULE)]
        to_http = rule.ActionProperty(type="forward", target_group_arn=self.http_targets.ref)
        to_rpc = rule.ActionProperty(type="forward", target_group_arn=self.rpc_targets.ref)
        planned = [
            *((f"Refused{index + 1}", paths, refusal) for index, paths in enumerate(chunks)),
            ("ServedRpc", (RPC_PATHS,), to_rpc),
            ("ServedHttp", CALLER_PATHS, to_http),
        ]
        rules = [
            rule(
                self,
                construct_id,
                listener_arn=listener.ref,
                priority=priority,
                conditions=[
                    rule.RuleConditionProperty(
                        field="path-pattern", path_pattern_config=rule.PathPatternConfigProperty(values=list(paths))
                    )
                ],
                actions=[action],
            )
            for priority, (construct_id, paths, action) in enumerate(planned, 1)
        ]
        return rules[-2:]


def _refusal() -> str:
    return json.dumps({"error": "not for callers"})
