"""Imports of a model's code: beside the model, or in the environment that Triton's stubs run in, which is this one's.

Nothing is imported. Of packages outside the model only the first name is looked for, because the rest may be made when
the package runs; of modules beside the model the imported names are looked for too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import UTILITIES, Module, Sources, bound_names, own_nodes

OWN_ENVIRONMENT = "EXECUTION_ENV_PATH"
"""The parameter of a Python model that brings an environment of its own, whose packages cannot be seen here."""

ADDED_LATE = frozenset(
    {
        "InferenceRequest", "InferenceResponse", "InferenceTrace", "Logger", "Metric", "MetricFamily", "PreferredMemory",
        "Tensor", "TritonError", "TritonModelException", "load_model", "unload_model", "is_model_ready",
        "TRITONSERVER_RESPONSE_COMPLETE_FINAL", "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
        "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    }
)  # fmt: skip
"""What the stub adds to `triton_python_backend_utils` only after it has imported the model (measured on Triton 2.51)."""

_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def check_imports(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check the imports of `model.py` and of the modules beside it that it reaches."""
    for each in sources.reachable(module):
        _check_added_late(model, each)
        for node in _unguarded(each.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    _check_module(model, sources, each, node, alias.name)
            else:
                _check_from(model, sources, each, node)


def _unguarded(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that fail where their module is missing: not those under `if`, or where the failure is caught."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not _guards(node):
            pending += list(ast.iter_child_nodes(node))


def _check_added_late(model: ModelFolder, module: Module) -> None:
    """Report names that a module imports from the utilities before the stub has put them there."""
    for node in own_nodes(module.tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == UTILITIES[0]:
            for alias in node.names:
                if alias.name in ADDED_LATE:
                    message = f"{UTILITIES[0]} has no {alias.name!r} yet when the model is imported: the load fails"
                    hint = f"import {UTILITIES[0]} as pb_utils, and say pb_utils.{alias.name}"
                    model.report("import-missing", message, hint, file=module.file, line=node.lineno)


def _guards(node: ast.AST) -> bool:
    if isinstance(node, ast.Try):
        caught = [handler.type for handler in node.handlers]
        return None in caught or any(_names(each) & _IMPORT_ERRORS for each in caught if each is not None)
    if isinstance(node, ast.With):
        return any(_names(item.context_expr) & _IMPORT_ERRORS for item in node.items)
    return isinstance(node, ast.If)


def _names(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _check_module(model: ModelFolder, sources: Sources, module: Module, node: ast.stmt, name: str) -> None:
    root = name.partition(".")[0]
    local = sources.find(root)
    if _elsewhere(root):
        if local is not None and local.suffix == ".py" and root not in UTILITIES:
            message = f"{root!r} is not {local.name} beside the model: {_owner(root)} comes first on the path"
            model.report("import-shadowed", message, "rename the file", file=module.file, line=node.lineno)
        return
    if local is not None:
        if sources.find(name) is None:
            message = f"there is no module {name!r} beside the model"
            model.report("import-missing", message, "", file=module.file, line=node.lineno)
        return
    if OWN_ENVIRONMENT in model.message.parameters:
        return
    known = {path.stem for path in sources.version.glob("*.py")} | {"numpy"}
    hint = did_you_mean(root, known, "module")
    hint = hint if hint.startswith("did you") else "put it beside model.py, or install it where Triton runs"
    message = f"no module {root!r}, neither beside the model nor in the environment"
    model.report("import-missing", message, hint, file=module.file, line=node.lineno)


def _check_from(model: ModelFolder, sources: Sources, module: Module, node: ast.ImportFrom) -> None:
    if node.level > 1:
        message = f"an import from {node.level} levels up leaves the version's folder"
        model.report("import-missing", message, "import it by its name", file=module.file, line=node.lineno)
        return
    name = node.module or ""
    if node.level == 0:
        _check_module(model, sources, module, node, name)
        if _elsewhere(name.partition(".")[0]):
            return
    elif name and sources.find(name, 1) is None:
        message = f"there is no module {name!r} in the version's folder"
        model.report("import-missing", message, "", file=module.file, line=node.lineno)
        return
    path = sources.find(name, node.level)
    if path is None:
        return
    found = sources.module(path) if path.suffix == ".py" else None
    if path.suffix == ".py" and found is None:
        return
    names = bound_names(found.tree.body) if found is not None else set[str]()
    if names is None:
        return
    for alias in node.names:
        if (
            alias.name != "*"
            and alias.name not in names
            and sources.find(f"{name}.{alias.name}".strip("."), node.level) is None
        ):
            where = f"{name!r}" if name else "the version's folder"
            hint = did_you_mean(alias.name, names, "name") if names else ""
            message = f"{where} has no {alias.name!r}"
            model.report("import-missing", message, hint, file=module.file, line=node.lineno)


@cache
def _elsewhere(root: str) -> bool:
    """Whether the environment, or Triton, has a module of this name."""
    if root in sys.stdlib_module_names or root in sys.builtin_module_names or root in UTILITIES:
        return True
    here = Path.cwd().resolve()
    folders = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    try:
        return PathFinder.find_spec(root, folders) is not None
    except (ImportError, ValueError, OSError):
        return False


def _owner(root: str) -> str:
    return "the standard library's module" if root in sys.stdlib_module_names else "an installed package"
