"""What a model's code reads that does not travel with it: paths of one machine, and pickles."""

from __future__ import annotations

import ast

from tidegate.triton.checks.files import is_machine_path
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import Module, Sources

_PICKLE_READERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib"}


def check_python_strays(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches."""
    for each in sources.reachable(module):
        texts = _documentation(each.tree)
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                if is_machine_path(node.value):
                    message = f"a path of one machine: {node.value[:120]!r}"
                    hint = "build it from the folder that initialize is given, or from __file__"
                    model.report("absolute-path", message, hint, file=each.file, line=node.lineno)
            elif isinstance(node, ast.Call) and _reads_pickle(node):
                hint = "use ONNX, .npz with allow_pickle=False, or JSON"
                message = "this reads a pickle, which runs whatever the file says"
                model.report("stray-pickle", message, hint, file=each.file, line=node.lineno)


def _documentation(tree: ast.Module) -> set[int]:
    """The texts that stand alone as statements: they document."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _reads_pickle(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return False
    owner, name = call.func.value.id, call.func.attr
    if owner in _PICKLE_READERS:
        return name in ("load", "loads", "Unpickler")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if owner in ("np", "numpy") and name == "load":
        value = keywords.get("allow_pickle")
        return isinstance(value, ast.Constant) and value.value is True
    if owner == "torch" and name == "load":
        value = keywords.get("weights_only")
        return not (isinstance(value, ast.Constant) and value.value is True)
    return owner in ("pd", "pandas") and name == "read_pickle"
