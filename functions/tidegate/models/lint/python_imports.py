"""Checks that what a model's code imports is beside the model, or in the images that will serve it.

Nothing is imported. Of packages elsewhere only the first name is checked, as a package may make the rest when it runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from difflib import get_close_matches

from tidegate.language.words import did_you_mean
from tidegate.models.images.image import ALWAYS_THERE
from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.misspelling import ALIKE, WIDESPREAD, misspelt
from tidegate.models.lint.python_source import UTILITIES, Module, Sources
from tidegate.models.python_code import bound_names, own_nodes

OWN_ENVIRONMENT = "EXECUTION_ENV_PATH"
"""The parameter of a Python model with an environment of its own, whose packages are unknown here."""

CLOSE = 0.8
"""Least similarity, from 0 to 1, of a name that is suggested."""

ADDED_LATE = frozenset(
    {
        "InferenceRequest", "InferenceResponse", "InferenceTrace", "Logger", "Metric", "MetricFamily", "PreferredMemory",
        "Tensor", "TritonError", "TritonModelException", "load_model", "unload_model", "is_model_ready",
        "TRITONSERVER_RESPONSE_COMPLETE_FINAL", "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
        "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    }
)  # fmt: skip
"""Names that the stub adds to `triton_python_backend_utils` only after it has imported the model (measured on Triton 2.51)."""

_IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def check_imports(model: CheckedFolder, sources: Sources, module: Module) -> None:
    _check_added_late(module)
    for node in _unguarded(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                _check_module(model, sources, module, node, alias.name)
        else:
            _check_from(model, sources, module, node)


def _unguarded(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that are neither conditional nor in a `try` that catches their failure."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not _guards(node):
            pending += list(ast.iter_child_nodes(node))


def _check_added_late(module: Module) -> None:
    for node in own_nodes(module.tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == UTILITIES[0]:
            for alias in node.names:
                if alias.name in ADDED_LATE:
                    message = f"{UTILITIES[0]} has no {alias.name!r} yet when the model is imported: the load fails"
                    hint = f"import {UTILITIES[0]} as pb_utils, and say pb_utils.{alias.name}"
                    module.report(node, "import-missing", message, hint)


def _guards(node: ast.AST) -> bool:
    if isinstance(node, ast.Try):
        caught = [handler.type for handler in node.handlers]
        return None in caught or any(_names(each) & _IMPORT_ERRORS for each in caught if each is not None)
    if isinstance(node, ast.With):
        return any(_names(item.context_expr) & _IMPORT_ERRORS for item in node.items)
    return isinstance(node, ast.If)


def _names(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _check_module(model: CheckedFolder, sources: Sources, module: Module, node: ast.stmt, name: str) -> None:
    root = name.partition(".")[0]
    local = sources.find(root)
    if _elsewhere(model, root):
        if local is not None and local.suffix == ".py" and root not in UTILITIES:
            message = f"{root!r} is not {local.name} beside the model: {_owner(root)} comes first on the path"
            module.report(node, "import-shadowed", message, "rename the file")
        return
    if local is not None:
        if sources.find(name) is None:
            module.report(node, "import-missing", f"there is no module {name!r} beside the model", "")
        return
    if OWN_ENVIRONMENT not in model.config.parameters:
        _check_served(model, sources, module, node, root)


def _check_served(model: CheckedFolder, sources: Sources, module: Module, node: ast.stmt, root: str) -> None:
    sure = {path.stem for path in sources.version.glob("*.py")}.union(sys.stdlib_module_names, WIDESPREAD)
    known = sure.union(*(image.modules for image in model.images))
    is_real = root in known or root in ALIKE
    close = [] if is_real else get_close_matches(root, sorted(known), 1, CLOSE)
    meant = f"did you mean {close[0]!r}?" if close else ""
    lacking = [image.name for image in model.images if image.has_module(root) is False]
    if lacking:
        hint = meant or "put it beside model.py, install it in the image, or correct the image's manifest"
        message = f"no module {root!r}, neither beside the model nor in image {lacking[0]}"
        module.report(node, "import-missing", message, hint)
    elif not is_real and (right := misspelt(root, sure)):
        message = f"no module {root!r}, neither beside the model nor in the standard library"
        hint = f"did you mean {right!r}? If not, list it in the manifest of the shard's image"
        module.report(node, "import-missing", message, hint)
    else:
        message = f"module {root!r} is not beside the model, and the serving image is not known to have it"
        hint = "name the shard's image in fleet.yaml with its manifest, or give --image"
        module.report(node, "import-unverified", message, f"{meant} {hint}".strip())


def _check_from(model: CheckedFolder, sources: Sources, module: Module, node: ast.ImportFrom) -> None:
    if node.level > 1:
        message = f"an import from {node.level} levels up leaves the version's folder"
        module.report(node, "import-missing", message, "import it by its name")
        return
    name = node.module or ""
    if node.level == 0:
        _check_module(model, sources, module, node, name)
        if _elsewhere(model, name.partition(".")[0]):
            return
    elif name and sources.find(name, 1) is None:
        module.report(node, "import-missing", f"there is no module {name!r} in the version's folder", "")
        return
    path = sources.find(name, node.level)
    if path is None:
        return
    names: set[str] | None = set[str]()
    if path.suffix == ".py":
        found = sources.module(path)
        names = None if found is None else bound_names(found.tree.body)
    if names is None:
        return
    for alias in node.names:
        inner = f"{name}.{alias.name}".strip(".")
        if alias.name not in {"*", *names} and sources.find(inner, node.level) is None:
            where = f"{name!r}" if name else "the version's folder"
            hint = did_you_mean(alias.name, names, "name") if names else ""
            module.report(node, "import-missing", f"{where} has no {alias.name!r}", hint)


def _elsewhere(model: CheckedFolder, root: str) -> bool:
    """Return whether the standard library, Triton, or every image that serves the model has a module."""
    if root in sys.stdlib_module_names or root in sys.builtin_module_names or root in UTILITIES or root in ALWAYS_THERE:
        return True
    return bool(model.images) and all(image.has_module(root) for image in model.images)


def _owner(root: str) -> str:
    return "the standard library's module" if root in sys.stdlib_module_names else "an installed package"
