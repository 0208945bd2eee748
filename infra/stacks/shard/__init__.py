"""One shard: its instances, its Triton servers, the balancer in front of them, its scaling and its alarms."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.shards import Shard
from infra.stacks.network import NetworkStack
from infra.stacks.parts import Stage, explain, log_group
from infra.stacks.shard.alarms import add_alarms
from infra.stacks.shard.balancer import Balancer
from infra.stacks.shard.instances import Instances
from infra.stacks.shard.scaling import add_scaling
from infra.stacks.shard.servers import Servers, sessions_log
from infra.stacks.storage import StorageStack

__all__ = ["ShardStack"]


class ShardStack(cdk.NestedStack):
    """A shard's own cluster and everything in it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        shard: Shard,
        network: NetworkStack,
        storage: StorageStack,
    ) -> None:
        super().__init__(scope, construct_id, description=f"Tidegate: shard {shard.name}")
        self.shard = shard
        cluster = ecs.CfnCluster(
            self,
            "Cluster",
            cluster_name=stage.called(shard.label),
            cluster_settings=[ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enabled")],
        )
        # There whether people may run commands or not: a group that goes takes the record of the sessions with it.
        sessions = log_group(self, "Sessions", stage, sessions_log(stage, shard), storage.key)
        reason = "No one may run commands in its containers, so there is no session to log."
        if stage.settings.triton.remote_commands:
            cluster.configuration = _logged_sessions(sessions, is_encrypted=storage.key is not None)
            reason = (
                "Sessions are logged, and go through TLS. To encrypt them with a key besides, every server would have to reach "
                "KMS and use the key by itself."
            )
        explain(cluster, checkov={"CKV_AWS_224": reason})
        instances = Instances(self, stage=stage, shard=shard, network=network, cluster=cluster)
        balancer = Balancer(self, stage=stage, shard=shard, network=network, storage=storage)
        servers = Servers(
            self,
            stage=stage,
            shard=shard,
            network=network,
            storage=storage,
            cluster=cluster,
            instances=instances,
            balancer=balancer,
        )
        add_scaling(self, stage=stage, shard=shard, servers=servers, balancer=balancer)
        add_alarms(self, stage=stage, shard=shard, balancer=balancer, topic=storage.topic)


def _logged_sessions(group: logs.LogGroup, *, is_encrypted: bool) -> ecs.CfnCluster.ClusterConfigurationProperty:
    """Log the sessions of people in a shard's containers."""
    of = ecs.CfnCluster
    return of.ClusterConfigurationProperty(
        execute_command_configuration=of.ExecuteCommandConfigurationProperty(
            logging="OVERRIDE",
            log_configuration=of.ExecuteCommandLogConfigurationProperty(
                cloud_watch_log_group_name=group.log_group_name,
                cloud_watch_encryption_enabled=is_encrypted,
            ),
        )
    )
