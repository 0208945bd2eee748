"""Rules about data at rest and on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

from infra.assembly import Assembly, Resource, as_list

LEAST_TLS = ("TLS_1_2", "TLS_1_3")


def everything_stored_is_encrypted(assembly: Assembly) -> Iterator[str]:
    """Buckets, tables, queues and disks are encrypted, and keys rotate."""
    for resource in assembly.resources():
        if not _is_encrypted(resource):
            yield str(resource)


def _is_encrypted(resource: Resource) -> bool:
    properties = resource.properties
    match resource.type:
        case "AWS::S3::Bucket":
            return bool(properties.get("BucketEncryption"))
        case "AWS::DynamoDB::Table":
            return properties.get("SSESpecification", {}).get("SSEEnabled") is True
        case "AWS::SQS::Queue":
            return bool(properties.get("KmsMasterKeyId")) or properties.get("SqsManagedSseEnabled") is True
        case "AWS::KMS::Key":
            return properties.get("EnableKeyRotation") is True
        case "AWS::EC2::LaunchTemplate":
            mappings = as_list(properties["LaunchTemplateData"].get("BlockDeviceMappings"))
            return bool(mappings) and all(mapping["Ebs"].get("Encrypted") is True for mapping in mappings)
        case _:
            return True


def only_tls(assembly: Assembly) -> Iterator[str]:
    """Buckets, queues and topics refuse requests without TLS; a domain takes TLS 1.2 or later."""
    for kind, policy_kind, reference in (
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
    ):
        for resource in assembly.resources(kind):
            if not any(
                policy.template == resource.template
                and {"Ref": resource.id} in as_list(policy.properties.get(reference))
                and _denies_plain(policy)
                for policy in assembly.resources(policy_kind)
            ):
                yield str(resource)
    for resource in assembly.resources("AWS::ApiGatewayV2::DomainName"):
        for entry in as_list(resource.properties.get("DomainNameConfigurations")):
            if entry.get("SecurityPolicy") not in LEAST_TLS:
                yield str(resource)


def _denies_plain(policy: Resource) -> bool:
    return any(
        statement["Effect"] == "Deny"
        and '"aws:SecureTransport": "false"' in json.dumps(statement.get("Condition", {}))
        and statement.get("Principal") in ({"AWS": "*"}, "*")
        for statement in policy.properties["PolicyDocument"]["Statement"]
    )


def buckets_are_private(assembly: Assembly) -> Iterator[str]:
    """No bucket can be opened to the public, and deleted or replaced objects can be brought back."""
    wanted = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for resource in assembly.resources("AWS::S3::Bucket"):
        block = resource.properties.get("PublicAccessBlockConfiguration", {})
        if not all(block.get(name) is True for name in wanted):
            yield f"{resource} is not closed to the public"
        if resource.properties.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield f"{resource} keeps no versions"
