"""Scales a shard with its load: the time requests wait in Triton's queue per time they compute.

A `scale_to_zero` shard has no queue to measure while it has no server. Requests that find none wake it, and minutes without
a request put it to sleep.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from constructs import Construct

from infra.setting_groups import Scaling
from infra.shards import Shard
from infra.stacks.metrics import MINUTE, of_balancer, queue_time_ratio
from infra.stacks.parts import Stage
from infra.stacks.shard.balancer import Balancer
from infra.stacks.shard.servers import Servers

IDLE_QUEUE_SHARE = 0.1
"""A shard that keeps its queue below this share of the target has a server too many."""


def add_scaling(scope: Construct, *, stage: Stage, shard: Shard, servers: Servers, balancer: Balancer) -> None:
    """Scale a shard's service between its fewest and most servers."""
    settings = stage.settings.scaling
    service = servers.service
    target = scaling.ScalableTarget(
        scope,
        "Scaling",
        min_capacity=shard.min_replicas,
        max_capacity=shard.max_replicas,
        resource_id=cdk.Fn.join("/", ["service", stage.called(shard.label), service.attr_name]),
        scalable_dimension="ecs:service:DesiredCount",
        service_namespace=scaling.ServiceNamespace.ECS,
    )
    target.scale_to_track_metric(
        "Queue",
        custom_metric=queue_time_ratio(stage, shard.name),
        target_value=settings.queue_time_ratio_target,
        scale_out_cooldown=cdk.Duration.seconds(settings.scale_out_cooldown_s),
        scale_in_cooldown=cdk.Duration.seconds(settings.scale_in_cooldown_s),
        # An empty queue alone must not take the last server while requests still come.
        disable_scale_in=shard.scale_to_zero,
    )
    if shard.scale_to_zero:
        _ToZero(scope, stage, shard, target, balancer, settings).add()


class _ToZero:
    """The scaling steps that target tracking cannot take: from 0 to 1, from several to fewer, and to 0."""

    def __init__(
        self,
        scope: Construct,
        stage: Stage,
        shard: Shard,
        target: scaling.ScalableTarget,
        balancer: Balancer,
        settings: Scaling,
    ) -> None:
        self._scope, self._stage, self._shard = scope, stage, shard
        self._target, self._balancer, self._settings = target, balancer, settings

    def add(self) -> None:
        whole = self._balancer.whole_dimensions
        requests = of_balancer("RequestCount", whole, "Sum")
        # A request that finds no server is counted here and nowhere else.
        refused = of_balancer("HTTPCode_ELB_503_Count", whole, "Sum")
        healthy = of_balancer("HealthyHostCount", self._balancer.dimensions, "Maximum")
        self._step(
            "Wake",
            "Requests found no server: start one",
            refused,
            periods=1,
            missing=cloudwatch.TreatMissingData.NOT_BREACHING,
            adjustment=(scaling.AdjustmentType.CHANGE_IN_CAPACITY, 1),
            # No second one while the first still starts.
            cooldown_s=self._stage.settings.triton.start_timeout_s,
        )
        floor = IDLE_QUEUE_SHARE * self._settings.queue_time_ratio_target
        self._step(
            "Shrink",
            "The queue is empty and there are several servers: take one away",
            cloudwatch.MathExpression(
                expression=f"IF(queue < {floor:g} AND healthy > 1, 1, 0)",
                using_metrics={"queue": queue_time_ratio(self._stage, self._shard.name), "healthy": healthy},
                period=MINUTE,
                label="idle queue",
            ),
            periods=max(1, round(self._settings.scale_in_cooldown_s / 60)),
            missing=cloudwatch.TreatMissingData.NOT_BREACHING,
            adjustment=(scaling.AdjustmentType.CHANGE_IN_CAPACITY, -1),
        )
        self._step(
            "Sleep",
            "No requests: remove every server",
            cloudwatch.MathExpression(
                expression="IF(FILL(requests, 0) + FILL(refused, 0) > 0, 0, 1)",
                using_metrics={"requests": requests, "refused": refused},
                period=MINUTE,
                label="no requests",
            ),
            periods=self._settings.idle_min,
            # A balancer without requests reports nothing.
            missing=cloudwatch.TreatMissingData.BREACHING,
            adjustment=(scaling.AdjustmentType.EXACT_CAPACITY, 0),
        )

    def _step(
        self,
        construct_id: str,
        description: str,
        metric: cloudwatch.IMetric,
        *,
        periods: int,
        missing: cloudwatch.TreatMissingData,
        adjustment: tuple[scaling.AdjustmentType, int],
        cooldown_s: int = 60,
    ) -> None:
        kind, amount = adjustment
        step = scaling.StepScalingAction(
            self._scope,
            f"{construct_id}Step",
            scaling_target=self._target,
            adjustment_type=kind,
            cooldown=cdk.Duration.seconds(cooldown_s),
            metric_aggregation_type=scaling.MetricAggregationType.MAXIMUM,
        )
        step.add_adjustment(adjustment=amount, lower_bound=0)
        alarm = cloudwatch.Alarm(
            self._scope,
            f"{construct_id}Alarm",
            metric=metric,
            alarm_description=f"Scaling of shard {self._shard.name}, not for people. {description}",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=1,
            evaluation_periods=periods,
            datapoints_to_alarm=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.ApplicationScalingAction(step))
