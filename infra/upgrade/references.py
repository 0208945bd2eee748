"""The references of a template: to its own resources, and to outputs of other stacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.upgrade.deployment import Deployment, Template

_IN_TEXT = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z0-9.]+)?\}")


def references(value: Any) -> Iterator[tuple[str, Any]]:
    """Every reference in a part of a template: ("Ref", logical id) of a resource whatever function names it, or the function
    and what it is given, of `Fn::ImportValue` and `Fn::GetStackOutput`."""
    match value:
        case {"Ref": str() as name}:
            yield "Ref", name
        case {"Fn::GetAtt": [name, *_]}:
            yield "Ref", name
        case {"Fn::Sub": text}:
            pattern, *more = text if isinstance(text, list) else [text]
            yield from (("Ref", name) for name in _IN_TEXT.findall(pattern))
            yield from references(more)
        case {"Fn::ImportValue": name}:
            yield "Fn::ImportValue", name
        case {"Fn::GetStackOutput": reference}:
            yield "Fn::GetStackOutput", reference
        case Mapping():
            for each in value.values():
                yield from references(each)
        case list():
            for each in value:
                yield from references(each)


def outputs_read(template: Template) -> set[tuple[str, str]]:
    """Return (name of the stack, name of the output) of every output that a template reads."""
    parts = [template.get("Resources", {}), template.get("Outputs", {})]
    return {(each["StackName"], each["OutputName"]) for key, each in references(parts) if key == "Fn::GetStackOutput"}


def stacks_that_use(deployment: Deployment) -> dict[tuple[str, str], set[str]]:
    """Return the paths of the templates that read an output of a resource, by its (path, logical id)."""
    by_name = {name: path for path, name in deployment.names.items()}
    found: dict[tuple[str, str], set[str]] = {}
    for user, template in deployment.templates.items():
        for stack, output in outputs_read(template):
            path = by_name.get(stack, stack)
            value = deployment.templates.get(path, {}).get("Outputs", {}).get(output, {}).get("Value")
            for key, logical_id in references(value):
                if key == "Ref":
                    found.setdefault((path, logical_id), set()).add(user)
    return found
