"""Reads what decides about the infrastructure: a stage's settings and the shards of fleet.yaml, every error located."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.errors import Finding, RulesError, SettingsError
from tidegate.language.directory import read_directory
from tidegate.language.documents import FleetFile
from tidegate.language.shape import Report, check_shape
from tidegate.language.source import Location, Source, read_source, read_text
from tidegate.settings import INFRASTRUCTURE as PREFIX

from infra.setting_conflicts import conflicts
from infra.settings import Settings
from infra.shards import Shard, shard_conflicts, to_shards

STAGE = re.compile(r"[a-z][a-z0-9]{1,15}")
"""Without a hyphen, so that the names of two stages' resources cannot meet."""
SETTINGS_FOLDER = Path(__file__).parent / "settings"


def read_settings(stage: str, environment: Mapping[str, str], folder: Path = SETTINGS_FOLDER) -> Settings:
    """Read the settings of a stage: `<folder>/<stage>.yaml`, overridden by `TIDEGATE_INFRA_*` variables of `environment`.

    Raises:
        SettingsError: the stage is unknown, or a setting is unknown or wrong; every error has its file and line, or names
            its variable.
    """
    if not STAGE.fullmatch(stage):
        raise SettingsError(
            f"{stage!r} is not the name of a stage: 2 to 16 lower-case letters and digits, beginning with a letter"
        )
    file = folder / f"{stage}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml"))) or "none"
        raise SettingsError(f"stage {stage!r} has no settings: write {file} (stages: {known})")
    source = read_source(file, f"settings/{file.name}")
    findings = list(source.findings())
    variables: dict[str, tuple[tuple[str, ...], Any]] = {}

    def add(at: Location, message: str, hint: str) -> None:
        variable = next((name for name, (path, _) in variables.items() if _meet(at, path)), None)
        if variable is None:
            line, column = source.place(at)
            findings.append(Finding(source.file, line, "", message, hint, column))
        else:
            findings.append(Finding(variable, 0, "", message, hint))

    data = source.data
    # A file of comments alone means: every default.
    if source.is_empty:
        data, findings = {}, []
    # Alone first, so that a variable hides no mistake of the file.
    settings = check_shape(Settings, data, Report(source, add)) if data is not None else None
    if settings is None or findings:
        raise _settings_error(findings)
    variables.update(_variables(environment, findings))
    if variables and not findings:
        merged = _overlaid(data, variables, add)
        settings = check_shape(Settings, merged, Report(Source(source.file, merged, source.places), add))
    if settings is not None and not findings:
        for path, message, hint in conflicts(settings):
            add(path, message, hint)
    if settings is None or findings:
        raise _settings_error(findings)
    return settings


def _settings_error(findings: list[Finding]) -> SettingsError:
    noun = "error" if len(findings) == 1 else "errors"
    return SettingsError(f"{len(findings)} {noun} in the settings\n" + "\n".join(map(str, sorted(findings))))


def _variables(
    environment: Mapping[str, str], findings: list[Finding]
) -> Iterator[tuple[str, tuple[tuple[str, ...], Any]]]:
    """Return the variables that are settings, by name: (path of the setting, value). Invalid YAML is a finding."""
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        path = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        source = read_text(text, name)
        if source.is_empty:
            source.problems.clear()
        findings += [Finding(name, 0, "", each.message, each.hint) for each in source.problems]
        yield name, (path, source.data)


def _overlaid(
    data: dict[str, Any],
    variables: Mapping[str, tuple[tuple[str, ...], Any]],
    add: Callable[[Location, str, str], None],
) -> dict[str, Any]:
    """Override the values of the file by those of variables; one without a value restores the default."""
    merged = copy.deepcopy(data)
    for path, value in variables.values():
        here: Any = merged
        for step in path[:-1]:
            here = here.setdefault(step, {}) if isinstance(here, dict) else here
        if not isinstance(here, dict):
            add(path, f"{'.'.join(path[:-1])!r} has no settings in it", "see docs/infra-settings.md")
        elif value is None:
            here.pop(path[-1], None)
        else:
            here[path[-1]] = value
    return merged


def _meet(one: Location, other: Location) -> bool:
    """Return whether one path is a prefix of the other."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def read_shards(rules: Path, settings: Settings) -> tuple[Shard, ...]:
    """Return the shards of a rules directory's fleet.yaml, sorted by name.

    Raises:
        RulesError: the rules do not compile, or a shard cannot be built; every error has its file and line.
    """
    _, findings = read_directory(rules)
    if findings:
        raise RulesError(findings)
    file = next(each for each in (rules / "fleet.yaml", rules / "fleet.yml") if each.exists())
    source = read_source(file, file.name)

    def add(at: Location, message: str, hint: str) -> None:
        line, column = source.place(at)
        findings.append(Finding(source.file, line, "", message, hint, column))

    fleet = check_shape(FleetFile, source.data, Report(source, add))
    assert fleet is not None, "read_directory has found no error in it"
    shards = to_shards(fleet.shards, settings)
    for name, key, message, hint in shard_conflicts(fleet.shards, shards, settings):
        add(("shards", name, key) if key else ("shards", name), message, hint)
    if findings:
        raise RulesError(findings)
    return shards
