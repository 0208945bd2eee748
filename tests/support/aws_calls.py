"""Requests to AWS in the words of IAM: the actions that a request needs, their resources, their condition keys.

S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html. What a service asks KMS for in
the caller's name goes with it, as stages encrypt what they store with a key of their own. A request that is not known here
is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.iam import Call

ACCOUNT, REGION = "123456789012", "us-east-1"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/the-stages"
PARTITION_KEY = "pk"
CLOUDWATCH = re.compile(r"GraniteServiceVersion20100801(?:/operation/|\.)(\w+)$")
LISTING = {
    "list-type",
    "versions",
    "prefix",
    "delimiter",
    "max-keys",
    "marker",
    "start-after",
    "continuation-token",
    "encoding-type",
    "x-id",
}
"""What a request may say that lists a bucket."""


def bucket_arn(bucket: str) -> str:
    """The ARN of a bucket."""
    return f"arn:aws:s3:::{bucket}"


def table_arn(table: str) -> str:
    """The ARN of a table of the account."""
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}"


def calls_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Call, ...]:
    """What a request needs.

    Args:
        method: of HTTP.
        target: path and query as sent.
        headers: by their names in lower case.
        body: as sent.

    Raises:
        LookupError: the request is none that is known here.
    """
    operation = headers.get("x-amz-target", "")
    if (figures := CLOUDWATCH.search(target) or CLOUDWATCH.search(operation)) is not None:
        return (Call(f"cloudwatch:{figures[1]}", "*"),)
    if operation.startswith("DynamoDB_"):
        return tuple(_dynamodb(operation.partition(".")[2], json.loads(body)))
    if operation.startswith("secretsmanager."):
        return tuple(_secrets(operation.partition(".")[2], json.loads(body)))
    if operation == "AmazonSQS.SendMessage":
        # A queue that is encrypted with a key of the stage: SQS uses that in the name of the sender.
        name = json.loads(body)["QueueUrl"].rpartition("/")[2]
        return (
            Call("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"),
            via("kms:Decrypt", "sqs"),
            via("kms:GenerateDataKey", "sqs"),
        )
    if not operation:
        return tuple(_s3(method, target, headers))
    raise LookupError(f"{operation} is not known in the words of IAM")


def missing_object(target: str) -> Call:
    """What a request for an object needs beside, to get 404 for one that is not there."""
    return Call("s3:ListBucket", bucket_arn(_place(target)[0]))


def _s3(method: str, target: str, headers: Mapping[str, str]) -> Iterator[Call]:
    bucket, key = _place(target)
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    if not key:
        if method == "GET" and query.keys() <= LISTING:
            prefix = {"s3:prefix": tuple(query["prefix"])} if "prefix" in query else {}
            if "versions" in query:
                yield Call("s3:ListBucketVersions", bucket_arn(bucket), prefix)
                return
            yield Call("s3:ListBucket", bucket_arn(bucket), prefix)
            return
        if method == "HEAD":
            yield Call("s3:ListBucket", bucket_arn(bucket))
            return
        raise LookupError(f"{method} {target} is not known in the words of IAM")
    known = {"partNumber", "uploadId", "uploads", "x-id", "versionId"}
    if query.keys() - known or "x-amz-copy-source" in headers or "x-amz-tagging" in headers:
        raise LookupError(f"{method} {target} is not known in the words of IAM")
    if method in ("GET", "HEAD") and "uploadId" not in query:
        action, uses = "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject", ("kms:Decrypt",)
    elif method == "PUT" or (method == "POST" and ("uploads" in query or "uploadId" in query)):
        # What is written in parts is put together again from what was encrypted.
        action = "s3:PutObject"
        uses = ("kms:GenerateDataKey", "kms:Decrypt") if "uploadId" in query else ("kms:GenerateDataKey",)
    elif method == "DELETE":
        action, uses = ("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"), ()
    else:
        raise LookupError(f"{method} {target} is not known in the words of IAM")
    yield Call(action, f"{bucket_arn(bucket)}/{key}")
    yield from (via(each, "s3") for each in uses)


def _place(target: str) -> tuple[str, str]:
    bucket, _, key = unquote(urlsplit(target).path).lstrip("/").partition("/")
    return bucket, key


def _dynamodb(operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    action = f"dynamodb:{operation}"
    yield via("kms:Decrypt", "dynamodb")
    if operation in ("BatchGetItem", "BatchWriteItem"):
        for table, asked in request["RequestItems"].items():
            entries = asked["Keys"] if operation == "BatchGetItem" else [_written(each) for each in asked]
            keys = tuple(sorted({each[PARTITION_KEY]["S"] for each in entries}))
            yield Call(action, table_arn(table), {"dynamodb:LeadingKeys": keys})
        return
    table = table_arn(request["TableName"])
    if operation in ("GetItem", "DeleteItem", "UpdateItem"):
        yield Call(action, table, {"dynamodb:LeadingKeys": (request["Key"][PARTITION_KEY]["S"],)})
    elif operation == "PutItem":
        yield Call(action, table, {"dynamodb:LeadingKeys": (request["Item"][PARTITION_KEY]["S"],)})
    elif operation == "Query":
        yield Call(action, table, {"dynamodb:LeadingKeys": (_queried(request),)})
    elif operation in ("Scan", "DescribeTable"):
        yield Call(action, table)
    else:
        raise LookupError(f"{action} is not known in the words of IAM")


def _written(request: Mapping[str, Any]) -> Mapping[str, Any]:
    ((kind, content),) = request.items()
    item: Mapping[str, Any] = content["Item" if kind == "PutRequest" else "Key"]
    return item


def _queried(request: Mapping[str, Any]) -> str:
    """The partition of a query, whose condition is `<name> = <value>`, and maybe more."""
    name, _, rest = request["KeyConditionExpression"].partition("=")
    name, value = name.strip(" ("), rest.split()[0].strip(")")
    if request.get("ExpressionAttributeNames", {}).get(name, name) != PARTITION_KEY:
        raise LookupError(f"the query {request['KeyConditionExpression']} does not begin with its partition")
    partition: str = request["ExpressionAttributeValues"][value]["S"]
    return partition


def _secrets(operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    yield Call(f"secretsmanager:{operation}", request["SecretId"])
    if operation == "GetSecretValue":
        yield via("kms:Decrypt", "secretsmanager")


def via(action: str, service: str) -> Call:
    """What a service does with the stage's key in the name of its caller."""
    return Call(action, KEY_ARN, {"kms:ViaService": (f"{service}.{REGION}.amazonaws.com",)})
