"""The functions, each with a role of its own, and what calls them beside requests: events, queues, schedules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct
from tidegate.aws.layout import MANIFESTS, RULES
from tidegate.aws.provision import MAX_COPY_RECEIVES

from infra.contract import AGENT_POINTER_PATH, DCGM_PORT, HANDLER, LIVE
from infra.function_assets import Assets
from infra.setting_groups import JwtAuthorizer
from infra.settings import process_variables
from infra.stacks.events import COPIES_RETENTION, Events, make_queue
from infra.stacks.grants import add_grants, add_runtime, explain_role, publishers_policy
from infra.stacks.network import BALANCER_PORT, POINTER_HOST, POINTER_PORT, ZONE, NetworkStack
from infra.stacks.parts import Stage, explain, log_group, publish, statement
from infra.stacks.publishing import PublishJob
from infra.stacks.storage import StorageStack

ALIAS = "live"
SHADOW_QUEUE = "shadow"
HTTP_TIMEOUT_S = 29
"""An HTTP API gives up after 30 s."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One function. `group` is its security group; `asynchronous`: events invoke it."""

    name: str
    description: str
    asset: Path
    group: ec2.ISecurityGroup
    memory_mib: int
    timeout_s: int
    variables: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    provisioned_concurrency: int = 0
    snap_start: bool = False
    asynchronous: bool = False


def endpoints_variable() -> str:
    """Return TIDEGATE_SHARD_ENDPOINTS: the address of any shard's balancer by its label, so that adding a shard changes no
    function."""
    return json.dumps({"*": f"{{label}}.{ZONE}:{BALANCER_PORT}"})


class FunctionsStack(cdk.Stack):
    """Every function, by its short name in `functions`; `http` are the live aliases of those that answer HTTP."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        assets: Assets,
        network: NetworkStack,
        storage: StorageStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=stage.called("functions"),
            description="Tidegate: the functions, their queues and schedules, the job that publishes",
        )
        self.stage, self._network, self._storage = stage, network, storage
        specs = {spec.name: spec for spec in self._specs(assets)}
        self.functions = {name: self._function(spec) for name, spec in specs.items()}
        self.http: dict[str, lambda_.IFunction] = {
            name: self._live_alias(self.functions[name], specs[name].provisioned_concurrency)
            for name in ("gateway", "resolve", "console")
            if name in specs
        }
        self._wire()
        # What alarms and a Function URL call, whether the settings have them or not.
        for name in ("gateway", "rollback"):
            publish(self, self.functions[name].function_arn)
        job = PublishJob(self, stage=stage, network=network, storage=storage)
        publishers = publishers_policy(self, stage, storage, job.arn, job.logs)
        cdk.CfnOutput(
            self, "PublishersPolicyArn", value=publishers.managed_policy_arn, description="Attach it to who publishes"
        )
        cdk.CfnOutput(self, "PublishJobName", value=job.name, description="Start it to publish validated rules")

    def _specs(self, assets: Assets) -> list[Spec]:
        settings, storage, network = self.stage.settings, self._storage, self._network
        endpoints = {"TIDEGATE_SHARD_ENDPOINTS": endpoints_variable()}
        bucket = {"TIDEGATE_BUCKET": storage.bucket.bucket_name}
        registry = {"TIDEGATE_REGISTRY_TABLE": storage.registry.table_name}
        servers = registry | {"TIDEGATE_ENDPOINT_NETWORKS": settings.vpc_cidr}
        authorizer = settings.authorizer
        claim = {"TIDEGATE_CALLER_CLAIM": authorizer.caller_claim} if isinstance(authorizer, JwtAuthorizer) else {}
        secret = {"TIDEGATE_MANAGEMENT_SECRET_ARN": storage.management_secret.secret_arn}
        follows = bucket | registry | self._pointer_variable()
        edge = self._edge_variables()
        has_exporter = settings.triton.dcgm_exporter_tag is not None
        exporter = {"TIDEGATE_GPU_METRICS_PORT": str(DCGM_PORT)} if has_exporter else {}
        by_rule = {} if settings.console is None else {"TIDEGATE_RULE_METRICS": "true"}
        control = settings.control
        http = [
            Spec(
                name=name,
                description=description,
                asset=assets.gateway,
                group=group,
                memory_mib=own.memory_mib,
                timeout_s=own.timeout_s,
                variables=variables,
                reserved_concurrency=own.reserved_concurrency,
                provisioned_concurrency=own.provisioned_concurrency,
                snap_start=own.snap_start,
            )
            for name, description, own, group, variables in (
                (
                    "gateway",
                    "Decides, and calls the model",
                    settings.gateway,
                    network.gateway_group,
                    follows | endpoints | claim | edge | self._queue_variable() | self._sequence_variables() | by_rule,
                ),
                (
                    "resolve",
                    "Decides, and tells the decision",
                    settings.resolve,
                    network.isolated_group,
                    follows | endpoints | claim | edge,
                ),
            )
        ]
        events = [
            Spec(
                name=name,
                description=description,
                asset=assets.control,
                group=group,
                memory_mib=control.memory_mib,
                timeout_s=timeout_s,
                variables=variables,
                asynchronous=True,
            )
            for name, description, group, timeout_s, variables in (
                (
                    "validate_rules",
                    "Compiles, proves and tests pushed rules",
                    network.isolated_group,
                    control.validate_timeout_s,
                    bucket | registry,
                ),
                (
                    "reconcile",
                    "Has every server hold what it should",
                    network.control_group,
                    control.reconcile_timeout_s,
                    bucket | servers | secret,
                ),
                ("probe", "Measures the servers' queues", network.control_group, 50, servers | exporter),
                (
                    "rollback",
                    "Moves the pointer back, once",
                    # It asks every server whether it holds what becomes live, and loads what one lacks.
                    network.control_group,
                    control.rollback_timeout_s,
                    bucket | servers | secret,
                ),
            )
        ]
        shadow = [self._shadow_spec(assets, bucket | registry | endpoints)] if settings.shadows else []
        return http + events + shadow + self._console_specs(assets, bucket | servers, secret)

    def _console_specs(self, assets: Assets, variables: Mapping[str, str], secret: Mapping[str, str]) -> list[Spec]:
        settings, network = self.stage.settings, self._network
        console = settings.console
        if console is None:
            return []
        operators = console.authorizer
        claim = {"TIDEGATE_CALLER_CLAIM": operators.caller_claim} if isinstance(operators, JwtAuthorizer) else {}
        writes = {"TIDEGATE_CONSOLE_WRITES": "true", **secret} if console.writes else {}
        return [
            Spec(
                name="console",
                description="Shows operators what is live, and how it goes",
                asset=assets.control,
                # What only reads reaches no server, so that an attacker who takes it over does not either.
                group=network.control_group if console.writes else network.isolated_group,
                memory_mib=settings.control.memory_mib,
                # A rollback that loads models goes on after its HTTP request has timed out.
                timeout_s=settings.control.rollback_timeout_s if console.writes else HTTP_TIMEOUT_S,
                variables={**variables, **claim, **writes},
            )
        ]

    def _shadow_spec(self, assets: Assets, variables: Mapping[str, str]) -> Spec:
        control = self.stage.settings.control
        return Spec(
            name="shadow",
            description="Sends copies of requests to shadows, and compares the answers",
            asset=assets.gateway,
            # It reaches what the gateway reaches: the shards' balancers.
            group=self._network.gateway_group,
            memory_mib=control.memory_mib,
            timeout_s=control.shadow_timeout_s,
            variables=variables,
            asynchronous=True,
        )

    def _pointer_variable(self) -> dict[str, str]:
        """Return where the functions that decide poll the pointer; nothing: in S3."""
        if not self.stage.settings.pointer_cache:
            return {}
        return {"TIDEGATE_POINTER_CACHE_URL": f"http://{POINTER_HOST}:{POINTER_PORT}{AGENT_POINTER_PATH}"}

    def _queue_variable(self) -> dict[str, str]:
        """Return the variable of the gateway about the queue of copies, by its name: the queue is created after it."""
        if not self.stage.settings.shadows:
            return {}
        name = self.stage.called(SHADOW_QUEUE)
        return {"TIDEGATE_SHADOW_QUEUE_URL": f"https://sqs.{self.region}.{self.url_suffix}/{self.account}/{name}"}

    def _sequence_variables(self) -> dict[str, str]:
        """Return the variables of the gateway about the key of sequence ids: where it is, never the key."""
        version = self.stage.settings.sequence_key_version
        pinned = {} if version is None else {"TIDEGATE_SEQUENCE_KEY_VERSION": version}
        return {"TIDEGATE_SEQUENCE_KEY_ARN": self._storage.sequence_key.secret_arn} | pinned

    def _edge_variables(self) -> dict[str, str]:
        """Return the variables of the HTTP functions about CloudFront."""
        front = self.stage.settings.cloudfront
        if front is None:
            return {}
        names = ("TIDEGATE_EDGE_KEY", "TIDEGATE_EDGE_KEY_BEFORE")
        keys = dict(zip(names, map(self._storage.edge_key_value, front.key_versions), strict=False))
        return keys | {"TIDEGATE_EDGE_KEY_ENFORCED": "true" if front.enforced else "false"}

    def _function(self, spec: Spec) -> lambda_.Function:
        stage, key = self.stage, self._storage.key
        full_name = stage.called(spec.name.replace("_", "-"))
        construct_id = spec.name.title().replace("_", "")
        group = log_group(self, f"{construct_id}Logs", stage, f"/tidegate/{stage.name}/functions/{spec.name}", key)
        role = iam.Role(
            self,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"Function {full_name}",
        )
        arn = f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{full_name}"
        add_runtime(role, arn, group.log_group_arn)
        add_grants(role, spec.name, self._storage)
        if spec.name == "gateway" and stage.settings.shadows:
            # By its name: the queue is created after the function.
            queue_arn = f"arn:{self.partition}:sqs:{self.region}:{self.account}:{stage.called(SHADOW_QUEUE)}"
            role.add_to_policy(statement(["sqs:SendMessage"], [queue_arn]))
        function = lambda_.Function(
            self,
            construct_id,
            function_name=full_name,
            description=spec.description,
            runtime=lambda_.Runtime(
                f"python{stage.settings.python_version}", lambda_.RuntimeFamily.PYTHON, supports_snap_start=True
            ),
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if spec.snap_start else None,
            architecture=lambda_.Architecture.ARM_64
            if stage.settings.architecture == "arm64"
            else lambda_.Architecture.X86_64,
            handler=HANDLER.format(name=spec.name),
            code=lambda_.Code.from_asset(str(spec.asset)),
            role=role,
            memory_size=spec.memory_mib,
            timeout=cdk.Duration.seconds(spec.timeout_s),
            reserved_concurrent_executions=spec.reserved_concurrency,
            vpc=self._network.vpc,
            vpc_subnets=self._network.subnets,
            security_groups=[spec.group],
            tracing=lambda_.Tracing.ACTIVE,
            log_group=group,
            environment=self._powertools(spec.name) | process_variables(stage.settings) | dict(spec.variables),
            environment_encryption=key,
        )
        explain_role(role, self._storage, spec.name)
        self._explain(function, spec)
        return function

    def _powertools(self, name: str) -> dict[str, str]:
        return {
            "POWERTOOLS_SERVICE_NAME": name,
            "POWERTOOLS_METRICS_NAMESPACE": self.stage.settings.metrics_namespace,
            # Events, answers and the texts of errors may hold personal data.
            "POWERTOOLS_LOGGER_LOG_EVENT": "false",
            "POWERTOOLS_TRACER_CAPTURE_RESPONSE": "false",
            "POWERTOOLS_TRACER_CAPTURE_ERROR": "false",
        }

    def _explain(self, function: lambda_.Function, spec: Spec) -> None:
        reasons = {
            "CKV_AWS_272": "Code signing needs a signing profile of the organisation; the asset is built reproducibly instead.",
        }
        if spec.reserved_concurrency is None:
            reasons["CKV_AWS_115"] = (
                "A reservation takes from the account's pool: it is a setting of the HTTP functions, and "
                "the others run one at a time."
            )
        if not spec.asynchronous:
            reasons["CKV_AWS_116"] = "It is invoked synchronously: the caller has the answer, there is nothing to keep."
        else:
            reasons["CKV_AWS_116"] = "Its failures go to a dead-letter queue through its invocation's destination."
        if self._storage.key is None:
            secret = (
                "The key that CloudFront proves itself with is among the variables, and Lambda's own key encrypts it."
                if "TIDEGATE_EDGE_KEY" in spec.variables
                else "No variable holds a secret."
            )
            reasons["CKV_AWS_173"] = f"The operator chose encryption: service_managed. {secret}"
        runtime = "The assets hold modules compiled for this Python, the newest that Triton's Python stub and so the tests support."
        explain(
            function,
            nag={"AwsSolutions-L1": runtime},
            checkov=reasons,
            cfn_lint={"W3005": "CDK states the dependency on the role beside the one on its policy, which is needed."},
        )

    def _live_alias(self, function: lambda_.Function, provisioned: int) -> lambda_.IFunction:
        # Also without provisioned environments, so that callers reach the same alias before and after a change.
        alias = lambda_.Alias(
            function,
            "Live",
            alias_name=ALIAS,
            version=function.current_version,
            provisioned_concurrent_executions=provisioned or None,
        )
        publish(self, alias.function_arn)
        return alias

    def _wire(self) -> None:
        stage, storage, control = self.stage, self._storage, self.stage.settings.control
        functions = self.functions
        dead = make_queue(self, "Dead", stage.called("dead"), storage.key)
        self.dead_queues = {"dead": dead}
        # By their ARNs alone: as wholes they would grant more of the key than sending needs.
        failures = destinations.SqsDestination(sqs.Queue.from_queue_arn(self, "DeadByArn", dead.queue_arn))
        people = destinations.SnsDestination(sns.Topic.from_topic_arn(self, "TopicByArn", storage.topic.topic_arn))
        events = Events(self, stage=stage, undelivered=dead)
        for name, timeout_s, prefixes, what in (
            ("reconcile", control.reconcile_timeout_s, [MANIFESTS, LIVE], "A model was pushed, or the pointer moved"),
            ("validate_rules", control.validate_timeout_s, [RULES], "Rules were pushed"),
        ):
            hyphenated = name.replace("_", "-")
            title = name.title().replace("_", "")
            failed = make_queue(self, f"{title}Dead", stage.called(f"{hyphenated}-dead"), storage.key)
            self.dead_queues[f"{hyphenated}-dead"] = failed
            queue = make_queue(
                self,
                f"{title}Queue",
                stage.called(hyphenated),
                storage.key,
                visibility=cdk.Duration.seconds(timeout_s + 60),
                dead=failed,
            )
            events.object_created(f"{title}Events", what, storage.bucket.bucket_name, prefixes, queue)
            functions[name].add_event_source(
                sources.SqsEventSource(
                    # By its ARN alone, as above.
                    sqs.Queue.from_queue_arn(self, f"{title}QueueByArn", queue.queue_arn),
                    batch_size=10,
                    # A push is many objects: one run takes them together.
                    max_batching_window=cdk.Duration.seconds(5),
                    report_batch_item_failures=True,
                    max_concurrency=2,
                )
            )
        self._wire_shadows()
        events.every(
            "ReconcileSchedule", "Makes up for lost events", control.reconcile_every_min, functions["reconcile"]
        )
        events.every("ProbeSchedule", "Measures the shards' queues", control.probe_every_min, functions["probe"])
        for name in ("reconcile", "probe"):
            functions[name].configure_async_invoke(
                on_failure=failures,
                # The schedule comes again before a retry would.
                retry_attempts=0,
                max_event_age=cdk.Duration.minutes(1),
            )
        functions["validate_rules"].configure_async_invoke(on_failure=failures)
        functions["rollback"].configure_async_invoke(
            on_success=people,
            on_failure=failures,
            retry_attempts=2,
            max_event_age=cdk.Duration.minutes(10),
        )

    def _wire_shadows(self) -> None:
        stage, key, control = self.stage, self._storage.key, self.stage.settings.control
        failed = make_queue(self, "ShadowDead", stage.called("shadow-dead"), key, retention=COPIES_RETENTION)
        self.dead_queues["shadow-dead"] = failed
        queue = make_queue(
            self,
            "ShadowQueue",
            stage.called(SHADOW_QUEUE),
            key,
            visibility=cdk.Duration.seconds(control.shadow_timeout_s + 60),
            dead=failed,
            # No copy is sent again: the function knows those that it has sent. What it did not get through is counted as late.
            max_receives=MAX_COPY_RECEIVES,
            retention=COPIES_RETENTION,
        )
        if not stage.settings.shadows:
            # The queues are there all the same: a change of the setting must not delete what holds data.
            return
        self.functions["shadow"].add_event_source(
            sources.SqsEventSource(
                # By its ARN alone, as above.
                sqs.Queue.from_queue_arn(self, "ShadowQueueByArn", queue.queue_arn),
                batch_size=10,
                max_batching_window=cdk.Duration.seconds(1),
                report_batch_item_failures=True,
                max_concurrency=control.shadow_concurrency,
            )
        )
