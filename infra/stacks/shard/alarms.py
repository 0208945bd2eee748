"""The alarms of a shard. They live and die with it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct
from tidegate.metrics import Metric

from infra.shards import Shard
from infra.stacks.metrics import of_balancer, probed, queue_time_ratio
from infra.stacks.parts import Stage
from infra.stacks.shard.balancer import Balancer
from infra.stacks.shard.instances import has_exporter


def add_alarms(scope: Construct, *, stage: Stage, shard: Shard, balancer: Balancer, topic: sns.ITopic) -> None:
    """Add alarms for a shard without a healthy server, a queue that scaling did not shorten, and broken GPUs."""
    thresholds = stage.settings.alarms

    def add(
        construct_id: str,
        suffix: str,
        metric: cloudwatch.Metric,
        description: str,
        runbook: str,
        *,
        periods: int,
        threshold: float,
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        alarm = metric.create_alarm(
            scope,
            construct_id,
            alarm_name=stage.called(f"{shard.label}-{suffix}"),
            alarm_description=f"{description} Runbook: docs/operations.md#{runbook}",
            comparison_operator=comparison,
            threshold=threshold,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))

    if shard.scale_to_zero:
        wake = cdk.Duration.minutes(thresholds.cold_start_min)
        add(
            "Unserved",
            "unserved",
            of_balancer("HTTPCode_ELB_503_Count", balancer.whole_dimensions, "Sum", wake),
            f"Shard {shard.name} has turned requests away for twice {thresholds.cold_start_min} minutes: it does not wake, or "
            "sleeps too often.",
            "a-shard-is-down",
            threshold=0,
            periods=2,
        )
    else:
        add(
            "Unserved",
            "unserved",
            of_balancer("HealthyHostCount", balancer.dimensions, "Minimum"),
            f"Shard {shard.name} has no healthy server.",
            "a-shard-is-down",
            threshold=1,
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            periods=thresholds.unhealthy_min,
            # No figure at all means no target at all.
            missing=cloudwatch.TreatMissingData.BREACHING,
        )
    add(
        "Queue",
        "queue",
        queue_time_ratio(stage, shard.name),
        f"Requests wait in the queue of shard {shard.name} although it has scaled.",
        "a-shard-cannot-keep-up",
        threshold=thresholds.queue_time_ratio,
        periods=max(5, -(-stage.settings.triton.start_timeout_s // 60)),
    )
    if has_exporter(stage, shard):
        add(
            "GpuFaults",
            "gpu-faults",
            probed(stage, Metric.GPU_FAULTS, shard.name, "Maximum"),
            f"A GPU of shard {shard.name} reports an error that no program makes.",
            "a-gpu-is-broken",
            threshold=0,
            periods=2,
        )
