"""Parts that several stacks use: what they know of their stage, log groups, and written reasons for findings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from infra.settings import Settings

NO_RESOURCE_LEVEL = "The service knows no resource-level permissions for these actions."


@dataclass(frozen=True, slots=True)
class Stage:
    """One deployment of everything: its name and its settings."""

    name: str
    settings: Settings

    def called(self, part: str) -> str:
        """Return the name of a resource: `tidegate-<stage>-<part>`."""
        return f"tidegate-{self.name}-{part}"

    def repository(self, image: str) -> str:
        """Return the name of the ECR repository of an image."""
        return f"tidegate-{self.name}/{image}"

    @property
    def on_delete(self) -> cdk.RemovalPolicy:
        """Return what happens to stored data when its stack is destroyed."""
        return cdk.RemovalPolicy.RETAIN if self.settings.retain_data else cdk.RemovalPolicy.DESTROY


def explain(
    construct: IConstruct,
    *,
    nag: Mapping[str, str] | None = None,
    checkov: Mapping[str, str] | None = None,
    cfn_lint: Mapping[str, str] | None = None,
) -> None:
    """Accept findings about a construct, with a reason by check id.

    cdk-nag looks at the construct and everything in it, checkov and cfn-lint at the one resource that the construct makes;
    their reasons are in that resource's metadata, where reviewers of the template read them.
    """
    for check, reason in sorted((nag or {}).items()):
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=check, reason=reason))
    if not checkov and not cfn_lint:
        return
    resource = construct if cdk.CfnResource.is_cfn_resource(construct) else construct.node.default_child
    assert isinstance(resource, cdk.CfnResource), construct.node.path
    if checkov:
        skips = [{"id": check, "comment": reason} for check, reason in sorted(checkov.items())]
        resource.add_metadata("checkov", {"skip": skips})
    if cfn_lint:
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": sorted(cfn_lint)}, "reasons": dict(cfn_lint)})


def publish(stack: cdk.Stack, value: str) -> str:
    """Give a stack the output by which other stacks read `value`, an attribute of one of its resources; the output's name.

    CDK adds such an output only while another stack reads it. Stating it keeps it there whatever the others read, so that no
    change of a setting takes it from a stack that has not been updated yet.
    """
    scope = stack.node.try_find_child("Publish") or Construct(stack, "Publish")
    assert isinstance(scope, Construct)
    # The id by which CDK looks for the output before it adds one of its own.
    construct_id = "Output" + json.dumps(stack.resolve(value), separators=(",", ":"))
    output = scope.node.try_find_child(construct_id) or cdk.CfnOutput(scope, construct_id, value=value)
    assert isinstance(output, cdk.CfnOutput)
    return str(stack.resolve(output.logical_id))


def stack_output(stack_name: str, output: str) -> dict[str, Any]:
    """Return the reference to an output in templates of other stacks."""
    reference = {"StackName": stack_name, "Region": {"Ref": "AWS::Region"}, "OutputName": output}
    return {"Fn::GetStackOutput": reference}


def log_group(scope: Construct, construct_id: str, stage: Stage, name: str, key: kms.IKey | None) -> logs.LogGroup:
    """Add a log group with the stage's retention and encryption. It is deleted with its stack."""
    group = logs.LogGroup(
        scope,
        construct_id,
        log_group_name=name,
        encryption_key=key,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    resource = group.node.default_child
    assert isinstance(resource, logs.CfnLogGroup)
    resource.retention_in_days = stage.settings.log_retention_days
    reasons = {"CKV_AWS_338": "The retention is the operator's choice: log_retention_days."}
    if key is None:
        reasons["CKV_AWS_158"] = "The operator chose encryption: service_managed."
    explain(group, checkov=reasons)
    return group


def depend_on_policy(construct: IConstruct, role: iam.Role) -> None:
    """Create a resource after a role's policy and delete it before: a reference only depends on the role."""
    resource = construct if cdk.CfnResource.is_cfn_resource(construct) else construct.node.default_child
    policy = role.node.find_child("DefaultPolicy").node.default_child
    assert isinstance(resource, cdk.CfnResource), construct.node.path
    assert isinstance(policy, cdk.CfnResource), role.node.path
    resource.add_resource_dependency(policy)


def statement(
    actions: list[str], resources: list[str], conditions: Mapping[str, Any] | None = None
) -> iam.PolicyStatement:
    """Return an allowing statement."""
    return iam.PolicyStatement(actions=actions, resources=resources, conditions=dict(conditions or {}) or None)
