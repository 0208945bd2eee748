"""Empties the buckets of a stage whose data is not kept: CloudFormation deletes no bucket that holds something."""

from __future__ import annotations

from typing import Any

BUCKETS = ("BucketName", "LogsBucketName")
"""Outputs of the storage stack."""


def empty_buckets(stage: str, session: Any) -> dict[str, int]:
    """Delete every version of every object in the stage's buckets; how many by bucket. A stage that is not there has none."""
    from botocore.exceptions import ClientError

    cloudformation, s3 = session.client("cloudformation"), session.resource("s3")
    try:
        stacks = cloudformation.describe_stacks(StackName=f"tidegate-{stage}-storage")["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return {}
        raise
    outputs = {output["OutputKey"]: output["OutputValue"] for stack in stacks for output in stack.get("Outputs", ())}
    deleted: dict[str, int] = {}
    for name in (outputs[key] for key in BUCKETS if key in outputs):
        answers = s3.Bucket(name).object_versions.delete()
        deleted[name] = sum(len(answer.get("Deleted", ())) for answer in answers)
    return deleted
