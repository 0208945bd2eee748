"""Rules about data at rest and on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

from infra.assembly import Assembly, Resource, as_list

LEAST_TLS = ("TLS_1_2", "TLS_1_3")
LEAST_TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-"


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


def callers_use_tls(assembly: Assembly) -> Iterator[str]:
    """A load balancer that addresses and not only security groups reach listens with TLS 1.2 or later alone."""
    reached = {
        (group.template, group.id)
        for group in assembly.resources("AWS::EC2::SecurityGroup")
        if as_list(group.properties.get("SecurityGroupIngress"))
    }
    for balancer in assembly.resources("AWS::ElasticLoadBalancingV2::LoadBalancer"):
        groups = {
            (balancer.template, each["Fn::GetAtt"][0])
            for each in as_list(balancer.properties.get("SecurityGroups"))
            if "Fn::GetAtt" in each
        }
        if not groups & reached:
            continue
        for listener in assembly.resources("AWS::ElasticLoadBalancingV2::Listener"):
            is_its = listener.properties.get("LoadBalancerArn") == {"Ref": balancer.id}
            policy = str(listener.properties.get("SslPolicy", ""))
            has_tls = listener.properties.get("Protocol") == "HTTPS" and policy.startswith(LEAST_TLS_POLICY)
            if listener.template == balancer.template and is_its and not has_tls:
                yield str(listener)


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
