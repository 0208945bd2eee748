"""Scales Envoy's tasks with their CPU use and with the requests of each."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from constructs import Construct

from infra.setting_groups import Envoy
from infra.stacks.data_plane.balancer import EnvoyBalancer
from infra.stacks.data_plane.tasks import EnvoyTasks

MINUTE_S = 60
SCALE_OUT_COOLDOWN = cdk.Duration.seconds(60)
SCALE_IN_COOLDOWN = cdk.Duration.seconds(300)


def add_scaling(scope: Construct, *, settings: Envoy, tasks: EnvoyTasks, balancer: EnvoyBalancer) -> None:
    """Scale the service between its fewest and most tasks, by whichever target needs more."""
    target = scaling.ScalableTarget(
        scope,
        "Scaling",
        min_capacity=settings.min_tasks,
        max_capacity=settings.max_tasks,
        resource_id=cdk.Fn.join("/", ["service", tasks.cluster_name, tasks.service.attr_name]),
        scalable_dimension="ecs:service:DesiredCount",
        service_namespace=scaling.ServiceNamespace.ECS,
    )
    target.scale_to_track_metric(
        "Cpu",
        predefined_metric=scaling.PredefinedMetric.ECS_SERVICE_AVERAGE_CPU_UTILIZATION,
        target_value=settings.cpu_target_percent,
        scale_out_cooldown=SCALE_OUT_COOLDOWN,
        scale_in_cooldown=SCALE_IN_COOLDOWN,
    )
    target.scale_to_track_metric(
        "Requests",
        predefined_metric=scaling.PredefinedMetric.ALB_REQUEST_COUNT_PER_TARGET,
        resource_label=cdk.Fn.join(
            "/",
            [
                balancer.load_balancer.attr_load_balancer_full_name,
                balancer.http_targets.attr_target_group_full_name,
            ],
        ),
        # The metric counts a minute's requests.
        target_value=settings.requests_per_s_target * MINUTE_S,
        scale_out_cooldown=SCALE_OUT_COOLDOWN,
        scale_in_cooldown=SCALE_IN_COOLDOWN,
    )
