"""The Triton servers of a shard: one task per server, Triton and beside it the agent that loads its models."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secrets
from constructs import Construct
from tidegate.aws.layout import ASSIGNMENTS, CLAIMS, HISTORY, MANIFESTS, MODELS, SAMPLES
from tidegate.triton.repository import MANAGEMENT, RESTRICTED_APIS
from tidegate.triton.server import HTTP_THREADS, PARAMETER_HEADERS

from infra.contract import (
    AGENT_COMMAND,
    AGENT_PORT,
    DCGM_PORT,
    GRPC_PORT,
    HTTP_PORT,
    LIVE,
    METRICS_PORT,
    SECRET_VARIABLE,
)
from infra.images import image_tags
from infra.settings import process_variables
from infra.shards import AGENT_MIB, EXPORTER_MIB, Shard
from infra.stacks.grants import agent_items, items_statement, key_statement, list_statement, objects_under
from infra.stacks.network import NetworkStack
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, depend_on_policy, explain, log_group, statement
from infra.stacks.shard.balancer import Balancer
from infra.stacks.shard.instances import SURGE, Instances, has_exporter
from infra.stacks.storage import StorageStack

TASK_READS = (ASSIGNMENTS, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, SAMPLES)
TASK_LISTS = (CLAIMS, HISTORY, MANIFESTS, MODELS, SAMPLES)
"""The data that the tasks of a shard read: Triton the models, the agent what its shard must hold, its golden requests, and the files
of a model that Triton refuses. Where the pointer is lost, the history says what was live."""

HEALTH_CHECK = f"curl --silent --fail --max-time 4 http://127.0.0.1:{HTTP_PORT}/v2/health/live"


def triton_command(repository: str, *, has_gpus: bool, auto_complete_config: bool, exit_timeout_s: int) -> str:
    """Return the shell command that starts Triton over the model repository `repository` (an S3 address).

    The management secret comes from the variable TIDEGATE_MANAGEMENT_SECRET, so that no template and no task definition
    holds it.
    """
    restricted = f"{','.join(RESTRICTED_APIS)}:{MANAGEMENT}=${SECRET_VARIABLE}"
    arguments = [
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        f"'--http-header-forward-pattern={PARAMETER_HEADERS}'",
        f'"--http-restricted-api={restricted}"',
        f'"--grpc-restricted-protocol={restricted}"',
        f"--http-port={HTTP_PORT}",
        f"--http-thread-count={HTTP_THREADS}",
        f"--grpc-port={GRPC_PORT}",
        f"--metrics-port={METRICS_PORT}",
        "--allow-metrics=true",
        f"--allow-gpu-metrics={str(has_gpus).lower()}",
        # A server without a model is ready to be given some; whether it holds what it must is the agent's to say.
        "--strict-readiness=false",
        "--exit-on-error=true",
        f"--exit-timeout-secs={exit_timeout_s}",
        "--log-format=ISO8601",
    ]
    if not auto_complete_config:
        arguments.append("--disable-auto-complete-config")
    return " ".join(["exec tritonserver", *arguments])


def sessions_log(stage: Stage, shard: Shard) -> str:
    """Return the name of the log group of people's sessions in a shard's containers."""
    return f"/tidegate/{stage.name}/shards/{shard.label}/sessions"


class Servers(Construct):
    """The service of one shard."""

    def __init__(
        self,
        scope: Construct,
        *,
        stage: Stage,
        shard: Shard,
        network: NetworkStack,
        storage: StorageStack,
        cluster: ecs.CfnCluster,
        instances: Instances,
        balancer: Balancer,
    ) -> None:
        super().__init__(scope, "Servers")
        self._stage, self._shard, self._storage = stage, shard, storage
        self._logs = log_group(self, "Logs", stage, f"/tidegate/{stage.name}/shards/{shard.label}", storage.key)
        # By its ARN alone: as a whole it would write the shard's role into the key's policy, and so tie storage to the shard.
        self._secret = ecs.Secret.from_secrets_manager(
            secrets.Secret.from_secret_complete_arn(self, "Secret", storage.management_secret.secret_arn)
        )
        task_role, execution_role = self._task_role(), self._execution_role()
        self.task = ecs.Ec2TaskDefinition(
            self,
            "Task",
            family=stage.called(shard.label),
            network_mode=ecs.NetworkMode.AWS_VPC,
            task_role=task_role,
            execution_role=execution_role,
        )
        triton = self._triton()
        agent = self._agent()
        agent.add_container_dependencies(
            ecs.ContainerDependency(container=triton, condition=ecs.ContainerDependencyCondition.START)
        )
        if has_exporter(stage, shard):
            self._exporter()
        self._explain(task_role, execution_role)
        self.service = self._service(network, cluster, instances, balancer)
        # A task that starts before its roles have their policies fails, and the circuit breaker counts it.
        for role in (task_role, execution_role):
            depend_on_policy(self.task, role)

    def _execution_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "ExecutionRole",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description="Pulls the images, reads the management secret, writes the logs",
        )
        if self._storage.key is not None:
            role.add_to_policy(key_statement(self._storage, "kms:Decrypt", ("secretsmanager",)))
        return role

    def _task_role(self) -> iam.Role:
        storage = self._storage
        role = iam.Role(
            self,
            "TaskRole",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description="Triton reads models and facts, the agent reads its assignment and registers",
        )
        role.add_to_policy(statement(["s3:GetObject"], objects_under(storage.bucket, TASK_READS)))
        role.add_to_policy(list_statement(storage.bucket, TASK_LISTS))
        role.add_to_policy(statement(["dynamodb:BatchGetItem"], [storage.facts.table_arn]))
        for items in agent_items(self._shard.name):
            role.add_to_policy(items_statement(items, storage))
        if storage.key is not None:
            role.add_to_policy(key_statement(storage, "kms:Decrypt", ("dynamodb", "s3")))
        if self._stage.settings.triton.remote_commands:
            channels = [
                f"ssmmessages:{verb}{what}" for verb in ("Create", "Open") for what in ("ControlChannel", "DataChannel")
            ]
            role.add_to_policy(statement([*channels, "logs:DescribeLogGroups"], ["*"]))
            sessions = f"log-group:{sessions_log(self._stage, self._shard)}:*"
            arn = f"arn:{cdk.Aws.PARTITION}:logs:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:{sessions}"
            written = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
            role.add_to_policy(statement(written, [arn]))
        return role

    def _triton(self) -> ecs.ContainerDefinition:
        triton = self._stage.settings.triton
        variables = process_variables(self._stage.settings)
        memory = ecs.LinuxParameters(
            self, "TritonLinux", init_process_enabled=True, shared_memory_size=triton.shared_memory_mib
        )
        command = triton_command(
            f"s3://{self._storage.bucket.bucket_name}/{MODELS.rstrip('/')}",
            has_gpus=self._shard.gpus > 0,
            auto_complete_config=triton.auto_complete_config,
            exit_timeout_s=triton.drain_s - 1,
        )
        container = self.task.add_container(
            "triton",
            image=self._image("triton", image_tags(self._stage.settings)["triton"]),
            entry_point=["/bin/sh", "-c"],
            command=[command],
            essential=True,
            gpu_count=self._shard.gpus or None,
            memory_reservation_mib=triton.memory_reservation_mib,
            linux_parameters=memory,
            stop_timeout=cdk.Duration.seconds(triton.drain_s + 5),
            health_check=ecs.HealthCheck(
                command=["CMD-SHELL", HEALTH_CHECK],
                interval=cdk.Duration.seconds(10),
                timeout=cdk.Duration.seconds(5),
                retries=3,
                start_period=cdk.Duration.seconds(120),
            ),
            environment={
                "AWS_REGION": cdk.Aws.REGION,
                "AWS_DEFAULT_REGION": cdk.Aws.REGION,
                # Preprocessing steps look a member's history up themselves.
                "TIDEGATE_FACTS_TABLE": self._storage.facts.table_name,
                **{name: text for name, text in variables.items() if name == "TIDEGATE_FACTS_TIMEOUT_MS"},
            },
            secrets={SECRET_VARIABLE: self._secret},
            logging=self._log_driver("triton"),
        )
        container.add_port_mappings(
            *(ecs.PortMapping(container_port=port) for port in (HTTP_PORT, GRPC_PORT, METRICS_PORT))
        )
        return container

    def _agent(self) -> ecs.ContainerDefinition:
        storage = self._storage
        container = self.task.add_container(
            "agent",
            image=self._image("agent", image_tags(self._stage.settings)["agent"]),
            command=list(AGENT_COMMAND),
            essential=True,
            memory_reservation_mib=AGENT_MIB,
            readonly_root_filesystem=True,
            stop_timeout=cdk.Duration.seconds(self._stage.settings.triton.drain_s + 5),
            environment={
                **process_variables(self._stage.settings),
                "AWS_REGION": cdk.Aws.REGION,
                "TIDEGATE_BUCKET": storage.bucket.bucket_name,
                "TIDEGATE_REGISTRY_TABLE": storage.registry.table_name,
                "TIDEGATE_SHARD": self._shard.name,
                "TIDEGATE_ENDPOINT_NETWORKS": self._stage.settings.vpc_cidr,
            },
            secrets={SECRET_VARIABLE: self._secret},
            logging=self._log_driver("agent"),
        )
        container.add_port_mappings(ecs.PortMapping(container_port=AGENT_PORT))
        return container

    def _exporter(self) -> None:
        tag = self._stage.settings.triton.dcgm_exporter_tag
        assert tag is not None
        container = self.task.add_container(
            "dcgm",
            image=self._image("dcgm-exporter", tag),
            # A server serves on without its figures.
            essential=False,
            memory_reservation_mib=EXPORTER_MIB,
            environment={"NVIDIA_VISIBLE_DEVICES": "all", "DCGM_EXPORTER_LISTEN": f":{DCGM_PORT}"},
            logging=self._log_driver("dcgm"),
        )
        container.add_port_mappings(ecs.PortMapping(container_port=DCGM_PORT))

    def _image(self, name: str, tag: str) -> ecs.ContainerImage:
        # By its name: what reads a repository's attributes has to split them, which an output of another stack does not allow.
        repository = ecr.Repository.from_repository_name(
            self, f"{name.title().replace('-', '')}Images", self._stage.repository(name)
        )
        return ecs.ContainerImage.from_ecr_repository(repository, tag)

    def _log_driver(self, prefix: str) -> ecs.LogDriver:
        return ecs.LogDrivers.aws_logs(
            stream_prefix=prefix,
            log_group=self._logs,
            # A stalled log must not stall inference.
            mode=ecs.AwsLogDriverMode.NON_BLOCKING,
            max_buffer_size=cdk.Size.mebibytes(4),
        )

    def _explain(self, task_role: iam.Role, execution_role: iam.Role) -> None:
        explain(
            self.task,
            nag={
                "AwsSolutions-ECS2": "The variables name tables, a bucket and a region; the one secret comes by reference.",
            },
            checkov={
                "CKV_AWS_336": (
                    "The agent's root is read-only. Triton's is not: it copies models from S3 to its own disk, and backends "
                    "write caches there."
                ),
            },
        )
        reasons = self._storage.prefix_reasons(TASK_READS)
        if self._stage.settings.triton.remote_commands:
            name = sessions_log(self._stage, self._shard)
            group = f"arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:{name}:*"
            reasons |= {
                "AwsSolutions-IAM5[Resource::*]": f"Sessions of ECS Exec, by remote_commands. {NO_RESOURCE_LEVEL}",
                f"AwsSolutions-IAM5[Resource::{group}]": "The names of the streams are not known before there is a session.",
            }
        explain(task_role.node.find_child("DefaultPolicy"), nag=reasons)
        explain(
            execution_role.node.find_child("DefaultPolicy"),
            nag={"AwsSolutions-IAM5[Resource::*]": f"ecr:GetAuthorizationToken. {NO_RESOURCE_LEVEL}"},
        )

    def _service(
        self, network: NetworkStack, cluster: ecs.CfnCluster, instances: Instances, balancer: Balancer
    ) -> ecs.CfnService:
        of = ecs.CfnService
        balanced = [("triton", HTTP_PORT, balancer.target_group)]
        if balancer.pointer is not None:
            balanced.append(("agent", AGENT_PORT, balancer.pointer.target_group))
        subnets = network.vpc.select_subnets(subnet_type=network.subnets.subnet_type).subnet_ids
        service = of(
            self,
            "Service",
            cluster=cluster.ref,
            task_definition=self.task.task_definition_arn,
            # Scaling decides how many there are, so there is no desired count here.
            capacity_provider_strategy=[
                of.CapacityProviderStrategyItemProperty(capacity_provider=instances.provider.ref, weight=1)
            ],
            deployment_configuration=of.DeploymentConfigurationProperty(
                minimum_healthy_percent=100,
                maximum_percent=100 * SURGE,
                deployment_circuit_breaker=of.DeploymentCircuitBreakerProperty(enable=True, rollback=True),
            ),
            health_check_grace_period_seconds=self._stage.settings.triton.start_timeout_s,
            # Nothing but its GPUs keeps two servers apart.
            placement_constraints=None
            if self._shard.gpus
            else [of.PlacementConstraintProperty(type="distinctInstance")],
            placement_strategies=[
                of.PlacementStrategyProperty(type="spread", field="attribute:ecs.availability-zone"),
                of.PlacementStrategyProperty(type="binpack", field="MEMORY"),
            ],
            network_configuration=of.NetworkConfigurationProperty(
                awsvpc_configuration=of.AwsVpcConfigurationProperty(
                    assign_public_ip="DISABLED",
                    subnets=subnets,
                    security_groups=[network.servers_group.security_group_id],
                )
            ),
            load_balancers=[
                of.LoadBalancerProperty(container_name=container, container_port=port, target_group_arn=group.ref)
                for container, port, group in balanced
            ],
            enable_execute_command=self._stage.settings.triton.remote_commands,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
        )
        # Made last and deleted first: a provider in use cannot be taken from its cluster.
        service.add_resource_dependency(instances.association)
        service.add_resource_dependency(balancer.served)
        if balancer.pointer is not None:
            service.add_resource_dependency(balancer.pointer.served)
        return service
