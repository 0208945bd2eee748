"""What Python code binds, as its text says. The code is parsed and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

_DYNAMIC = frozenset({"globals", "exec", "locals", "setattr", "vars"})
"""Functions that can bind names that the text does not say."""


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that runs when `body` runs: not those inside functions and classes that it defines."""
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, SCOPES):
            pending += list(ast.iter_child_nodes(node))


def bound_names(body: list[ast.stmt]) -> set[str] | None:
    """The names that are bound after `body` ran; None where that is unknown (a star import, `__getattr__`)."""
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


def may_have(owner: ast.ClassDef, name: str) -> bool:
    """Whether the body of a class may bind a name, as a method or otherwise."""
    bound = bound_names(owner.body)
    return bound is None or name in bound


def may_set(tree: ast.AST, name: str) -> bool:
    """Whether code may set an attribute of something, which may be a class or its instance."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr")
        for node in ast.walk(tree)
    )
