"""What each function may do with the stage's data: one table, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct
from tidegate.aws.layout import (
    ASSIGNMENTS,
    BUNDLES,
    CLAIMS,
    HISTORY,
    MANIFESTS,
    MODELS,
    PUSHES,
    RULES,
    SAMPLES,
    VERDICTS,
)

from infra.contract import LIVE
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, explain, statement
from infra.stacks.storage import StorageStack

READ_ITEMS = ("dynamodb:GetItem", "dynamodb:Query")
WRITE_ITEMS = ("dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem")
INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Prefixes of the bucket that a function reads, writes and deletes under, its actions on the registry, and whether it
    reads the management secret. Metrics need no grant: they are lines of the log."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    registry: tuple[str, ...] = ()
    management_secret: bool = False


GRANTS: Mapping[str, Grant] = {
    "gateway": Grant(reads=(BUNDLES, LIVE), registry=("dynamodb:PutItem",)),
    "resolve": Grant(reads=(BUNDLES, LIVE), registry=("dynamodb:PutItem",)),
    "validate_rules": Grant(reads=(RULES,), writes=(VERDICTS,), registry=(*READ_ITEMS, *WRITE_ITEMS)),
    "reconcile": Grant(
        reads=(ASSIGNMENTS, BUNDLES, CLAIMS, LIVE),
        writes=(CLAIMS,),
        deletes=(CLAIMS,),
        registry=("dynamodb:Query", "dynamodb:UpdateItem"),
        management_secret=True,
    ),
    "probe": Grant(registry=("dynamodb:Query",)),
    "rollback": Grant(
        reads=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE),
        writes=(CLAIMS, HISTORY, LIVE),
        deletes=(CLAIMS,),
        registry=(*READ_ITEMS, *WRITE_ITEMS),
        management_secret=True,
    ),
}
"""The grants by function. Powertools' idempotency keeps its records in the registry."""


PUBLISHERS = Grant(
    reads=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, PUSHES, RULES, SAMPLES, VERDICTS),
    writes=(ASSIGNMENTS, BUNDLES, CLAIMS, HISTORY, LIVE, MANIFESTS, MODELS, PUSHES, RULES, SAMPLES),
    deletes=(CLAIMS, MODELS, PUSHES, SAMPLES),
    registry=("dynamodb:Query", "dynamodb:UpdateItem"),
    management_secret=True,
)
"""What people and build jobs need that push models, publish rules and roll back."""


def add_grants(role: iam.Role, name: str, storage: StorageStack) -> None:
    """Give the role of function `name` what the table says."""
    for each in statements(GRANTS[name], storage):
        role.add_to_policy(each)


def statements(grant: Grant, storage: StorageStack) -> Iterator[iam.PolicyStatement]:
    """A grant in the words of IAM."""
    bucket = storage.bucket
    if grant.reads:
        yield statement(["s3:GetObject"], objects_under(bucket, grant.reads))
        yield list_statement(bucket, grant.reads)
    if grant.writes:
        yield statement(["s3:PutObject"], objects_under(bucket, grant.writes))
    if grant.deletes:
        yield statement(["s3:DeleteObject"], objects_under(bucket, grant.deletes))
    if grant.registry:
        yield statement(sorted(grant.registry), [storage.registry.table_arn])
    if grant.management_secret:
        yield statement(["secretsmanager:GetSecretValue"], [storage.management_secret.secret_arn])
    if storage.key is not None:
        # Beside objects and items, the queues that take a function's failures are encrypted.
        yield statement(["kms:Decrypt", "kms:GenerateDataKey"], [storage.key.key_arn])


def publishers_policy(scope: Construct, stage: Stage, storage: StorageStack) -> iam.ManagedPolicy:
    """The policy of whoever publishes; the table of facts is theirs to fill too."""
    fill = ("dynamodb:BatchWriteItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query")
    policy = iam.ManagedPolicy(
        scope,
        "Publishers",
        managed_policy_name=stage.called("publishers"),
        description="Attach it to whoever pushes models, publishes rules and rolls back",
        statements=[*statements(PUBLISHERS, storage), statement(list(fill), [storage.facts.table_arn])],
    )
    explain(policy, nag=storage.prefix_reasons(PUBLISHERS.reads))
    return policy


def list_statement(bucket: s3.IBucket, prefixes: tuple[str, ...]) -> iam.PolicyStatement:
    """Leave to list under prefixes.

    `IfExists`, because S3 asks for the same permission to answer 404 instead of 403 for an object that is not there, and
    that request has no prefix.
    """
    patterns = [pattern for prefix in prefixes for pattern in (prefix.rstrip("/"), f"{prefix}*")]
    return statement(["s3:ListBucket"], [bucket.bucket_arn], {"StringLikeIfExists": {"s3:prefix": patterns}})


def add_runtime(role: iam.Role, function_arn: str, log_group_arn: str) -> None:
    """Give a role what Lambda itself needs: its log, its network interfaces, its traces."""
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
    """Write down why wildcards stand in a function's policy."""
    grant = GRANTS[name]
    everything = f"Network interfaces (denied to the function's own code) and traces. {NO_RESOURCE_LEVEL}"
    reasons = storage.prefix_reasons((*grant.reads, *grant.writes, *grant.deletes))
    explain(
        role.node.find_child("DefaultPolicy"),
        nag=reasons | {"AwsSolutions-IAM5[Resource::*]": everything},
        checkov={"CKV_AWS_111": everything},
    )


def objects_under(bucket: s3.IBucket, prefixes: tuple[str, ...]) -> list[str]:
    """The ARNs of all objects under prefixes."""
    return [bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes]
