"""Rules about the assembly as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator

from infra.assembly import Assembly

MAX_RESOURCES = 500
MAX_TEMPLATE_BYTES = 1_000_000


def nothing_is_looked_up(assembly: Assembly) -> Iterator[str]:
    """Synthesis reads no account, so that the deployed templates are those that were reviewed."""
    for missing in assembly.manifest.get("missing") or ():
        yield f"the value of {missing.get('key')} would be looked up in an account"


def templates_fit(assembly: Assembly) -> Iterator[str]:
    """CloudFormation's own limits."""
    for name, template in assembly.templates.items():
        count, size = len(template.get("Resources", {})), len(json.dumps(template, separators=(",", ":")))
        if count > MAX_RESOURCES:
            yield f"{name} has {count} resources, and a template may have {MAX_RESOURCES}"
        if size > MAX_TEMPLATE_BYTES:
            yield f"{name} has {size} bytes, and a template may have {MAX_TEMPLATE_BYTES}"


def no_custom_resources(assembly: Assembly) -> Iterator[str]:
    """Every resource is CloudFormation's own: no function of CDK's runs with unreviewed rights."""
    for resource in assembly.resources():
        if resource.type.startswith("Custom::") or resource.type == "AWS::CloudFormation::CustomResource":
            yield str(resource)
