"""Which versions of which models serve a set of targets, and with which configs. It works on folders that were read before,
from a directory or from the model store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import json_format

from tidegate.errors import ModelConfigError
from tidegate.model_layout import CONFIG
from tidegate.models.closure import closure, cycle_in
from tidegate.models.config import data_type
from tidegate.models.folder import ModelFolder
from tidegate.oip.datatypes import datatype_of_config
from tidegate.ports import ModelLoad, Resolution
from tidegate.rules import Target
from tidegate.shadows.comparison import RANKABLE

Steps = Mapping[str, Mapping[str, int]]

_UNSAFE = re.compile(r"[\s/\\]")


class Planner:
    """Resolves and plans targets over models' folders, as `ModelCatalog` says. `where` is their place, for messages.

    Both methods raise `ModelConfigError`: a model or version is missing, an ensemble calls itself, or a version policy serves
    nothing.
    """

    def __init__(self, where: str, folders: Mapping[str, ModelFolder]) -> None:
        self._where = where
        self._folders = folders

    def resolve(self, targets: Iterable[Target], settled: Steps) -> Resolution:
        wanted = _sorted(targets)
        folders = self._closures(wanted)
        versions = {each.name: self._version(folders[each.model], each.version, _asker(each)) for each in wanted}
        steps: dict[str, dict[str, int]] = {}
        notes: list[str] = []
        for ensemble, folder in folders.items():
            for step in folder.config.ensemble_scheduling.step:
                if step.model_version <= 0 and step.model_name not in steps.get(ensemble, {}):
                    version, note = self._open_step(ensemble, folders[step.model_name], settled)
                    steps.setdefault(ensemble, {})[step.model_name] = version
                    notes.append(note)
        rankable = {each.model: _rankable(folders[each.model]) for each in wanted if folders[each.model].config.output}
        return Resolution(versions, steps, tuple(notes), _decoupled(folders), rankable)

    def plan(self, targets: Iterable[Target], steps: Steps) -> tuple[ModelLoad, ...]:
        wanted = _sorted(targets)
        folders = self._closures(wanted)
        needed: dict[str, set[int]] = {name: set() for name in folders}
        for target in wanted:
            needed[target.model].add(self._version(folders[target.model], target.version, _asker(target)))
        for ensemble, folder in folders.items():
            pins = steps.get(ensemble, {})
            for step in folder.config.ensemble_scheduling.step:
                pin = step.model_version if step.model_version > 0 else pins.get(step.model_name)
                version = self._version(folders[step.model_name], pin, f"ensemble {ensemble!r}")
                needed[step.model_name].add(version)
        return tuple(
            _load(folder, tuple(sorted(needed[name])), steps.get(name, {})) for name, folder in folders.items()
        )

    def _closures(self, targets: Sequence[Target]) -> Mapping[str, ModelFolder]:
        """Return the folders of the targets' models and of everything that they call, steps before their ensembles."""
        folders: dict[str, ModelFolder] = {}
        # The last to ask before a model is looked at is the one that needs it.
        askers = {target.model: _asker(target) for target in reversed(targets)}

        def called(model: str) -> tuple[str, ...]:
            folders[model] = self._folder(model, askers[model])
            askers.update(dict.fromkeys(folders[model].steps, f"ensemble {model!r}"))
            return folders[model].steps

        ordered = closure((target.model for target in targets), called)
        cycle = cycle_in(reversed(ordered), lambda model: folders[model].steps)
        if cycle:
            raise ModelConfigError(f"{self._place(cycle[0])}: an ensemble calls itself: {' -> '.join(cycle)}")
        return {model: folders[model] for model in ordered}

    def _folder(self, model: str, asker: str) -> ModelFolder:
        if _UNSAFE.search(model):
            raise ModelConfigError(
                f"{asker} needs model {model!r}: Triton hangs on a name with a blank; rename the model"
            )
        if model not in self._folders:
            raise ModelConfigError(
                f"{asker} needs model {model!r}, but {self._where} has none of that name (correct the name, or add the folder "
                f"{model})"
            )
        return self._folders[model]

    def _version(self, folder: ModelFolder, version: int | None, asker: str) -> int:
        if version is None:
            return self._highest(folder, asker)
        if version not in folder.versions:
            there = ", ".join(map(str, folder.versions)) or "none"
            raise ModelConfigError(
                f"{asker} needs version {version} of model {folder.name!r}, which {self._where} does not have; versions "
                f"there: {there} (name one of them in the rules, or add the folder {folder.name}/{version})"
            )
        return version

    def _highest(self, folder: ModelFolder, asker: str) -> int:
        if not folder.versions:
            raise ModelConfigError(
                f"{asker} needs model {folder.name!r}, of which {self._where} has no version (add the folder "
                f"{folder.name}/1)"
            )
        if not folder.served:
            raise ModelConfigError(
                f"{self._place(folder.name)}: version_policy serves none of the versions that are there, and {asker} names "
                "no version"
            )
        return folder.served[-1]

    def _open_step(self, ensemble: str, step: ModelFolder, settled: Steps) -> tuple[int, str]:
        asker = f"ensemble {ensemble!r}"
        highest = self._highest(step, asker)
        version = settled.get(ensemble, {}).get(step.name, highest)
        note = f"{asker} leaves the version of its step {step.name!r} open: it gets {version}"
        if version == highest:
            return version, f"{note}, the highest; write model_version: {version} to say so yourself"
        return version, (
            f"{note}, as it has where it serves now, though {highest} is there; for that one, pin it in an ensemble of "
            "another name"
        )

    def _place(self, model: str) -> str:
        return f"{self._where}/{model}/{CONFIG}"


def _decoupled(folders: Mapping[str, ModelFolder]) -> frozenset[str]:
    """Return the models that have decoupled responses, or a step that has.

    Steps come before their ensembles, whose own policy has no effect.
    """
    found: set[str] = set()
    for name, folder in folders.items():
        own = not folder.steps and folder.config.model_transaction_policy.decoupled
        if own or not found.isdisjoint(folder.steps):
            found.add(name)
    return frozenset(found)


def _rankable(folder: ModelFolder) -> frozenset[str]:
    return frozenset(
        output.name for output in folder.config.output if datatype_of_config(data_type(output)) in RANKABLE
    )


def _sorted(targets: Iterable[Target]) -> list[Target]:
    return sorted(targets, key=lambda target: target.name)


def _asker(target: Target) -> str:
    return f"target {target.name!r}"


def _load(folder: ModelFolder, versions: tuple[int, ...], pins: Mapping[str, int]) -> ModelLoad:
    content = json_format.MessageToDict(folder.config, preserving_proto_field_name=True)
    content["version_policy"] = {"specific": {"versions": list(versions)}}
    for step in content.get("ensemble_scheduling", {}).get("step", ()):
        if int(step.get("model_version", 0)) <= 0 and step["model_name"] in pins:
            step["model_version"] = pins[step["model_name"]]
    return ModelLoad(folder.name, versions, json.dumps(content, sort_keys=True), folder.steps)
