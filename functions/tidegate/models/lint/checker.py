"""Runs every check over models. A broken model does not hide the mistakes of another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.model_layout import SAMPLES
from tidegate.models.closure import closure
from tidegate.models.config import is_decoupled
from tidegate.models.lint.accepted import Judged, judge
from tidegate.models.lint.answering import check_answering, completed_names
from tidegate.models.lint.backend import check_backend
from tidegate.models.lint.ensemble import check_ensemble
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import CheckedFolder, Repository
from tidegate.models.lint.kinds import CHECKED
from tidegate.models.lint.layout import check_layout
from tidegate.models.lint.onnx_model import check_onnx
from tidegate.models.lint.python_execute import check_responses
from tidegate.models.lint.python_files import check_python_files
from tidegate.models.lint.python_imports import check_imports
from tidegate.models.lint.python_model import check_python_model
from tidegate.models.lint.python_names import check_python_names
from tidegate.models.lint.python_source import Module, Sources
from tidegate.models.lint.python_tensors import called_models, check_python_tensors
from tidegate.models.lint.references import check_references
from tidegate.models.lint.scheduling import check_scheduling
from tidegate.models.lint.strays import IGNORED, check_ignored, check_strays
from tidegate.models.lint.tensors import check_tensors


def check_models(directory: Path, models: Collection[str]) -> tuple[ModelFinding, ...]:
    """Check models of a directory and everything that they call, by their files alone: nothing is started or imported.

    Returns:
        the findings, by file and line. A model without a folder is one.
    """
    return check_closure(Repository(directory), models)


def judge_models(repository: Repository, models: Collection[str], *, with_git: bool = False) -> Judged:
    """Check models as `check_models` does, without the warnings that `accepted.yaml` accepts; `with_git` also reports files
    that git ignores."""
    names = repository.closure(models)
    found = check_closure(repository, models)
    kinds = [kind.name for kind in CHECKED if with_git or kind.name != IGNORED]
    if with_git:
        found = tuple(sorted((*found, *check_ignored(repository.path, names))))
    return judge(repository.path, found, names, kinds)


def check_closure(repository: Repository, models: Collection[str]) -> tuple[ModelFinding, ...]:
    """Check models of a repository as `check_models` does."""
    found: set[ModelFinding] = set()
    for name in repository.closure(models):
        model = repository.model(name)
        if model is not None:
            _check(model, repository)
            found.update(model.found.findings)
        elif name in models:
            hint = "add the folder, or correct the name"
            found.add(ModelFinding(name, 0, "model-missing", f"there is no model {name!r}", hint, name))
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """The ensembles that call a model, directly or through others, and the objectives that serve it or one of them."""

    model: str
    ensembles: tuple[str, ...]
    objectives: tuple[str, ...]


def blast_radius(
    repository: Repository, models: Iterable[str], objectives: Mapping[str, frozenset[str]]
) -> tuple[BlastRadius, ...]:
    """Return what a change of each model touches. `objectives` are those that serve each model by a rule."""
    callers: dict[str, set[str]] = {}
    for name in repository.names():
        for step in repository.steps(name):
            callers.setdefault(step, set()).add(name)
    found = []
    for model in models:
        ensembles = set(closure([model], lambda name: callers.get(name, ()))) - {model}
        served = [objectives.get(name, frozenset()) for name in (model, *ensembles)]
        found.append(BlastRadius(model, tuple(sorted(ensembles)), tuple(sorted(frozenset().union(*served)))))
    return tuple(found)


def called_by_code(path: Path, model: str) -> tuple[str, ...]:
    """Return the models that code calls when a model of a directory is called, directly and through others. Those that are
    not there, or that the code does not name, are left out, and the steps of ensembles."""
    repository = Repository(path)
    found: set[str] = set()

    def called(name: str) -> tuple[str, ...]:
        by_code = code_calls(repository, name)
        found.update(by_code)
        return (*repository.steps(name), *by_code)

    closure([model], called)
    return tuple(sorted(name for name in found - {model} if repository.model(name) is not None))


def code_calls(repository: Repository, name: str) -> frozenset[str]:
    """Return the models that the code of a model itself calls and names; they may not be there."""
    model = repository.model(name)
    code = [] if model is None else _python_code(model)
    return frozenset().union(*(called_models(sources, module) for sources, module in code))


def _check(model: CheckedFolder, repository: Repository) -> None:
    check_layout(model)
    if model.was_found("model-empty"):
        return
    check_backend(model)
    check_tensors(model)
    check_scheduling(model)
    check_references(model)
    check_ensemble(model, repository)
    # Not kept: the code of a thousand models does not fit into memory.
    code = _python_code(model)
    completed = {kind: completed_names(code, kind) for kind in ("input", "output")}
    check_answering(model, repository, completed)
    for sources, main in code:
        check_python_model(model, sources, main)
        check_python_tensors(model, sources, main, repository, completed)
        for module in sources.reachable(main):
            check_imports(model, sources, module)
            check_python_names(model, module)
            check_python_files(model, sources, module)
            check_responses(module)
    check_onnx(model)
    check_strays(model)
    if (model.path / SAMPLES).is_dir() and model.text.whole():
        # Only samples need numpy.
        from tidegate.models.golden.samples import read_samples

        read_samples(model, streams=is_decoupled(repository.configs_of(model.name)))


def _python_code(model: CheckedFolder) -> list[tuple[Sources, Module]]:
    """Return the `model.py` of each version of a Python model, without those that do not parse."""
    found = []
    for version, folder in model.version_paths.items() if model.backend == "python" else ():
        path = model.artefact(version)
        if path is not None and path.is_file():
            sources = Sources(model.path, folder, model.found)
            module = sources.module(path)
            if module is not None:
                found.append((sources, module))
    return found
