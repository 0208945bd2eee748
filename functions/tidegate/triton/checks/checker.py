"""Runs every check over models. Each check looks at one thing; one broken model never hides another's mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from tidegate.triton.checks import ignored
from tidegate.triton.checks.accepted import Judged, judge
from tidegate.triton.checks.answering import check_answering
from tidegate.triton.checks.backend import check_backend
from tidegate.triton.checks.batching import check_batching
from tidegate.triton.checks.ensemble import check_ensemble
from tidegate.triton.checks.ensemble_tensors import check_ensemble_tensors
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.folder import ModelFolder, Repository, each_version
from tidegate.triton.checks.instances import check_instances
from tidegate.triton.checks.kinds import CHECKED
from tidegate.triton.checks.layout import check_layout
from tidegate.triton.checks.onnx_model import check_onnx
from tidegate.triton.checks.python_completion import completed_names
from tidegate.triton.checks.python_files import check_python_files
from tidegate.triton.checks.python_imports import check_imports
from tidegate.triton.checks.python_model import check_python_model
from tidegate.triton.checks.python_names import check_python_names
from tidegate.triton.checks.python_parameters import check_python_parameters
from tidegate.triton.checks.python_responses import check_python_responses
from tidegate.triton.checks.python_source import Module, Sources
from tidegate.triton.checks.python_strays import check_python_strays
from tidegate.triton.checks.python_tensors import called_models, check_python_tensors
from tidegate.triton.checks.references import check_references
from tidegate.triton.checks.strays import check_strays
from tidegate.triton.checks.tensors import check_tensors
from tidegate.triton.checks.variants import check_variants
from tidegate.triton.checks.warmup import check_warmup
from tidegate.triton.closure import closure


def check_models(directory: Path, models: Collection[str]) -> tuple[ModelFinding, ...]:
    """Check models and everything that they call, from their files alone: nothing is started, imported or written.

    Args:
        directory: the model repository.
        models: names of models; one without a folder is a finding.

    Returns:
        every finding, ordered by file and line; empty where all is well.
    """
    repository = Repository(directory)
    return check_closure(repository, models)


def judge_models(repository: Repository, models: Collection[str], *, with_git: bool = False) -> Judged:
    """Check models and everything that they call, as `check_models`, less the warnings that `accepted.yaml` accepts.

    `with_git` says whether git is asked, too, which of their files it ignores.
    """
    names = repository.closure(models)
    found = check_closure(repository, models)
    kinds = [kind.name for kind in CHECKED if with_git or kind.name != ignored.KIND]
    if with_git:
        found = tuple(sorted((*found, *ignored.check_ignored(repository.path, names))))
    return judge(repository.path, found, names, kinds)


def check_closure(repository: Repository, models: Collection[str]) -> tuple[ModelFinding, ...]:
    """Check models and everything that they call, as `check_models`, of a repository that may be read already."""
    found: set[ModelFinding] = set()
    for name in repository.closure(models):
        model = repository.model(name)
        if model is not None:
            _check(model, repository)
            found.update(model.report.findings)
        elif name in models:
            hint = "add the folder, or correct the name"
            found.add(ModelFinding(name, 0, "model-missing", f"there is no model {name!r}", hint, name))
    return tuple(sorted(found))


async def called_by_code(path: Path, model: str) -> tuple[str, ...]:
    """The models that the code of a model calls, as far as it names them and they are there, directly and through others.

    Those that an ensemble calls as steps are left out.
    """
    # Of its own: what the files have wrong is not to be reported here.
    repository = Repository(path)
    found: set[str] = set()

    async def called(name: str) -> tuple[str, ...]:
        by_code = await asyncio.to_thread(code_calls, repository, name)
        found.update(by_code)
        return (*repository.steps(name), *by_code)

    await closure([model], called)
    return tuple(sorted(name for name in found - {model} if repository.model(name) is not None))


def code_calls(repository: Repository, name: str) -> frozenset[str]:
    """The models that the code of a model calls itself, as far as it names them; they may not be there."""
    model = repository.model(name)
    code = [] if model is None else _python_code(model)
    return frozenset().union(*(called_models(sources, module) for sources, module in code))


def _check(model: ModelFolder, repository: Repository) -> None:
    check_layout(model)
    if any(finding.kind == "model-empty" for finding in model.report.findings):
        return
    check_backend(model)
    check_tensors(model)
    check_instances(model)
    check_batching(model)
    check_warmup(model)
    check_references(model)
    check_variants(model)
    check_ensemble(model, repository)
    check_ensemble_tensors(model, repository)
    # Parsed once, and not kept: the code of a thousand models does not fit into memory.
    code = _python_code(model)
    completed = {kind: completed_names(code, kind) for kind in ("input", "output")}
    check_answering(model, repository, completed)
    for sources, module in code:
        check_python_model(model, sources, module)
        check_imports(model, sources, module)
        check_python_tensors(model, sources, module, repository, completed)
        check_python_strays(model, sources, module)
        check_python_names(model, sources, module)
        check_python_files(model, sources, module)
        check_python_parameters(model, sources, module)
        check_python_responses(model, sources, module)
    check_onnx(model)
    check_strays(model)
    if (model.path / "samples").is_dir() and model.config.whole():
        # Samples need numpy, which nothing else here does.
        from tidegate.triton.golden.samples import read_samples

        read_samples(model)


def _python_code(model: ModelFolder) -> list[tuple[Sources, Module]]:
    """The `model.py` of each version of a Python model, as far as it parses."""
    found = []
    for version, folder in each_version(model) if model.backend == "python" else ():
        path = model.artefact(version)
        if path is not None and path.is_file():
            sources = Sources(model.path, folder, model.report)
            module = sources.module(path)
            if module is not None:
                found.append((sources, module))
    return found
