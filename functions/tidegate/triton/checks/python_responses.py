"""What responses and tensors are made of, and attributes that nothing sets: mistakes that only a request shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeGuard

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.numpy_types import is_scalar
from tidegate.triton.checks.python_model import ARGUMENTS
from tidegate.triton.checks.python_source import CLASS, Module, Sources
from tidegate.triton.python_code import Function, bound_names, own_nodes

_DYNAMIC = {"setattr", "vars", "getattr", "super"}


def check_python_responses(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches."""
    for each in sources.reachable(module):
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Call):
                _check_call(model, each, node)
            elif isinstance(node, Function) and node.name == "execute":
                _check_filled(model, each, node)
            elif isinstance(node, ast.ClassDef) and node.name == CLASS:
                _check_attributes(model, each, node)


def _check_call(model: ModelFolder, module: Module, call: ast.Call) -> None:
    name = _name(call)
    if name == "InferenceResponse" and call.args and isinstance(call.args[0], ast.Call):
        if _name(call.args[0]) == "Tensor":
            message = "InferenceResponse is given one tensor and no list"
            model.report("code-response", message, "InferenceResponse([tensor])", file=module.file, line=call.lineno)
    elif (
        name == "Tensor"
        and len(call.args) == 2
        and (isinstance(call.args[1], ast.Constant | ast.List) or is_scalar(call.args[1]))
    ):
        message = f"Tensor is given {ast.unparse(call.args[1])[:40]} where it takes a numpy array"
        hint = 'Tensor("NAME", array)'
        model.report("code-response", message, hint, file=module.file, line=call.lineno)


def _check_filled(model: ModelFolder, module: Module, function: Function) -> None:
    """Report a list that is returned as empty as it was made."""
    for node in own_nodes(function.body):
        if not isinstance(node, ast.Return) or not isinstance(node.value, ast.Name):
            continue
        name = node.value.id
        made = [
            each.value
            for each in ast.walk(function)
            if isinstance(each, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in each.targets)
        ]
        uses = [each for each in ast.walk(function) if isinstance(each, ast.Name) and each.id == name]
        returned = sum(
            isinstance(each, ast.Return) and isinstance(each.value, ast.Name) and each.value.id == name
            for each in ast.walk(function)
        )
        if len(made) == 1 and isinstance(made[0], ast.List) and not made[0].elts and len(uses) == 1 + returned:
            message = f"execute returns {name!r}, which nothing is ever added to"
            hint = f"{name}.append(…) for each request"
            model.report("python-execute", message, hint, file=module.file, line=node.lineno)


def _check_attributes(model: ModelFolder, module: Module, owner: ast.ClassDef) -> None:
    """Report attributes of `self` that are read and that the class never sets, where it is all that could set them."""
    bound = bound_names(owner.body)
    if bound is None or owner.bases or owner.keywords or owner.decorator_list or _is_dynamic(owner):
        return
    unseen = bound - {node.name for node in own_nodes(owner.body) if isinstance(node, Function)}
    called = {node.func.attr for node in ast.walk(owner) if isinstance(node, ast.Call) and _is_of_self(node.func)}
    if unseen & {*called, *ARGUMENTS, "__init__"}:
        # A method that is imported or assigned may set anything.
        return
    there = bound | {
        node.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    read = [node for node in _of_self(owner) if isinstance(node.ctx, ast.Load)]
    reported: set[str] = set()
    for node in sorted(read, key=lambda each: each.lineno):
        if node.attr not in there | reported and not node.attr.startswith("__"):
            reported.add(node.attr)
            message = f"nothing sets self.{node.attr}"
            hint = did_you_mean(node.attr, there, "attribute")
            model.report("python-name", message, hint, file=module.file, line=node.lineno)


def _of_self(owner: ast.ClassDef) -> Iterator[ast.Attribute]:
    for node in ast.walk(owner):
        if _is_of_self(node):
            yield node


def _is_of_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_dynamic(owner: ast.ClassDef) -> bool:
    """Whether attributes may be set in a way that cannot be seen: `self` is handed on, or names are computed."""
    held = {id(node.value) for node in _of_self(owner)}
    for node in ast.walk(owner):
        if isinstance(node, ast.Name) and (node.id in _DYNAMIC or (node.id == "self" and id(node) not in held)):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ("__dict__", "__class__"):
            return True
        if isinstance(node, ast.ClassDef) and node is not owner:
            return True
        if isinstance(node, Function) and node.name in ("__getattr__", "__getattribute__"):
            return True
    return False


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
