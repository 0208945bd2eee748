"""Envoy's tasks on Fargate: each runs Envoy and a resolver for every core in one container, `tidegate envoy run`."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.contract import ENVOY_COMMAND, ENVOY_LIVE_PATH, ENVOY_PORT, ENVOY_STATE
from infra.images import image_tags
from infra.setting_groups import Envoy, JwtAuthorizer
from infra.settings import process_variables
from infra.shards import ENVOY
from infra.stacks.data_plane.balancer import IDLE_S, EnvoyBalancer
from infra.stacks.grants import ENVOY as GRANT
from infra.stacks.grants import statements
from infra.stacks.network import NetworkStack
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, depend_on_policy, explain, log_group
from infra.stacks.storage import StorageStack

USER = "10001"
STOP_S = 30
"""How long a task may take to end; its requests have ended before, while the load balancer waited for them."""

LOG = "/dev/stderr"
START_S = 60
IDLE_MARGIN_S = 30
ASKS_ITSELF = (
    "import urllib.request as r; r.urlopen("
    f"r.Request('http://127.0.0.1:{ENVOY_PORT}{ENVOY_LIVE_PATH}', headers={{'user-agent': 'health'}}), timeout=4)"
)


class EnvoyTasks(Construct):
    """The service."""

    def __init__(
        self,
        scope: Construct,
        *,
        stage: Stage,
        settings: Envoy,
        callers: JwtAuthorizer,
        network: NetworkStack,
        storage: StorageStack,
        cluster: ecs.CfnCluster,
        group: ec2.SecurityGroup,
        balancer: EnvoyBalancer,
    ) -> None:
        super().__init__(scope, "Tasks")
        self._stage, self._settings, self._callers, self._storage = stage, settings, callers, storage
        self.cluster_name = stage.called(ENVOY)
        self.logs = log_group(self, "Logs", stage, f"/tidegate/{stage.name}/{ENVOY}", storage.key)
        task_role, execution_role = self._task_role(), self._execution_role()
        self.task = ecs.FargateTaskDefinition(
            self,
            "Task",
            family=stage.called(ENVOY),
            cpu=settings.cpu_units,
            memory_limit_mib=settings.memory_mib,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64
                if stage.settings.architecture == "arm64"
                else ecs.CpuArchitecture.X86_64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
            task_role=task_role,
            execution_role=execution_role,
            volumes=[ecs.Volume(name="state")],
        )
        self._container()
        explain(
            self.task,
            nag={
                "AwsSolutions-ECS2": "The variables name a bucket, a table, a region and an issuer; none holds a secret."
            },
        )
        explain(
            execution_role.node.find_child("DefaultPolicy"),
            nag={"AwsSolutions-IAM5[Resource::*]": f"ecr:GetAuthorizationToken. {NO_RESOURCE_LEVEL}"},
        )
        self.service = self._service(network, cluster, group, balancer)
        # A task that starts before its roles have their policies fails, and the circuit breaker counts it.
        for role in (task_role, execution_role):
            depend_on_policy(self.task, role)

    def _task_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "TaskRole",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description="Resolvers read the live rules and the servers, and report what they serve",
        )
        for each in statements(GRANT, self._storage):
            role.add_to_policy(each)
        explain(role.node.find_child("DefaultPolicy"), nag=self._storage.prefix_reasons(GRANT.reads))
        return role

    def _execution_role(self) -> iam.Role:
        return iam.Role(
            self,
            "ExecutionRole",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description="Pulls the image, writes the logs",
        )

    def _variables(self) -> dict[str, str]:
        stage, callers, storage = self._stage, self._callers, self._storage
        return {
            **process_variables(stage.settings),
            "AWS_REGION": cdk.Aws.REGION,
            "TIDEGATE_BUCKET": storage.bucket.bucket_name,
            "TIDEGATE_REGISTRY_TABLE": storage.registry.table_name,
            "TIDEGATE_ENDPOINT_NETWORKS": stage.settings.vpc_cidr,
            # What the command has on standard output is its own.
            "TIDEGATE_ACCESS_LOG": LOG,
            # Envoy must not close a connection that the load balancer still considers open.
            "TIDEGATE_IDLE_TIMEOUT_S": str(IDLE_S + IDLE_MARGIN_S),
            "TIDEGATE_JWT_ISSUER": callers.issuer,
            "TIDEGATE_JWT_AUDIENCE": " ".join(callers.audience),
            "TIDEGATE_JWT_SCOPES": " ".join(callers.scopes),
            "TIDEGATE_JWKS_URI": self._settings.jwks_uri,
            "TIDEGATE_CALLER_CLAIM": callers.caller_claim,
        }

    def _container(self) -> None:
        # By its name: what reads a repository's attributes has to split them, which an output of another stack does not allow.
        repository = ecr.Repository.from_repository_name(self, "Images", self._stage.repository(ENVOY))
        container = self.task.add_container(
            ENVOY,
            image=ecs.ContainerImage.from_ecr_repository(repository, image_tags(self._stage.settings)[ENVOY]),
            command=list(ENVOY_COMMAND),
            essential=True,
            user=USER,
            readonly_root_filesystem=True,
            stop_timeout=cdk.Duration.seconds(STOP_S),
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-c", ASKS_ITSELF],
                interval=cdk.Duration.seconds(15),
                timeout=cdk.Duration.seconds(5),
                retries=3,
                start_period=cdk.Duration.seconds(START_S),
            ),
            environment=self._variables(),
            logging=ecs.LogDrivers.aws_logs(
                stream_prefix=ENVOY,
                log_group=self.logs,
                # A stalled log must not stall requests.
                mode=ecs.AwsLogDriverMode.NON_BLOCKING,
                max_buffer_size=cdk.Size.mebibytes(16),
            ),
        )
        container.add_port_mappings(ecs.PortMapping(container_port=ENVOY_PORT))
        container.add_mount_points(ecs.MountPoint(container_path=ENVOY_STATE, source_volume="state", read_only=False))

    def _service(
        self, network: NetworkStack, cluster: ecs.CfnCluster, group: ec2.SecurityGroup, balancer: EnvoyBalancer
    ) -> ecs.CfnService:
        of = ecs.CfnService
        service = of(
            self,
            "Service",
            cluster=cluster.ref,
            task_definition=self.task.task_definition_arn,
            launch_type="FARGATE",
            # Scaling decides how many there are, so there is no desired count here.
            deployment_configuration=of.DeploymentConfigurationProperty(
                minimum_healthy_percent=100,
                maximum_percent=200,
                deployment_circuit_breaker=of.DeploymentCircuitBreakerProperty(enable=True, rollback=True),
            ),
            availability_zone_rebalancing="ENABLED",
            health_check_grace_period_seconds=START_S,
            network_configuration=of.NetworkConfigurationProperty(
                awsvpc_configuration=of.AwsVpcConfigurationProperty(
                    assign_public_ip="DISABLED",
                    subnets=network.vpc.select_subnets(subnet_type=network.subnets.subnet_type).subnet_ids,
                    security_groups=[group.security_group_id],
                )
            ),
            load_balancers=[
                of.LoadBalancerProperty(container_name=ENVOY, container_port=ENVOY_PORT, target_group_arn=targets.ref)
                for targets in (balancer.http_targets, balancer.rpc_targets)
            ],
            enable_execute_command=False,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
        )
        for rule in balancer.served:
            service.add_resource_dependency(rule)
        return service
