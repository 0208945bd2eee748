"""The templates of a stage, deployed or synthesized, by their place in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tidegate.errors import TidegateError

Template = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads a template: the version of a policy, such as 2012-10-17, is not a date."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

NESTED = "AWS::CloudFormation::Stack"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Templates by path: `Storage`, and `Fleet/<logical id>` for a stack nested in Fleet. `names` are the stacks' names in
    CloudFormation by path, of stacks that are not nested."""

    templates: Mapping[str, Template]
    names: Mapping[str, str]

    def overlaid(self, new: Deployment, chosen: tuple[str, ...]) -> Deployment:
        """Return the deployment after the stacks `chosen` of `new` have been deployed over this one."""
        kept = {path: each for path, each in self.templates.items() if path.partition("/")[0] not in chosen}
        added = {path: each for path, each in new.templates.items() if path.partition("/")[0] in chosen}
        return Deployment(kept | added, dict(self.names) | dict(new.names))


class DeploymentError(TidegateError):
    """A stage's templates cannot be read."""


def read_assembly(folder: Path) -> Deployment:
    """Return the templates of a cloud assembly.

    Raises:
        DeploymentError: the folder holds none, or it is damaged.
    """
    try:
        return _read_assembly(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        said = (
            f"{Path(error.filename).name}: {error.strerror}"
            if isinstance(error, OSError)
            else str(error)
            if type(error) is ValueError
            else f"{type(error).__name__} in its files"
        )
        raise DeploymentError(
            f"{folder} does not hold the templates of a stage ({said}): give a whole copy of a folder of build/infra, such as "
            "build/infra/dev"
        ) from error


def _read_assembly(folder: Path) -> Deployment:
    manifest = _read(folder / "manifest.json")
    templates: dict[str, Template] = {}
    names: dict[str, str] = {}
    for name, artifact in manifest["artifacts"].items():
        if artifact["type"] != "aws:cloudformation:stack":
            continue
        names[name] = artifact["properties"].get("stackName", name)
        templates[name] = template = _read(folder / artifact["properties"]["templateFile"])
        assets = folder / f"{name}.assets.json"
        files = _read(assets)["files"] if assets.exists() else {}
        for logical_id, body in template.get("Resources", {}).items():
            if body["Type"] != NESTED:
                continue
            address = json.dumps(body["Properties"]["TemplateURL"])
            file = next(each["source"]["path"] for key, each in files.items() if key in address)
            templates[f"{name}/{logical_id}"] = _read(folder / file)
    return Deployment(templates, names)


def read_deployed(names: Mapping[str, str], cloudformation: Any) -> Deployment:
    """The templates of the stacks `names` (path -> name) that are deployed; a stack that is not deployed has none.

    Args:
        names: the stacks' names by path.
        cloudformation: a boto3 client.
    """
    templates: dict[str, Template] = {}
    for path, name in names.items():
        template = _deployed(cloudformation, name)
        if template is None:
            continue
        templates[path] = template
        for logical_id, physical_id in _nested(cloudformation, name, template):
            nested = _deployed(cloudformation, physical_id)
            if nested is not None:
                templates[f"{path}/{logical_id}"] = nested
    return Deployment(templates, {path: names[path] for path in templates if path in names})


def _deployed(cloudformation: Any, name: str) -> Template | None:
    from botocore.exceptions import ClientError

    try:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        # A stack in review was never deployed: a change set was made for it and not carried out.
        if stack["StackStatus"] in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS"):
            return None
        body = cloudformation.get_template(StackName=name)["TemplateBody"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    # botocore parses JSON; a small template is sent as YAML.
    return dict(yaml.load(body, _Loader) if isinstance(body, str) else body)  # noqa: S506  # a safe loader


def _nested(cloudformation: Any, name: str, template: Template) -> Iterator[tuple[str, str]]:
    """Return (logical id, physical id) of the nested stacks."""
    if not any(body["Type"] == NESTED for body in template.get("Resources", {}).values()):
        return
    for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name):
        for each in page["StackResourceSummaries"]:
            if each["ResourceType"] == NESTED and each.get("PhysicalResourceId"):
                yield each["LogicalResourceId"], each["PhysicalResourceId"]


def _read(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON: {error}") from error
    return data
