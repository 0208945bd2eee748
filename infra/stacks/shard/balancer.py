"""The internal load balancer of a shard: inference goes through, Triton's management does not."""

from __future__ import annotations

import hashlib

from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.contract import AGENT_PORT, AGENT_READY_PATH, HTTP_PORT, SERVED_PATHS
from infra.shards import Shard
from infra.stacks.balancing import add_rules, internal_balancer, refusal, target_group
from infra.stacks.network import BALANCER_PORT, ZONE, NetworkStack
from infra.stacks.parts import Stage, explain
from infra.stacks.shard.pointer import Pointer
from infra.stacks.storage import StorageStack

MAX_NAME = 32
IDLE_S = 120
"""How long a connection may be silent."""

NOT_SERVED = "not for callers: Triton's management is not reachable through the balancer"

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
    """The balancer of one shard, its `target_group`, its name in the VPC, and where functions read the `pointer`, if they do."""

    def __init__(
        self, scope: Construct, *, stage: Stage, shard: Shard, network: NetworkStack, storage: StorageStack
    ) -> None:
        super().__init__(scope, "Balancer")
        self._stage, self._shard, self._network = stage, shard, network
        self.load_balancer = self._load_balancer(storage)
        self.target_group = self._target_group()
        self.listener = self._listener()
        self.pointer: Pointer | None = None
        if stage.settings.pointer_cache and shard.keeps_the_pointer:
            self.pointer = Pointer(self, stage=stage, shard=shard, network=network, load_balancer=self.load_balancer)
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
        balancer = internal_balancer(
            self,
            name=balancer_name(self._stage, self._shard.label),
            label=self._shard.label,
            idle_s=IDLE_S,
            network=self._network,
            storage=storage,
            group=self._network.balancer_group,
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
        group = target_group(
            self,
            "Servers",
            network=self._network,
            port=HTTP_PORT,
            drain_s=self._stage.settings.triton.drain_s,
            health_path=AGENT_READY_PATH,
            health_port=AGENT_PORT,
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
            default_actions=[refusal(NOT_SERVED)],
        )
        explain(listener, checkov={"CKV_AWS_2": IN_CLEAR, "CKV_AWS_103": IN_CLEAR})
        (self.served,) = add_rules(self, listener, why=NOT_SERVED, served=[("Served", SERVED_PATHS, self.target_group)])
        return listener
