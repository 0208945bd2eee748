"""Envoy as the data plane: its tasks, the load balancer in front of them, their scaling and their alarms."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from infra.setting_groups import JwtAuthorizer
from infra.shards import ENVOY
from infra.stacks.data_plane.alarms import add_alarms
from infra.stacks.data_plane.balancer import EnvoyBalancer
from infra.stacks.data_plane.connections import Connections
from infra.stacks.data_plane.scaling import add_scaling
from infra.stacks.data_plane.tasks import EnvoyTasks
from infra.stacks.network import NetworkStack
from infra.stacks.parts import Stage, explain
from infra.stacks.storage import StorageStack

__all__ = ["DataPlaneStack"]


class DataPlaneStack(cdk.NestedStack):
    """Envoy's own cluster and everything in it; `address` is the load balancer's own name. Other stacks know its alarms and metrics by
    names alone."""

    def __init__(
        self, scope: Construct, construct_id: str, *, stage: Stage, network: NetworkStack, storage: StorageStack
    ) -> None:
        super().__init__(scope, construct_id, description="Tidegate: Envoy and its resolvers")
        settings, callers = stage.settings.envoy, stage.settings.authorizer
        assert settings is not None and isinstance(callers, JwtAuthorizer), "see setting_conflicts"
        cluster = ecs.CfnCluster(
            self,
            "Cluster",
            cluster_name=stage.called(ENVOY),
            cluster_settings=[ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enabled")],
        )
        explain(
            cluster,
            checkov={"CKV_AWS_224": "No one may run commands in its containers, so there is no session to log."},
        )
        connections = Connections(self, settings=settings, network=network)
        balancer = EnvoyBalancer(
            self, stage=stage, settings=settings, network=network, storage=storage, group=connections.balancer_group
        )
        self.address = balancer.load_balancer.attr_dns_name
        tasks = EnvoyTasks(
            self,
            stage=stage,
            settings=settings,
            callers=callers,
            network=network,
            storage=storage,
            cluster=cluster,
            group=connections.tasks_group,
            balancer=balancer,
        )
        # Tasks that start before they reach what they need fail, and the circuit breaker counts that.
        for rule in connections.rules:
            tasks.service.add_resource_dependency(rule)
        add_scaling(self, settings=settings, tasks=tasks, balancer=balancer)
        add_alarms(self, stage=stage, tasks=tasks, balancer=balancer, topic=storage.topic)
