"""Planning: which versions of which models serve a set of targets, and with which configs, given what the files say.

Pure: the configs and versions come in as `Facts`, from a directory or from the model store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import ModelConfigError
from tidegate.ports import ModelLoad, Resolution
from tidegate.rules import Target
from tidegate.triton.model_config import CONFIG, policy_versions

Steps = Mapping[str, Mapping[str, int]]

_UNSAFE = re.compile(r"[\s/\\]")


class Facts(Protocol):
    """What the files of models say."""

    @property
    def where(self) -> str:
        """The place of the models, as messages name it."""
        ...

    def has(self, model: str) -> bool:
        """Whether there is such a model, with or without a version."""
        ...

    def config(self, model: str) -> ModelConfig:
        """A model's config.

        Raises:
            ModelConfigError: it is no model config, or names another model.
        """
        ...

    def versions(self, model: str) -> tuple[int, ...]:
        """The versions of a model, ascending."""
        ...


class Planner:
    """Resolves and plans targets over facts that do not change meanwhile."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def resolve(self, targets: Iterable[Target], settled: Steps) -> Resolution:
        """A version for every target and every open step: see `ModelCatalog.resolve`.

        Raises:
            ModelConfigError: a model or version is missing, an ensemble calls itself, or a version policy serves nothing.
        """
        versions: dict[str, int] = {}
        steps: dict[str, dict[str, int]] = {}
        notes: list[str] = []
        finished: dict[str, ModelConfig] = {}
        for target in _sorted(targets):
            self._visit(target.model, f"target {target.name!r}", finished, ())
            versions[target.name] = self._version(target.model, target.version, f"target {target.name!r}")
        for ensemble, config in finished.items():
            for step in config.ensemble_scheduling.step:
                if step.model_version <= 0:
                    pins = steps.setdefault(ensemble, {})
                    if step.model_name not in pins:
                        pins[step.model_name], note = self._open_step(ensemble, step.model_name, settled)
                        notes.append(note)
        return Resolution(versions, steps, tuple(notes))

    def plan(self, targets: Iterable[Target], steps: Steps) -> tuple[ModelLoad, ...]:
        """The loads that serve resolved targets: see `ModelCatalog.plan`.

        Raises:
            ModelConfigError: as `resolve`.
        """
        wanted = _sorted(targets)
        needed: dict[str, set[int]] = {}
        finished: dict[str, ModelConfig] = {}
        for target in wanted:
            self._visit(target.model, f"target {target.name!r}", finished, ())
            needed.setdefault(target.model, set()).add(
                self._version(target.model, target.version, f"target {target.name!r}")
            )
        for ensemble, config in finished.items():
            for model, pin in _step_versions(config, steps.get(ensemble, {})):
                needed.setdefault(model, set()).add(self._version(model, pin, f"ensemble {ensemble!r}"))
        return tuple(
            _load(config, tuple(sorted(needed[model])), steps.get(model, {})) for model, config in finished.items()
        )

    def _visit(self, model: str, asker: str, finished: dict[str, ModelConfig], path: tuple[str, ...]) -> None:
        """Put the closure of a model into `finished`, steps before the ensembles that call them."""
        if model in path:
            cycle = " -> ".join([*path[path.index(model) :], model])
            raise ModelConfigError(f"{self._place(model)}: an ensemble calls itself: {cycle}")
        if model in finished:
            return
        if _UNSAFE.search(model):
            raise ModelConfigError(
                f"{asker} needs model {model!r}: Triton hangs on a name with a blank; rename the model"
            )
        if not self._facts.has(model):
            raise ModelConfigError(f"{asker} needs model {model!r}, but {self._facts.where} has none of that name")
        config = self._facts.config(model)
        for step in config.ensemble_scheduling.step:
            self._visit(step.model_name, f"ensemble {model!r}", finished, (*path, model))
        finished[model] = config

    def _version(self, model: str, version: int | None, asker: str) -> int:
        """The version that serves whoever asks for one, or for none."""
        if version is None:
            return self._highest(model, asker)
        present = self._facts.versions(model)
        if version not in present:
            there = ", ".join(map(str, present)) or "none"
            raise ModelConfigError(
                f"{asker} needs version {version} of model {model!r}, which {self._facts.where} does not have; versions "
                f"there: {there} (name one of them in the rules, or add the folder {model}/{version})"
            )
        return version

    def _highest(self, model: str, asker: str) -> int:
        present = self._facts.versions(model)
        if not present:
            raise ModelConfigError(
                f"{asker} needs model {model!r}, of which {self._facts.where} has no version (add the folder {model}/1)"
            )
        own = policy_versions(self._facts.config(model), present)
        if not own:
            raise ModelConfigError(
                f"{self._place(model)}: version_policy serves none of the versions that are there, and {asker} names no "
                "version"
            )
        return own[-1]

    def _open_step(self, ensemble: str, step: str, settled: Steps) -> tuple[int, str]:
        """The version of an open step, and what to say about it."""
        asker = f"ensemble {ensemble!r}"
        highest = self._highest(step, asker)
        version = settled.get(ensemble, {}).get(step, highest)
        note = f"{asker} leaves the version of its step {step!r} open: it gets {version}"
        if version == highest:
            return version, f"{note}, the highest; write model_version: {version} to say so yourself"
        return version, (
            f"{note}, as it has where it serves now, though {highest} is there; for that one, pin it in an ensemble of "
            "another name"
        )

    def _place(self, model: str) -> str:
        return f"{self._facts.where}/{model}/{CONFIG}"


def _sorted(targets: Iterable[Target]) -> list[Target]:
    return sorted(targets, key=lambda target: target.name)


def _step_versions(config: ModelConfig, pins: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
    for step in config.ensemble_scheduling.step:
        yield step.model_name, step.model_version if step.model_version > 0 else pins.get(step.model_name)


def _load(config: ModelConfig, versions: tuple[int, ...], pins: Mapping[str, int]) -> ModelLoad:
    """The load of a model: its config, with exactly these versions, and open steps pinned."""
    content = json_format.MessageToDict(config, preserving_proto_field_name=True)
    content["version_policy"] = {"specific": {"versions": list(versions)}}
    for step in content.get("ensemble_scheduling", {}).get("step", ()):
        if int(step.get("model_version", 0)) <= 0 and step["model_name"] in pins:
            step["model_version"] = pins[step["model_name"]]
    steps = tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))
    return ModelLoad(config.name, versions, json.dumps(content, sort_keys=True), steps)
