"""Rules about permissions, written reasons, secrets and notifications."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.assembly import Assembly, Resource, as_list, text_of

MIN_REASON = 20
"""Letters that a reason has at least."""

SECRET_NAME = re.compile(r"(SECRET|PASSWORD|TOKEN|CREDENTIAL|PRIVATE|API_?KEY)", re.IGNORECASE)
SECRET_VALUE = re.compile(r"(AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[A-Za-z0-9_-]{20,}\.")
LEADING_KEYS = "dynamodb:LeadingKeys"
ITEM_ACTIONS = {
    f"dynamodb:{action}"
    for action in ("BatchWriteItem", "DeleteItem", "GetItem", "PartiQLUpdate", "PutItem", "Query", "UpdateItem")
}
POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role")


def every_function_has_its_own_role(assembly: Assembly) -> Iterator[str]:
    """No two functions share a role, and no role holds a managed policy of AWS, which AWS may widen."""
    users: dict[str, Resource] = {}
    for function in assembly.resources("AWS::Lambda::Function"):
        role = json.dumps([function.template, function.properties["Role"]], sort_keys=True)
        if role in users:
            yield f"{function} has the role of {users[role]}"
        users[role] = function
    for role_resource in assembly.resources("AWS::IAM::Role"):
        if role_resource.properties.get("ManagedPolicyArns"):
            yield f"{role_resource} holds a managed policy"


def wildcards_have_reasons(assembly: Assembly) -> Iterator[str]:
    """If a role may act on every resource, its policy has a reason."""
    for resource, statement in _statements(assembly):
        if "*" not in as_list(statement.get("Resource")) or statement["Effect"] != "Allow":
            continue
        written = resource.metadata.get("cdk_nag", {}).get("rules_to_suppress", ())
        if not any(entry.get("id", "").startswith("AwsSolutions-IAM5") for entry in written):
            yield f"{resource} allows {', '.join(as_list(statement['Action']))} on everything"


def no_service_wide_actions(assembly: Assembly) -> Iterator[str]:
    """No role may do everything, or everything of one service."""
    for resource, statement in _statements(assembly):
        for action in as_list(statement.get("Action")):
            if statement["Effect"] == "Allow" and (action == "*" or action.endswith(":*")):
                yield f"{resource} allows {action}"


def the_registry_is_written_by_partition(assembly: Assembly) -> Iterator[str]:
    """A role that may act on items of a table may do so on partitions that the policy names alone; the table of facts has none."""
    for resource, statement in _statements(assembly):
        actions = [each for each in as_list(statement.get("Action")) if each in ITEM_ACTIONS]
        tables = [text_of(each) for each in as_list(statement.get("Resource"))]
        if statement["Effect"] != "Allow" or not actions or all("Facts" in table for table in tables):
            continue
        conditions = statement.get("Condition", {})
        named = any(
            LEADING_KEYS in keys for operator, keys in conditions.items() if operator.startswith("ForAllValues:")
        )
        if not named or conditions.get("Null", {}).get(LEADING_KEYS) != "false":
            yield f"{resource} allows {', '.join(actions)} on every partition of a table"


def keys_are_used_through_services(assembly: Assembly) -> Iterator[str]:
    """No role may use a key but through a service that it uses, so that no stolen ciphertext is opened elsewhere."""
    for resource, statement in _statements(assembly):
        actions = [each for each in as_list(statement.get("Action")) if each.startswith("kms:")]
        via = statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService")
        if statement["Effect"] == "Allow" and actions and not via:
            yield f"{resource} allows {', '.join(actions)} without naming services"


def suppressions_have_reasons(assembly: Assembly) -> Iterator[str]:
    """Every accepted finding has a reason."""
    for resource in assembly.resources():
        for check, reason in written_reasons(resource):
            if len(reason.strip()) < MIN_REASON:
                yield f"{resource} accepts {check} without a reason"


def written_reasons(resource: Resource) -> Iterator[tuple[str, str]]:
    """Return the accepted findings of a resource as (check, reason)."""
    for entry in resource.metadata.get("cdk_nag", {}).get("rules_to_suppress", ()):
        yield entry.get("id", ""), entry.get("reason", "")
    for entry in resource.metadata.get("checkov", {}).get("skip", ()):
        yield entry.get("id", ""), entry.get("comment", "")
    lint = resource.metadata.get("cfn-lint", {})
    for check in lint.get("config", {}).get("ignore_checks", ()):
        yield check, lint.get("reasons", {}).get(check, "")


def no_secret_is_written(assembly: Assembly) -> Iterator[str]:
    """No template holds a secret, and no variable of a container or function that is named like one has a value."""
    for name, template in assembly.templates.items():
        if SECRET_VALUE.search(json.dumps(template)):
            yield f"{name} holds what looks like a credential"
    for resource in assembly.resources("AWS::ECS::TaskDefinition", "AWS::Lambda::Function"):
        for variable, value in _variables(resource):
            names_a_secret = SECRET_NAME.search(variable) and not variable.endswith("_ARN")
            if names_a_secret:
                yield f"{resource} has the variable {variable} with the value {json.dumps(value)[:40]}"
    for resource in assembly.resources("AWS::SecretsManager::Secret"):
        if "SecretString" in resource.properties:
            yield f"{resource} has its value in the template"


def every_alarm_calls_someone(assembly: Assembly) -> Iterator[str]:
    """Every alarm has an action."""
    for resource in assembly.resources("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
        if not resource.properties.get("AlarmActions"):
            yield str(resource)


def _statements(assembly: Assembly) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    for resource in assembly.resources(*POLICIES):
        documents = [resource.properties.get("PolicyDocument", {})]
        documents += [policy["PolicyDocument"] for policy in as_list(resource.properties.get("Policies"))]
        for document in documents:
            for statement in as_list(document.get("Statement")):
                yield resource, statement


def _variables(resource: Resource) -> Iterator[tuple[str, Any]]:
    if resource.type == "AWS::Lambda::Function":
        yield from resource.properties.get("Environment", {}).get("Variables", {}).items()
    for container in as_list(resource.properties.get("ContainerDefinitions")):
        for variable in as_list(container.get("Environment")):
            yield variable["Name"], variable["Value"]
