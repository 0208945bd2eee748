"""Rules directories with any fleet, and templates made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.assembly import Assembly, Resource
from infra.function_assets import placeholder_assets
from infra.reading import read_settings, read_shards

NO_VARIABLES: Mapping[str, str] = {}


def write_rules(folder: Path, shards: Mapping[str, Any]) -> Path:
    """A rules directory with these shards and one model, placed on the first of them."""
    (folder / "objectives").mkdir(parents=True)
    fleet = {"shards": dict(shards), "models": {"m": {"shards": [next(iter(shards))]}}}
    (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet, sort_keys=False), encoding="utf-8")
    (folder / "objectives" / "o.yaml").write_text("objective: o\nrules: [{id: d, serve: m}]\n", encoding="utf-8")
    return folder


def write_stage(folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """A folder of settings with one stage; the folder."""
    folder.mkdir(exist_ok=True)
    text = yaml.safe_dump(dict(settings)) if settings else "# every default\n"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def templates_of(folder: Path, shards: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Assembly:
    """The templates of stage `test` with these shards and settings, without cdk-nag."""
    # It starts Node.js, in each worker that collects this.
    from infra.app import synthesize

    read = read_settings("test", NO_VARIABLES, write_stage(folder / "settings", "test", settings or {}))
    found = read_shards(write_rules(folder / "rules", shards), read)
    return Assembly.read(synthesize("test", read, found, placeholder_assets(), folder / "out", nag=False))


def only(assembly: Assembly, kind: str, template: str = "") -> Resource:
    """The one resource of a type in templates whose name begins with `template`."""
    (found,) = [each for each in assembly.resources(kind) if each.template.startswith(template)]
    return found


def named(assembly: Assembly, kind: str, **properties: Any) -> Resource:
    """The one resource of a type with these properties."""
    (found,) = [
        each
        for each in assembly.resources(kind)
        if all(each.properties.get(name) == value for name, value in properties.items())
    ]
    return found


def as_text(value: Any) -> str:
    """A part of a template as sorted JSON, to look for words in."""
    return json.dumps(value, sort_keys=True)
