"""Takes down a stage. CloudFormation follows the policies that are deployed, whatever the settings say by now, so a stage whose
settings say otherwise is refused.

It deletes no bucket that holds something.

Balancers and S3 write access logs minutes after what they log, so a bucket that was emptied fills again. The buckets are
closed to every writer and emptied only after everything that writes is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.settings import Settings
from infra.upgrade.schemas import stateful_types

BUCKETS = ("BucketName", "LogsBucketName")
"""Outputs of the storage stack."""


def undeployed_settings(
    settings: Settings, storage: Mapping[str, Any], names: Mapping[str, str], cloudformation: Any
) -> Iterator[str]:
    """Return, in words, how the deployed stage differs from the settings that decide what is lost when it is destroyed.

    Args:
        settings: the stage's settings.
        storage: the template of the storage stack that is deployed; empty where there is none.
        names: the stacks' names by path.
        cloudformation: a boto3 client.
    """
    for path, name in names.items():
        if not settings.termination_protection and _is_protected(name, cloudformation):
            yield f"{path} is deployed with termination protection, and the setting termination_protection is false"
    for logical_id, body in storage.get("Resources", {}).items():
        if body["Type"] not in stateful_types():
            continue
        is_kept = body.get("DeletionPolicy", "Delete") != "Delete"
        if is_kept != settings.retain_data:
            now, said = ("kept", "false") if is_kept else ("DELETED", "true")
            yield f"Storage/{logical_id} ({body['Type']}) as it is deployed would be {now}, and the setting retain_data is {said}"


def _is_protected(name: str, cloudformation: Any) -> bool:
    from botocore.exceptions import ClientError

    try:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return False
        raise
    return bool(stack.get("EnableTerminationProtection", False))


def empty_buckets(stage: str, session: Any) -> dict[str, int]:
    """Close the stage's buckets, delete all versions of their objects, and return the counts by bucket. A stage that is not
    deployed has none."""
    s3 = session.resource("s3")
    deleted: dict[str, int] = {}
    partition = session.get_partition_for_region(session.region_name)
    for name in _buckets(stage, session):
        s3.BucketLogging(name).put(BucketLoggingStatus={})
        s3.BucketPolicy(name).put(Policy=json.dumps(_closed(f"arn:{partition}:s3:::{name}")))
        answers = s3.Bucket(name).object_versions.delete()
        deleted[name] = sum(len(answer.get("Deleted", ())) for answer in answers)
    return deleted


def _closed(arn: str) -> dict[str, Any]:
    """Return a policy that denies all writes to a bucket, also by services that deliver logs."""
    deny = {"Sid": "NothingIsWritten", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
    return {"Version": "2012-10-17", "Statement": [deny | {"Resource": f"{arn}/*"}]}


def _buckets(stage: str, session: Any) -> list[str]:
    from botocore.exceptions import ClientError

    cloudformation = session.client("cloudformation")
    try:
        stacks = cloudformation.describe_stacks(StackName=f"tidegate-{stage}-storage")["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return []
        raise
    outputs = {output["OutputKey"]: output["OutputValue"] for stack in stacks for output in stack.get("Outputs", ())}
    return [outputs[key] for key in BUCKETS if key in outputs]
