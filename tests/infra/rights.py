"""The policies of a stage's roles as they are in the templates, with what a deployment would fill in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.assembly import Assembly, Resource
from tests.support.aws_calls import ACCOUNT, KEY_ARN, REGION, bucket_arn, table_arn, via
from tests.support.iam import Call, Policy, Statement

PSEUDO = {"AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """What only a deployment knows of a stage: the names of its bucket and tables, the ARNs of its secrets."""

    bucket: str
    registry: str
    facts: str
    secret_arn: str
    sequence_key_arn: str = ""

    def reference(self, resource: Resource, attribute: str) -> str:
        """What `Ref` (an empty `attribute`) or `Fn::GetAtt` gives for a resource."""
        kind, name = resource.type, resource.id
        if kind == "AWS::S3::Bucket":
            bucket = self.bucket if name.startswith("Bucket") else name.lower()
            return bucket_arn(bucket) if attribute == "Arn" else bucket
        if kind == "AWS::DynamoDB::Table":
            table = self.registry if name.startswith("Registry") else self.facts
            return table_arn(table) if attribute == "Arn" else table
        if kind == "AWS::SecretsManager::Secret":
            return self.sequence_key_arn if name.startswith("SequenceKey") else self.secret_arn
        if kind == "AWS::KMS::Key":
            return KEY_ARN
        if kind == "AWS::Logs::LogGroup":
            group = resource.properties["LogGroupName"]
            return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*" if attribute == "Arn" else group
        service = kind.split("::")[1].lower()
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource.template}-{name}"


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of a stage, with everything in them that a deployment would fill in."""

    assembly: Assembly
    deployed: Deployed

    def text(self, template: str, value: Any) -> str:
        """A value of a template as text.

        Raises:
            LookupError: it holds a function of CloudFormation that is not known here.
        """
        match value:
            case str():
                return value
            case {"Ref": name} if name in PSEUDO:
                return PSEUDO[name]
            case {"Ref": name}:
                return self._referenced(template, name, "")
            case {"Fn::GetAtt": [name, attribute]}:
                return self._referenced(template, name, attribute)
            case {"Fn::Join": [separator, parts]}:
                return str(separator).join(self.text(template, part) for part in parts)
            case {"Fn::GetStackOutput": {"StackName": stack, "OutputName": output}}:
                return self._output(stack, output)
        raise LookupError(f"{template}: {json.dumps(value)} is not resolved here")

    def policy(self, role: str, template: str = "") -> Policy:
        """The policy of the role, or the managed policy, whose logical id begins so."""
        resource = self.resource(role, template, "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
        return Policy(
            tuple(
                Statement.read(self._filled(resource.template, each))
                for each in resource.properties["PolicyDocument"]["Statement"]
            )
        )

    def resource(self, beginning: str, template: str, *types: str) -> Resource:
        """The resource of some types whose logical id, and template, begin so."""
        found = [
            each
            for each in self.assembly.resources(*types)
            if each.id.startswith(beginning) and each.template.startswith(template)
        ]
        assert len(found) == 1, f"{beginning} of {template}: {[str(each) for each in found]}"
        return found[0]

    def _filled(self, template: str, value: Any) -> Any:
        """A statement with every value in it as text."""
        if isinstance(value, list):
            return [self._filled(template, each) for each in value]
        if isinstance(value, dict) and not any(key == "Ref" or key.startswith("Fn::") for key in value):
            return {key: self._filled(template, each) for key, each in value.items()}
        return self.text(template, value)

    def _referenced(self, template: str, name: str, attribute: str) -> str:
        for each in self.assembly.resources():
            if (each.template, each.id) == (template, name):
                return self.deployed.reference(each, attribute)
        return self._parameter(template, name)

    def _parameter(self, template: str, name: str) -> str:
        """The value of a parameter, which a nested stack gets from the one around it."""
        for stack in self.assembly.resources("AWS::CloudFormation::Stack"):
            given = stack.properties.get("Parameters", {})
            if name in given and template.startswith(stack.template):
                return self.text(stack.template, given[name])
        raise LookupError(f"{template} has no resource and no parameter {name}")

    def _output(self, stack_name: str, output: str) -> str:
        """The value of an output of another stack."""
        for template, artifact in self.assembly.manifest["artifacts"].items():
            if artifact.get("properties", {}).get("stackName") == stack_name:
                return self.text(template, self.assembly.templates[template]["Outputs"][output]["Value"])
        raise LookupError(f"there is no stack {stack_name}")

    def platform_calls(self, function: Resource) -> Iterator[Call]:
        """What Lambda itself asks for with the role of a function, as its template has it.

        https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html and its pages on VPCs, SQS and
        destinations; the actions that a key is used for are those of SQS's and SNS's pages on encryption.
        """
        name, properties = function.template, function.properties
        group = self.text(name, properties["LoggingConfig"]["LogGroup"])
        stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:2026/01/01/[$LATEST]0"
        yield from (Call(action, stream) for action in ("logs:CreateLogStream", "logs:PutLogEvents"))
        yield from (Call(f"xray:Put{what}", "*") for what in ("TraceSegments", "TelemetryRecords"))
        yield from (Call(f"ec2:{action}", "*") for action in VPC_ACTIONS)
        if "KmsKeyArn" in properties:
            yield via("kms:Decrypt", "lambda")
        for source in self._of_function("AWS::Lambda::EventSourceMapping", function):
            queue = self.text(name, source.properties["EventSourceArn"])
            yield from (Call(f"sqs:{action}", queue) for action in POLLING_ACTIONS)
            yield via("kms:Decrypt", "sqs")
        for invoke in self._of_function("AWS::Lambda::EventInvokeConfig", function):
            for destination in invoke.properties["DestinationConfig"].values():
                arn = self.text(name, destination["Destination"])
                service = arn.split(":")[2]
                yield Call("sqs:SendMessage" if service == "sqs" else "sns:Publish", arn)
                yield from (via(action, service) for action in ("kms:Decrypt", "kms:GenerateDataKey"))

    def build_calls(self, project: Resource) -> Iterator[Call]:
        """What CodeBuild itself asks for with the role of a project, as its template has it.

        https://docs.aws.amazon.com/codebuild/latest/userguide/setting-up-service-role.html and its pages on VPCs and ECR.
        """
        name, properties = project.template, project.properties
        group = self.text(name, properties["LogsConfig"]["CloudWatchLogs"]["GroupName"])
        stream = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:a-build"
        yield from (Call(action, stream) for action in ("logs:CreateLogStream", "logs:PutLogEvents"))
        yield Call("ecr:GetAuthorizationToken", "*")
        repository = self.text(name, properties["Environment"]["Image"]).partition("/")[2].partition(":")[0]
        images = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"
        yield from (Call(f"ecr:{action}", images) for action in PULLING_ACTIONS)
        yield from (Call(f"ec2:{action}", "*") for action in BUILD_VPC_ACTIONS)
        for subnet in properties["VpcConfig"]["Subnets"]:
            yield Call(
                "ec2:CreateNetworkInterfacePermission",
                f"arn:aws:ec2:{REGION}:{ACCOUNT}:network-interface/eni-1",
                {
                    "ec2:AuthorizedService": ("codebuild.amazonaws.com",),
                    "ec2:Subnet": (f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/{self.text(name, subnet)}",),
                },
            )
        for each in properties["Environment"]["EnvironmentVariables"]:
            if each.get("Type") == "SECRETS_MANAGER":
                yield Call("secretsmanager:GetSecretValue", self.text(name, each["Value"]))
                yield via("kms:Decrypt", "secretsmanager")

    def _of_function(self, kind: str, function: Resource) -> Iterator[Resource]:
        for each in self.assembly.resources(kind):
            if each.template == function.template and each.properties["FunctionName"] == {"Ref": function.id}:
                yield each


VPC_ACTIONS = (
    "AssignPrivateIpAddresses",
    "CreateNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "UnassignPrivateIpAddresses",
)
BUILD_VPC_ACTIONS = (
    "CreateNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
)
PULLING_ACTIONS = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
POLLING_ACTIONS = ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage")
