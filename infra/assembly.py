"""A synthesized cloud assembly, read back as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a template. `template` is the template's name, `id` the resource's logical id."""

    template: str
    id: str
    type: str
    properties: Mapping[str, Any]
    metadata: Mapping[str, Any]
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.template}/{self.id} ({self.type})"


@dataclass(frozen=True, slots=True)
class Assembly:
    """The templates of an assembly by name (`Network`, `Fleet`, `FleetShard…` for nested stacks), and its manifest."""

    templates: Mapping[str, Mapping[str, Any]]
    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Assembly:
        """Read an assembly from its folder."""
        templates = {
            file.name.partition(".")[0]: json.loads(file.read_text(encoding="utf-8"))
            for file in sorted(folder.glob("*.template.json"))
        }
        return cls(templates, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))

    @property
    def bootstrap_version(self) -> int:
        """Return the version of the CDK bootstrap stack that a deployment needs."""
        artifacts = self.manifest["artifacts"].values()
        return max(int(each.get("properties", {}).get("requiresBootstrapStackVersion", 0)) for each in artifacts)

    def resources(self, *types: str) -> Iterator[Resource]:
        """Return the resources (of some types) in the order of templates."""
        for name, template in self.templates.items():
            for logical_id, body in template.get("Resources", {}).items():
                if not types or body["Type"] in types:
                    metadata = body.get("Metadata", {})
                    yield Resource(name, logical_id, body["Type"], body.get("Properties", {}), metadata, body)


def as_list(value: Any) -> list[Any]:
    """Return a list for a value that templates write alone or as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def text_of(value: Any) -> str:
    """Return a property as text, with `${…}` for values that are only known on deployment."""
    match value:
        case str():
            return value
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::GetStackOutput": {"StackName": stack, "OutputName": name}}:
            return f"${{{stack}.{name}}}"
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(text_of(part) for part in parts)
        case _:
            return f"${{{json.dumps(value, sort_keys=True)}}}"
