"""A port of a shard's balancer on which functions read the pointer that the shard's agents keep, and nothing else."""

from __future__ import annotations

from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.contract import AGENT_POINTER_PATH, AGENT_PORT, AGENT_READY_PATH
from infra.shards import Shard
from infra.stacks.balancing import add_rules, refusal, target_group
from infra.stacks.network import POINTER_HOST, POINTER_PORT, NetworkStack
from infra.stacks.parts import Stage, explain

NOT_SERVED = f"not here: this port has {AGENT_POINTER_PATH} alone"

IN_CLEAR = (
    "It is internal, and answers with the revision that is live, which is no secret: the bundle is read from S3, with credentials. A "
    "certificate for a name that only this VPC knows would need a private CA."
)


class Pointer(Construct):
    """The `target_group` of a shard's agents, behind a listener and a share of the name `POINTER_HOST`."""

    def __init__(
        self,
        scope: Construct,
        *,
        stage: Stage,
        shard: Shard,
        network: NetworkStack,
        load_balancer: elb.CfnLoadBalancer,
    ) -> None:
        super().__init__(scope, "Pointer")
        self.target_group = target_group(
            self,
            "Agents",
            network=network,
            port=AGENT_PORT,
            drain_s=stage.settings.triton.drain_s,
            # That of the servers' group: ECS replaces a task that is unhealthy in either.
            health_path=AGENT_READY_PATH,
        )
        explain(self.target_group, checkov={"CKV_AWS_378": IN_CLEAR})
        listener = elb.CfnListener(
            self,
            "Listener",
            load_balancer_arn=load_balancer.ref,
            protocol="HTTP",
            port=POINTER_PORT,
            default_actions=[refusal(NOT_SERVED)],
        )
        explain(listener, checkov={"CKV_AWS_2": IN_CLEAR, "CKV_AWS_103": IN_CLEAR})
        paths = (AGENT_POINTER_PATH,)
        (self.served,) = add_rules(self, listener, why=NOT_SERVED, served=[("Served", paths, self.target_group)])
        # A record of each shard under one name: none is in charge, and one that goes takes its record with it.
        route53.CfnRecordSet(
            self,
            "Record",
            hosted_zone_id=network.zone.hosted_zone_id,
            name=f"{POINTER_HOST}.",
            type="A",
            set_identifier=shard.label,
            weight=1,
            alias_target=route53.CfnRecordSet.AliasTargetProperty(
                dns_name=load_balancer.attr_dns_name,
                hosted_zone_id=load_balancer.attr_canonical_hosted_zone_id,
                evaluate_target_health=True,
            ),
        )
