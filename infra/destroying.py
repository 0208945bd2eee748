"""Takes down a stage whose data is not kept: CloudFormation deletes no bucket that holds something.

Balancers and S3 write access logs minutes after what they log, so a bucket that was emptied fills again. The buckets are
closed to every writer and emptied only after everything that writes is gone.
"""

from __future__ import annotations

import json
from typing import Any

BUCKETS = ("BucketName", "LogsBucketName")
"""Outputs of the storage stack."""


def empty_buckets(stage: str, session: Any) -> dict[str, int]:
    """Close the stage's buckets and delete every version of every object in them; how many by bucket. A stage that is not
    there has none."""
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
    """A policy under which nobody writes into a bucket, the services that deliver logs included."""
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
