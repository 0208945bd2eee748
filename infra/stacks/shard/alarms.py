"""The alarms of a shard. They live and die with it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.contract import GPU_FAULTS
from infra.shards import Shard
from infra.stacks.parts import Stage
from infra.stacks.shard.balancer import Balancer
from infra.stacks.shard.instances import has_exporter
from infra.stacks.shard.scaling import BALANCER, MINUTE, probe_dimensions, queue_time_ratio


def add_alarms(scope: Construct, *, stage: Stage, shard: Shard, balancer: Balancer, topic: sns.ITopic) -> None:
    """Tell people of a shard without a healthy server, and of a queue that scaling did not bring down."""
    thresholds = stage.settings.alarms
    if shard.scale_to_zero:
        refused = cloudwatch.Metric(
            namespace=BALANCER,
            metric_name="HTTPCode_ELB_503_Count",
            dimensions_map={"LoadBalancer": balancer.dimensions["LoadBalancer"]},
            statistic="Sum",
            period=cdk.Duration.minutes(thresholds.cold_start_min),
        )
        unserved = refused.create_alarm(
            scope,
            "Unserved",
            alarm_name=stage.called(f"{shard.label}-unserved"),
            alarm_description=f"Shard {shard.name} has turned requests away for twice {thresholds.cold_start_min} minutes: "
            f"it does not wake, or sleeps too often. {_runbook('a-shard-is-down')}",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=0,
            evaluation_periods=2,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
    else:
        healthy = cloudwatch.Metric(
            namespace=BALANCER,
            metric_name="HealthyHostCount",
            dimensions_map=balancer.dimensions,
            statistic="Minimum",
            period=MINUTE,
        )
        unserved = healthy.create_alarm(
            scope,
            "Unserved",
            alarm_name=stage.called(f"{shard.label}-unserved"),
            alarm_description=f"Shard {shard.name} has no healthy server. {_runbook('a-shard-is-down')}",
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=thresholds.unhealthy_min,
            # No figure at all means no target at all.
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
    queue = queue_time_ratio(stage, shard.name).create_alarm(
        scope,
        "Queue",
        alarm_name=stage.called(f"{shard.label}-queue"),
        alarm_description=f"Requests wait in the queue of shard {shard.name} although it has scaled. "
        f"{_runbook('a-shard-cannot-keep-up')}",
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        threshold=thresholds.queue_time_ratio,
        evaluation_periods=max(5, -(-stage.settings.triton.start_timeout_s // 60)),
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    told = [unserved, queue]
    if has_exporter(stage, shard):
        faults = cloudwatch.Metric(
            namespace=stage.settings.metrics_namespace,
            metric_name=GPU_FAULTS,
            dimensions_map=probe_dimensions(shard.name),
            statistic="Maximum",
            period=MINUTE,
        )
        broken = faults.create_alarm(
            scope,
            "GpuFaults",
            alarm_name=stage.called(f"{shard.label}-gpu-faults"),
            alarm_description=f"A GPU of shard {shard.name} reports an error that no program makes. {_runbook('a-gpu-is-broken')}",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=0,
            evaluation_periods=2,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        told.append(broken)
    for alarm in told:
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))


def _runbook(heading: str) -> str:
    return f"Runbook: docs/operations.md#{heading}"
