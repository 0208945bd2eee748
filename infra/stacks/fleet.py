"""The fleet: one nested stack per shard of fleet.yaml, and one of Envoy, so that each comes and goes as a whole."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk as cdk
from constructs import Construct

from infra.shards import Shard
from infra.stacks.data_plane import DataPlaneStack
from infra.stacks.network import NetworkStack
from infra.stacks.parts import Stage
from infra.stacks.shard import ShardStack
from infra.stacks.storage import StorageStack


class FleetStack(cdk.Stack):
    """Every shard. No other stack refers to a shard's resources but by the shard's name, so that removing one cannot be
    blocked by who uses it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        shards: Iterable[Shard],
        network: NetworkStack,
        storage: StorageStack,
    ) -> None:
        super().__init__(
            scope, construct_id, stack_name=stage.called("fleet"), description="Tidegate: the shards of fleet.yaml"
        )
        self.shards = [
            ShardStack(self, f"Shard-{shard.label}", stage=stage, shard=shard, network=network, storage=storage)
            for shard in shards
        ]
        if stage.settings.data_plane == "envoy":
            envoy = DataPlaneStack(self, "Envoy", stage=stage, network=network, storage=storage)
            what = "Point the name of envoy.certificate_arn here, in a zone of the callers' networks"
            cdk.CfnOutput(self, "EnvoyTarget", value=envoy.address, description=what)
