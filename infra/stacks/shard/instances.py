"""The instances of a shard: an Auto Scaling group that ECS sizes, and drains before it takes an instance away."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.shards import Shard
from infra.stacks.network import NetworkStack
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, depend_on_policy, explain, statement

SURGE = 2
"""Servers during a rolling replacement, per server before it: each new one is healthy before an old one drains."""

MAX_PAUSE_S = 3600
"""The longest pause that CloudFormation knows."""

USER_DATA = """#!/bin/bash
cat >> /etc/ecs/ecs.config <<'CONFIG'
ECS_CLUSTER={cluster}
ECS_ENABLE_GPU_SUPPORT={has_gpus}
ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
ECS_AWSVPC_BLOCK_IMDS=true
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
CONFIG
"""

EVERY_CONTAINER_SEES_GPUS = """
sed -i 's/^OPTIONS="/OPTIONS="--default-runtime nvidia /' /etc/sysconfig/docker && systemctl restart docker
"""
"""ECS gives a GPU to one container of a task; the exporter beside it sees them all by this
(https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-gpu.html)."""


def has_exporter(stage: Stage, shard: Shard) -> bool:
    """Return whether the DCGM exporter runs beside a shard's servers."""
    return shard.gpus > 0 and stage.settings.triton.dcgm_exporter_tag is not None


class Instances(Construct):
    """The instances of one shard, as the capacity provider `provider` of its cluster."""

    def __init__(
        self, scope: Construct, *, stage: Stage, shard: Shard, network: NetworkStack, cluster: ecs.CfnCluster
    ) -> None:
        super().__init__(scope, "Instances")
        role = self._role(cluster)
        template = self._template(stage, shard, network, cluster, role)
        group = self._group(stage, shard, network, template)
        # An instance joins its cluster by name and by its role's policy: both are there before it starts, and the cluster
        # goes only after the last instance, since CloudFormation cannot delete a cluster that has some.
        group.add_resource_dependency(cluster)
        depend_on_policy(group, role)
        self.provider = ecs.CfnCapacityProvider(
            self,
            "Provider",
            auto_scaling_group_provider=ecs.CfnCapacityProvider.AutoScalingGroupProviderProperty(
                auto_scaling_group_arn=group.ref,
                managed_scaling=ecs.CfnCapacityProvider.ManagedScalingProperty(
                    status="ENABLED", target_capacity=100, instance_warmup_period=300
                ),
                managed_draining="ENABLED",
                # Draining already moves servers before an instance goes; protected instances would also keep the group
                # from being deleted with its shard.
                managed_termination_protection="DISABLED",
            ),
        )
        self.strategy = ecs.CfnClusterCapacityProviderAssociations.CapacityProviderStrategyProperty(
            capacity_provider=self.provider.ref, weight=1
        )
        self.association = ecs.CfnClusterCapacityProviderAssociations(
            self,
            "Association",
            cluster=cluster.ref,
            capacity_providers=[self.provider.ref],
            default_capacity_provider_strategy=[self.strategy],
        )

    def _role(self, cluster: ecs.CfnCluster) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description="The ECS agent on the shard's instances",
        )
        own = {"ArnEquals": {"ecs:cluster": cluster.attr_arn}}
        stack = cdk.Stack.of(self)
        of_cluster = f"arn:{stack.partition}:ecs:{stack.region}:{stack.account}"
        name = cluster.cluster_name
        role.add_to_policy(
            statement(
                [
                    "ecs:DeregisterContainerInstance",
                    "ecs:RegisterContainerInstance",
                    "ecs:SubmitAttachmentStateChanges",
                    "ecs:SubmitContainerStateChange",
                    "ecs:SubmitTaskStateChange",
                ],
                [cluster.attr_arn],
            )
        )
        instances = f"{of_cluster}:container-instance/{name}/*"
        role.add_to_policy(
            statement(["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"], [instances], own)
        )
        role.add_to_policy(statement(["ecs:DiscoverPollEndpoint"], ["*"]))
        policy = role.node.find_child("DefaultPolicy")
        explain(
            policy,
            nag={
                "AwsSolutions-IAM5[Resource::*]": f"ecs:DiscoverPollEndpoint. {NO_RESOURCE_LEVEL}",
                f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:ecs:<AWS::Region>:<AWS::AccountId>:container-instance/{name}/*]": (
                    "The ids of the cluster's own instances are not known before they exist."
                ),
            },
        )
        return role

    def _template(
        self, stage: Stage, shard: Shard, network: NetworkStack, cluster: ecs.CfnCluster, role: iam.Role
    ) -> ec2.CfnLaunchTemplate:
        profile = iam.CfnInstanceProfile(self, "Profile", roles=[role.role_name])
        of = ec2.CfnLaunchTemplate
        names = [cdk.CfnTag(key="Name", value=stage.called(shard.label))]
        return of(
            self,
            "Template",
            launch_template_data=of.LaunchTemplateDataProperty(
                image_id=self._image_id(stage, shard),
                instance_type=shard.instance_type,
                iam_instance_profile=of.IamInstanceProfileProperty(arn=profile.attr_arn),
                security_group_ids=[network.instances_group.security_group_id],
                monitoring=of.MonitoringProperty(enabled=True),
                metadata_options=of.MetadataOptionsProperty(http_tokens="required", http_put_response_hop_limit=1),
                block_device_mappings=[
                    of.BlockDeviceMappingProperty(
                        device_name="/dev/xvda",
                        ebs=of.EbsProperty(
                            encrypted=True,
                            volume_type="gp3",
                            volume_size=stage.settings.triton.root_volume_gib,
                            throughput=stage.settings.triton.root_volume_mibps,
                            iops=stage.settings.triton.root_volume_iops,
                            delete_on_termination=True,
                        ),
                    )
                ],
                user_data=cdk.Fn.base64(
                    USER_DATA.format(cluster=cluster.cluster_name, has_gpus=str(bool(shard.gpus)).lower())
                    + (EVERY_CONTAINER_SEES_GPUS if has_exporter(stage, shard) else "")
                ),
                tag_specifications=[
                    of.TagSpecificationProperty(resource_type="instance", tags=names),
                    of.TagSpecificationProperty(resource_type="volume", tags=names),
                ],
            ),
        )

    def _image_id(self, stage: Stage, shard: Shard) -> str:
        ami = stage.settings.ami.gpu if shard.gpus else stage.settings.ami.cpu
        if ami is not None:
            return ami
        # Stands in where templates are only looked at: deploying it would replace every instance whenever AWS moves it.
        hardware = ecs.AmiHardwareType.GPU if shard.gpus else ecs.AmiHardwareType.STANDARD
        return ecs.EcsOptimizedImage.amazon_linux2023(hardware).get_image(self).image_id

    def _group(
        self, stage: Stage, shard: Shard, network: NetworkStack, template: ec2.CfnLaunchTemplate
    ) -> autoscaling.CfnAutoScalingGroup:
        of = autoscaling.CfnAutoScalingGroup
        group = of(
            self,
            "Group",
            min_size=str(shard.min_instances),
            # A replacement needs its instance before the old one goes.
            max_size=str(shard.max_instances * SURGE),
            vpc_zone_identifier=network.vpc.select_subnets(subnet_type=network.subnets.subnet_type).subnet_ids,
            mixed_instances_policy=of.MixedInstancesPolicyProperty(
                instances_distribution=of.InstancesDistributionProperty(
                    on_demand_base_capacity=0,
                    on_demand_percentage_above_base_capacity=100 - shard.spot_percent,
                    # In the order in which fleet.yaml names the types.
                    on_demand_allocation_strategy="prioritized",
                    spot_allocation_strategy="price-capacity-optimized",
                ),
                launch_template=of.LaunchTemplateProperty(
                    launch_template_specification=of.LaunchTemplateSpecificationProperty(
                        launch_template_id=template.ref, version=template.attr_latest_version_number
                    ),
                    overrides=[
                        of.LaunchTemplateOverridesProperty(instance_type=each)
                        for each in (shard.instance_type, *shard.alternative_types)
                    ],
                ),
            ),
            # Replaces a spot instance that AWS is about to take back before it does.
            capacity_rebalance=shard.spot_percent > 0,
            health_check_grace_period=300,
            metrics_collection=[of.MetricsCollectionProperty(granularity="1Minute")],
            tags=[
                of.TagPropertyProperty(key="Name", value=stage.called(shard.label), propagate_at_launch=True),
                # ECS tags the groups that it scales; stating it here keeps the template the truth.
                of.TagPropertyProperty(key="AmazonECSManaged", value="true", propagate_at_launch=True),
            ],
        )
        group.cfn_options.update_policy = cdk.CfnUpdatePolicy(
            auto_scaling_rolling_update=cdk.CfnAutoScalingRollingUpdate(
                max_batch_size=1,
                min_instances_in_service=shard.min_instances,
                pause_time=f"PT{min(stage.settings.triton.start_timeout_s, MAX_PAUSE_S)}S",
                suspend_processes=["AlarmNotification", "AZRebalance", "ScheduledActions"],
            )
        )
        explain(
            group,
            nag={
                "AwsSolutions-AS3": "ECS moves servers away from an instance that goes; the shard's alarms tell people.",
                "AwsSolutions-EC26": "The rule cannot follow the reference to the launch template, which encrypts the disk.",
            },
        )
        return group
