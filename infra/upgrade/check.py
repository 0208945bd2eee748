"""Compares what is deployed with what would be, and finds what CloudFormation would refuse, what would lose data, and what
would stop serving between the stacks' updates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.fixed_settings import FIXED_SETTINGS, fixed_changes
from infra.upgrade.addresses import lost_addresses
from infra.upgrade.deployment import NESTED, Deployment, Template
from infra.upgrade.references import outputs_read, references, stacks_that_use
from infra.upgrade.schemas import stateful_types, type_schema, values_at

Place = tuple[str, str]
"""A resource: (path of its template, logical id)."""

_ABSENT = object()

WITHIN = {"AWS::ApiGatewayV2::Stage": "ApiId", "AWS::Lambda::Alias": "FunctionName"}
"""Types whose names are unique only within another resource, and the property that refers to that."""


def refusals(deployed: Deployment, new: Deployment, chosen: tuple[str, ...]) -> list[str]:
    """Return, in words, why the stacks `chosen` of `new` must not be deployed over `deployed`.

    A stack that is not deployed yet can lose nothing, so a first deployment has none.
    """
    target = deployed.overlaid(new, chosen)
    replaced = _replaced(deployed, target)
    found = [
        *_fixed(deployed, new),
        *_lost_exports(deployed, target),
        *_unpublished(target),
        *_lost_state(deployed, target, replaced),
        *_in_use(deployed, target, replaced),
        *_same_name(deployed, target, replaced),
        *_stale(deployed, target, replaced),
        *lost_addresses(deployed, new, chosen),
    ]
    return list(dict.fromkeys(found))


def _fixed(deployed: Deployment, new: Deployment) -> Iterator[str]:
    """Every stack follows the fixed settings, so they are compared whichever stacks are chosen."""
    before, after = (_fixed_settings(each.templates.get("Storage", {})) for each in (deployed, new))
    if before is not None and after is not None:
        yield from fixed_changes(before, after)


def _fixed_settings(storage: Template) -> dict[str, Any] | None:
    output = storage.get("Outputs", {}).get(FIXED_SETTINGS)
    return None if output is None else json.loads(output["Value"])


def _lost_exports(deployed: Deployment, target: Deployment) -> Iterator[str]:
    """CloudFormation neither removes nor changes an export that a deployed stack imports, whatever would be deployed next."""
    for path, template in deployed.templates.items():
        after = target.templates.get(path, {})
        for name, export in _exports(template).items():
            if _exports(after).get(name) == export:
                continue
            for user, other in deployed.templates.items():
                if user != path and name in _imports(other):
                    yield f"{path} would lose or change the export {name}, which the deployed stack {user} imports"


def _exports(template: Template) -> dict[str, Any]:
    outputs = template.get("Outputs", {}).values()
    return {json.dumps(each["Export"]["Name"]): each["Value"] for each in outputs if "Export" in each}


def _imports(template: Template) -> set[str]:
    return {json.dumps(value) for key, value in references(template.get("Resources", {})) if key == "Fn::ImportValue"}


def _unpublished(target: Deployment) -> Iterator[str]:
    """A stack cannot be deployed while it reads an output that does not exist; one left out of a deployment would be stuck."""
    by_name = {name: path for path, name in target.names.items()}
    for user, template in target.templates.items():
        for stack, output in outputs_read(template):
            path = by_name.get(stack, stack)
            outputs = target.templates.get(path, {}).get("Outputs", {})
            if output not in outputs:
                what = f"the output {output} of {path}"
                yield f"{user} reads {what}, which would not be there: deploy {path} and {user} together"


def _replaced(deployed: Deployment, target: Deployment) -> dict[Place, str]:
    """Return the resources that would be replaced, also because of another one, with the causing property."""
    found: dict[Place, str] = {}
    for path, template in deployed.templates.items():
        after = target.templates.get(path, {}).get("Resources", {})
        for logical_id, body in template.get("Resources", {}).items():
            if logical_id in after:
                why = _replacing_property(body, after[logical_id])
                if why:
                    found[path, logical_id] = why
    following = True
    while following:
        more = dict(_followers(target, found))
        following = bool(more)
        found |= more
    return {place: why for place, why in found.items() if place in _places(deployed)}


def _replacing_property(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if before["Type"] != after["Type"]:
        return "Type"
    schema = type_schema(before["Type"])
    # What may replace a resource that holds data must not be tried on it.
    paths = schema.replacing + (schema.may_replace if before["Type"] in stateful_types() else ())
    properties = [each.get("Properties", {}) for each in (before, after)]
    changed = (path for path in paths if values_at(properties[0], path) != values_at(properties[1], path))
    return next(changed, "")


def _followers(target: Deployment, replaced: Mapping[Place, str]) -> Iterator[tuple[Place, str]]:
    """Return the resources in the template whose replacing properties reference a replaced resource."""
    for path, template in target.templates.items():
        gone = {logical_id for at, logical_id in replaced if at == path}
        if not gone:
            continue
        for logical_id, body in template.get("Resources", {}).items():
            if (path, logical_id) in replaced:
                continue
            for each in type_schema(body["Type"]).replacing:
                named = {name for key, name in references(values_at(body.get("Properties", {}), each)) if key == "Ref"}
                if named & gone:
                    yield (path, logical_id), f"{each}, which follows {min(named & gone)}"
                    break


def _lost_state(deployed: Deployment, target: Deployment, replaced: Mapping[Place, str]) -> Iterator[str]:
    for place, body in _places(deployed).items():
        if body["Type"] not in stateful_types():
            continue
        path, logical_id = place
        if place in replaced:
            yield f"{path}/{logical_id} ({body['Type']}) holds data and would be replaced by its {replaced[place]}"
        elif path in target.templates and place not in _places(target):
            yield f"{path}/{logical_id} ({body['Type']}) holds data and would be deleted"


def _in_use(deployed: Deployment, target: Deployment, replaced: Mapping[Place, str]) -> Iterator[str]:
    """AWS deletes no part of a network that is in use, and the stacks that use it are deployed later."""
    users = stacks_that_use(deployed)
    for place, body in _places(deployed).items():
        path, logical_id = place
        goes = place in replaced or (path in target.templates and place not in _places(target))
        if _is_network(body) and goes and users.get(place):
            by = ", ".join(sorted(users[place]))
            how = f"replaced by its {replaced[place]}" if place in replaced else "deleted"
            yield f"{path}/{logical_id} ({body['Type']}) would be {how} while it is in use by {by}"


def _is_network(body: Mapping[str, Any]) -> bool:
    return bool(body["Type"].startswith("AWS::EC2::")) or body["Type"] == "AWS::Route53::HostedZone"


def _same_name(deployed: Deployment, target: Deployment, replaced: Mapping[Place, str]) -> Iterator[str]:
    """A replacement is created before the old resource is deleted, so it cannot have the same name."""
    before, after = _places(deployed), _places(target)
    for place in replaced:
        name = _name(before[place])
        if name is not _ABSENT and _scoped(before[place]) == _scoped(after[place]):
            at = f"{place[0]}/{place[1]}"
            yield f"{at} ({before[place]['Type']}) would be replaced by its {replaced[place]} and keep its name {name}"
    named = {_scoped(body): at for at, body in before.items() if _name(body) is not _ABSENT}
    for place, body in after.items():
        if place in before or _name(body) is _ABSENT:
            continue
        other = named.get(_scoped(body))
        if other is not None:
            at, there = f"{place[0]}/{place[1]}", f"{other[0]}/{other[1]}"
            yield f"{at} ({body['Type']}) would be made while {there} still has its name {_name(body)}"


def _name(body: Mapping[str, Any]) -> Any:
    """Return the physical name in a template; `_ABSENT` if CloudFormation generates it."""
    name = type_schema(body["Type"]).name
    return body.get("Properties", {}).get(name, _ABSENT) if name else _ABSENT


def _scoped(body: Mapping[str, Any]) -> tuple[str, str]:
    """Return the type of a resource with a name, and what no other of that type may have."""
    parent = body.get("Properties", {}).get(WITHIN.get(body["Type"], ""))
    name = _name(body)
    return body["Type"], "" if name is _ABSENT else json.dumps([name, parent], sort_keys=True)


def _stale(deployed: Deployment, target: Deployment, replaced: Mapping[Place, str]) -> Iterator[str]:
    """A stack with an unchanged template is not deployed, so it would keep the id of a deleted resource.

    Parts of a network that are in use are refused already.
    """
    before = _places(deployed)
    users = stacks_that_use(deployed)
    for place in replaced:
        if _is_network(before[place]):
            continue
        for user in sorted(users.get(place, ())):
            if deployed.templates[user] == target.templates.get(user):
                at = f"{place[0]}/{place[1]}"
                yield f"{at} would be replaced by its {replaced[place]}, and {user}, which does not change, would not know"


def _places(deployment: Deployment) -> dict[Place, Mapping[str, Any]]:
    return {
        (path, logical_id): body
        for path, template in deployment.templates.items()
        for logical_id, body in template.get("Resources", {}).items()
        if body["Type"] != NESTED
    }
