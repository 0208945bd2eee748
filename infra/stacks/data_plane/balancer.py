"""The load balancer of Envoy: TLS for callers, and requests over HTTP and over gRPC to the same port of its tasks."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from infra.contract import CALLER_PATHS, ENVOY_PORT, ENVOY_READY_PATH, RPC_PATHS
from infra.setting_groups import Envoy
from infra.shards import ENVOY
from infra.stacks.balancing import add_rules, internal_balancer, refusal, target_group
from infra.stacks.network import NetworkStack
from infra.stacks.parts import Stage, explain
from infra.stacks.storage import StorageStack

IDLE_S = 600
"""How long a connection may be silent while a model computes. Longer than the longest stream pauses."""

TLS = "ELBSecurityPolicy-TLS13-1-2-2021-06"
NOT_SERVED = "not for callers"

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
        balancer = internal_balancer(
            self,
            name=stage.called(ENVOY),
            label=ENVOY,
            idle_s=IDLE_S,
            network=self._network,
            storage=storage,
            group=group,
        )
        explain(
            balancer,
            checkov={
                "CKV_AWS_131": (
                    "An objective may declare a header with an underscore, which the balancer takes for invalid and would drop; "
                    "Envoy itself refuses what is not a header, and removes what callers must not send."
                ),
                "CKV_AWS_150": "It comes and goes with the setting data_plane, and holds no data.",
            },
        )
        return balancer

    def _target_group(self, construct_id: str, version: str) -> elb.CfnTargetGroup:
        group = target_group(
            self,
            construct_id,
            network=self._network,
            port=ENVOY_PORT,
            drain_s=self._settings.drain_s,
            health_path=ENVOY_READY_PATH,
            protocol_version=version,
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
            default_actions=[refusal(NOT_SERVED)],
        )
        served = (("ServedRpc", (RPC_PATHS,), self.rpc_targets), ("ServedHttp", CALLER_PATHS, self.http_targets))
        return add_rules(self, listener, why=NOT_SERVED, served=served)
