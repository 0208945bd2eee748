"""The app: settings and shards in, a cloud assembly out. It looks nothing up and needs no account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.account import PARTITIONS
from infra.function_assets import Assets
from infra.settings import Settings
from infra.shards import Shard
from infra.stacks.edge import EdgeStack
from infra.stacks.fleet import FleetStack
from infra.stacks.functions import FunctionsStack
from infra.stacks.network import NetworkStack
from infra.stacks.observability import ObservabilityStack
from infra.stacks.parts import Stage
from infra.stacks.storage import StorageStack

CONTEXT = {
    # A stack reads another's outputs while it is deployed, and exports nothing that would keep the other from changing.
    "@aws-cdk/core:defaultCrossStackReferences": "weak",
    "aws:cdk:disable-stack-trace": True,
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
    "@aws-cdk/core:checkSecretUsage": True,
    "@aws-cdk/core:validateAgainstDefaultRules": True,
    "@aws-cdk/core:target-partitions": list(PARTITIONS),
}


def synthesize(
    stage_name: str, settings: Settings, shards: Sequence[Shard], assets: Assets, out: Path, *, nag: bool = True
) -> Path:
    """Write the stage's cloud assembly to the folder `out`, and return it.

    `nag` has cdk-nag look at every construct, with the findings in `out/validation-report.json`.

    Raises:
        RuntimeError: cdk-nag has findings without a written reason.
        SettingsError: the fleet does not fit.
    """
    app = cdk.App(outdir=str(out), context=CONTEXT, analytics_reporting=False)
    stage = Stage(stage_name, settings)
    storage = StorageStack(app, "Storage", stage=stage)
    network = NetworkStack(app, "Network", stage=stage, storage=storage)
    FleetStack(app, "Fleet", stage=stage, shards=shards, network=network, storage=storage)
    functions = FunctionsStack(app, "Functions", stage=stage, assets=assets, network=network, storage=storage)
    edge = EdgeStack(app, "Edge", stage=stage, functions=functions, storage=storage)
    ObservabilityStack(
        app, "Observability", stage=stage, shards=shards, storage=storage, functions=functions, edge=edge
    )
    cdk.Tags.of(app).add("tidegate:stage", stage_name)
    for key, value in sorted(settings.tags.items()):
        cdk.Tags.of(app).add(key, value)
    if nag:
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, write_suppressions_to_cloud_formation=True))
    app.synth()
    return out
