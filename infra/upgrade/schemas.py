"""CloudFormation's properties of a resource type, from the schemas of its registry that cfn-lint ships: which properties replace
a resource when they change, which one names it, and which types hold data."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REGION = "us-east-1"
"""The region whose schemas are read: what replaces a resource does not differ by region."""

NOT_KEPT = frozenset({"AWS::Logs::LogGroup", "AWS::CloudFormation::Stack"})
"""Of the types with a state, those that a stage may lose: logs hold no data, and a shard's stack goes with its shard."""


@dataclass(frozen=True, slots=True)
class TypeSchema:
    """Paths of the properties that replace a resource (`A/B` leads into a property, `*` into a list), of those that may, and
    the property that is its name, "" where it has none of its own."""

    replacing: tuple[str, ...]
    may_replace: tuple[str, ...]
    name: str


@functools.cache
def type_schema(resource_type: str) -> TypeSchema:
    """Return the schema of a type; an unknown type has no replacing properties."""
    from cfnlint.schema import ResourceNotFoundError
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    try:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type).schema
    except ResourceNotFoundError:
        return TypeSchema((), (), "")
    replacing = _paths(schema, "createOnlyProperties")
    # Such as QueueName of AWS::SQS::Queue; another type's name, such as a flow log's LogGroupName, is not its own.
    names = {"Name", f"{resource_type.rpartition('::')[2]}Name"} & set(replacing)
    name = names.pop() if len(names) == 1 else ""
    return TypeSchema(replacing, _paths(schema, "conditionalCreateOnlyProperties"), name)


def _paths(schema: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(path.removeprefix("/properties/") for path in schema.get(key, ()))


@functools.cache
def stateful_types() -> frozenset[str]:
    """Return the types that hold data."""
    file = importlib.resources.files("cfnlint.data.AdditionalSpecs") / "StatefulResources.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    # A repository of images is not in that list.
    return frozenset(data["ResourceTypes"]) - NOT_KEPT | {"AWS::ECR::Repository"}


def values_at(properties: Any, path: str) -> list[Any]:
    """Return the values at a path; several if it goes through a list."""
    found: list[Any] = [properties]
    for step in path.split("/"):
        found = [value for each in found for value in _step(each, step)]
    return found


def _step(value: Any, step: str) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from [each] if step == "*" else _step(each, step)
    elif isinstance(value, Mapping) and step in value:
        yield value[step]
