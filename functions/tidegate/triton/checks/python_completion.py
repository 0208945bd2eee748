"""The tensors that a Python model's `auto_complete_config` adds to its config, as far as its code states them."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tidegate.triton.checks.python_source import Module, Sources


def completed_names(code: Iterable[tuple[Sources, Module]], kind: str) -> frozenset[str] | None:
    """The names of the inputs (or outputs, by `kind`) that the code adds; None where it adds some that cannot be known.

    `code` is the `model.py` of each version.
    """
    names: set[str] = set()
    for sources, module in code:
        for each in sources.reachable(module):
            for node in ast.walk(each.tree):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == f"add_{kind}":
                    found = _names(node.args[0], each.tree) if node.args else None
                    if found is None:
                        return None
                    names |= found
    return frozenset(names)


def _names(argument: ast.expr, tree: ast.Module) -> set[str] | None:
    """The names of the tensors that an argument can be: a dictionary, or a name that only dictionaries are bound to."""
    if isinstance(argument, ast.Dict):
        for key, value in zip(argument.keys, argument.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "name" and isinstance(value, ast.Constant):
                return {str(value.value)}
        return None
    if not isinstance(argument, ast.Name):
        return None
    bound = [each for node in ast.walk(tree) for each in _bound(node, argument.id, tree)]
    if not bound:
        return None
    names: set[str] = set()
    for each in bound:
        found = _names(each, tree) if isinstance(each, ast.Dict) else None
        if found is None:
            return None
        names |= found
    return names


def _bound(node: ast.AST, name: str, tree: ast.Module) -> list[ast.expr]:
    """What a node binds to a name: the value of an assignment, the items of the list that a loop goes through."""
    if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in node.targets):
        return [node.value]
    if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == name:
        items = node.iter
        if isinstance(items, ast.Name):
            lists = [
                each.value
                for each in ast.walk(tree)
                if isinstance(each, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == items.id for t in each.targets)
            ]
            items = lists[0] if len(lists) == 1 else items
        return list(items.elts) if isinstance(items, ast.List | ast.Tuple) else [items]
    return []
