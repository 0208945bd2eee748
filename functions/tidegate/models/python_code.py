"""Names that Python code binds. The code is parsed and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

_DYNAMIC = frozenset({"globals", "exec", "locals", "setattr", "vars"})
"""Functions that can bind names that the text does not have."""


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of statements, without those inside functions and classes that they define."""
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, SCOPES):
            pending += list(ast.iter_child_nodes(node))


def bound_names(body: list[ast.stmt]) -> set[str] | None:
    """Return the names that are bound after statements ran; None if that is unknown (a star import, `__getattr__`)."""
    names: set[str] = set()
    for node in own_nodes(body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Import():
                names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.ExceptHandler(name=str()):
                names.add(str(node.name))
            case ast.Call(func=ast.Name(id=called)) if called in _DYNAMIC:
                return None
            case _:
                pass
    return None if "*" in names or "__getattr__" in names else names


def called_name(call: ast.Call) -> str:
    """Return the last name of what is called, such as `load` of `np.load(…)`; empty if it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def assigned_to(tree: ast.AST, name: str) -> list[ast.expr]:
    """Return what plain assignments bind to a name, anywhere in a tree."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in node.targets)
    ]


def assigned_values(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what assignments bind to each target, as it is written, anywhere in a tree."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(ast.unparse(target), []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.setdefault(ast.unparse(node.target), []).append(node.value)
    return found


def may_have(owner: ast.ClassDef, name: str) -> bool:
    """Return whether the body of a class may bind a name, as a method or otherwise."""
    bound = bound_names(owner.body)
    return bound is None or name in bound


def may_set(tree: ast.AST, name: str) -> bool:
    """Return whether code may set an attribute of this name, on whatever object."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr")
        for node in ast.walk(tree)
    )
