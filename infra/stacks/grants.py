"""The rights of each function to the stage's data: all of them are in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct
from tidegate.aws.layout import (
    ASSIGNMENTS,
    BUNDLES,
    CLAIMS,
    ENDPOINTS,
    GATEWAYS,
    HISTORY,
    MANIFESTS,
    MODELS,
    ONCE,
    PUSHES,
    RULES,
    SAMPLES,
    SHADOW_COPIES,
    SHADOW_TALLIES,
    VERDICTS,
)

from infra.contract import LIVE
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, explain, statement
from infra.stacks.storage import StorageStack

LEADING_KEYS = "dynamodb:LeadingKeys"
INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)


@dataclass(frozen=True, slots=True)
class Items:
    """Actions on the items of some partitions of the registry, whose names may end with `*`; without any, on the whole
    table, which is what a scan needs."""

    actions: tuple[str, ...]
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of a role on the stage's data. Metrics need none: they are lines of the log.

    Attributes:
        reads: prefixes of the bucket.
        lists: prefixes of the bucket.
        writes: prefixes of the bucket.
        uploads: prefixes of the bucket with objects that are written in parts.
        deletes: prefixes of the bucket.
        versions: prefixes of the bucket with objects whose older versions it lists and reads.
        registry: what of the registry.
        management_secret: whether it reads the management secret.
        sequence_key: whether it reads the key of sequence ids.
        metrics: whether it reads metrics.
        sends: services that take the role's messages, encrypted with the stage's key.
        opens: further services that decrypt something for the role, beside those that the rest implies.
    """

    reads: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    registry: tuple[Items, ...] = ()
    management_secret: bool = False
    sequence_key: bool = False
    metrics: bool = False
    sends: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()

    def key_uses(self) -> dict[str, tuple[str, ...]]:
        """The services through which the role uses the stage's key, by action. SQS and SNS decrypt the data key that they
        keep for a while, S3 what was written in parts."""
        has_secret = self.management_secret or self.sequence_key
        read = {"s3": self.reads, "dynamodb": self.registry, "secretsmanager": has_secret}
        opens = {*self.opens, *self.sends, *(name for name, used in read.items() if used)}
        seals = {*self.sends, *(("s3",) if self.writes else ())}
        uses = {"kms:Decrypt": opens, "kms:GenerateDataKey": seals}
        return {action: tuple(sorted(services)) for action, services in uses.items() if services}


VARIABLES = ("lambda",)
"""Lambda decrypts the variables of a function for it."""

REPORTS = Items(("dynamodb:PutItem",), (GATEWAYS,))
LISTS_ENDPOINTS = Items(("dynamodb:Scan",))
LISTS_GATEWAYS = Items(("dynamodb:Query",), (GATEWAYS,))
MARKS_WEDGED = Items(("dynamodb:UpdateItem",), (f"{ENDPOINTS}*",))


def once(function: str) -> Items:
    """Return the rights on a function's records of what it has handled."""
    actions = ("dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem")
    return Items(actions, (f"{ONCE}{function}",))


def agent_items(shard: str) -> tuple[Items, ...]:
    """Return the rights of a shard's tasks on the registry: they write their own partition alone."""
    own = f"{ENDPOINTS}{shard}"
    writes = ("dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem")
    return Items(writes, (own,)), Items(("dynamodb:Query",), (own, GATEWAYS))


GRANTS: Mapping[str, Grant] = {
    "gateway": Grant(
        reads=(BUNDLES, LIVE),
        writes=(SHADOW_COPIES,),
        registry=(REPORTS,),
        sequence_key=True,
        sends=("sqs",),
        opens=VARIABLES,
    ),
    "resolve": Grant(reads=(BUNDLES, LIVE), registry=(REPORTS,), opens=VARIABLES),
    "shadow": Grant(
        reads=(SHADOW_COPIES,),
        writes=(SHADOW_TALLIES,),
        deletes=(SHADOW_COPIES,),
        registry=(once("shadow"),),
        opens=("sqs", *VARIABLES),
    ),
    "validate_rules": Grant(
        reads=(RULES,), writes=(VERDICTS,), registry=(once("validate_rules"),), sends=("sqs",), opens=VARIABLES
    ),
    "reconcile": Grant(
        reads=(ASSIGNMENTS, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS),
        lists=(CLAIMS, HISTORY, MANIFESTS),
        writes=(CLAIMS,),
        deletes=(CLAIMS,),
        registry=(LISTS_ENDPOINTS, LISTS_GATEWAYS, MARKS_WEDGED),
        management_secret=True,
        sends=("sqs",),
        opens=VARIABLES,
    ),
    "console": Grant(
        reads=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, SAMPLES, SHADOW_TALLIES),
        lists=(CLAIMS, HISTORY, MANIFESTS, MODELS, SAMPLES, SHADOW_TALLIES),
        writes=(CLAIMS, HISTORY, LIVE),
        deletes=(CLAIMS,),
        registry=(LISTS_ENDPOINTS, LISTS_GATEWAYS, MARKS_WEDGED),
        management_secret=True,
        metrics=True,
        opens=VARIABLES,
    ),
    "probe": Grant(registry=(LISTS_ENDPOINTS,), sends=("sqs",), opens=VARIABLES),
    "rollback": Grant(
        reads=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, SAMPLES),
        lists=(CLAIMS, HISTORY, MANIFESTS, SAMPLES),
        writes=(CLAIMS, HISTORY, LIVE),
        deletes=(CLAIMS,),
        registry=(LISTS_ENDPOINTS, LISTS_GATEWAYS, MARKS_WEDGED, once("rollback")),
        management_secret=True,
        sends=("sns", "sqs"),
        opens=VARIABLES,
    ),
}
"""The grants by function, each the most that a setting may give. Queues and topics that take its results, or start it, are encrypted."""


ENVOY = Grant(reads=(BUNDLES, LIVE), registry=(LISTS_ENDPOINTS, REPORTS))
"""The rights of Envoy's tasks: their resolvers follow the live rules and the servers, and report what they serve."""

PUBLISHERS = Grant(
    reads=(
        ASSIGNMENTS,
        BUNDLES,
        CLAIMS,
        HISTORY,
        LIVE,
        MANIFESTS,
        MODELS,
        PUSHES,
        RULES,
        SAMPLES,
        SHADOW_TALLIES,
        VERDICTS,
    ),
    lists=(CLAIMS, HISTORY, MANIFESTS, MODELS, SAMPLES, SHADOW_TALLIES),
    writes=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, PUSHES, RULES, SAMPLES),
    uploads=(MODELS,),
    deletes=(CLAIMS, MODELS, SAMPLES),
    versions=(LIVE,),
    registry=(LISTS_ENDPOINTS, LISTS_GATEWAYS, MARKS_WEDGED),
    management_secret=True,
)
"""The rights of people and build jobs that push models, publish rules, roll back, and recover the pointer."""

PUBLISH_JOB = Grant(
    reads=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, RULES, SAMPLES, VERDICTS),
    lists=(CLAIMS, HISTORY, MANIFESTS, MODELS, SAMPLES),
    writes=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS),
    deletes=(CLAIMS,),
    registry=(LISTS_ENDPOINTS, LISTS_GATEWAYS, MARKS_WEDGED),
    management_secret=True,
)
"""The rights of the job that publishes rules whose models were pushed before."""


def add_grants(role: iam.Role, name: str, storage: StorageStack) -> None:
    """Grant the role of function `name` the rights in the table."""
    for each in statements(grant_of(name, storage), storage):
        role.add_to_policy(each)


def grant_of(name: str, storage: StorageStack) -> Grant:
    """Return the grant of a function, without what it needs for shadows where the stage has none, or for a console that writes."""
    grant, settings = GRANTS[name], storage.stage.settings
    if name == "gateway" and not settings.shadows:
        return replace(grant, writes=(), sends=())
    if name == "console" and not (settings.console and settings.console.writes):
        registry = tuple(each for each in grant.registry if each is not MARKS_WEDGED)
        return replace(grant, writes=(), deletes=(), registry=registry, management_secret=False)
    return grant


def statements(grant: Grant, storage: StorageStack) -> Iterator[iam.PolicyStatement]:
    """Return a grant as IAM statements."""
    bucket = storage.bucket
    if grant.reads:
        yield statement(["s3:GetObject"], objects_under(bucket, grant.reads))
        yield list_statement(bucket, grant.lists)
    if grant.writes:
        yield statement(["s3:PutObject"], objects_under(bucket, grant.writes))
    if grant.uploads:
        yield statement(["s3:AbortMultipartUpload"], objects_under(bucket, grant.uploads))
    if grant.deletes:
        yield statement(["s3:DeleteObject"], objects_under(bucket, grant.deletes))
    if grant.versions:
        patterns = [f"{prefix}*" for prefix in grant.versions]
        yield statement(["s3:ListBucketVersions"], [bucket.bucket_arn], {"StringLike": {"s3:prefix": patterns}})
        yield statement(["s3:GetObjectVersion"], objects_under(bucket, grant.versions))
    for items in grant.registry:
        yield items_statement(items, storage)
    if grant.management_secret:
        yield statement(["secretsmanager:GetSecretValue"], [storage.management_secret.secret_arn])
    if grant.sequence_key:
        yield statement(["secretsmanager:GetSecretValue"], [storage.sequence_key.secret_arn])
    if grant.metrics:
        yield statement(["cloudwatch:GetMetricData", "cloudwatch:ListMetrics"], ["*"])
    if storage.key is not None:
        for action, services in grant.key_uses().items():
            yield key_statement(storage, action, services)


def items_statement(items: Items, storage: StorageStack) -> iam.PolicyStatement:
    """Return the permission for items of the registry.

    `ForAllValues` holds where a request names no key at all, so `Null` refuses those:
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
    """
    conditions = None
    if items.partitions:
        operator = "StringLike" if any("*" in each for each in items.partitions) else "StringEquals"
        conditions = {
            f"ForAllValues:{operator}": {LEADING_KEYS: list(items.partitions)},
            "Null": {LEADING_KEYS: "false"},
        }
    return statement(sorted(items.actions), [storage.registry.table_arn], conditions)


def key_statement(storage: StorageStack, action: str, services: Sequence[str]) -> iam.PolicyStatement:
    """Leave to use the stage's key, through services of its region alone: never to decrypt by oneself what one has got hold
    of in another way."""
    assert storage.key is not None
    via = [f"{service}.{storage.region}.amazonaws.com" for service in services]
    return statement([action], [storage.key.key_arn], {"StringEquals": {"kms:ViaService": via}})


def publishers_policy(
    scope: Construct, stage: Stage, storage: StorageStack, job_arn: str, job_logs: logs.ILogGroup
) -> iam.ManagedPolicy:
    """The policy of those who publish, by themselves or by the job, whose log they read; the table of facts is theirs to fill
    too."""
    policy = iam.ManagedPolicy(
        scope,
        "Publishers",
        managed_policy_name=stage.called("publishers"),
        description="Attach it to whoever pushes models, publishes rules and rolls back",
        statements=[
            *statements(PUBLISHERS, storage),
            statement(["dynamodb:BatchWriteItem"], [storage.facts.table_arn]),
            statement(["codebuild:BatchGetBuilds", "codebuild:StartBuild"], [job_arn]),
            statement(["logs:FilterLogEvents"], [job_logs.log_group_arn]),
        ],
    )
    explain(policy, nag=storage.prefix_reasons((*PUBLISHERS.reads, *PUBLISHERS.writes, *PUBLISHERS.deletes)))
    return policy


def list_statement(bucket: s3.IBucket, prefixes: tuple[str, ...]) -> iam.PolicyStatement:
    """Permission to list under prefixes, and to learn that an object is missing.

    S3 asks for the same permission to answer 404 instead of 403 for an object that is not there, and that request has no
    prefix: hence `IfExists`, and `Null` where nothing is listed.
    """
    patterns = [f"{prefix}*" for prefix in prefixes]
    condition = {"StringLikeIfExists": {"s3:prefix": patterns}} if patterns else {"Null": {"s3:prefix": "true"}}
    return statement(["s3:ListBucket"], [bucket.bucket_arn], condition)


def add_runtime(role: iam.Role, function_arn: str, log_group_arn: str) -> None:
    """Grant a role what Lambda needs: its log, network interfaces and traces."""
    role.add_to_policy(statement(["logs:CreateLogStream", "logs:PutLogEvents"], [log_group_arn]))
    role.add_to_policy(statement(list(INTERFACES), ["*"]))
    # Lambda makes the interfaces, the function's own code may not: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    role.add_to_policy(
        iam.PolicyStatement(
            effect=iam.Effect.DENY,
            actions=list(INTERFACES),
            resources=["*"],
            conditions={"ArnEquals": {"lambda:SourceFunctionArn": function_arn}},
        )
    )
    role.add_to_policy(statement(["xray:PutTelemetryRecords", "xray:PutTraceSegments"], ["*"]))


def explain_role(role: iam.Role, storage: StorageStack, name: str) -> None:
    """Record why a function's policy has wildcards."""
    grant = grant_of(name, storage)
    figures = ", and figures of CloudWatch" if grant.metrics else ""
    everything = f"Network interfaces (denied to the function's own code) and traces{figures}. {NO_RESOURCE_LEVEL}"
    reasons = storage.prefix_reasons((*grant.reads, *grant.writes, *grant.deletes))
    explain(
        role.node.find_child("DefaultPolicy"),
        nag=reasons | {"AwsSolutions-IAM5[Resource::*]": everything},
        checkov={"CKV_AWS_111": everything},
    )


def objects_under(bucket: s3.IBucket, prefixes: tuple[str, ...]) -> list[str]:
    """Return the ARNs of all objects under prefixes."""
    return [bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes]
