"""The job that publishes from inside the VPC, where the servers are reached: a CodeBuild project that needs no internet.

Its image is the shard agent's, which CodeBuild pulls over a network of its own; what it does is `tidegate publish` with an
archive of rules that `validate_rules` has accepted. Models are pushed before, from anywhere: S3 is all that needs.
"""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.contract import SECRET_VARIABLE
from infra.images import image_tags
from infra.settings import process_variables
from infra.stacks.grants import PUBLISH_JOB, statements
from infra.stacks.network import NetworkStack
from infra.stacks.parts import NO_RESOURCE_LEVEL, Stage, depend_on_policy, explain, log_group, statement
from infra.stacks.storage import StorageStack

PUBLISH = (
    'cd /agent && python -m tidegate.cli publish --archive "$ARCHIVE" --sha256 "$SHA256" --why "$WHY" --by "$BY" --json '
    "${DRY_RUN:+--dry-run}"
)
"""The commands of the job. Its caller sets ARCHIVE, SHA256, WHY and BY, and DRY_RUN to anything for a dry run."""

ASKED = ("ARCHIVE", "SHA256", "WHY", "BY", "DRY_RUN")
DESCRIBES = (
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)
INTERFACES = ("ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", *DESCRIBES)


class PublishJob(Construct):
    """The project `name`, its `arn`, and the `logs` that it writes."""

    def __init__(self, scope: Construct, *, stage: Stage, network: NetworkStack, storage: StorageStack) -> None:
        super().__init__(scope, "PublishJob")
        self._stage, self._network, self._storage = stage, network, storage
        # By its name: what reads a repository's attributes has to split them, which an output of another stack does not allow.
        self._images = ecr.Repository.from_repository_name(self, "Images", stage.repository("agent"))
        self.name = stage.called("publish")
        stack = cdk.Stack.of(self)
        self._of_account = f"{stack.region}:{stack.account}"
        self._partition = stack.partition
        self.arn = f"arn:{self._partition}:codebuild:{self._of_account}:project/{self.name}"
        self.logs = log_group(self, "Logs", stage, f"/tidegate/{stage.name}/publish", storage.key)
        role = self._role()
        self._project(role)

    def _role(self) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com"),
            description="Publishes validated rules from inside the VPC",
        )
        for each in statements(PUBLISH_JOB, self._storage):
            role.add_to_policy(each)
        role.add_to_policy(statement(["logs:CreateLogStream", "logs:PutLogEvents"], [self.logs.log_group_arn]))
        role.add_to_policy(
            statement(
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                [self._images.repository_arn],
            )
        )
        role.add_to_policy(statement(["ecr:GetAuthorizationToken", *INTERFACES], ["*"]))
        # https://docs.aws.amazon.com/codebuild/latest/userguide/auth-and-access-control-iam-identity-based-access-control.html
        role.add_to_policy(
            statement(
                ["ec2:CreateNetworkInterfacePermission"],
                [f"arn:{self._partition}:ec2:{self._of_account}:network-interface/*"],
                {
                    "StringEquals": {"ec2:AuthorizedService": "codebuild.amazonaws.com"},
                    "ArnEquals": {
                        "ec2:Subnet": [
                            f"arn:{self._partition}:ec2:{self._of_account}:subnet/{each}" for each in self._subnets()
                        ]
                    },
                },
            )
        )
        self._explain(role)
        return role

    def _explain(self, role: iam.Role) -> None:
        everything = f"ecr:GetAuthorizationToken, and the job's network interfaces. {NO_RESOURCE_LEVEL}"
        interface = "arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:network-interface/*"
        reasons = self._storage.prefix_reasons((*PUBLISH_JOB.reads, *PUBLISH_JOB.writes, *PUBLISH_JOB.deletes))
        explain(
            role.node.find_child("DefaultPolicy"),
            nag=reasons
            | {
                "AwsSolutions-IAM5[Resource::*]": everything,
                f"AwsSolutions-IAM5[Resource::{interface}]": (
                    "CodeBuild makes the interface, and only in the stage's subnets: the conditions say so."
                ),
            },
            checkov={"CKV_AWS_111": everything},
        )

    def _project(self, role: iam.Role) -> None:
        of, storage = codebuild.CfnProject, self._storage
        variables = {
            **process_variables(self._stage.settings),
            "TIDEGATE_AWS_REGION": cdk.Aws.REGION,
            "TIDEGATE_BUCKET": storage.bucket.bucket_name,
            "TIDEGATE_REGISTRY_TABLE": storage.registry.table_name,
            "TIDEGATE_ENDPOINT_NETWORKS": self._stage.settings.vpc_cidr,
            **dict.fromkeys(ASKED, ""),
        }
        variable = of.EnvironmentVariableProperty
        tag = image_tags(self._stage.settings)["agent"]
        project = of(
            self,
            "Project",
            name=self.name,
            description="Publishes an archive of rules that validate_rules has accepted",
            service_role=role.role_arn,
            encryption_key=None if storage.key is None else storage.key.key_arn,
            timeout_in_minutes=self._stage.settings.control.publish_timeout_min,
            source=of.SourceProperty(type="NO_SOURCE", build_spec=json.dumps(build_spec())),
            artifacts=of.ArtifactsProperty(type="NO_ARTIFACTS"),
            environment=of.EnvironmentProperty(
                type="LINUX_CONTAINER",
                compute_type="BUILD_GENERAL1_SMALL",
                image=self._images.repository_uri_for_tag(tag),
                image_pull_credentials_type="SERVICE_ROLE",
                privileged_mode=False,
                environment_variables=[
                    *(variable(name=name, value=value) for name, value in variables.items()),
                    variable(name=SECRET_VARIABLE, type="SECRETS_MANAGER", value=storage.management_secret.secret_arn),
                ],
            ),
            vpc_config=of.VpcConfigProperty(
                vpc_id=self._network.vpc.vpc_id,
                subnets=self._subnets(),
                security_group_ids=[self._network.control_group.security_group_id],
            ),
            logs_config=of.LogsConfigProperty(
                cloud_watch_logs=of.CloudWatchLogsConfigProperty(status="ENABLED", group_name=self.logs.log_group_name)
            ),
        )
        # CodeBuild looks at the role's rights to the VPC when it makes the project, and refuses it without them.
        depend_on_policy(project, role)
        reasons = {"AwsSolutions-CB5": "The image is the shard agent's, built and scanned by `make images`."}
        if storage.key is None:
            reasons["AwsSolutions-CB4"] = (
                "The operator chose encryption: service_managed, and the job keeps no artefact."
            )
        explain(project, nag=reasons)

    def _subnets(self) -> list[str]:
        return self._network.vpc.select_subnets(subnet_type=self._network.subnets.subnet_type).subnet_ids


def build_spec() -> dict[str, object]:
    """Return the build specification of CodeBuild."""
    return {"version": "0.2", "phases": {"build": {"commands": [PUBLISH]}}}
